package controller

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlevent "sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

func retains(sn *api.SnapshotSpec) { sn.DeletionPolicy = api.DeletionRetain }

func revokes(names ...string) func(*api.IssuerSpec) {
	return func(spec *api.IssuerSpec) { spec.RevokedKeys = names }
}

var _ = Describe("Keys that an earlier object left behind, while the issuer is down", func() {
	// left is a scene in which an object that is gone has left k1 and k2, an hour ago.
	left := func(ctx context.Context, edits ...func(*api.IssuerSpec)) *scene {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create(append(edits, func(spec *api.IssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{DeletionPolicy: api.DeletionRetain, AdditionalFormats: []api.SnapshotFormat{api.FormatPEM}}
		})...)
		s.reconcile()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		Expect(configMap(ctx, s.copyKey()).Data).To(HaveKey(snapshot.KeyPEM))
		s.issuer.Stop()
		s.restart()
		s.clock.SetTime(s.clock.Now().Add(time.Hour))
		return s
	}
	// recreate makes the object again; the ConfigMap must not change after that.
	recreate := func(s *scene, edit func(*api.IssuerSpec)) *corev1.ConfigMap {
		GinkgoHelper()
		s.create(edit)
		s.reconcile()
		cm := configMap(s.ctx, s.copyKey())
		s.after(time.Minute)
		Expect(configMap(s.ctx, s.copyKey())).To(Equal(cm))
		return cm
	}

	It("lose those that are revoked, at once; the rest stays, and stays kept", func(ctx context.Context) {
		s := left(ctx)
		before := configMap(ctx, s.copyKey())
		cm := recreate(s, revokes("k2"))
		Expect(kidsOf(cm)).To(Equal([]string{"k1"}))
		Expect(cm.Data).To(And(HaveKeyWithValue("jwks", cm.Data["jwks.json"]), Not(HaveKey(snapshot.KeyPEM))), "in no format")
		Expect(cm.Annotations).To(HaveKeyWithValue(api.AnnotationDigest, snapshot.Digest(cm.Data)))
		Expect(cm.Labels).To(Equal(before.Labels))
		Expect(cm.Annotations).To(HaveKey(api.AnnotationReleased), "nothing is taken over without keys of one's own")
		Expect(s.status().Snapshot.Digest).To(BeEmpty(), "and nothing is trusted by it")
		Expect(s.events()).NotTo(ContainElement(ContainSubstring(api.ReasonSnapshotRepaired)))

		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		s.reconcile()
		Expect(kidsOf(configMap(ctx, s.copyKey()))).To(Equal([]string{"k1"}), "it was kept on purpose")
	})

	It("are taken over all the same, once the issuer answers", func(ctx context.Context) {
		s := left(ctx)
		recreate(s, revokes("k2"))
		Expect(s.issuer.Restart()).To(Succeed())
		s.after(10 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(configMap(ctx, s.copyKey()).Annotations).NotTo(HaveKey(api.AnnotationReleased))
		Expect(s.events()).NotTo(ContainElement(ContainSubstring(api.ReasonSnapshotRepaired)), "nobody else has changed it")
	})

	It("are all taken away, where all are revoked", func(ctx context.Context) {
		s := left(ctx)
		Expect(recreate(s, revokes("k1", "k2")).Data).To(BeEmpty())
		Expect(s.status()).To(isNotReady(api.ReasonAllKeysRevoked))
	})

	It("lose one whose private part the issuer publishes before anything is trusted", func(ctx context.Context) {
		s := left(ctx)
		Expect(s.issuer.Restart()).To(Succeed())
		s.issuer.Respond(body(`{"keys":[` + jsonOf(key2().PrivateJWK()) + `]}`))
		Expect(kidsOf(recreate(s, revokes()))).To(Equal([]string{"k1"}))
	})

	It("stay as they are where none is revoked; that costs no write", func(ctx context.Context) {
		s := left(ctx)
		before := configMap(ctx, s.copyKey())
		Expect(recreate(s, revokes("k3"))).To(Equal(before))
		s.writes.take()
		reads := s.reads()
		s.after(time.Second)
		Expect(s.writes.take()).To(BeEmpty())
		Expect(*reads).To(BeNumerically("<=", 2))
	})

	It("lose revoked ones though somebody has made the ConfigMap immutable", func(ctx context.Context) {
		s := left(ctx)
		cm := configMap(ctx, s.copyKey())
		cm.Immutable = ptr.To(true)
		Expect(server.Update(ctx, cm)).To(Succeed())
		Expect(kidsOf(recreate(s, revokes("k2")))).To(Equal([]string{"k1"}))
	})

	It("are none of its own in a ConfigMap that is somebody else's by now", func(ctx context.Context) {
		s := left(ctx)
		cm := configMap(ctx, s.copyKey())
		cm.Labels, cm.Annotations = map[string]string{api.LabelIssuerUID: "another"}, nil
		Expect(server.Update(ctx, cm)).To(Succeed())
		Expect(recreate(s, revokes("k2"))).To(Equal(cm))
	})
})

var _ = Describe("Copies that an earlier ClusterTrustedIssuer left behind, while the issuer is down", func() {
	// left is a fleet whose object is gone, and was made anew as edited; its copies hold
	// k1 and k2 still.
	left := func(ctx context.Context, edit func(*api.ClusterTrustedIssuerSpec)) (*fleet, []string) {
		f, selected := newFleet(ctx, 2, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{}
			retains(spec.Snapshot)
		})
		f.issuer.Publish(key1(), key2())
		f.after(10 * time.Minute)
		f.distribute()
		Expect(server.Delete(ctx, f.get())).To(Succeed())
		f.reconcile()
		f.issuer.Stop()
		f.restart()
		f.clock.SetTime(f.clock.Now().Add(time.Hour))
		o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: f.key.Name}}
		o.Spec.IssuerSpec = f.spec()
		o.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: f.label}
		edit(&o.Spec)
		Expect(server.Create(ctx, o)).To(Succeed())
		return f, selected
	}

	It("lose revoked keys at once, and stay kept", func(ctx context.Context) {
		f, selected := left(ctx, func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k2"} })
		Expect(f.distribute()).To(BeEmpty())
		for _, ns := range selected {
			cm := configMap(ctx, f.copyIn(ns))
			Expect(kidsOf(cm)).To(Equal([]string{"k1"}))
			Expect(cm.Annotations).To(HaveKey(api.AnnotationReleased))
		}
		f.writes.take()
		Expect(f.distribute()).To(BeEmpty())
		Expect(f.writes.take()).To(BeEmpty())
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k1", "k2"} })
		Expect(f.distribute()).To(BeEmpty())
		for _, ns := range selected {
			Expect(configMap(ctx, f.copyIn(ns)).Data).To(BeEmpty())
		}
		Expect(f.issuer.Restart()).To(Succeed())
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = nil })
		f.after(10 * time.Minute)
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(selected...)
		Expect(kidsOf(configMap(ctx, f.copyIn(selected[0])))).To(Equal([]string{"k1", "k2"}))
	})

	It("do not pass for those of another issuer", func(ctx context.Context) {
		f, selected := left(ctx, func(spec *api.ClusterTrustedIssuerSpec) { spec.Issuer = "https://other.example.com" })
		Expect(f.distribute()).To(BeEmpty())
		for _, ns := range selected {
			Expect(server.Get(ctx, f.copyIn(ns), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
		}
	})

	It("lose one whose private part the issuer publishes before anything is trusted", func(ctx context.Context) {
		f, selected := left(ctx, func(*api.ClusterTrustedIssuerSpec) {})
		before := f.get()
		Expect(f.issuer.Restart()).To(Succeed())
		f.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key2().PrivateJWK()))))
		f.after(time.Minute)
		Expect(f.status().CompromisedKeys).To(HaveLen(1))
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[target]())
		defer queue.ShutDown()
		f.d.onIssuer().Update(ctx, ctrlevent.TypedUpdateEvent[client.Object]{ObjectOld: before, ObjectNew: f.get()}, queue)
		Expect(queue.Len()).To(Equal(len(selected)))
		Expect(f.distribute()).To(BeEmpty())
		for _, ns := range selected {
			Expect(kidsOf(configMap(ctx, f.copyIn(ns)))).To(Equal([]string{"k1"}))
		}
	})

	It("cost no call where there are none", func(ctx context.Context) {
		f, _ := left(ctx, func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k2"} })
		fresh := f.namespace(f.label)
		f.reconcile()
		reads := f.reads()
		_, err := f.d.Reconcile(ctx, target{f.key.Name, fresh})
		Expect(err).NotTo(HaveOccurred())
		Expect(*reads).To(BeZero())
		Expect(server.Get(ctx, client.ObjectKey{Namespace: fresh, Name: f.copyIn(fresh).Name}, &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
	})
})
