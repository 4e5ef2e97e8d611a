package verifier

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// TestATokenSeenBeforeIsJudgedByWhatHoldsNow accepts a token, changes something,
// and asks for it again: remembering must never show.
func TestATokenSeenBeforeIsJudgedByWhatHoldsNow(t *testing.T) {
	k1, k2 := ec("k1"), ec("k2")
	set := keySet(t, k1, k2)
	token := k1.Sign(claims(map[string]any{"tenant": "blue"}))
	spec := func(v api.VerificationSpec) edit {
		return func(c *api.ClusterTrustedIssuer) { c.Spec.Verification = &v }
	}
	for name, test := range map[string]struct {
		edits []edit
		after time.Duration
		// without k1 is published.
		rotated bool
		want    Reason
	}{
		"nothing":               {want: Accepted},
		"its status is renewed": {edits: []edit{publishes(set, start.Add(time.Minute))}, after: 2 * time.Minute, want: Accepted},
		"it expires":            {after: 11*time.Minute + time.Second, want: TokenExpired},
		"within the leeway":     {after: 10*time.Minute + 59*time.Second, want: Accepted},
		"the clock goes back":   {after: -time.Hour, want: TokenNotYetValid},
		"the keys expire":       {edits: []edit{publishes(set, start.Add(-2*time.Hour))}, want: SnapshotExpired},
		"its key is revoked":    {edits: []edit{func(c *api.ClusterTrustedIssuer) { c.Spec.RevokedKeys = []string{"k1"} }}, want: KeyRevoked},
		"its key is exposed":    {edits: []edit{compromised(set, "k1")}, want: KeyRevoked},
		"another key is":        {edits: []edit{compromised(set, "k2")}, want: Accepted},
		"its key is withdrawn":  {rotated: true, want: UnknownKey},
		"another audience":      {edits: []edit{func(c *api.ClusterTrustedIssuer) { c.Spec.Audiences = []string{"x"} }}, want: AudienceMismatch},
		"another algorithm":     {edits: []edit{algorithms(api.Algorithm("RS256"))}, want: AlgorithmNotAllowed},
		"a rule it keeps":       {edits: []edit{spec(rule(`claims.tenant == "blue"`))}, want: Accepted},
		"a rule it breaks":      {edits: []edit{spec(rule(`claims.tenant == "green"`))}, want: ClaimRuleFailed},
		"a rule that is wrong":  {edits: []edit{spec(rule(`claims.tenant ==`))}, want: PolicyInvalid},
		"a claim it has not":    {edits: []edit{spec(api.VerificationSpec{RequiredClaims: []string{"azp"}})}, want: RequiredClaimMissing},
		"a type it has not":     {edits: []edit{spec(api.VerificationSpec{TokenTypes: []string{"at+jwt"}})}, want: TokenTypeNotAllowed},
		"a shorter life":        {edits: []edit{spec(api.VerificationSpec{MaxTokenLifetime: &metav1.Duration{Duration: time.Minute}})}, want: LifetimeTooLong},
		"a shorter leeway":      {edits: []edit{spec(api.VerificationSpec{Leeway: &metav1.Duration{}})}, after: 10*time.Minute + time.Second, want: TokenExpired},
		"a longer leeway":       {edits: []edit{spec(api.VerificationSpec{Leeway: &metav1.Duration{Duration: 5 * time.Minute}})}, after: 14 * time.Minute, want: Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			now := start
			cache, err := newTokenCache(1<<20, func() time.Time { return now })
			g.Expect(err).NotTo(HaveOccurred())
			before := join(cluster(publishes(set, start)), content(t, set), nil, now)
			h := &forwardAuth{now: func() time.Time { return now }, cache: cache}
			v, _ := h.verify(t.Context(), token, before)
			g.Expect(v.Reason).To(Equal(Accepted))
			g.Expect(cache.get(nameOf(token))).NotTo(BeNil())

			published := set
			if test.rotated {
				published = keySet(t, k2)
			}
			now = start.Add(test.after)
			next := join(cluster(append([]edit{publishes(published, start)}, test.edits...)...), content(t, published), before, now)
			v, _ = h.verify(t.Context(), token, next)
			g.Expect(v.Reason).To(Equal(test.want))

			// And a verifier that has never seen it says the same.
			fresh := Verify(token, next, now)
			g.Expect(fresh.Reason).To(Equal(test.want))
		})
	}
}

// TestAReviewSeenBeforeIsAnsweredByWhatHoldsNow is the same for TokenReview, where the
// whole answer is remembered: the same question, to the byte, may get another one.
func TestAReviewSeenBeforeIsAnsweredByWhatHoldsNow(t *testing.T) {
	set := keySet(t, ec("a"))
	authenticates := func(ka *api.KubernetesAuthentication) edit {
		return func(c *api.ClusterTrustedIssuer) { c.Spec.KubernetesAuthentication = ka }
	}
	put := func(edits ...edit) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			s.put(t, cluster(append([]edit{publishes(set, start)}, edits...)...), set)
		}
	}
	older := func(age time.Duration, prefix string) edit {
		return func(c *api.ClusterTrustedIssuer) {
			c.Name, c.UID, c.CreationTimestamp = "another", "another", metav1.NewTime(start.Add(-age))
			c.Spec.KubernetesAuthentication.UsernamePrefix = prefix
		}
	}
	for name, test := range map[string]struct {
		change func(*testing.T, *Store)
		after  time.Duration
		user   string // empty: a definite no
	}{
		"nothing":                     {func(*testing.T, *Store) {}, 0, "ext:alice"},
		"its status is renewed":       {put(publishes(set, start.Add(time.Second))), time.Minute, "ext:alice"},
		"it expires":                  {func(*testing.T, *Store) {}, 11*time.Minute + time.Second, ""},
		"another prefix":              {put(authenticates(&api.KubernetesAuthentication{UsernamePrefix: "other:"})), 0, "other:alice"},
		"another name":                {put(authenticates(&api.KubernetesAuthentication{UsernamePrefix: "ext:", ClaimMappings: &api.ClaimMappings{Username: &api.ClaimOrExpression{Expression: "'bob'"}}})), 0, "ext:bob"},
		"a rule it breaks":            {put(authenticates(&api.KubernetesAuthentication{UsernamePrefix: "ext:", UserValidationRules: []api.UserValidationRule{{Expression: "user.uid == 'x'"}}})), 0, ""},
		"it no longer authenticates":  {put(authenticates(nil)), 0, ""},
		"its key is revoked":          {put(func(c *api.ClusterTrustedIssuer) { c.Spec.RevokedKeys = []string{"a"} }), 0, ""},
		"its key is exposed":          {put(compromised(set, "a")), 0, ""},
		"the issuer's other audience": {put(func(c *api.ClusterTrustedIssuer) { c.Spec.Audiences = []string{"x"} }), 0, ""},
		"the object is gone":          {func(_ *testing.T, s *Store) { s.deleteIssuer(cluster()) }, 0, ""},
		"another of that name": {func(t *testing.T, s *Store) {
			s.deleteIssuer(cluster())
			put(func(c *api.ClusterTrustedIssuer) { c.UID = "next" })(t, s)
		}, 0, "ext:alice"},
		"an older object for the same":  {put(older(2*time.Hour, "older:")), 0, "older:alice"},
		"a younger object for the same": {put(older(0, "younger:")), 0, "ext:alice"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			now, s := start, newStore()
			put()(t, s)
			h := newTokenReview(s, "https://kubernetes.default.svc")
			h.now = func() time.Time { return now }
			var err error
			h.cache, err = newTokenCache(1<<20, h.now)
			g.Expect(err).NotTo(HaveOccurred())
			url, token := asAPIServer(t, h), ec("a").Sign(claims(nil))
			g.Expect(review(t, url, token, audience, "x").User.Username).To(Equal("ext:alice"))
			g.Expect(h.cache.tokens.EstimatedSize()).To(Equal(1))

			test.change(t, s)
			now = start.Add(test.after)
			status := review(t, url, token, audience, "x")
			g.Expect(status.User.Username).To(Equal(test.user))
			if test.user == "" {
				g.Expect(status).To(Equal(definiteNo))
			} else {
				g.Expect(status.Audiences).To(Equal([]string{audience}))
			}
		})
	}
}

// The same token in another question is another question.
func TestAReviewSeenBeforeIsThatReviewAlone(t *testing.T) {
	g := NewWithT(t)
	h := newTokenReview(ordersStore(t))
	cache, err := newTokenCache(1<<20, h.now)
	g.Expect(err).NotTo(HaveOccurred())
	h.cache = cache
	url, token := asAPIServer(t, h), ec("a").Sign(claims(map[string]any{"aud": []string{audience, "y"}}))
	for range 2 {
		g.Expect(review(t, url, token, audience).Audiences).To(Equal([]string{audience}))
		g.Expect(review(t, url, token, "y", audience).Audiences).To(Equal([]string{"y", audience}))
		g.Expect(review(t, url, token, "z")).To(Equal(definiteNo))
		g.Expect(review(t, url, token).Audiences).To(BeEmpty())
		g.Expect(review(t, url, tamper(token), audience)).To(Equal(definiteNo))
		for _, version := range []string{v1, v1beta1} {
			_, body := post(t, url, "application/json", bytes.NewReader(reviewBody(version, token)))
			g.Expect(string(body)).To(ContainSubstring(`"apiVersion":"` + version + `"`))
		}
	}
	g.Expect(h.gate.used.Load()).To(BeZero(), "every one has given its place back")
}

// A token for which no headers were made, whyever, does not pass: the client's own
// would stand in their place.
func TestATokenWithoutHeadersDoesNotPassAProxy(t *testing.T) {
	g := NewWithT(t)
	v := Verify(ec("a").Sign(claims(nil)), trusted(t, keySet(t, ec("a"))), start)
	g.Expect(v.Outcome).To(Equal(Accept))
	g.Expect(v.forProxy()).To(outcome(CannotDecide, InternalError))
	v.accepted.makeHeaders()
	g.Expect(v.forProxy()).To(outcome(Accept, Accepted))
}

// Where expensive expressions leave no room the token may still be good, and nothing of
// that is remembered.
func TestExpensiveExpressionsAreNoRefusal(t *testing.T) {
	g := NewWithT(t)
	token := ec("a").Sign(claims(map[string]any{"a": strings.Repeat("a", 5000), "b": strings.Repeat("b", 5000)}))
	issuer := trusted(t, keySet(t, ec("a")), verifies(api.VerificationSpec{
		ResponseHeaders: []api.ResponseHeader{{Name: "X-A", Expression: `claims.a.contains(claims.b) ? "yes" : "no"`}},
	}))
	forgetful := &forwardAuth{now: func() time.Time { return start }}
	over := make(chan struct{})
	var others sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					_, _ = forgetful.verify(t.Context(), token, issuer)
				}
			}
		})
	}
	h := &forwardAuth{now: forgetful.now}
	g.Eventually(func() Verdict {
		var err error
		h.cache, err = newTokenCache(1<<20, h.now)
		g.Expect(err).NotTo(HaveOccurred())
		v, _ := h.verify(t.Context(), token, issuer)
		v = v.forProxy()
		g.Expect(h.cache.get(nameOf(token)) != nil).To(Equal(v.Outcome == Accept), "what is remembered")
		return v
	}, 20*time.Second, time.Millisecond).Should(outcome(CannotDecide, Overloaded))
	close(over)
	others.Wait()
	v, _ := h.verify(t.Context(), token, issuer)
	g.Expect(v.forProxy()).To(outcome(Accept, Accepted), "alone it has room")
}

func rule(expression string) api.VerificationSpec {
	return api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: expression}}}
}

// A token accepted for one object must not count for another one with the same
// issuer and keys.
func TestATokenSeenBeforeCountsForItsObjectAlone(t *testing.T) {
	g := NewWithT(t)
	k := ec("k1")
	set := keySet(t, k)
	token := k.Sign(claims(nil))
	cache, err := newTokenCache(1<<20, time.Now)
	g.Expect(err).NotTo(HaveOccurred())
	one := trusted(t, set)
	other := trusted(t, set, func(c *api.ClusterTrustedIssuer) {
		c.Name, c.UID, c.Spec.Audiences = "other", "other", []string{"theirs"}
	})
	h := &forwardAuth{now: func() time.Time { return start }, cache: cache}
	v, _ := h.verify(t.Context(), token, one)
	g.Expect(v.Reason).To(Equal(Accepted))
	v, _ = h.verify(t.Context(), token, other)
	g.Expect(v.Reason).To(Equal(AudienceMismatch))
}

func TestRefusedTokensAreNotRemembered(t *testing.T) {
	g := NewWithT(t)
	k := ec("k1")
	cache, err := newTokenCache(1<<20, time.Now)
	g.Expect(err).NotTo(HaveOccurred())
	h := &forwardAuth{now: func() time.Time { return start }, cache: cache}
	for _, token := range []string{"", "x", k.Sign(claims(map[string]any{"aud": "theirs"})), ec("other").Sign(claims(nil))} {
		v, _ := h.verify(t.Context(), token, trusted(t, keySet(t, k)))
		g.Expect(v.Outcome).NotTo(Equal(Accept))
		g.Expect(cache.get(nameOf(token))).To(BeNil())
	}
	g.Expect((*tokenCache)(nil).get(nameOf("x"))).To(BeNil(), "without a cache nothing is remembered")
	g.Expect(nameOf("x")).NotTo(Equal(nameOfReview([]byte("x"))), "a token is not taken for a review")
}

func TestTheCacheIsBounded(t *testing.T) {
	g := NewWithT(t)
	cache, err := newTokenCache(100*(acceptedOverhead+1000), time.Now)
	g.Expect(err).NotTo(HaveOccurred())
	for i := range 10_000 {
		a := &accepted{claims: Claims{size: 1000, ExpiresAt: time.Now().Add(time.Hour)}}
		cache.put(nameOf(time.Duration(i).String()), Verdict{Outcome: Accept, accepted: a})
	}
	cache.tokens.CleanUp()
	g.Expect(cache.tokens.EstimatedSize()).To(BeNumerically("<=", 100))
}

// An expensive key takes more of the room than a cheap one, and a request that is
// alone always has room.
func TestTheGateCountsCost(t *testing.T) {
	g := NewWithT(t)
	gate := newGate(10)
	g.Expect(gate.enter()).To(BeTrue())
	g.Expect(gate.work(51)).To(BeTrue(), "alone")
	g.Expect(gate.enter()).To(BeFalse())
	gate.done(51)
	g.Expect(gate.enter()).To(BeTrue())
	g.Expect(gate.work(8)).To(BeTrue(), "10 in all")
	g.Expect(gate.work(1)).To(BeFalse())
	g.Expect(gate.enter()).To(BeFalse())
	gate.done(8)
	gate.leave()
	gate.leave()
	g.Expect(gate.used.Load()).To(BeZero())
	for range 10 {
		g.Expect(gate.enter()).To(BeTrue())
	}
	g.Expect(gate.enter()).To(BeFalse())

	// As a token meets it.
	k := key("rsa", "RS256")
	issuer := trusted(t, keySet(t, k, ec("k1")))
	c, refused := decode(ec("k1").Sign(claims(nil)))
	g.Expect(refused).To(BeNil())
	c.gate = gate
	v := c.judge(issuer, start)
	g.Expect(v.Outcome).To(Equal(CannotDecide))
	g.Expect(v.Reason).To(Equal(Overloaded), "ES256 costs three")
	c, _ = decode(k.Sign(claims(nil)))
	c.gate = gate
	g.Expect(c.judge(issuer, start).Reason).To(Equal(Accepted), "RS256 with 2048 bits has been paid for")
}
