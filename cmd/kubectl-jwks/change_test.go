// change_test.go has the commands that change something, and diff.

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// controller answers each patch of an issuer as the controller would: act changes its
// status.
func controller(act func(*api.TrustedIssuer)) interceptor.Funcs {
	return answering(func(ctx context.Context, kube client.WithWatch, seen *api.TrustedIssuer) error {
		act(seen)
		return kube.Status().Update(ctx, seen)
	})
}

// answering has somebody act on each patch of an issuer, who sees it as it is then.
func answering(act func(context.Context, client.WithWatch, *api.TrustedIssuer) error) interceptor.Funcs {
	return interceptor.Funcs{Patch: func(ctx context.Context, kube client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
		if err := kube.Patch(ctx, o, patch, opts...); err != nil {
			return err
		}
		seen := &api.TrustedIssuer{}
		if err := kube.Get(ctx, client.ObjectKeyFromObject(o), seen); err != nil {
			return err
		}
		return act(ctx, kube, seen)
	}}
}

// handles records a refresh with an outcome.
func handles(outcome, message string, also ...edit) interceptor.Funcs {
	return controller(func(ti *api.TrustedIssuer) {
		ti.Status.HandledRefresh = &api.HandledRefresh{Request: ti.Annotations[api.AnnotationRefresh], StartTime: metav1.NewMicroTime(start), Outcome: outcome}
		ti.Status.LastAttempt = &api.AttemptStatus{Time: metav1.NewTime(start), Reason: outcome, Message: message}
		for _, e := range also {
			e(ti)
		}
	})
}

func TestRefresh(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	rotates := func(i api.Issuer) {
		i.IssuerStatus().Keys = append(i.IssuerStatus().Keys, keyStatus(both.Keys()[1], api.KeyActive))
	}
	for name, tc := range map[string]struct {
		controller interceptor.Funcs
		code       int
		want       string
	}{
		"nothing new":  {handles(api.ReasonSucceeded, "1 key was admitted."), exitOK, "Succeeded: 1 key was admitted.\nThe trusted keys are the same.\n"},
		"a new key":    {handles(api.ReasonSucceeded, "2 keys were admitted.", rotates), exitOK, "Succeeded: 2 keys were admitted.\n  +   key-2   cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s   new\n"},
		"a failure":    {handles(api.ReasonTimeout, "Too slow."), exitNo, "Timeout: Too slow.\nThe last good keys stay; they expire in 23h.\n"},
		"a quarantine": {handles(api.ReasonQuarantined, "Ask."), exitNo, "Quarantined: Ask.\nLook: kubectl jwks diff --candidate ti/auth0 -n orders\n"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := newCluster(t, tc.controller, trustedIssuer("auth0", one)).run("refresh", "auth0")
			g.Expect(r.out).To(Equal(tc.want), r.err)
			g.Expect(r.code).To(Equal(tc.code))
		})
	}
}

// Two ask within the five seconds between two fetches: one annotation holds one request,
// and the fetch for the later one is after the earlier one too.
func TestRefreshIsDoneWithTheOneThatSomebodyElseAskedForSince(t *testing.T) {
	g := NewWithT(t)
	set := fixedSet(g, "key-1")
	asks := func(value string) interceptor.Funcs {
		return answering(func(ctx context.Context, kube client.WithWatch, seen *api.TrustedIssuer) error {
			seen.Annotations[api.AnnotationRefresh] = value
			handled := &api.HandledRefresh{Request: value, StartTime: metav1.NewMicroTime(start), Outcome: api.ReasonSucceeded}
			if err := kube.Update(ctx, seen); err != nil {
				return err
			}
			seen.Status.HandledRefresh = handled
			return kube.Status().Update(ctx, seen)
		})
	}
	issuer := trustedIssuer("auth0", set, func(i api.Issuer) {
		i.SetAnnotations(map[string]string{api.AnnotationRefresh: "old"})
		i.IssuerStatus().HandledRefresh = &api.HandledRefresh{Request: "old", Outcome: api.ReasonSucceeded}
	})
	r := newCluster(t, asks("somebody else's"), issuer.DeepCopy()).run("refresh", "auth0", "--timeout", "2s")
	g.Expect(r.code).To(Equal(exitOK), r.err)
	g.Expect(r.out).To(ContainSubstring("The trusted keys are the same."))
	r = newCluster(t, asks("old"), issuer.DeepCopy()).run("refresh", "auth0", "--timeout", "10ms")
	g.Expect(r.code).To(Equal(exitError), "what was done before nobody has done since")
}

func TestRefreshKeepsOtherAnnotations(t *testing.T) {
	c := newCluster(t, handles(api.ReasonSucceeded, ""), trustedIssuer("auth0", nil, func(i api.Issuer) { i.SetAnnotations(map[string]string{"team": "x", api.AnnotationRefresh: "old"}) }))
	c.Expect(c.run("refresh", "auth0").code).To(Equal(exitOK))
	ti := &api.TrustedIssuer{}
	c.Expect(c.kube.Get(context.Background(), client.ObjectKey{Namespace: "orders", Name: "auth0"}, ti)).To(Succeed())
	c.Expect(ti.Annotations).To(HaveKeyWithValue("team", "x"))
	c.Expect(ti.Annotations[api.AnnotationRefresh]).To(HavePrefix("2026-11-23T12:00:00Z "))
}

func TestRefreshWithoutAController(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", nil))
	r := c.run("refresh", "auth0", "--timeout", "10ms")
	c.Expect(r.code).To(Equal(exitError))
	c.Expect(r.err).To(ContainSubstring("the controller has not done it within 10ms\nIs the controller running? kubectl jwks check tells."))
}

func TestRefreshThatCannotBe(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{},
		trustedIssuer("inline", nil, func(i api.Issuer) { i.IssuerSpec().JWKSURI, i.IssuerSpec().JWKS = "", "{}" }),
		trustedIssuer("paused", nil, func(i api.Issuer) { yes := true; i.IssuerSpec().Suspend = &yes }))
	c.Expect(c.run("refresh", "inline").err).To(ContainSubstring("given inline: there is nothing to fetch\nTo change them, edit spec.jwks."))
	c.Expect(c.run("refresh", "paused").err).To(ContainSubstring("Set spec.suspend to false first."))
	c.Expect(c.run("refresh").err).To(ContainSubstring("needs the NAME of one issuer"))
	c.Expect(c.run("refresh", "x/y").err).To(ContainSubstring("Write ti/NAME for a TrustedIssuer"))
}

// trusts is a controller that follows an approval of this digest alone.
func trusts(digest string) interceptor.Funcs {
	return controller(func(ti *api.TrustedIssuer) {
		if ti.Annotations[api.AnnotationApprove] != digest {
			return
		}
		trustAll(ti)
	})
}

// trustAll has all keys trusted, and none wait.
func trustAll(ti *api.TrustedIssuer) {
	ti.Status.Rotation.CandidateDigest = ""
	for i := range ti.Status.Keys {
		ti.Status.Keys[i].State = api.KeyActive
	}
}

func TestApprove(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	for name, tc := range map[string]struct {
		in   string
		args []string
		code int
	}{
		"asked, and yes":            {"yes\n", nil, exitOK},
		"asked, and no":             {"no\n", nil, exitNo},
		"asked, and y is not yes":   {"y\n", nil, exitNo},
		"asked, and nobody there":   {"", nil, exitNo},
		"not asked":                 {"", []string{"--yes"}, exitOK},
		"the digest that was named": {"", []string{"--yes", "--digest", both.Digest()}, exitOK},
		"another digest":            {"yes\n", []string{"--yes", "--digest", one.Digest()}, exitNo},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, trusts(both.Digest()), trustedIssuer("auth0", one, waiting(both)))
			r := c.runWith(tc.in, append([]string{"approve", "auth0"}, tc.args...)...)
			c.Expect(r.code).To(Equal(tc.code), r.err)
			ti := &api.TrustedIssuer{}
			c.Expect(c.kube.Get(context.Background(), client.ObjectKey{Namespace: "orders", Name: "auth0"}, ti)).To(Succeed())
			if tc.code == exitOK {
				c.Expect(ti.Annotations).To(HaveKeyWithValue(api.AnnotationApprove, both.Digest()))
				c.Expect(r.out).To(ContainSubstring("+   key-2"), "what was approved was shown")
				c.Expect(r.out).To(HaveSuffix("Trusted: 2 keys.\n"))
			} else {
				c.Expect(ti.Annotations).To(BeEmpty())
			}
		})
	}
}

// reads changes the object as it is read for the nth time, and from then on.
func reads(n int, change func(*api.TrustedIssuer)) interceptor.Funcs {
	count := 0
	return interceptor.Funcs{Get: func(ctx context.Context, kube client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if err := kube.Get(ctx, key, o, opts...); err != nil {
			return err
		}
		if ti, ok := o.(*api.TrustedIssuer); ok {
			if count++; count >= n {
				change(ti)
			}
		}
		return nil
	}}
}

// changes replaces the quarantined set at the nth read of the object.
func changes(n int, to string) interceptor.Funcs {
	return reads(n, func(ti *api.TrustedIssuer) { ti.Status.Rotation.CandidateDigest = to })
}

func TestApproveIsForWhatWasShown(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	for name, nth := range map[string]int{"while somebody reads": 2, "while the controller works": 3} {
		c := newCluster(t, changes(nth, "sha256:evil"), trustedIssuer("auth0", one, waiting(both)))
		r := c.run("approve", "auth0", "--yes")
		c.Expect(r.code).To(Equal(exitNo), name)
		c.Expect(r.err).To(ContainSubstring("Not approved: another key set waits by now."), name)
		c.Expect(c.approval()).To(BeEmpty(), name)
	}
	r := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", one)).run("approve", "auth0", "--yes")
	g.Expect(r.code).To(Equal(exitError))
	g.Expect(r.err).To(ContainSubstring("no key set of TrustedIssuer orders/auth0 waits for approval"))
}

// approval is the annotation that approves, as it is now.
func (c *cluster) approval() string {
	ti := &api.TrustedIssuer{}
	c.Expect(c.kube.Get(context.Background(), client.ObjectKey{Namespace: "orders", Name: "auth0"}, ti)).To(Succeed())
	return ti.Annotations[api.AnnotationApprove]
}

// rolledBack is a controller that finds the old set once more when it is to trust the
// new one, so that none waits.
func rolledBack(ti *api.TrustedIssuer) {
	ti.Status.Rotation.CandidateDigest = ""
	ti.Status.Keys = keysIn(ti, api.KeyActive)
}

// An issuer that was rolled back, or a cache before it that lags, ends the wait of a set
// which nobody has trusted. That is a no; and one that lasts, also if the set comes back.
func TestApproveSaysNoWhereTheSetWasNotTrusted(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	for name, tc := range map[string]struct {
		then interceptor.Funcs
		want string
	}{
		"the old set is published again": {controller(rolledBack), "that key set waits no longer, and it is not trusted."},
		"and the approval is used up": {controller(func(ti *api.TrustedIssuer) {
			rolledBack(ti)
			ti.Status.Rotation.HandledApproval = ti.Annotations[api.AnnotationApprove]
		}), "that key set waits no longer, and it is not trusted."},
		"another set waits": {controller(func(ti *api.TrustedIssuer) {
			ti.Status.Rotation.CandidateDigest = "sha256:evil"
		}), "another key set waits by now."},
		"one of its keys is revoked": {controller(func(ti *api.TrustedIssuer) {
			ti.Status.Rotation.CandidateDigest = ""
			ti.Status.Keys[1].State = api.KeyRevoked
		}), "that key set waits no longer, and it is not trusted."},
		"the object was made again": {reads(3, func(ti *api.TrustedIssuer) { ti.UID = "another" }), "the object was deleted and made again."},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, tc.then, trustedIssuer("auth0", one, waiting(both)))
			r := c.run("approve", "auth0", "--yes")
			c.Expect(r.code).To(Equal(exitNo), r.out+r.err)
			c.Expect(r.err).To(ContainSubstring("Not approved: " + tc.want))
			c.Expect(r.out).NotTo(ContainSubstring("Trusted:"))
			c.Expect(c.approval()).To(BeEmpty(), "or the set would be trusted after the no")
		})
	}
}

func TestApproveLeavesAnotherApprovalAlone(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	c := newCluster(t, reads(3, func(ti *api.TrustedIssuer) {
		rolledBack(ti)
		ti.Annotations[api.AnnotationApprove] = "sha256:other"
	}), trustedIssuer("auth0", one, waiting(both)))
	c.Expect(c.run("approve", "auth0", "--yes").code).To(Equal(exitNo))
	c.Expect(c.approval()).To(Equal("sha256:other"))
}

// A publication in two phases, between which the set waits no longer and is not listed yet.
func TestApproveWaitsForThePublication(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	seen := 0
	c := newCluster(t, reads(3, func(ti *api.TrustedIssuer) {
		if seen++; seen == 1 {
			rolledBack(ti)
			ti.Status.Snapshot.PendingDigest = both.Digest()
			return
		}
		trustAll(ti)
	}), trustedIssuer("auth0", one, waiting(both)))
	r := c.run("approve", "auth0", "--yes")
	c.Expect(r.code).To(Equal(exitOK), r.err)
	c.Expect(seen).To(Equal(2))
	c.Expect(r.out).To(HaveSuffix("Trusted: 2 keys.\n"))
}

// What has become trusted at the last moment is not called untrusted.
func TestApproveLooksAgainBeforeItTakesTheApprovalBack(t *testing.T) {
	g := NewWithT(t)
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	patches := 0
	c := newCluster(t, interceptor.Funcs{Patch: func(ctx context.Context, kube client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
		patches++
		then := rolledBack
		if patches == 2 { // the approval is about to be taken back
			then = func(ti *api.TrustedIssuer) {
				ti.Status.Keys = append(ti.Status.Keys, keyStatus(both.Keys()[1], api.KeyActive))
			}
		} else if err := kube.Patch(ctx, o, patch, opts...); err != nil {
			return err
		}
		seen := &api.TrustedIssuer{}
		if err := kube.Get(ctx, client.ObjectKeyFromObject(o), seen); err != nil {
			return err
		}
		then(seen)
		if err := kube.Status().Update(ctx, seen); err != nil || patches == 1 {
			return err
		}
		return kube.Patch(ctx, o, patch, opts...)
	}}, trustedIssuer("auth0", one, waiting(both)))
	r := c.run("approve", "auth0", "--yes")
	c.Expect(r.code).To(Equal(exitOK), r.err)
	c.Expect(patches).To(Equal(2))
	c.Expect(c.approval()).To(Equal(both.Digest()))
}

func TestDiffOfTheCandidate(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", fixedSet(g, "key-1"), waiting(fixedSet(g, "key-1", "key-2"))))
	r := c.run("diff", "auth0", "--candidate")
	c.Expect(r.code).To(Equal(exitNo))
	c.golden("diff-candidate.txt", r.out)
}

// noOverlap makes the set wait because it has none of the trusted keys.
func noOverlap(i api.Issuer) {
	setCondition(i, api.ConditionRotationSuspended, metav1.ConditionTrue, api.ReasonNoOverlap, "The issuer publishes none of the trusted keys any more.")
}

// Who approves has to know what the issuer took away: all of the trusted keys, where the
// set waits for that, and what nobody wrote down, where it waits for its new keys.
func TestApproveSaysWhatTheSetLeavesOut(t *testing.T) {
	const notRecorded = "Which trusted keys it leaves out is not recorded; without --candidate, diff asks the issuer."
	g := NewWithT(t)
	one, two, both := fixedSet(g, "key-1"), fixedSet(g, "key-2"), fixedSet(g, "key-1", "key-2")
	for _, command := range []string{"approve", "diff"} {
		args := map[string][]string{"approve": {"approve", "auth0"}, "diff": {"diff", "auth0", "--candidate"}}[command]
		r := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", one, waiting(both))).run(args...)
		g.Expect(r.out).To(ContainSubstring(notRecorded), command)
		g.Expect(r.out).NotTo(ContainSubstring("key-1"), command)
		r = newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", one, waiting(two), noOverlap)).run(args...)
		g.Expect(r.out).To(MatchRegexp(`\+ +key-2 +EC P-256 ES256 .* new\n +- +key-1 +EC P-256 ES256 .* no longer published`), command)
		g.Expect(r.out).NotTo(ContainSubstring(notRecorded), command)
	}
	renewed := parsedSet(g, []byte(`{"keys":[`+strings.Replace(fixedKeys["key-2"], "key-2", "key-1", 1)+`]}`))
	r := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", one, waiting(renewed), noOverlap)).run("approve", "auth0")
	g.Expect(r.out).To(MatchRegexp(`~ +key-1 .* NEW KEY UNDER AN OLD KID`))
}

// issuerServer is an issuer that publishes keys, and the edit that points at it.
func issuerServer(t *testing.T, keys ...*testissuer.Key) (*testissuer.Issuer, edit) {
	t.Helper()
	server, err := testissuer.Start()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(server.Close)
	server.Publish(keys...)
	return server, func(i api.Issuer) {
		i.IssuerSpec().Issuer, i.IssuerSpec().JWKSURI, i.IssuerSpec().CABundle = server.URL(), "", server.CABundle()
	}
}

func TestDiffAsksTheIssuer(t *testing.T) {
	g := NewWithT(t)
	one, two, renewed := testissuer.NewKey("key-1", "ES256"), testissuer.NewKey("key-2", "ES256"), testissuer.NewKey("key-1", "ES256")
	set := keySet(g, one, two)
	server, at := issuerServer(t, two, one)
	args := []string{"diff", "auth0", "--egress-allow-cidr", "127.0.0.0/8"}

	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", set, at))
	r := c.run(args...)
	c.Expect(r.code).To(Equal(exitOK), r.err)
	c.Expect(r.out).To(ContainSubstring("No difference.\n"))
	c.Expect(r.out).To(ContainSubstring(set.Digest()), "admitted as the controller does")

	server.Publish(renewed, testissuer.NewKey("key-3", "ES256"))
	r = c.run(args...)
	c.Expect(r.code).To(Equal(exitNo))
	c.Expect(r.out).To(MatchRegexp(`\+ +key-3 +EC P-256 ES256 .* new`))
	c.Expect(r.out).To(MatchRegexp(`~ +key-1 .* NEW KEY UNDER AN OLD KID`))
	c.Expect(r.out).To(MatchRegexp(`- +key-2 .* no longer published`))
	c.Expect(r.out).To(ContainSubstring("The controller takes it over at the next refresh."))

	server.Publish(one)
	c.Expect(c.run(args...).out).To(ContainSubstring("dropped after a second look, 30 s later"))
	careful := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", set, at, func(i api.Issuer) { i.IssuerSpec().Rotation = &api.RotationSpec{Policy: api.RotationRequireApproval} }))
	server.Publish(one, two, testissuer.NewKey("key-3", "ES256"))
	c.Expect(careful.run(args...).out).To(ContainSubstring("The controller will quarantine this set"))
}

func TestDiffThatCannotFetch(t *testing.T) {
	g := NewWithT(t)
	server, at := issuerServer(t)
	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", fixedSet(g, "key-1"), at))
	r := c.run("diff", "auth0")
	c.Expect(r.code).To(Equal(exitError))
	c.Expect(r.err).To(MatchRegexp(`(?s)^Error: from this machine: EgressBlocked: .*--egress-allow-cidr=CIDR`))
	c.Expect(c.run("diff", "auth0", "--egress-allow-cidr", "127.0.0.0/8").err).To(And(ContainSubstring("publishes no usable keys (EmptyKeySet)"), ContainSubstring("last good keys stay trusted")))
	server.Respond(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{testissuer.NewKey("key-1", "ES256").PrivateJWK()}}) // the client may hang up
	})
	c.Expect(c.run("diff", "auth0", "--egress-allow-cidr", "127.0.0.0/8").err).To(
		And(ContainSubstring("(PrivateKeyExposed)"), ContainSubstring("these keys are refused"), Not(ContainSubstring("stay trusted"))), "an exposed key is trusted no longer")
	server.Stop()
	c.Expect(c.run("diff", "auth0", "--egress-allow-cidr", "127.0.0.0/8").err).To(ContainSubstring("from this machine: ConnectionFailed"))
	c.Expect(c.run("diff", "auth0", "--egress-allow-cidr", "everywhere").err).To(ContainSubstring("is not a CIDR"))
}

func TestAgesAndTimes(t *testing.T) {
	g := NewWithT(t)
	past, future := ago(90*time.Second), ago(-2*time.Hour)
	g.Expect([]string{age(&past, start), age(nil, start), age(&future, start)}).To(Equal([]string{"90s", "-", "0s"}))
	g.Expect([]string{ahead(&future, start), ahead(&past, start), ahead(nil, start)}).To(Equal([]string{"in 120m", "90s ago", "-"}))
	g.Expect([]string{nextTry(&future, start), nextTry(&past, start), nextTry(nil, start)}).To(Equal([]string{"in 120m", "due", "-"}))
	g.Expect(short(strings.Repeat("é", 5), 4)).To(Equal("ééé…"))
	g.Expect(plain("a\x1b[31m\nb")).To(Equal("a [31m b"))
}
