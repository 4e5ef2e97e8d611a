package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// step is one turn in the life of an issuer's keys. What is nil is not done, and
// not looked at.
type step struct {
	// do changes the world; then the time passes; then the controller looks.
	do    func(*scene)
	after time.Duration
	// trusts are the kids of the published snapshot.
	trusts []string
	// missing and retiring are kids that are trusted although they are not
	// published any more.
	missing, retiring []string
	// tells are the beginnings of events, which must all have been sent since the
	// step before; silent means that none was.
	tells  []string
	silent bool
	// then looks at more.
	then func(*scene)
}

func publishes(keys ...func() *testissuer.Key) func(*scene) {
	return func(s *scene) {
		all := make([]*testissuer.Key, 0, len(keys))
		for _, k := range keys {
			all = append(all, k())
		}
		s.issuer.Publish(all...)
	}
}

func (s *scene) run(steps ...step) {
	GinkgoHelper()
	for n, st := range steps {
		name := fmt.Sprintf("step %d", n+1)
		if st.do != nil {
			st.do(s)
		}
		s.after(st.after)
		if st.trusts != nil {
			Expect(s.kids()).To(Equal(st.trusts), name)
		}
		if st.missing != nil {
			Expect(s.keysWhere(func(k api.KeyStatus) bool { return k.State == api.KeyActive && k.MissingSince != nil })).To(Equal(st.missing), name)
		}
		if st.retiring != nil {
			Expect(s.keysWhere(func(k api.KeyStatus) bool { return k.State == api.KeyRetiring })).To(Equal(st.retiring), name)
		}
		sent := s.events()
		for _, e := range st.tells {
			Expect(sent).To(ContainElement(HavePrefix(e)), name)
		}
		if st.silent {
			Expect(sent).To(BeEmpty(), name)
		}
		if st.then != nil {
			st.then(s)
		}
	}
}

func (s *scene) keysWhere(want func(api.KeyStatus) bool) []string {
	GinkgoHelper()
	kids := []string{}
	for _, k := range s.status().Keys {
		if want(k) {
			kids = append(kids, k.KeyID)
		}
	}
	return kids
}

func (s *scene) inState(state api.KeyState) []string {
	GinkgoHelper()
	return s.keysWhere(func(k api.KeyStatus) bool { return k.State == state })
}

var none = []string{}

func withGrace(d time.Duration) func(*api.IssuerSpec) {
	return func(spec *api.IssuerSpec) {
		spec.Rotation = &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: d}}
	}
}

func withPolicy(p api.RotationPolicy) func(*api.IssuerSpec) {
	return func(spec *api.IssuerSpec) { spec.Rotation = &api.RotationSpec{Policy: p} }
}

var _ = Describe("The keys of an issuer", func() {
	DescribeTable("live and go",
		func(ctx context.Context, edit func(*api.IssuerSpec), steps ...step) {
			s := newScene(ctx)
			s.issuer.Publish(key1(), key2())
			if edit == nil {
				edit = func(*api.IssuerSpec) {}
			}
			s.create(edit)
			s.reconcile()
			s.events()
			s.run(steps...)
		},
		Entry("a removed key is gone once a second look, 30 s later, confirms it", nil,
			step{do: publishes(key1), after: 8 * time.Minute, trusts: []string{"k1", "k2"}, missing: []string{"k2"}, silent: true},
			step{after: 29 * time.Second, trusts: []string{"k1", "k2"}, then: func(s *scene) { Expect(s.issuer.Requests()).To(Equal(2)) }},
			step{after: time.Second, trusts: []string{"k1"}, missing: none, tells: []string{"Normal KeysRotated"}, then: func(s *scene) {
				Expect(s.issuer.Requests()).To(Equal(3))
				Expect(s.status().Rotation.Removed).To(Equal([]string{"k2"}))
			}},
		),
		Entry("a cache that lags costs no key", nil,
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{do: publishes(key1, key2), after: 30 * time.Second, trusts: []string{"k1", "k2"}, missing: none, silent: true},
		),
		Entry("the second look is remembered by status: a restart does not put it off", nil,
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{do: (*scene).restart, after: 30 * time.Second, trusts: []string{"k1"}},
		),
		Entry("a refresh that somebody asks for in between confirms nothing", nil,
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{do: func(s *scene) { s.annotate(api.AnnotationRefresh, "x") }, after: 10 * time.Second, trusts: []string{"k1", "k2"}},
			step{after: 20 * time.Second, trusts: []string{"k1"}},
		),
		Entry("without a second look a missing key goes after ten minutes, however the issuer fails", nil,
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{do: func(s *scene) { s.issuer.Stop() }, after: 9*time.Minute + 59*time.Second, trusts: []string{"k1", "k2"}},
			step{after: time.Second, trusts: []string{"k1"}, tells: []string{"Normal KeysRotated"}},
		),
		Entry("a new key is trusted at once, beside one that has to be looked for again", nil,
			step{do: publishes(key1, key3), after: 8 * time.Minute, trusts: []string{"k1", "k2", "k3"}, missing: []string{"k2"}},
			step{after: 30 * time.Second, trusts: []string{"k1", "k3"}},
		),
		Entry("a set that was replaced as a whole is called out", nil,
			step{do: publishes(key3), after: 8 * time.Minute, trusts: []string{"k1", "k2", "k3"}, tells: []string{"Warning KeySetReplaced", "Normal KeysRotated"}},
			step{after: 30 * time.Second, trusts: []string{"k3"}, tells: []string{"Normal KeysRotated"}, then: func(s *scene) {
				Expect(s.status().Rotation.History).To(HaveLen(2))
				Expect(s.status().Rotation.History[0].RemovedTime.Time).To(BeTemporally("==", s.clock.Now()))
				Expect(series("jwks_trust_issuer_suspect_changes_total", s.key)).To(Equal([]float64{1}))
			}},
		),
		Entry("a grace period keeps a retired key, counted from when it was first missing", withGrace(time.Hour),
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}, retiring: none},
			step{after: 30 * time.Second, trusts: []string{"k1", "k2"}, missing: none, retiring: []string{"k2"}, then: func(s *scene) {
				Expect(s.status()).To(condition(api.ConditionKeysRetiring, metav1.ConditionTrue, api.ReasonGracePeriod))
			}},
			step{do: (*scene).restart, after: 59*time.Minute + 29*time.Second, trusts: []string{"k1", "k2"}},
			step{after: time.Second, trusts: []string{"k1"}, retiring: none, then: func(s *scene) {
				Expect(s.status()).To(condition(api.ConditionKeysRetiring, metav1.ConditionFalse, api.ReasonNoneRetiring))
			}},
		),
		Entry("a retired key ends with its grace period even while the issuer is down", withGrace(20*time.Minute),
			step{do: publishes(key1), after: 8 * time.Minute},
			step{after: 30 * time.Second, retiring: []string{"k2"}},
			step{do: func(s *scene) { s.issuer.Stop() }, after: 19 * time.Minute, trusts: []string{"k1", "k2"}},
			step{after: time.Minute, trusts: []string{"k1"}},
		),
		Entry("a retired key that is published again is active again", withGrace(time.Hour),
			step{do: publishes(key1), after: 8 * time.Minute},
			step{after: 30 * time.Second, retiring: []string{"k2"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, retiring: none, missing: none, then: func(s *scene) {
				Expect(s.inState(api.KeyActive)).To(Equal([]string{"k1", "k2"}))
			}},
		),
		Entry("THREATS 27: a kid with another key acts at once, without second look and grace", withGrace(time.Hour),
			step{
				do:    func(s *scene) { s.issuer.Publish(key1(), testissuer.NewKey("k2", "ES384")) },
				after: 8 * time.Minute, trusts: []string{"k1", "k2"}, missing: none, retiring: none, tells: []string{"Warning KeyReplaced"},
				then: func(s *scene) {
					Expect(s.status().Keys[1].Curve).To(Equal("P-384"))
					Expect(s.status().Rotation.History[0].KeyID).To(Equal("k2"))
				},
			},
		),
		Entry("a revoked key has neither second look nor grace, and is listed as what it is", withGrace(time.Hour),
			step{do: func(s *scene) { s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k2"} }) }, after: time.Minute,
				trusts: []string{"k1"}, then: func(s *scene) {
					Expect(s.inState(api.KeyRevoked)).To(Equal([]string{"k2"}))
					Expect(s.status().Snapshot.Keys).To(Equal(int32(1)))
				}},
			step{do: func(s *scene) { s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = nil }) }, after: time.Minute,
				trusts: []string{"k1", "k2"}, then: func(s *scene) { Expect(s.inState(api.KeyRevoked)).To(BeEmpty()) }},
		),
		Entry("THREATS 38: a clock that is set back does not keep a missing key", nil,
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{after: -time.Hour, trusts: []string{"k1", "k2"}},
			step{after: 30 * time.Second, trusts: []string{"k1"}},
		),
		Entry("inline keys are replaced at once", nil,
			step{do: func(s *scene) {
				s.edit(func(ti *api.TrustedIssuer) {
					ti.Spec.JWKSURI, ti.Spec.CABundle, ti.Spec.JWKS = "", "", fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key3().JWK()))
				})
			}, after: time.Minute, trusts: []string{"k3"}},
		),
		Entry("narrower algorithms act at once", nil,
			step{do: func(s *scene) {
				s.edit(func(ti *api.TrustedIssuer) { ti.Spec.AllowedAlgorithms = []api.Algorithm{"RS256"} })
			}, after: time.Minute, trusts: []string{"k1"}},
		),
	)

	It("are looked at a second time, but a set that flaps makes no hot loop", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Header("Cache-Control", "max-age=0")
		s.create()
		s.reconcile()
		s.writes.take()
		before := s.issuer.Requests()
		for n := range 12 * 60 { // an hour, looked at every five seconds
			if keys := []func() *testissuer.Key{key1, key2}; n%2 == 0 {
				publishes(keys...)(s)
			} else {
				publishes(keys[n%3%2])(s)
			}
			s.after(5 * time.Second)
		}
		Expect(s.issuer.Requests()-before).To(BeNumerically("<=", 2*60), "at most one second look to each scheduled one")
		Expect(len(s.writes.take())).To(BeNumerically("<=", 5*60))
	})

	It("are bounded, whatever the issuer publishes", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(withGrace(24 * time.Hour))
		s.reconcile()
		for round := range 4 {
			var keys []*testissuer.Key
			for n := range 80 {
				keys = append(keys, testissuer.NewKey(fmt.Sprintf("r%d-%02d", round, n), "EdDSA"))
			}
			s.issuer.Publish(keys...)
			s.after(8 * time.Minute)
			s.after(30 * time.Second)
		}
		Expect(s.kids()).To(HaveLen(maxTrusted))
		Expect(s.kids()).To(ContainElements("r3-00", "r3-79", "r2-00", "r2-79"), "the newest")
		Expect(s.status().Rotation.History).To(HaveLen(maxHistory))
	})

	It("can all go at once, however many they are", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(withGrace(24 * time.Hour))
		s.reconcile()
		for round := range 2 {
			var keys []*testissuer.Key
			for n := range keyset.MaxKeys {
				keys = append(keys, testissuer.NewKey(fmt.Sprintf("r%d-%02d", round, n), "EdDSA"))
			}
			s.issuer.Publish(keys...)
			s.after(8 * time.Minute)
			s.after(30 * time.Second)
		}
		Expect(s.kids()).To(HaveLen(maxTrusted))
		s.issuer.Publish(testissuer.NewKey("alone", "ES256"))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.AllowedAlgorithms = []api.Algorithm{"ES256"} })
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"alone"}))
		Expect(s.status().Rotation.Removed).To(HaveLen(maxNamed), "more are not listed")
	})
})

var _ = Describe("A key set that has to be approved", func() {
	approve := func(s *scene) {
		issuer := s.get()
		s.annotate(api.AnnotationApprove, api.Approval(issuer, issuer.Status.Rotation.CandidateDigest))
	}
	suspended := func(reason string) func(*scene) {
		return func(s *scene) {
			GinkgoHelper()
			Expect(s.status()).To(condition(api.ConditionRotationSuspended, metav1.ConditionTrue, reason))
			Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonQuarantined))
		}
	}

	DescribeTable("waits",
		func(ctx context.Context, policy api.RotationPolicy, steps ...step) {
			s := newScene(ctx)
			s.create(withPolicy(policy))
			s.run(steps...)
		},
		Entry("RequireOverlap: not while a key is known", api.RotationRequireOverlap,
			step{trusts: []string{"k1"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, trusts: []string{"k1", "k2"}},
			step{do: publishes(key2, key3), after: 8 * time.Minute, trusts: []string{"k1", "k2", "k3"}},
			step{after: 30 * time.Second, trusts: []string{"k2", "k3"}},
		),
		Entry("RequireOverlap: when no key is known; the last good keys go on, and grow stale", api.RotationRequireOverlap,
			step{trusts: []string{"k1"}},
			step{do: publishes(key2, key3), after: 8 * time.Minute, trusts: []string{"k1"}, tells: []string{"Warning NoOverlap"}, then: func(s *scene) {
				suspended(api.ReasonNoOverlap)(s)
				Expect(s.inState(api.KeyQuarantined)).To(Equal([]string{"k2", "k3"}))
				status := s.status()
				Expect(findCondition(&status, api.ConditionRotationSuspended).Message).To(And(
					ContainSubstring("kubectl jwks diff --candidate ti/auth -n "+s.key.Namespace+" shows them"),
					ContainSubstring("kubectl jwks approve ti/auth -n "+s.key.Namespace+", or "),
					ContainSubstring(
						"kubectl annotate -n "+s.key.Namespace+" --overwrite trustedissuers auth jwks-trust.dev/approve="+status.Rotation.CandidateDigest)))
			}},
			step{after: 8 * time.Minute, trusts: []string{"k1"}, then: func(s *scene) {
				Expect(s.status()).To(condition(api.ConditionStale, metav1.ConditionTrue, api.ReasonServingStale))
				Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon), "a quarantined fetch is no success")
			}},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1", "k2", "k3"}, then: func(s *scene) {
				Expect(s.status()).To(condition(api.ConditionRotationSuspended, metav1.ConditionFalse, api.ReasonNotSuspended))
				Expect(s.status()).To(isReady(api.ReasonFresh))
				Expect(s.status().Rotation.CandidateDigest).To(BeEmpty())
				Expect(s.inState(api.KeyQuarantined)).To(BeEmpty())
			}},
			step{after: 30 * time.Second, trusts: []string{"k2", "k3"}},
		),
		Entry("RequireOverlap: not for a key that is revoked; the next one is trusted at once", api.RotationRequireOverlap,
			step{trusts: []string{"k1"}},
			step{do: func(s *scene) {
				s.issuer.Publish(key2())
				s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1"} })
			}, after: time.Minute, trusts: []string{"k2"}},
		),
		Entry("RequireOverlap: not for one that this answer has exposed", api.RotationRequireOverlap,
			step{trusts: []string{"k1"}},
			step{do: func(s *scene) {
				s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().PrivateJWK()), jsonOf(key2().JWK()))))
			}, after: 8 * time.Minute, trusts: []string{"k2"}},
		),
		Entry("RequireApproval: the first set too; nothing is published before", api.RotationRequireApproval,
			step{tells: []string{"Warning ApprovalRequired"}, then: func(s *scene) {
				suspended(api.ReasonApprovalRequired)(s)
				Expect(s.status()).To(isNotReady(api.ReasonQuarantined))
				Expect(s.status().Snapshot.Digest).To(BeEmpty())
			}},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1"}, then: func(s *scene) { Expect(s.status()).To(isReady(api.ReasonFresh)) }},
		),
		Entry("RequireApproval: with any new key; a hijacker who keeps the old ones gets nothing", api.RotationRequireApproval,
			step{},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, trusts: []string{"k1"}, tells: []string{"Warning ApprovalRequired"}},
			step{do: publishes(key1, key2, key3), after: 8 * time.Minute, trusts: []string{"k1"}, tells: []string{"Warning ApprovalRequired"}},
			step{after: 8 * time.Minute, silent: true}, // the same set is not told of again
			step{do: publishes(key1), after: 8 * time.Minute, trusts: []string{"k1"}, then: func(s *scene) {
				Expect(s.status()).To(isReady(api.ReasonFresh))
				Expect(s.status().Rotation.CandidateDigest).To(BeEmpty(), "the issuer took it back")
			}},
		),
		Entry("RequireApproval: an approval is for one set alone", api.RotationRequireApproval,
			step{},
			step{do: func(s *scene) {
				approve(s)
				publishes(key1, key2)(s) // quicker than the approval
			}, after: 10 * time.Second, then: func(s *scene) {
				suspended(api.ReasonApprovalRequired)(s)
				Expect(s.status().Snapshot.Digest).To(BeEmpty())
			}},
		),
		Entry("RequireApproval: a removal needs none", api.RotationRequireApproval,
			step{do: publishes(key1, key2)},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1", "k2"}},
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{after: 30 * time.Second, trusts: []string{"k1"}},
		),
		Entry("RequireApproval: an approval is good for one time, and brings no removed key back", api.RotationRequireApproval,
			step{do: publishes(key1, key2)},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1", "k2"}},
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{after: 30 * time.Second, trusts: []string{"k1"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, trusts: []string{"k1"}, then: suspended(api.ReasonApprovalRequired)},
			step{do: (*scene).restart, after: 8 * time.Minute, trusts: []string{"k1"}, then: suspended(api.ReasonApprovalRequired)},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1", "k2"}},
		),
		Entry("RequireApproval: an approval does not wait for a set that the issuer has taken back", api.RotationRequireApproval,
			step{},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, then: suspended(api.ReasonApprovalRequired)},
			step{do: func(s *scene) {
				approve(s)
				publishes(key1)(s) // quicker than the approval
			}, after: 10 * time.Second, trusts: []string{"k1"}},
			step{after: 8 * time.Minute},
			step{do: publishes(key1, key2), after: 8 * time.Minute, trusts: []string{"k1"}, then: suspended(api.ReasonApprovalRequired)},
			step{after: 10 * time.Second, trusts: []string{"k1"}, then: suspended(api.ReasonApprovalRequired)},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1", "k2"}},
		),
		Entry("RequireApproval: an approval outlives an answer from a cache that lags", api.RotationRequireApproval,
			step{},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, then: suspended(api.ReasonApprovalRequired)},
			step{do: func(s *scene) {
				approve(s)
				publishes(key1)(s)
			}, after: 10 * time.Second, trusts: []string{"k1"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute},
			step{after: 10 * time.Second, trusts: []string{"k1", "k2"}},
		),
		Entry("RequireOverlap: an approval is good for one time", api.RotationRequireOverlap,
			step{do: publishes(key1)},
			step{do: publishes(key2), after: 8 * time.Minute, trusts: []string{"k1"}, then: suspended(api.ReasonNoOverlap)},
			step{do: approve, after: 10 * time.Second, missing: []string{"k1"}},
			step{after: 30 * time.Second, trusts: []string{"k2"}},
			step{do: publishes(key1, key2), after: 8 * time.Minute, trusts: []string{"k1", "k2"}},
			step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}},
			step{after: 30 * time.Second, trusts: []string{"k1"}},
			step{do: publishes(key2), after: 8 * time.Minute, trusts: []string{"k1"}, then: suspended(api.ReasonNoOverlap)},
		),
		Entry("RequireApproval: across a restart and the loss of the ConfigMaps", api.RotationRequireApproval,
			step{},
			step{do: approve, after: 10 * time.Second, trusts: []string{"k1"}},
			step{do: func(s *scene) {
				publishes(key1, key2)(s)
				s.restart()
				Expect(server.Delete(s.ctx, configMap(s.ctx, s.copyKey()))).To(Succeed())
				Expect(server.Delete(s.ctx, configMap(s.ctx, s.authoritativeKey()))).To(Succeed())
			}, after: 10 * time.Second, then: suspended(api.ReasonApprovalRequired)},
			step{do: publishes(key1), after: 8 * time.Minute, trusts: []string{"k1"}},
		),
	)

	It("is taken over when the policy no longer minds", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(withPolicy(api.RotationRequireApproval))
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Rotation.Policy = api.RotationAutomatic })
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(condition(api.ConditionRotationSuspended, metav1.ConditionFalse, api.ReasonNotSuspended))
	})

	It("sends no validators of a set that was not taken over (RULING 1)", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(withPolicy(api.RotationRequireOverlap))
		s.issuer.Respond(tagged(`"1"`, key1()))
		s.reconcile()
		s.issuer.Respond(tagged(`"2"`, key2()))
		s.after(8 * time.Minute)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonQuarantined))
		s.issuer.Respond(tagged(`"2"`, key1(), key2())) // mended, under the ETag of the set that waits
		s.after(8 * time.Minute)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionTrue, api.ReasonSucceeded))
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})
})

// tagged publishes keys under an ETag, and answers 304 to whoever has that one.
func tagged(etag string, keys ...*testissuer.Key) http.HandlerFunc {
	send := testissuer.BetterAuth(keys...)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		send(w, r)
	}
}

var _ = Describe("A document that cannot be used", func() {
	It("is not revalidated: a mended one may have the same ETag (THREATS 36)", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.issuer.Respond(tagged(`"1"`, key1()))
		s.reconcile()
		s.issuer.Respond(tagged(`"2"`)) // no key
		s.after(8 * time.Minute)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonEmptyKeySet))
		s.issuer.Respond(testissuer.Status(http.StatusBadGateway))
		s.after(time.Minute)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonUnexpectedStatus))
		s.issuer.Respond(tagged(`"2"`, key1(), key2()))
		s.after(5 * time.Minute)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionTrue, api.ReasonSucceeded))
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})
})

var _ = Describe("A suspended issuer", func() {
	It("is left in peace; its keys grow old, and it comes back at once", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = ptrTo(true) })
		s.annotate(api.AnnotationRefresh, "now")
		s.after(time.Minute)
		Expect(s.status()).To(And(isReady(api.ReasonFresh), condition(api.ConditionFetched, metav1.ConditionUnknown, api.ReasonSuspended)))
		s.restart()
		s.after(10 * time.Minute)
		Expect(s.issuer.Requests()).To(Equal(1))
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(condition(api.ConditionStale, metav1.ConditionTrue, api.ReasonServingStale))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = nil })
		s.after(time.Second)
		Expect(s.issuer.Requests()).To(Equal(2))
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})
})

var _ = Describe("Expired keys", func() {
	It("are taken out of the users' ConfigMap where spec says so, and come back", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(func(spec *api.IssuerSpec) {
			spec.StaleTTL = &metav1.Duration{}
			spec.Snapshot = &api.SnapshotSpec{ExpiredPolicy: api.ExpiredRemove}
		})
		s.reconcile()
		s.issuer.Stop()
		s.after(9 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		result := s.after(time.Minute)
		Expect(configMap(s.ctx, s.copyKey()).Data).To(BeEmpty(), "never an empty key set: proxies refuse it")
		Expect(configMap(s.ctx, s.authoritativeKey()).Data).NotTo(BeEmpty(), "the last good keys are not lost")
		Expect(s.status()).To(And(
			isNotReady(api.ReasonExpiredKeysRemoved),
			condition(api.ConditionExpired, metav1.ConditionTrue, api.ReasonExpired),
		))
		Expect(result.RequeueAfter).To(BeNumerically(">", 0))
		s.writes.take()
		s.restart()
		s.after(time.Second)
		Expect(configMap(s.ctx, s.copyKey()).Data).To(BeEmpty())

		Expect(s.issuer.Restart()).To(Succeed())
		s.after(10 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})
})

var _ = Describe("Expired keys of a ClusterTrustedIssuer", func() {
	It("are not called lost by a manager that starts after they were taken out", func(ctx context.Context) {
		f, _ := newFleet(ctx, 1, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.StaleTTL = &metav1.Duration{}
			spec.Snapshot = &api.SnapshotSpec{ExpiredPolicy: api.ExpiredRemove}
		})
		f.issuer.Stop()
		f.after(10 * time.Minute)
		f.restart()
		f.after(time.Second)
		Expect(f.authoritative().Data).To(BeEmpty())
		Expect(f.status()).To(isNotReady(api.ReasonExpiredKeysRemoved))
		Expect(f.events()).To(BeEmpty(), "nothing is new")

		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.Snapshot = nil })
		f.after(time.Minute)
		Expect(f.status()).To(isNotReady(api.ReasonKeysLost), "spec would have them there")
		Expect(f.issuer.Restart()).To(Succeed())
		f.after(10 * time.Minute)
		Expect(f.status()).To(isReady(api.ReasonFresh))
	})
})

var _ = Describe("Inline keys that are to be fetched from now on", func() {
	It("have not expired, though they were given long ago", func(ctx context.Context) {
		f, _ := newFleet(ctx, 1, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.JWKSURI, spec.CABundle, spec.JWKS = "", "", fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key1().JWK()))
			spec.Snapshot = &api.SnapshotSpec{ExpiredPolicy: api.ExpiredRemove}
		})
		f.issuer.Stop()
		f.clock.SetTime(noon.Add(48 * time.Hour))
		published := f.authoritative()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.JWKS, spec.JWKSURI, spec.CABundle = "", f.issuer.JWKSURI(), f.issuer.CABundle()
		})
		f.after(time.Second)
		Expect(f.authoritative().ResourceVersion).To(Equal(published.ResourceVersion), "nobody reads it without keys for a moment")
		Expect(f.status()).To(condition(api.ConditionExpired, metav1.ConditionFalse, api.ReasonNotExpired))
	})
})

// verifierReports the use of a key, as the verifier does.
func (s *scene) verifierReports(kid string, used time.Time, early *time.Time) {
	GinkgoHelper()
	for _, k := range s.status().Keys {
		if k.KeyID == kid {
			entry := map[string]any{"thumbprint": k.Thumbprint, "lastUsedTime": used.UTC().Format(time.RFC3339)}
			if early != nil {
				entry["earlyUseTime"] = early.UTC().Format(time.RFC3339)
			}
			s.verifierApplies("jwks-trust-verifier-usage", map[string]any{"keyUsage": []any{entry}})
		}
	}
}

var _ = Describe("The use of keys", func() {
	It("is called out for a key that is no longer published, and survives the controller's writes", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create(withGrace(time.Hour))
		s.reconcile()
		s.verifierReports("k2", s.clock.Now(), nil)
		s.issuer.Publish(key1())
		s.after(8 * time.Minute)
		s.after(30 * time.Second)
		Expect(s.inState(api.KeyRetiring)).To(Equal([]string{"k2"}))
		Expect(s.status().Keys[1].LastUsedTime.Time).To(BeTemporally("==", noon))
		Expect(s.events()).NotTo(ContainElement(HavePrefix("Warning RetiredKeyInUse")), "it was used before")

		s.verifierReports("k2", s.clock.Now(), nil)
		s.after(time.Second)
		Expect(s.events()).To(ContainElement(HavePrefix("Warning RetiredKeyInUse")))
		Expect(series("jwks_trust_issuer_retired_keys_in_use", s.key)).To(Equal([]float64{1}))
		s.writes.take()
		s.verifierReports("k2", s.clock.Now(), nil)
		s.after(time.Second)
		Expect(s.events()).To(BeEmpty(), "told once")
		Expect(s.writes.take()).To(BeEmpty())
		Expect(s.status().KeyUsage).To(HaveLen(1))
		s.after(time.Hour)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(series("jwks_trust_issuer_retired_keys_in_use", s.key)).To(Equal([]float64{0}))
	})

	It("is called out for a key that signed before it was published", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		Expect(s.status().Keys[0].LastAbsentTime).To(BeNil(), "of the first set nothing is known")
		s.issuer.Publish(key1(), key2())
		s.after(8 * time.Minute)
		Expect(s.status().Keys[1].LastAbsentTime.Time).To(BeTemporally("==", noon))
		early := noon.Add(-10 * time.Minute)
		s.verifierReports("k2", s.clock.Now(), &early)
		s.events()
		s.after(time.Second)
		Expect(s.events()).To(ContainElement(HavePrefix("Warning KeyUsedEarly")))
	})
})

// jumpingClock is one that somebody puts forward: what it says jumps, and the time that
// passes does not.
type jumpingClock struct {
	*clocktesting.FakePassiveClock

	jumpedTo time.Time
	by       time.Duration
}

// Since is the time that has passed.
func (c *jumpingClock) Since(t time.Time) time.Duration {
	passed := c.Now().Sub(t)
	if t.Before(c.jumpedTo) && !c.Now().Before(c.jumpedTo) {
		passed -= c.by
	}
	return passed
}

func (c *jumpingClock) jump(by time.Duration) {
	c.jumpedTo, c.by = c.Now().Add(by), by
	c.SetTime(c.jumpedTo)
}

var _ = Describe("A clock that is put forward while a key is missing (THREATS 38)", func() {
	// missing is a scene in which a first look has missed k2.
	missing := func(ctx context.Context) (*scene, *jumpingClock) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		c := &jumpingClock{FakePassiveClock: s.clock}
		s.r.Clock = c
		s.create()
		s.run(step{trusts: []string{"k1", "k2"}}, step{do: publishes(key1), after: 8 * time.Minute, missing: []string{"k2"}})
		return s, c
	}

	It("does not stand in for the second look", func(ctx context.Context) {
		s, c := missing(ctx)
		s.issuer.Respond(testissuer.Status(http.StatusBadGateway))
		s.run(
			step{do: func(*scene) { c.jump(time.Hour) }, after: time.Second, missing: []string{"k2"}},
			step{after: 5 * time.Minute, missing: []string{"k2"}},
			step{do: func(s *scene) {
				s.issuer.Respond(nil)
				publishes(key1, key2)(s)
			}, after: 4 * time.Minute, trusts: []string{"k1", "k2"}, missing: none},
		)
	})

	It("does not keep the key for longer either, when there can be no second look", func(ctx context.Context) {
		s, c := missing(ctx)
		s.issuer.Respond(testissuer.Status(http.StatusBadGateway))
		c.jump(time.Hour)
		s.keepReconciling(9, time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		s.keepReconciling(2, time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
	})

	It("brings the manager back when the key goes, which the clock says too early", func(ctx context.Context) {
		s, c := missing(ctx)
		s.issuer.Respond(testissuer.Status(http.StatusBadGateway))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = ptr.To(true) })
		c.jump(5 * time.Minute)
		s.run(step{after: time.Minute, missing: []string{"k2"}})
		for passed := time.Minute; len(s.kids()) == 2; {
			next := s.reconcile().RequeueAfter
			passed += next
			Expect(passed).To(BeNumerically("<=", 10*time.Minute+time.Second))
			s.after(next)
		}
	})

	It("is not told from a manager that was away: that one looks first", func(ctx context.Context) {
		s, c := missing(ctx)
		s.restart()
		s.r.Clock = c
		s.run(step{do: publishes(key1, key2), after: 2 * time.Hour, trusts: []string{"k1", "k2"}, missing: none})
	})
})

var _ = Describe("A key whose use the spec no longer admits", func() {
	It("goes at once: that is the administrator's word, and not the issuer's", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(withUse(key2().JWK(), "jwt-svid")))))
		s.create(func(spec *api.IssuerSpec) {
			spec.KeyUses = []api.KeyUse{"sig", "jwt-svid"}
			spec.Rotation = &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: time.Hour}}
		})
		s.run(step{trusts: []string{"k1", "k2"}})
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.KeyUses = []api.KeyUse{"sig"} })
		s.run(step{after: 6 * time.Second, trusts: []string{"k1"}})
	})
})

// withUse is a JWK with that "use".
func withUse(jwk any, use string) map[string]any {
	GinkgoHelper()
	var members map[string]any
	Expect(json.Unmarshal([]byte(jsonOf(jwk)), &members)).To(Succeed())
	members["use"] = use
	return members
}

var _ = Describe("When a key was last absent", func() {
	// killed is a scene whose manager has died before it noted the outcome of a fetch that
	// has brought k2.
	killed := func(s *scene, after int) {
		s.writes.take()
		s.writes.fail = func(n int) error {
			if n > after {
				return errCrash
			}
			return nil
		}
		_, err := s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key})
		Expect(err).To(MatchError(errCrash))
		s.writes.fail = nil
		s.restart()
	}

	It("is known though the manager died in the middle of the key's publication", func(ctx context.Context) {
		for _, after := range []int{1, 2} { // pendingDigest; and the ConfigMap
			s := newScene(ctx)
			s.create()
			s.reconcile()
			s.issuer.Publish(key1(), key2())
			s.clock.SetTime(s.clock.Now().Add(8 * time.Minute))
			killed(s, after)
			s.after(10 * time.Second)
			Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
			Expect(s.status().Keys[1].LastAbsentTime).To(HaveValue(HaveField("Time", BeTemporally("==", noon))), "killed after write %d", after)
		}
	})

	It("is not said of a key that was published all along, and refused", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
		s.create()
		s.reconcile()
		s.issuer.Respond(nil)
		s.issuer.Publish(key1(), key2())
		s.annotate(api.AnnotationClearCompromised, s.status().CompromisedKeys[0].Thumbprint)
		s.clock.SetTime(s.clock.Now().Add(10 * time.Second))
		killed(s, 2)
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		Expect(s.status().Keys[1].LastAbsentTime).To(BeNil())
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})
})
