package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// TestShards splits the issuers between two controllers, as docs/scaling.md says.
func TestShards(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	shard := func(name string) func(*options) {
		return func(o *options) { o.components, o.issuerSelector = stringList{componentController}, "shard="+name }
	}
	s := newStage(t, shard("a"))
	issuer := func(name string, labels map[string]string) client.ObjectKey {
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}}
		ti.Spec.IssuerSpec = api.IssuerSpec{Issuer: s.issuer.URL(), Audiences: []string{"orders"}, JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle()}
		s.Expect(s.api.Create(s.ctx, ti)).To(Succeed())
		return client.ObjectKey{Namespace: "default", Name: name + "-jwks"}
	}
	published := func(key client.ObjectKey) {
		t.Helper()
		s.Eventually(func() map[string]string { return s.data(key) }).WithTimeout(10*time.Second).Should(HaveKey("jwks.json"), key.Name)
	}
	inA, inB, inNone := issuer("one", map[string]string{"shard": "a"}), issuer("two", map[string]string{"shard": "b"}), issuer("three", nil)
	published(inA)
	s.Consistently(func() map[string]string { return s.data(inB) }).WithTimeout(time.Second).Should(BeNil())

	second := newOptions()
	shard("b")(second)
	s.run(t, second)
	published(inB)
	s.Expect(s.data(inNone)).To(BeNil())

	// An object moves with its label, and what is published stays.
	before := s.data(inA)
	ti := &api.TrustedIssuer{}
	s.Expect(s.api.Get(s.ctx, client.ObjectKey{Namespace: "default", Name: "one"}, ti)).To(Succeed())
	moved := ti.DeepCopy()
	moved.Labels["shard"] = "b"
	metav1.SetMetaDataAnnotation(&moved.ObjectMeta, api.AnnotationRefresh, "moved")
	s.Expect(s.api.Patch(s.ctx, moved, client.MergeFrom(ti))).To(Succeed())
	s.Eventually(func() string {
		s.Expect(s.api.Get(s.ctx, client.ObjectKeyFromObject(ti), ti)).To(Succeed())
		if ti.Status.HandledRefresh == nil {
			return ""
		}
		return ti.Status.HandledRefresh.Request
	}).WithTimeout(20 * time.Second).Should(Equal("moved"))
	s.Expect(s.data(inA)).To(Equal(before))
}
