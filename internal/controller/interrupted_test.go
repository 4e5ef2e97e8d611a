package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// refusing makes the server refuse writes to ConfigMaps of a namespace.
func (s *scene) refusing(namespace string) (stop func()) {
	refuse, before := true, s.r.Client
	denied := func(ns string) error {
		if refuse && ns == namespace {
			return apierrors.NewForbidden(corev1.Resource("configmaps"), "any", errors.New("exceeded quota"))
		}
		return nil
	}
	wrapped, ok := before.(client.WithWatch)
	Expect(ok).To(BeTrue())
	s.r.Client = interceptor.NewClient(wrapped, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := denied(o.GetNamespace()); err != nil {
				return err
			}
			return c.Create(ctx, o, opts...)
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if cm, ok := o.(*corev1ac.ConfigMapApplyConfiguration); ok {
				if err := denied(*cm.Namespace); err != nil {
					return err
				}
			}
			return c.Apply(ctx, o, opts...)
		},
	})
	return func() { refuse = false }
}

// keepReconciling lets time pass in steps; the reconciler may fail.
func (s *scene) keepReconciling(steps int, step time.Duration) {
	for range steps {
		s.clock.SetTime(s.clock.Now().Add(step))
		_, _ = s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key}) // the state counts
	}
}

// diesAt reconciles, and has the manager die at its n-th write. It reports whether there
// were that many.
func (s *scene) diesAt(n int) (died bool) {
	s.writes.take()
	s.writes.fail = func(i int) error {
		if died = died || i == n; died {
			return errCrash
		}
		return nil
	}
	_, _ = s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key}) // what it leaves counts
	s.writes.fail = nil
	return died
}

var _ = Describe("A ConfigMap that cannot be written", func() {
	It("does not keep the verifier's keys from being refreshed, when it is the users' one", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		stop := s.refusing(s.key.Namespace)
		s.create()
		s.keepReconciling(3, 5*time.Second)
		Expect(s.status()).To(isNotReady(api.ReasonPublishFailed))
		before, requests := s.status().Snapshot.LastSuccessTime, s.issuer.Requests()

		s.issuer.Publish(key1())
		s.keepReconciling(120, time.Minute)
		Expect(s.issuer.Requests()-requests).To(BeNumerically(">=", 12), "one each cacheTTL")
		Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally(">", before.Add(time.Hour)))
		Expect(kidsOf(configMap(ctx, s.authoritativeKey()))).To(Equal([]string{"k1"}), "what the issuer withdrew is withdrawn")

		s.annotate(api.AnnotationRefresh, "now")
		s.keepReconciling(2, 6*time.Second)
		Expect(s.status().HandledRefresh).To(HaveValue(HaveField("Request", "now")))

		stop()
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})

	It("is given a new answer once it can be written, when it is the verifier's own", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.issuer.Publish(key1(), key2())
		stop := s.refusing(s.authoritativeKey().Namespace)
		s.keepReconciling(10, 8*time.Minute)
		s.issuer.Publish(key1(), key3())
		s.keepReconciling(10, 8*time.Minute)
		stop()
		s.keepReconciling(2, 10*time.Second)
		Expect(s.kids()).To(Equal([]string{"k1", "k3"}), "not with what was published long ago")
	})
})

var _ = Describe("A publication that was interrupted", func() {
	// interrupted is a scene whose rotation to k1 and k2 reached the ConfigMap, and
	// whose status does not say so yet.
	interrupted := func(ctx context.Context) *scene {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.issuer.Publish(key1(), key2())
		s.clock.SetTime(s.clock.Now().Add(8 * time.Minute))
		s.writes.take()
		s.writes.fail = func(n int) error { // pendingDigest, ConfigMap; then the end
			if n > 2 {
				return errCrash
			}
			return nil
		}
		_, err := s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key})
		Expect(err).To(MatchError(errCrash))
		s.writes.fail = nil
		Expect(s.status().Snapshot.PendingDigest).To(Equal(snapshot.Digest(configMap(ctx, s.authoritativeKey()).Data)))
		return s
	}

	It("is settled before another set is announced: status never names only sets that are nowhere", func(ctx context.Context) {
		for n := 1; ; n++ {
			s := interrupted(ctx)
			s.issuer.Publish(key1(), key3())
			s.restart()
			s.clock.SetTime(s.clock.Now().Add(10 * time.Second))
			died := s.diesAt(n)
			digest := snapshot.Digest(configMap(ctx, s.authoritativeKey()).Data)
			Expect(s.status().Snapshot).To(HaveValue(Or(HaveField("Digest", digest), HaveField("PendingDigest", digest))), "killed at write %d", n)
			if !died {
				Expect(n).To(BeNumerically(">", 3), "there are that many writes")
				return
			}
			// And nothing is lost, though the issuer is down and users' copy is gone.
			s.issuer.Stop()
			Expect(server.Delete(ctx, configMap(ctx, s.copyKey()))).To(Succeed())
			s.restart()
			s.after(10 * time.Second)
			Expect(s.kids()).To(ContainElement("k1"), "killed at write %d", n)
		}
	})

	It("is not undone by RequireOverlap's first answer that shares no key with it", func(ctx context.Context) {
		for n := 1; ; n++ {
			s := newScene(ctx)
			s.create(withPolicy(api.RotationRequireOverlap))
			died := s.diesAt(n)
			announced := s.status().Snapshot
			cm := &corev1.ConfigMap{}
			err := server.Get(ctx, s.authoritativeKey(), cm)
			if !died {
				Expect(n).To(BeNumerically(">", 3), "there are that many writes")
				return
			}
			s.issuer.Publish(key2(), key3())
			s.restart()
			s.after(8 * time.Minute)
			want := []string{"k2", "k3"} // k1 has never been trusted
			if err == nil && announced != nil && slices.Contains([]string{announced.Digest, announced.PendingDigest}, snapshot.Digest(cm.Data)) {
				want = []string{"k1"}
				Expect(s.status()).To(condition(api.ConditionRotationSuspended, metav1.ConditionTrue, api.ReasonNoOverlap), "killed at write %d", n)
			}
			Expect(s.kids()).To(Equal(want), "killed at write %d", n)
		}
	})

	It("is settled without losing sight of the copies", func(ctx context.Context) {
		f, _ := newFleet(ctx, 1)
		f.distribute()
		dies := func(after int) {
			GinkgoHelper()
			f.writes.take()
			f.writes.fail = func(n int) error {
				if n > after {
					return errCrash
				}
				return nil
			}
			_, err := f.r.Reconcile(f.ctx, reconcile.Request{NamespacedName: f.key})
			Expect(err).To(MatchError(errCrash))
			f.writes.fail = nil
			f.restart()
			f.clock.SetTime(f.clock.Now().Add(10 * time.Second))
		}
		f.issuer.Publish(key1(), key2())
		f.clock.SetTime(f.clock.Now().Add(8 * time.Minute))
		dies(2) // pendingDigest, ConfigMap
		f.issuer.Publish(key1(), key3())
		dies(1) // digest
		Expect(f.status().Snapshot).To(HaveValue(And(HaveField("PendingDigest", ""), HaveField("Digest", snapshot.Digest(f.authoritative().Data)))))
		Expect(f.status()).To(condition(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonDistributing))
	})
})

var _ = Describe("Keys that are all withdrawn", func() {
	It("stay so, and leave no digest behind, wherever the manager dies, while the issuer is down", func(ctx context.Context) {
		for n := 1; ; n++ {
			s := newScene(ctx)
			s.issuer.Publish(key2())
			s.create()
			s.reconcile()
			s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key2().PrivateJWK()))))
			s.clock.SetTime(s.clock.Now().Add(8 * time.Minute))
			died := s.diesAt(n)
			if !died {
				Expect(n).To(BeNumerically(">", 3), "there are that many writes")
				return
			}
			if n == 1 {
				continue // nothing of the exposure was written anywhere
			}
			s.issuer.Stop()
			s.restart()
			s.after(10 * time.Second)
			Expect(s.status().CompromisedKeys).To(HaveLen(1), "killed at write %d", n)
			Expect(s.status().Snapshot.Digest).To(BeEmpty(), "killed at write %d", n)
			for _, key := range []client.ObjectKey{s.copyKey(), s.authoritativeKey()} {
				Expect(configMap(ctx, key).Data).To(BeEmpty(), "%s, killed at write %d", key, n)
				Expect(configMap(ctx, key).Annotations).To(HaveKeyWithValue(api.AnnotationDigest, ""), "%s, killed at write %d", key, n)
			}
		}
	})

	DescribeTable("and of which one has retired: it does not come back, whichever write fails, while the issuer has no key that counts",
		func(ctx context.Context, goesOn bool, failure error) {
			for n := 1; ; n++ {
				s := newScene(ctx)
				s.create(withGrace(20 * time.Minute))
				s.reconcile()
				s.issuer.Publish(key2())
				s.after(8 * time.Minute)
				s.after(30 * time.Second)
				s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k2"} })
				s.after(time.Minute)
				Expect(s.inState(api.KeyRetiring)).To(Equal([]string{"k1"}))
				Expect(s.kids()).To(Equal([]string{"k1"}))
				s.clock.SetTime(s.clock.Now().Add(20 * time.Minute))
				s.writes.take()
				met := false
				s.writes.fail = func(i int) error {
					if i == n || met && !goesOn {
						met = true
						return failure
					}
					return nil
				}
				_, _ = s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key}) // what it leaves counts
				s.writes.fail = nil
				if !goesOn {
					s.restart()
				}
				s.after(10 * time.Second)
				which := fmt.Sprintf("write %d", n)
				Expect(s.status().Snapshot.Digest).To(BeEmpty(), which)
				Expect(s.status()).To(isNotReady(api.ReasonAllKeysRevoked), which)
				for _, key := range []client.ObjectKey{s.copyKey(), s.authoritativeKey()} {
					Expect(configMap(ctx, key).Data).To(BeEmpty(), "%s, %s", key, which)
				}
				if !met {
					Expect(n).To(BeNumerically(">", 3), "there are that many writes")
					return
				}
			}
		},
		Entry("with a conflict", true, apierrors.NewConflict(corev1.Resource("any"), "any", errors.New("changed meanwhile"))),
		Entry("since the manager dies", false, errCrash),
	)

	It("are taken out of a ConfigMap that somebody else has applied too", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		cm := configMap(ctx, s.copyKey())
		backup := corev1ac.ConfigMap(cm.Name, cm.Namespace).WithData(cm.Data)
		Expect(server.Apply(ctx, backup, client.FieldOwner("backup"))).To(Succeed())
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1"} })
		s.after(time.Minute)
		Expect(configMap(ctx, s.copyKey()).Data).To(BeEmpty())
		Expect(s.status()).To(condition(api.ConditionSnapshotPublished, metav1.ConditionFalse, api.ReasonAllKeysRevoked))
	})
})

var _ = Describe("What a reconciliation has to remember", func() {
	It("keeps a retiring key's end, though spec is edited to inline keys that cannot be used", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create(func(spec *api.IssuerSpec) {
			spec.Rotation = &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: time.Hour}}
		})
		s.reconcile()
		s.issuer.Publish(key1())
		s.after(8 * time.Minute)
		s.after(40 * time.Second)
		Expect(s.status().Keys).To(ContainElement(And(HaveField("KeyID", "k2"), HaveField("State", api.KeyRetiring))))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI, ti.Spec.CABundle, ti.Spec.JWKS = "", "", `{"keys":[]}` })
		s.after(time.Second)
		Expect(s.status().Keys).To(ContainElement(And(HaveField("KeyID", "k2"), HaveField("State", api.KeyRetiring))))
		s.after(2 * time.Hour)
		Expect(s.kids()).To(Equal([]string{"k1"}))
	})

	It("admits a key that was cleared while a fetch was under way", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create()
		s.reconcile()
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
		s.after(8 * time.Minute)
		s.issuer.Respond(nil)
		m := s.r.memories.of(s.key, s.get().UID)
		ti := s.get()
		m.running = s.r.begin(ctx, ti, plan{}, m) // it knows nothing of what comes now
		s.annotate(api.AnnotationClearCompromised, s.status().CompromisedKeys[0].Thumbprint)
		s.after(time.Second)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})

	It("says which expression cannot be compiled, keeps the keys, and recovers", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) {
			ti.Spec.Verification = &api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: "claims.tenant =="}}}
		})
		s.events()
		s.after(10 * time.Second)
		Expect(s.status()).To(isNotReady(api.ReasonInvalidExpression))
		Expect(s.status()).To(condition(api.ConditionStalled, metav1.ConditionTrue, api.ReasonInvalidExpression))
		Expect(s.events()).To(ConsistOf(HavePrefix("Warning InvalidExpression spec.verification")))
		Expect(findCondition(ptrTo(s.status()), api.ConditionStalled).Message).To(HavePrefix("spec.verification.claimValidationRules[0].expression: "))
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.edit(func(ti *api.TrustedIssuer) {
			ti.Spec.Verification.ClaimValidationRules[0].Expression = `claims.tenant == "blue"`
		})
		s.after(10 * time.Second)
		Expect(s.status()).To(isReady(api.ReasonFresh))
		Expect(s.status()).To(condition(api.ConditionStalled, metav1.ConditionFalse, api.ReasonNotStalled))
	})

	It("admits an inline key that was cleared", func(ctx context.Context) {
		s := newScene(ctx)
		inline := func(k2 any) string {
			return fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(k2))
		}
		s.create(func(spec *api.IssuerSpec) {
			spec.JWKSURI, spec.CABundle, spec.JWKS = "", "", inline(key2().PrivateJWK())
		})
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKS = inline(key2().JWK()) })
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}), "it stays refused")
		s.annotate(api.AnnotationClearCompromised, s.status().CompromisedKeys[0].Thumbprint)
		s.writes.take()
		s.writes.fail = func(n int) error {
			if n > 1 {
				return errors.New("killed once the set has been announced")
			}
			return nil
		}
		_, err := s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key})
		Expect(err).To(HaveOccurred())
		s.writes.fail = nil
		s.restart()
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})

	It("is looked at again for what became due while it was reconciled", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.r.Copies = interceptor.NewClient(server, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				s.clock.SetTime(s.clock.Now().Add(2 * time.Second)) // the API server takes its time
				return c.Get(ctx, key, o, opts...)
			},
		})
		result := s.after(8*time.Minute - time.Second)
		Expect(s.issuer.Requests()).To(Equal(1), "the refresh was not due when it was planned")
		Expect(result.RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<", time.Second)))
	})

	It("asks no more often for what is quarantined than for what is not", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(func(spec *api.IssuerSpec) { spec.Rotation = &api.RotationSpec{Policy: api.RotationRequireApproval} })
		s.keepReconciling(60, 5*time.Second)
		Expect(s.issuer.Requests()).To(Equal(1), "in five minutes")
		s.restart()
		s.keepReconciling(12, 5*time.Second)
		Expect(s.issuer.Requests()).To(BeNumerically("<=", 2), "one more after a restart at most")
	})

	It("brings a success from the future back once", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.clock.SetTime(noon.Add(24 * time.Hour))
		s.reconcile()
		s.clock.SetTime(noon)
		s.issuer.Stop()
		s.keepReconciling(3, time.Minute)
		first := s.status().Snapshot.LastSuccessTime.Time
		Expect(first).To(BeTemporally("<=", noon.Add(3*time.Minute)))
		s.keepReconciling(60, 15*time.Minute)
		Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("==", first), "it does not move along with the clock")
		s.keepReconciling(60, 15*time.Minute)
		Expect(s.status()).To(isNotReady(api.ReasonExpired))
	})
})

var _ = Describe("An object that was made again", func() {
	It("keeps its ConfigMap, when a manager learns late that the one before it was deleted", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		ending := s.get()
		s.reconcile()
		s.create()
		s.after(time.Minute)
		want := configMap(ctx, s.copyKey())
		s.restart()
		s.seesOnly(ending)
		_, _ = s.r.Reconcile(ctx, reconcile.Request{NamespacedName: s.key}) // what it leaves counts
		Expect(configMap(ctx, s.copyKey())).To(Equal(want))
	})
})

var _ = Describe("A ClusterTrustedIssuer whose only key is revoked while the issuer is down", func() {
	It("says so, whichever write meets a conflict", func(ctx context.Context) {
		for n, met := 1, true; met; n++ {
			f, _ := newFleet(ctx, 0)
			f.issuer.Stop()
			f.events()
			rotations := series("jwks_trust_issuer_rotations_total", f.key)[0]
			f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k1"} })
			f.writes.take()
			met = false
			f.writes.fail = func(i int) error {
				if i != n || met {
					return nil
				}
				met = true
				return apierrors.NewConflict(corev1.Resource("any"), "any", errors.New("changed meanwhile"))
			}
			f.after(time.Minute)
			f.reconcile()
			which := fmt.Sprintf("write %d", n)
			Expect(f.status()).To(And(isNotReady(api.ReasonAllKeysRevoked), condition(api.ConditionSnapshotPublished, metav1.ConditionFalse, api.ReasonAllKeysRevoked)), which)
			Expect(f.authoritative().Data).To(BeEmpty(), which)
			Expect(f.events()).To(ConsistOf(
				ContainSubstring(api.ReasonKeysRotated), ContainSubstring(api.ReasonAllKeysRevoked), ContainSubstring(api.ReasonConnectionFailed)), which)
			Expect(series("jwks_trust_issuer_rotations_total", f.key)).To(Equal([]float64{rotations + 1}), which)
			Expect(met || n > 3).To(BeTrue(), "there are that many writes")
		}
	})
})
