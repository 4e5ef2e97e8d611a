package controller

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// broughtBack creates a ConfigMap again as a backup does.
func broughtBack(ctx context.Context, cm *corev1.ConfigMap) {
	GinkgoHelper()
	cm = cm.DeepCopy()
	cm.ObjectMeta = metav1.ObjectMeta{Namespace: cm.Namespace, Name: cm.Name, Labels: cm.Labels, Annotations: cm.Annotations}
	Expect(server.Create(ctx, cm)).To(Succeed())
}

var _ = Describe("Looking for what was made too late", func() {
	It("takes nothing from an issuer that is there again, as after a restore of etcd", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.r.graves.dig(s.key, s.get().UID, s.clock.Now())
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
	})

	It("takes nothing that a backup brings back a minute later", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		kept := configMap(ctx, s.copyKey())
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		broughtBack(ctx, kept)
		s.after(graveTime)
		Expect(configMap(ctx, s.copyKey()).Data).To(Equal(kept.Data))
	})

	It("takes nothing that was kept on purpose, when the next object cannot write to it", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(snapshotOf(func(sn *api.SnapshotSpec) { sn.DeletionPolicy = api.DeletionRetain }))
		s.reconcile()
		kept := configMap(ctx, s.copyKey())
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		s.create()
		s.writes.take()
		refused := errors.New("refused")
		s.writes.fail = func(n int) error {
			if s.writes.calls[n-1] == "apply ConfigMap" {
				return refused
			}
			return nil
		}
		_, err := s.r.Reconcile(ctx, reconcile.Request{NamespacedName: s.key})
		Expect(err).To(MatchError(refused))
		Expect(configMap(ctx, s.copyKey()).Data).To(HaveKeyWithValue("jwks.json", kept.Data["jwks.json"]))
	})
})

var _ = Describe("An object that is deleted", func() {
	It("takes with it what an earlier one of its name has left behind", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		left := configMap(ctx, s.copyKey())
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		s.clock.SetTime(s.clock.Now().Add(time.Hour))
		broughtBack(ctx, left)
		s.issuer.Stop()
		s.create()
		s.reconcile()
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Succeed())
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
		Expect(server.Get(ctx, s.key, &api.TrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))
	})
})

var _ = It("withdraws the keys when the last one that is left retires, and publishes no empty set", func(ctx context.Context) {
	s := newScene(ctx)
	publishes(key1, key2)(s)
	s.create(func(spec *api.IssuerSpec) {
		spec.Rotation = &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: time.Hour}}
	})
	s.reconcile()
	publishes(key2)(s)
	s.after(9 * time.Minute)
	s.after(31 * time.Second)
	Expect(s.inState(api.KeyRetiring)).To(Equal([]string{"k1"}))
	s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k2"} })
	s.after(10 * time.Second)
	Expect(s.kids()).To(Equal([]string{"k1"}), "it is trusted for an hour")
	s.after(time.Hour)
	Expect(s.status().Snapshot.Digest).To(BeEmpty())
	for _, at := range []client.ObjectKey{s.copyKey(), s.authoritativeKey()} {
		Expect(configMap(ctx, at).Data).To(BeEmpty())
	}
})
