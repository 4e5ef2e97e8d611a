package controller

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// TestASuccessIsRecordedOnce: status holds whole seconds and the manager remembers the
// rest, so the same success, looked at again, seemed newer than the record. Where the
// next refresh came close to the end of the freshness that cost a second write, for
// one in eight refreshes with a cacheTTL of two minutes.
func TestASuccessIsRecordedOnce(t *testing.T) {
	const cacheTTL = 2 * time.Minute
	success := time.Date(2026, 1, 1, 12, 0, 0, 700_000_000, time.UTC)
	status := func(success time.Time) *api.IssuerStatus {
		return &api.IssuerStatus{
			NextRefreshTime: ptrTo(metav1.NewTime(success.Add(107 * time.Second))),
			Snapshot:        &api.SnapshotStatus{LastSuccessTime: ptrTo(metav1.NewTime(success)), FreshUntil: ptrTo(metav1.NewTime(success.Add(cacheTTL)))},
		}
	}
	g := NewWithT(t)
	recorded := status(success.Truncate(time.Second))
	g.Expect(worthWriting(recorded, status(success), cacheTTL, success)).To(BeFalse(), "the success that is recorded")
	g.Expect(worthWriting(recorded, status(success.Add(time.Second)), cacheTTL, success)).To(BeTrue(), "a later one, which the record does not cover")
}

// An answer to a spec that has changed since is dropped, but not what it has exposed; nor
// by a status that was written meanwhile without it.
func TestAnExposedKeyIsCarriedUntilStatusHasIt(t *testing.T) {
	g := NewWithT(t)
	exposed := keyset.Compromised{KeyID: "k2", Thumbprint: "t2"}
	m := &memory{unsaved: &attempt{generation: 1}}
	m.carry(&attempt{generation: 1, compromised: []keyset.Compromised{exposed}}) // and is dropped: the spec has changed
	m.reached(nil, &api.IssuerStatus{})
	next := &attempt{generation: 2}
	m.carry(next)
	g.Expect(next.compromised).To(ConsistOf(exposed))
	m.reached(next, &api.IssuerStatus{})
	last := &attempt{generation: 2}
	m.carry(last)
	g.Expect(last.compromised).To(BeEmpty())
}
