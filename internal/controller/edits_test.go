package controller

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

var _ = Describe("A spec that only a change could help", func() {
	// stalled is a scene whose issuer may not be asked.
	stalled := func(ctx context.Context) *scene {
		s := newScene(ctx)
		s.create(func(spec *api.IssuerSpec) { spec.JWKSURI = "https://10.1.2.3/jwks" })
		s.reconcile()
		Expect(s.status()).To(condition(api.ConditionStalled, metav1.ConditionTrue, api.ReasonEgressBlocked))
		return s
	}

	It("is no longer called stalled once it has been changed, until that has been tried", func(ctx context.Context) {
		s := stalled(ctx)
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI = s.issuer.JWKSURI() })
		s.after(time.Second)
		Expect(s.issuer.Requests()).To(BeZero(), "two fetches are 5 s apart")
		Expect(s.status()).To(condition(api.ConditionStalled, metav1.ConditionUnknown, api.ReasonPending))
		s.after(5 * time.Second)
		Expect(s.status()).To(condition(api.ConditionStalled, metav1.ConditionFalse, api.ReasonNotStalled))
	})

	It("is not called stalled for ever when it is suspended", func(ctx context.Context) {
		s := stalled(ctx)
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = ptrTo(true) })
		s.after(time.Hour)
		Expect(s.status()).To(condition(api.ConditionStalled, metav1.ConditionUnknown, api.ReasonSuspended))
	})
})

var _ = Describe("The refresh annotation", func() {
	It("is answered where nothing can be fetched, because the keys are given inline", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(func(spec *api.IssuerSpec) {
			spec.JWKSURI, spec.CABundle, spec.JWKS = "", "", `{"keys":[`+jsonOf(key1().JWK())+`]}`
		})
		s.reconcile()
		s.annotate(api.AnnotationRefresh, "now")
		s.after(time.Minute)
		Expect(s.status().HandledRefresh).To(HaveValue(And(HaveField("Request", "now"), HaveField("Outcome", api.ReasonStatic))))
		s.edit(func(ti *api.TrustedIssuer) {
			ti.Spec.JWKS = `{"keys":[]}`
			ti.Annotations[api.AnnotationRefresh] = "again"
		})
		s.after(time.Minute)
		Expect(s.status().HandledRefresh).To(HaveValue(And(HaveField("Request", "again"), HaveField("Outcome", api.ReasonEmptyKeySet))))
		s.writes.take()
		s.after(time.Minute)
		Expect(s.writes.take()).To(BeEmpty(), "once")
	})

	It("is answered where nothing is fetched, because the issuer is suspended, and once it is no longer", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = ptrTo(true) })
		s.annotate(api.AnnotationRefresh, "now")
		s.after(time.Minute)
		Expect(s.status().HandledRefresh).To(HaveValue(And(HaveField("Request", "now"), HaveField("Outcome", api.ReasonSuspended))))
		s.annotate(api.AnnotationRefresh, "again")
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = nil })
		s.after(time.Minute)
		Expect(s.status().HandledRefresh).To(HaveValue(And(HaveField("Request", "again"), HaveField("Outcome", api.ReasonSucceeded))))
	})
})

// TestKeysThatDoNotFitIntoAConfigMapAreToldOfUntilTheyDo: the condition said so until the
// next look at the issuer, which found the older keys in place.
func TestKeysThatDoNotFitIntoAConfigMapAreToldOfUntilTheyDo(t *testing.T) {
	g := NewWithT(t)
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "auth", Generation: 1}}
	published := func(out outcome) *metav1.Condition {
		next := nextStatus(ti, out, noon)
		ti.Status = *next
		return findCondition(next, api.ConditionSnapshotPublished)
	}
	older := &publication{succeeded: true, reason: api.ReasonPublished}
	answered := func() *attempt {
		return &attempt{started: noon, generation: ti.Generation, succeeded: true, reason: api.ReasonSucceeded}
	}

	g.Expect(published(outcome{published: older, attempt: answered()}).Status).To(Equal(metav1.ConditionTrue))
	tooLarge := failedPublication(client.ObjectKeyFromObject(ti), snapshot.ErrTooLarge)
	g.Expect(published(outcome{published: tooLarge, attempt: answered()}).Reason).To(Equal(api.ReasonSnapshotTooLarge))
	g.Expect(published(outcome{published: older}).Reason).To(Equal(api.ReasonSnapshotTooLarge), "nothing new has been published")
	failed := answered()
	failed.succeeded, failed.reason = false, api.ReasonTimeout
	g.Expect(published(outcome{published: older, attempt: failed}).Reason).To(Equal(api.ReasonSnapshotTooLarge), "nor here")
	g.Expect(published(outcome{published: older, attempt: answered()}).Reason).To(Equal(api.ReasonPublished), "the issuer has fewer keys again")
	published(outcome{published: tooLarge, attempt: answered()})
	ti.Generation++
	g.Expect(published(outcome{published: older}).Reason).To(Equal(api.ReasonPublished), "another spec, which may need less room, is judged anew")
}
