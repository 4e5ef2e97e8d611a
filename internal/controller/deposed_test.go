package controller

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// successor is the manager that becomes the leader after the scene's.
func (s *scene) successor() *scene {
	next := *s
	next.writes = &writes{}
	next.restart()
	return &next
}

// meanwhile lets something happen just before the scene's manager makes a write.
func (s *scene) meanwhile(before string, happens func()) {
	s.writes.take()
	s.writes.fail = func(n int) error {
		if s.writes.calls[n-1] == before {
			s.writes.fail = nil
			happens()
		}
		return nil
	}
}

var _ = Describe("A manager that has lost its lease, and does not know yet,", func() {
	DescribeTable("cannot put an older set into the ConfigMap",
		func(ctx context.Context, leader func(s *scene), want []string) {
			s := newScene(ctx)
			s.create()
			s.reconcile()
			next := s.successor()
			publishes(key1, key2)(s)
			s.clock.SetTime(s.clock.Now().Add(8 * time.Minute))
			var left *corev1.ConfigMap
			s.meanwhile("apply ConfigMap", func() {
				leader(next)
				left = configMap(ctx, s.authoritativeKey())
			})
			result, err := s.r.Reconcile(ctx, reconcile.Request{NamespacedName: s.key})
			Expect(err).NotTo(HaveOccurred())
			Expect(left).NotTo(BeNil(), "it was about to write")
			Expect(result.RequeueAfter).To(Equal(conflictDelay))
			Expect(configMap(ctx, s.authoritativeKey())).To(Equal(left))
			Expect(next.kids()).To(Equal(want))
		},
		Entry("once the leader has published another one", func(next *scene) {
			publishes(key1, key3)(next)
			next.after(10 * time.Second)
		}, []string{"k1", "k3"}),
		Entry("once the leader has given it up, because the issuer is down", func(next *scene) {
			next.issuer.Stop()
			next.after(10 * time.Second)
		}, []string{"k1"}),
	)

	// made is a scene whose manager is about to make a ConfigMap in that namespace for the
	// first time, while the leader withdraws the deleted object.
	made := func(ctx context.Context, in func(*scene) string) (s, next *scene, at client.ObjectKey) {
		s = newScene(ctx)
		s.create()
		next = s.successor()
		ours := s.authoritativeKey()
		at = map[string]client.ObjectKey{ours.Namespace: ours, s.key.Namespace: s.copyKey()}[in(s)]
		s.writes.fail = func(n int) error {
			seen := strings.Count(strings.Join(s.writes.calls[:n], ";"), "create ConfigMap")
			if want := map[bool]int{true: 1, false: 2}[at == ours]; seen == want {
				s.writes.fail = nil
				Expect(server.Delete(ctx, next.get())).To(Succeed())
				next.reconcile()
			}
			return nil
		}
		_, _ = s.r.Reconcile(ctx, reconcile.Request{NamespacedName: s.key}) // the state counts
		Expect(server.Get(ctx, at, &corev1.ConfigMap{})).To(Succeed(), "it was made all the same")
		return s, next, at
	}
	authoritative := func(*scene) string { return harness.OperatorNamespace }
	users := func(s *scene) string { return s.key.Namespace }
	isGone := func(ctx context.Context, at client.ObjectKey) {
		GinkgoHelper()
		Expect(server.Get(ctx, at, &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
	}

	It("leaves no ConfigMap of a deleted issuer: the leader that withdrew it removes it", func(ctx context.Context) {
		for _, in := range []func(*scene) string{authoritative, users} {
			_, next, at := made(ctx, in)
			next.reconcile()
			isGone(ctx, at)
		}
	})

	It("leaves none that only the verifier could read: the next leader removes it, whether the object is there again or not", func(ctx context.Context) {
		_, gone, left := made(ctx, authoritative)
		gone.restart()
		gone.reconcile()
		isGone(ctx, left)
		s, next, at := made(ctx, authoritative)
		s.create()
		next.restart()
		next.reconcile()
		isGone(ctx, at)
		Expect(next.kids()).To(Equal([]string{"k1"}))
	})
})

// seesOnly has the manager read the object as it was then.
func (s *scene) seesOnly(then *api.TrustedIssuer) {
	GinkgoHelper()
	current, ok := s.r.Client.(client.WithWatch)
	Expect(ok).To(BeTrue())
	s.r.Client = interceptor.NewClient(current, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if ti, ok := o.(*api.TrustedIssuer); ok {
				then.DeepCopyInto(ti)
				return nil
			}
			return c.Get(ctx, key, o, opts...)
		},
	})
}

var _ = Describe("A manager that sees the past", func() {
	It("does not take the next object's keys for what an earlier one left behind, of another issuer", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(func(spec *api.IssuerSpec) { spec.Suspend = ptr.To(true) })
		s.reconcile()
		then := s.get()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		s.create(func(spec *api.IssuerSpec) { spec.Issuer = "https://another.example.com" })
		s.reconcile()
		want := configMap(ctx, s.copyKey())
		s.restart()
		s.seesOnly(then)
		_, _ = s.r.Reconcile(ctx, reconcile.Request{NamespacedName: s.key}) // what it leaves counts
		Expect(configMap(ctx, s.copyKey())).To(Equal(want))
	})

	It("does not remove the ConfigMap of whose name it has not heard", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		then := s.get()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot = &api.SnapshotSpec{ConfigMapName: "login-keys"} })
		s.after(10 * time.Second)
		renamed := client.ObjectKey{Namespace: s.key.Namespace, Name: "login-keys"}
		want := configMap(ctx, renamed)
		s.restart()
		s.seesOnly(then)
		_, _ = s.r.Reconcile(ctx, reconcile.Request{NamespacedName: s.key}) // what it leaves counts
		Expect(configMap(ctx, renamed)).To(Equal(want))
	})
})
