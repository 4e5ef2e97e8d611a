package verifier

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// attended is an object with a cacheTTL that a controller has looked at, with a fetch
// at start and the next one due after so long.
func attended(cacheTTL, next time.Duration, edits ...edit) *api.ClusterTrustedIssuer {
	return cluster(append([]edit{func(c *api.ClusterTrustedIssuer) {
		c.Spec.CacheTTL = &metav1.Duration{Duration: cacheTTL}
		c.Status.ObservedGeneration = c.Generation
		c.Status.LastAttempt = &api.AttemptStatus{Time: metav1.NewTime(start)}
		c.Status.NextRefreshTime = &metav1.Time{Time: start.Add(next)}
	}}, edits...)...)
}

func TestWhenAnIssuerIsUnattended(t *testing.T) {
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		object *api.ClusterTrustedIssuer
		after  time.Duration
		want   bool
	}{
		"new, and no controller has seen it":    {cluster(func(c *api.ClusterTrustedIssuer) { c.Status.ObservedGeneration = -1 }), 0, true},
		"edited, and no controller has seen it": {attended(time.Hour, 48*time.Minute, func(c *api.ClusterTrustedIssuer) { c.Generation++ }), time.Minute, true},
		"seen, and not fetched yet":             {cluster(func(c *api.ClusterTrustedIssuer) { c.Status.ObservedGeneration = 1 }), 0, true},
		"refreshed on time":                     {attended(time.Hour, 48*time.Minute), 48 * time.Minute, false},
		"refreshed late, as a server asks":      {attended(time.Hour, 48*time.Minute), 63 * time.Minute, false},
		"refreshed no more":                     {attended(time.Hour, 48*time.Minute), 69 * time.Minute, true},
		"refreshed more often than is recorded": {attended(day, time.Minute), 17 * time.Hour, false},
		"no longer even recorded":               {attended(day, time.Minute), 18 * time.Hour, true},
		"noticed before a day's keys expire":    {attended(day, 19*time.Hour), 20 * time.Hour, true},
		"a success that is newer counts": {attended(time.Hour, 78*time.Minute, func(c *api.ClusterTrustedIssuer) {
			c.Status.Snapshot = &api.SnapshotStatus{LastSuccessTime: &metav1.Time{Time: start.Add(30 * time.Minute)}}
		}), 97 * time.Minute, false},
		"suspended":   {attended(time.Hour, 0, func(c *api.ClusterTrustedIssuer) { suspend := true; c.Spec.Suspend = &suspend }), 30 * day, false},
		"inline keys": {attended(time.Hour, 0, func(c *api.ClusterTrustedIssuer) { c.Spec.JWKSURI, c.Spec.JWKS = "", `{"keys":[]}` }), 30 * day, false},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := join(tc.object, nil, nil, start)
			NewWithT(t).Expect(issuer.unattended(start.Add(tc.after))).To(Equal(tc.want))
		})
	}
}

// Those that a controller works on have no series, and one that is gone has none.
func TestUnattendedIssuersAreMeasured(t *testing.T) {
	g := NewWithT(t)
	s := newStore()
	s.setIssuer(attended(time.Hour, 48*time.Minute))
	forgotten := cluster(identity("forgotten", "another"))
	s.setIssuer(forgotten)
	g.Expect(testutil.CollectAndCompare(attendanceCollector{s}, strings.NewReader(`
# HELP jwks_trust_unattended_issuers 1 for each issuer object that no controller works on: its status is not of the current spec, or no fetch was recorded when one was due. Absent for the others.
# TYPE jwks_trust_unattended_issuers gauge
jwks_trust_unattended_issuers{kind="ClusterTrustedIssuer",name="forgotten",namespace=""} 1
`))).To(Succeed())
	s.deleteIssuer(forgotten)
	g.Expect(testutil.CollectAndCount(attendanceCollector{s})).To(BeZero())
}
