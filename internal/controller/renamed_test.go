package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// renamed is a scene whose ConfigMap, with k1 and k2, is to have a name that somebody
// else's has. The controller has not seen that yet.
func renamed(ctx context.Context, policy api.DeletionPolicy) (s *scene, theirs *corev1.ConfigMap) {
	GinkgoHelper()
	s = newScene(ctx)
	s.issuer.Publish(key1(), key2())
	s.create(snapshotOf(func(sn *api.SnapshotSpec) { sn.DeletionPolicy = policy }))
	s.reconcile()
	theirs = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: "theirs"}, Data: map[string]string{"jwks.json": "{}"}}
	Expect(server.Create(ctx, theirs)).To(Succeed())
	s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot.ConfigMapName = theirs.Name })
	return s, theirs
}

// reads counts what the scene's reconciler reads from the API server itself.
func (s *scene) reads() *int {
	n := 0
	s.r.Reader = interceptor.NewClient(server, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			n++
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			n++
			return c.List(ctx, list, opts...)
		},
	})
	return &n
}

var _ = Describe("A ConfigMap whose new name is taken", func() {
	It("follows the keys under its old name, where applications still read it", func(ctx context.Context) {
		s, theirs := renamed(ctx, "")
		s.after(10 * time.Second)
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k2"} })
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1"}), "a revoked key goes, whatever the name")
		s.issuer.Publish(key1(), key2(), key3())
		s.after(10 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1", "k3"}), "and new ones come")
		cm := configMap(ctx, s.copyKey())
		cm.Data["jwks.json"] = `{"keys":[]}`
		Expect(server.Update(ctx, cm)).To(Succeed())
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1", "k3"}), "what somebody changes is put right")
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1", "k2", "k3"} })
		s.after(10 * time.Second)
		Expect(configMap(ctx, s.copyKey()).Data).To(BeEmpty())
		Expect(configMap(ctx, client.ObjectKeyFromObject(theirs))).To(Equal(theirs))
		Expect(s.status()).To(isNotReady(api.ReasonConfigMapConflict))

		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = nil })
		Expect(server.Delete(ctx, theirs)).To(Succeed())
		s.after(10 * time.Second)
		Expect(kidsOf(configMap(ctx, client.ObjectKeyFromObject(theirs)))).To(Equal([]string{"k1", "k2", "k3"}))
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound), "it has moved")
	})

	It("costs no write while nothing changes, and one read: of the one that stands in the way", func(ctx context.Context) {
		s, _ := renamed(ctx, "")
		s.after(10 * time.Second)
		s.writes.take()
		reads := s.reads()
		s.after(maxErrorDelay)
		Expect(*reads).To(Equal(1))
		Expect(s.writes.take()).To(BeEmpty())
	})

	It("follows them where there is no room for one of the new name, too", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create()
		s.reconcile()
		s.noConfigMaps(s.key.Namespace)
		s.edit(func(ti *api.TrustedIssuer) {
			ti.Spec.Snapshot, ti.Spec.RevokedKeys = &api.SnapshotSpec{ConfigMapName: "elsewhere"}, []string{"k2"}
		})
		s.keepReconciling(2, 10*time.Second)
		Expect(s.status()).To(isNotReady(api.ReasonPublishFailed))
		Expect(s.kids()).To(Equal([]string{"k1"}))
	})

	It("is not made again under the old name, once somebody has deleted it", func(ctx context.Context) {
		s, _ := renamed(ctx, "")
		s.after(10 * time.Second)
		seen, err := holders(ctx, s.get().UID)
		Expect(err).NotTo(HaveOccurred())
		s.r.Holders = func(context.Context, types.UID, ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
			return slices.Clone(seen), nil // the cache lags
		}
		Expect(server.Delete(ctx, configMap(ctx, s.copyKey()))).To(Succeed())
		s.after(10 * time.Second)
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
	})

	It("loses keys that are all revoked, wherever the manager dies", func(ctx context.Context) {
		for n := 1; ; n++ {
			s, _ := renamed(ctx, "")
			s.after(10 * time.Second)
			s.issuer.Stop()
			s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1", "k2"} })
			s.clock.SetTime(s.clock.Now().Add(10 * time.Second))
			died := s.diesAt(n)
			if !died {
				Expect(n).To(BeNumerically(">", 3), "there are that many writes")
				return
			}
			s.restart()
			s.after(10 * time.Second)
			for _, key := range []client.ObjectKey{s.copyKey(), s.authoritativeKey()} {
				Expect(configMap(ctx, key).Data).To(BeEmpty(), "%s, killed at write %d", key, n)
			}
		}
	})

	It("goes with its object, at once", func(ctx context.Context) {
		s, theirs := renamed(ctx, "")
		s.after(10 * time.Second)
		elsewhere := configMap(ctx, s.copyKey())
		elsewhere.Namespace, elsewhere.Name = newScene(ctx).key.Namespace, "a-copy-of-theirs"
		broughtBack(ctx, elsewhere)
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound), "nobody would look for it again after a restart")
		Expect(server.Get(ctx, s.key, &api.TrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))
		Expect(configMap(ctx, client.ObjectKeyFromObject(theirs))).To(Equal(theirs))
		Expect(server.Get(ctx, client.ObjectKeyFromObject(elsewhere), &corev1.ConfigMap{})).To(Succeed(), "a TrustedIssuer has nothing in other namespaces")
	})

	for _, seen := range []bool{true, false} {
		It(fmt.Sprintf("is kept where it is to be retained; the new name was seen before the object went: %t", seen), func(ctx context.Context) {
			s, theirs := renamed(ctx, api.DeletionRetain)
			if seen {
				s.after(10 * time.Second)
			} else {
				s.restart()
			}
			s.events()
			Expect(server.Delete(ctx, s.get())).To(Succeed())
			s.reconcile()
			s.reconcile() // which looks for what was made too late
			kept := configMap(ctx, s.copyKey())
			Expect(kidsOf(kept)).To(Equal([]string{"k1", "k2"}))
			Expect(kept.Annotations).To(HaveKey(api.AnnotationReleased))
			Expect(s.events()).To(ContainElement(ContainSubstring("ConfigMap %s is kept.", s.copyKey())))
			Expect(configMap(ctx, client.ObjectKeyFromObject(theirs))).To(Equal(theirs))
		})
	}

	It("is kept, marked, when the whole CRD is being deleted", func(ctx context.Context) {
		s, _ := renamed(ctx, "")
		s.after(10 * time.Second)
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.r.Reader = terminatingDefinitions{server}
		s.reconcile()
		Expect(configMap(ctx, s.copyKey()).Annotations).To(HaveKey(api.AnnotationReleased))
	})
})

var _ = Describe("Copies whose new name is taken in a namespace", func() {
	It("follow the keys there under their old name, and move elsewhere", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2)
		f.issuer.Publish(key1(), key2())
		f.after(10 * time.Minute)
		f.distribute()
		slices.Sort(selected)
		taken, free := selected[0], selected[1]
		Expect(server.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: taken, Name: "login-keys"}})).To(Succeed())
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{ConfigMapName: "login-keys"}
		})
		Expect(f.distribute()).To(Equal([]string{taken}))
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k2"} })
		Expect(f.distribute()).To(Equal([]string{taken}))
		f.expectCopies(taken)
		Expect(kidsOf(configMap(ctx, f.copyIn(taken)))).To(Equal([]string{"k1"}))
		f.expectNone(free)
		Expect(kidsOf(configMap(ctx, client.ObjectKey{Namespace: free, Name: "login-keys"}))).To(Equal([]string{"k1"}))
		Expect(f.status().Distribution.Failed).To(ConsistOf(HaveField("Reason", api.ReasonConfigMapConflict)))
	})

	It("tell how many are kept, when they are to be retained", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{DeletionPolicy: api.DeletionRetain}
		})
		f.distribute()
		ours := client.ObjectKeyFromObject(f.authoritative())
		Expect(server.Delete(ctx, f.get())).To(Succeed())
		f.events()
		f.reconcile()
		Expect(f.events()).To(ContainElement(ContainSubstring("ConfigMap %s and %d more are kept.", ours, len(selected))))
	})
})

// unseen does something while the cache does not show the issuer's ConfigMaps yet.
func (s *scene) unseen(do func()) {
	GinkgoHelper()
	seen := s.r.Holders
	s.r.Holders = func(context.Context, types.UID, ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
		return nil, nil
	}
	do()
	s.r.Holders = seen
}

// So it is for one that has just been made, or that a manager which has lost its lease
// makes late: it goes by the spec that it knows.
var _ = Describe("A ConfigMap of an earlier name that comes to light after the new one was made", func() {
	It("is removed", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot = &api.SnapshotSpec{ConfigMapName: "login-keys"} })
		s.unseen(func() { s.reconcile() })
		s.reconcile()
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
		s.writes.take()
		s.reconcile()
		Expect(s.writes.take()).To(BeEmpty())
	})

	It("is removed where it is a copy: it went on holding keys that were revoked since", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.issuer.Publish(key1(), key2())
		f.after(10 * time.Minute)
		f.distribute()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{ConfigMapName: "login-keys"}
		})
		f.unseen(func() { f.distribute() })
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k2"} })
		Expect(f.distribute()).To(BeEmpty())
		Expect(kidsOf(configMap(ctx, client.ObjectKey{Namespace: selected[0], Name: "login-keys"}))).To(Equal([]string{"k1"}))
		f.expectNone(selected...)
		f.writes.take()
		Expect(f.distribute()).To(BeEmpty())
		Expect(f.writes.take()).To(BeEmpty())
	})
})
