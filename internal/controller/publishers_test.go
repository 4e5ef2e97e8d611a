package controller

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

var (
	rsa1 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("r1", "RS256") })
	rsa2 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("r2", "RS256") })
)

// publisher is a well-known issuer with what must become of its answer.
type publisher struct {
	answer func() http.HandlerFunc
	edit   func(*api.IssuerSpec)
	// signs are the keys that its tokens may be signed with; kids are theirs, as
	// published.
	signs []func() *testissuer.Key
	kids  []string
	// skips is part of the condition's message, where keys are left out.
	skips string
	// next is when the next fetch is due.
	next time.Duration
}

var _ = Describe("What well-known issuers publish", func() {
	DescribeTable("is admitted, and refreshed when it should be",
		func(ctx context.Context, p publisher) {
			s := newScene(ctx)
			s.issuer.Respond(p.answer())
			if p.edit == nil {
				p.edit = func(*api.IssuerSpec) {}
			}
			s.create(p.edit)
			s.reconcile()
			status := s.status()
			Expect(status).To(isReady(api.ReasonFresh))
			Expect(s.kids()).To(Equal(p.kids))
			Expect(findCondition(&status, api.ConditionFetched).Message).To(ContainSubstring(p.skips))
			Expect(status.NextRefreshTime.Sub(noon)).To(BeNumerically("~", p.next, time.Second))

			published := configMap(s.ctx, s.copyKey()).Data["jwks.json"]
			Expect(members(published)).To(HaveEach(BeElementOf("kid", "kty", "use", "alg", "n", "e", "crv", "x", "y")), "public members only, no certificates")
			set, err := keyset.Decode([]byte(published))
			Expect(err).NotTo(HaveOccurred())
			for n, signs := range p.signs {
				Expect(verify(set, signs(), p.kids[n])).To(Succeed())
			}
			s.after(time.Hour)
			Expect(s.kids()).To(Equal(p.kids))
			Expect(s.status().Rotation).To(BeNil())
		},
		Entry("Better Auth: EdDSA without use", publisher{
			answer: func() http.HandlerFunc { return testissuer.BetterAuth(key3()) },
			signs:  []func() *testissuer.Key{key3}, kids: []string{"k3"}, next: 8 * time.Minute,
		}),
		Entry("Auth0: max-age=15 meets the floor", publisher{
			answer: func() http.HandlerFunc { return testissuer.Auth0(rsa1(), rsa2()) },
			signs:  []func() *testissuer.Key{rsa1, rsa2}, kids: []string{"r1", "r2"}, next: time.Minute,
		}),
		Entry("Okta: the order changes, which is no change", publisher{
			answer: func() http.HandlerFunc { return testissuer.Okta(rsa1(), rsa2()) },
			signs:  []func() *testissuer.Key{rsa1, rsa2}, kids: []string{"r1", "r2"}, next: 8 * time.Minute,
		}),
		Entry("Firebase: a map of certificates, whose max-age governs", publisher{
			answer: func() http.HandlerFunc { return testissuer.Firebase(5*time.Minute, rsa1(), rsa2()) },
			signs:  []func() *testissuer.Key{rsa1, rsa2}, kids: []string{"r1", "r2"}, next: 4 * time.Minute,
		}),
		Entry("Google: a long and varying max-age never lengthens", publisher{
			answer: func() http.HandlerFunc { return testissuer.Google(rsa1(), rsa2()) },
			signs:  []func() *testissuer.Key{rsa1, rsa2}, kids: []string{"r1", "r2"}, next: 8 * time.Minute,
		}),
		Entry("Entra: no alg, a certificate and an issuer in each key", publisher{
			answer: func() http.HandlerFunc { return testissuer.Entra(rsa1(), rsa2()) },
			signs:  []func() *testissuer.Key{rsa1, rsa2}, kids: []string{"r1", "r2"}, next: 8 * time.Minute,
		}),
		Entry("Keycloak: an encryption key beside, and no-cache", publisher{
			answer: func() http.HandlerFunc { return testissuer.Keycloak(rsa2(), rsa1()) },
			signs:  []func() *testissuer.Key{rsa1}, kids: []string{"r1"}, skips: `1 skipped (UnsupportedAlgorithm: ["r2"])`, next: time.Minute,
		}),
		Entry("Dex: until the next rotation", publisher{
			answer: func() http.HandlerFunc { return testissuer.Dex(150*time.Second, rsa1(), rsa2()) },
			signs:  []func() *testissuer.Key{rsa1, rsa2}, kids: []string{"r1", "r2"}, next: 2 * time.Minute,
		}),
		Entry("kube-apiserver: its media type, and a kid made from the key", publisher{
			answer: func() http.HandlerFunc { return testissuer.APIServer(rsa1()) },
			signs:  []func() *testissuer.Key{rsa1}, kids: []string{rsa1().DERKeyID()}, next: 8 * time.Minute,
		}),
		Entry("SPIFFE: jwt-svid by opting in; the refresh hint counts", publisher{
			answer: func() http.HandlerFunc { return testissuer.SPIFFE(5*time.Minute, rsa2(), rsa1(), key2()) },
			edit:   func(spec *api.IssuerSpec) { spec.KeyUses = []api.KeyUse{"sig", "jwt-svid"} },
			signs:  []func() *testissuer.Key{key2, rsa1}, kids: []string{"k2", "r1"}, skips: "UseNotAllowed", next: 4 * time.Minute,
		}),
	)

	It("is not admitted from a SPIFFE bundle without opting in", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Respond(testissuer.SPIFFE(5*time.Minute, rsa2(), rsa1()))
		s.create()
		s.reconcile()
		Expect(s.status()).To(isNotReady(api.ReasonNoUsableKeys))
	})

	It("rotates as Dex does: the new key signs at once, the old one stays until its tokens have expired", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Respond(testissuer.Dex(6*time.Hour, rsa1()))
		s.create()
		s.reconcile()
		s.issuer.Respond(testissuer.Dex(6*time.Hour, rsa2(), rsa1()))
		s.clock.SetTime(noon.Add(time.Minute))
		s.verifierAsks() // it has met a token of the new key
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"r1", "r2"}))
		s.issuer.Respond(testissuer.Dex(6*time.Hour, rsa2()))
		s.after(8 * time.Minute)
		s.after(30 * time.Second)
		Expect(s.kids()).To(Equal([]string{"r2"}))
	})
})

// members are the names of all members of all keys.
func members(jwks string) []string {
	GinkgoHelper()
	var set struct{ Keys []map[string]any }
	Expect(json.Unmarshal([]byte(jwks), &set)).To(Succeed())
	var names []string
	for _, k := range set.Keys {
		for name := range k {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// verify checks a token of the key with a published set.
func verify(set *keyset.Set, key *testissuer.Key, kid string) error {
	GinkgoHelper()
	signed := key.Sign(testissuer.Claims("https://issuer.example.com", "alice", "orders", noon, time.Hour), testissuer.WithHeader("kid", kid))
	token, err := jose.ParseToken(signed)
	Expect(err).NotTo(HaveOccurred())
	k, err := set.Select(token.KeyID, token.HasKeyID, token.Algorithm)
	Expect(err).NotTo(HaveOccurred())
	return k.Verify(token)
}
