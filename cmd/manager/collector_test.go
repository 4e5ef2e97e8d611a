package main

import (
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestGarbageCollector runs Kubernetes' own garbage collector and namespace
// controller. Deleting our CustomResourceDefinitions must cost nobody the keys that
// production runs on: with owner references it would, as the canary shows.
func TestGarbageCollector(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t)
	s.startCollector(t)
	labelled := map[string]string{"apps": "yes"}
	for _, name := range []string{"app", "going"} {
		s.Expect(s.api.Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelled}})).To(Succeed())
	}
	spec := api.IssuerSpec{Issuer: s.issuer.URL(), Audiences: []string{"orders"}, JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle()}
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "going", Name: "mine"}}
	ti.Spec.IssuerSpec = spec
	cti := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "auth"}}
	cti.Spec.IssuerSpec, cti.Spec.NamespaceSelector = spec, &metav1.LabelSelector{MatchLabels: labelled}
	s.Expect(s.api.Create(s.ctx, ti)).To(Succeed())
	s.Expect(s.api.Create(s.ctx, cti)).To(Succeed())
	mine, copied := client.ObjectKey{Namespace: "going", Name: "mine-jwks"}, client.ObjectKey{Namespace: "app", Name: "auth-jwks"}
	for _, key := range []client.ObjectKey{mine, copied} {
		s.Eventually(func() map[string]string { return s.data(key) }).WithTimeout(10*time.Second).Should(HaveKey("jwks.json"), key.String())
	}
	want := s.data(copied)

	// A namespace goes with all that is in it, and our finalizer does not hold it.
	s.Expect(s.api.Delete(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}})).To(Succeed())
	s.Eventually(func() error {
		return s.api.Get(s.ctx, client.ObjectKey{Name: "going"}, &corev1.Namespace{})
	}).WithTimeout(60 * time.Second).Should(Satisfy(apierrors.IsNotFound))
	ours := client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(ti.UID)}
	s.Eventually(func() map[string]string { return s.data(ours) }).WithTimeout(10*time.Second).Should(BeNil(), "the trust went with it")

	s.Expect(s.api.Get(s.ctx, client.ObjectKeyFromObject(cti), cti)).To(Succeed())
	canary := s.canary(cti.Name, cti.UID)
	s.Expect(s.api.Delete(s.ctx, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "clustertrustedissuers.jwks-trust.dev"}})).To(Succeed())
	s.Eventually(func() map[string]string { return s.data(canary) }).WithTimeout(150*time.Second).Should(BeNil(), "the collector took what has an owner")
	for _, key := range []client.ObjectKey{copied, {Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(cti.UID)}} {
		s.Expect(s.data(key)).To(Equal(want), key.String())
	}
}

// startCollector starts the controllers, and has them collect something, so that
// they are known to watch our kinds.
func (s *stage) startCollector(t *testing.T) {
	log := s.file("kube-controller-manager.log", nil)
	controllers, err := harness.StartControllers(s.kubeconfig, log, "garbage-collector-controller", "namespace-controller")
	if errors.Is(err, harness.ErrNoAssets) {
		t.Skip("there is no kube-controller-manager in KUBEBUILDER_ASSETS")
	}
	s.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(controllers.Stop)
	probe := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}
	probe.Spec.IssuerSpec = api.IssuerSpec{Issuer: s.issuer.URL(), Audiences: []string{"x"}, JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle()}
	s.Expect(s.api.Create(s.ctx, probe)).To(Succeed())
	canary := s.canary(probe.Name, probe.UID)
	s.Expect(s.api.Delete(s.ctx, probe)).To(Succeed())
	s.Eventually(func() map[string]string { return s.data(canary) }).WithTimeout(150*time.Second).Should(BeNil(), "the collector works")
}

// canary is a ConfigMap with a ClusterTrustedIssuer for its owner.
func (s *stage) canary(owner string, uid types.UID) client.ObjectKey {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "canary-of-" + owner,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: api.GroupVersion.String(), Kind: api.ClusterTrustedIssuerKind, Name: owner, UID: uid}},
	}, Data: map[string]string{"a": "b"}}
	s.Expect(s.api.Create(s.ctx, cm)).To(Succeed())
	return client.ObjectKeyFromObject(cm)
}
