package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestDistribution has the watches do their part: copies follow namespaces, keys
// and those who meddle with them, by themselves.
func TestDistribution(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t)
	namespace := func(name string, labelled map[string]string) {
		s.Expect(s.api.Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelled}})).To(Succeed())
	}
	apps := map[string]string{"apps": "yes"}
	namespace("early", apps)
	namespace("other", nil)
	cti := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "auth"}}
	cti.Spec.IssuerSpec = api.IssuerSpec{
		Issuer: s.issuer.URL(), Audiences: []string{"orders"}, JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle(),
	}
	cti.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: apps}
	s.Expect(s.api.Create(s.ctx, cti)).To(Succeed())

	copyIn := func(ns string) client.ObjectKey { return client.ObjectKey{Namespace: ns, Name: "auth-jwks"} }
	has := func(ns, kid string) {
		t.Helper()
		s.Eventually(func() string { return s.data(copyIn(ns))["jwks.json"] }).WithTimeout(10*time.Second).Should(ContainSubstring(`"`+kid+`"`), ns)
	}
	gone := func(ns string) {
		t.Helper()
		s.Eventually(func() error { return s.api.Get(s.ctx, copyIn(ns), &corev1.ConfigMap{}) }).WithTimeout(10*time.Second).Should(Satisfy(apierrors.IsNotFound), ns)
	}
	distributed := func(desired, current int32) {
		t.Helper()
		s.Eventually(func(g Gomega) {
			g.Expect(s.api.Get(s.ctx, client.ObjectKeyFromObject(cti), cti)).To(Succeed())
			g.Expect(meta.IsStatusConditionTrue(cti.Status.Conditions, api.ConditionDistributed)).To(BeTrue())
			g.Expect(cti.Status.Distribution.Desired).To(HaveValue(Equal(desired)))
			g.Expect(cti.Status.Distribution.Current).To(HaveValue(Equal(current)))
			g.Expect(cti.Status.Distribution.Digest).To(Equal(cti.Status.Snapshot.Digest))
		}).WithTimeout(15 * time.Second).Should(Succeed())
	}
	has("early", "k1")
	distributed(1, 1)
	namespace("late", apps)
	has("late", "k1")
	distributed(2, 2)

	second := testissuer.NewKey("k2", "ES256")
	s.issuer.Publish(s.key, second)
	refresh := cti.DeepCopy()
	metav1.SetMetaDataAnnotation(&refresh.ObjectMeta, api.AnnotationRefresh, "now")
	s.Expect(s.api.Patch(s.ctx, refresh, client.MergeFrom(cti))).To(Succeed())
	has("early", "k2")
	has("late", "k2")
	distributed(2, 2)

	cm := &corev1.ConfigMap{}
	s.Expect(s.api.Get(s.ctx, copyIn("early"), cm)).To(Succeed())
	cm.Data["jwks.json"] = "{}"
	s.Expect(s.api.Update(s.ctx, cm)).To(Succeed())
	has("early", "k2")
	s.Expect(s.api.Delete(s.ctx, cm)).To(Succeed())
	has("early", "k2")

	label := func(ns, patch string) {
		o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
		s.Expect(s.api.Patch(s.ctx, o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":`+patch+`}}`)))).To(Succeed())
	}
	label("late", `{"apps":null}`)
	gone("late")
	label("other", `{"apps":"yes"}`)
	has("other", "k2")
	distributed(2, 2)
	s.Expect(s.data(client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "auth-jwks"})).To(BeNil())

	// {} selects everything but the operator's own.
	everywhere := &corev1.NamespaceList{}
	s.Expect(s.api.List(s.ctx, everywhere)).To(Succeed())
	all := int32(len(everywhere.Items) - 1)
	widened := cti.DeepCopy()
	widened.Spec.NamespaceSelector = &metav1.LabelSelector{}
	s.Expect(s.api.Patch(s.ctx, widened, client.MergeFrom(cti))).To(Succeed())
	has("kube-system", "k2")
	distributed(all, all)
	s.Expect(s.data(client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "auth-jwks"})).To(BeNil())

	s.Expect(s.api.Delete(s.ctx, cti)).To(Succeed())
	gone("kube-system")
	gone("early")
	gone("other")
	s.Eventually(func() error { return s.api.Get(s.ctx, client.ObjectKeyFromObject(cti), cti) }).WithTimeout(10 * time.Second).Should(Satisfy(apierrors.IsNotFound))
}
