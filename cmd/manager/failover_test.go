package main

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestFailOver has one leader follow another: after a crash, during which a refresh
// comes due, and after an end in good order. Issuers are asked for what is due, once,
// and for nothing else. `make bench-scale` does the same with processes that are killed.
func TestFailOver(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t, func(o *options) { o.components = stringList{componentVerifier} })
	quiet, err := testissuer.Start()
	s.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(quiet.Close)
	quiet.Publish(s.key)
	create := func(name string, from *testissuer.Issuer) *api.TrustedIssuer {
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		ti.Spec.IssuerSpec = api.IssuerSpec{Issuer: from.URL(), Audiences: []string{"orders"}, JWKSURI: from.JWKSURI(), CABundle: from.CABundle()}
		s.Expect(s.api.Create(s.ctx, ti)).To(Succeed())
		return ti
	}
	due, notDue := create("due", s.issuer), create("not-due", quiet)
	asked := func() []int { return []int{s.issuer.Requests(), quiet.Requests()} }
	const leaseName = "fail-over"
	candidate := func() *options {
		o := newOptions()
		o.components, o.leaderElect, o.leaderElectionID = stringList{componentController}, true, leaseName
		return o
	}

	doomed := candidate()
	doomed.lease, doomed.keepLease = 10*time.Second, true
	crash := s.start(t, doomed)
	for _, ti := range []*api.TrustedIssuer{due, notDue} {
		s.Eventually(func() bool {
			s.Expect(s.api.Get(s.ctx, client.ObjectKeyFromObject(ti), ti)).To(Succeed())
			return meta.IsStatusConditionTrue(ti.Status.Conditions, api.ConditionReady)
		}).WithTimeout(30 * time.Second).Should(BeTrue())
	}
	s.Expect(asked()).To(Equal([]int{1, 1}))
	crash()
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	aged := fmt.Sprintf(`{"status":{"nextRefreshTime":%q,"lastAttempt":{"time":%q},"snapshot":{"lastSuccessTime":%q}}}`,
		ago(time.Second), ago(8*time.Minute), ago(8*time.Minute))
	s.Expect(s.api.Status().Patch(s.ctx, due, client.RawPatch(types.MergePatchType, []byte(aged)))).To(Succeed())

	handOver := s.start(t, candidate())
	s.Eventually(asked).WithTimeout(30*time.Second).Should(Equal([]int{2, 1}), "what came due while nobody led is not lost")
	s.Eventually(func() time.Time {
		s.Expect(s.api.Get(s.ctx, client.ObjectKeyFromObject(due), due)).To(Succeed())
		return due.Status.NextRefreshTime.Time
	}).WithTimeout(30*time.Second).Should(BeTemporally(">", time.Now().Add(time.Minute)), "the next leader will know")
	s.Expect(asked()).To(Equal([]int{2, 1}), "and nobody else was asked")

	leader := func() string {
		lease := &coordinationv1.Lease{}
		s.Expect(s.api.Get(s.ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: leaseName}, lease)).To(Succeed())
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	before := leader()
	s.run(t, candidate())
	handOver()
	s.Expect(leader()).NotTo(Equal(before), "the lease is given back, so that nobody has to wait until it runs out")
	s.Expect(s.api.Patch(s.ctx, notDue, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+api.AnnotationRefresh+`":"now"}}}`)))).To(Succeed())
	s.Eventually(asked).WithTimeout(30*time.Second).Should(Equal([]int{2, 2}), "it does what it is asked for, and nothing else")
}
