package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

var signer = testissuer.NewKey("key-1", "ES256")

// token is one of the issuer for alice, with some claims changed.
func token(changes map[string]any, options ...testissuer.SignOption) string {
	claims := testissuer.Claims(issuerURL, "alice", "orders", start, time.Hour)
	for k, v := range changes {
		claims[k] = v
	}
	return signer.Sign(claims, options...)
}

func TestVerify(t *testing.T) {
	g := NewWithT(t)
	set := keySet(g, signer, testissuer.NewKey("key-2", "RS256"))
	issuer := trustedIssuer("auth0", set)
	c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set))
	for name, tc := range map[string]struct {
		token string
		code  int
		want  string
	}{
		"a good one":               {token(nil), exitOK, "Accepted: the token is good."},
		"with Bearer before it":    {"Bearer " + token(nil) + "\n", exitOK, "Accepted"},
		"for somebody else":        {token(map[string]any{"aud": "x"}), exitNo, "(AudienceMismatch)"},
		"expired":                  {token(map[string]any{"exp": start.Add(-time.Hour).Unix()}), exitNo, "(TokenExpired)"},
		"tampered with":            {token(nil)[:len(token(nil))-8] + "AAAAAAAA", exitNo, "(SignatureInvalid)"},
		"without an issuer":        {token(map[string]any{"iss": ""}), exitNo, "(IssuerMismatch).\nIt has no issuer claim,"},
		"no token at all":          {"hello", exitNo, "(MalformedToken)"},
		"of a key that is unknown": {token(nil, testissuer.WithHeader("kid", "key-9")), exitUndecided, `The token's kid is "key-9", its alg ES256; the trusted kids are: key-1, key-2.`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := c.runWith(tc.token, "verify", "-")
			g.Expect(r.code).To(Equal(tc.code), r.out+r.err)
			g.Expect(r.out).To(ContainSubstring(tc.want))
		})
	}
}

// Until the controller has taken it out, the trusted set has a revoked key, which the
// verifier does not use.
func TestVerifyCountsTheKeysThatTheVerifierUses(t *testing.T) {
	g := NewWithT(t)
	set := keySet(g, signer, testissuer.NewKey("key-2", "RS256"))
	issuer := trustedIssuer("auth0", set)
	issuer.Spec.RevokedKeys = []string{"key-2"}
	c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set))
	r := c.runWith(token(nil, testissuer.WithHeader("kid", "key-9")), "verify", "-")
	c.Expect(r.out).To(HavePrefix("Judged by TrustedIssuer orders/auth0, with 1 trusted key (Fresh)"))
	c.Expect(r.out).To(ContainSubstring("the trusted kids are: key-1."))
}

func TestVerifyShowsEachCheck(t *testing.T) {
	g := NewWithT(t)
	set := keySet(g, signer)
	issuer := trustedIssuer("auth0", set)
	c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set))
	c.golden("verify-accepted.txt", c.run("verify", token(nil)).out)
	c.golden("verify-refused.txt", c.run("verify", token(map[string]any{"aud": "billing"})).out)

	var answer judged
	c.Expect(json.Unmarshal([]byte(c.run("verify", token(map[string]any{"aud": "billing"}), "-o", "json").out), &answer)).To(Succeed())
	c.Expect([]string{answer.Outcome, answer.Reason, answer.By}).To(Equal([]string{"refuse", "AudienceMismatch", "TrustedIssuer orders/auth0"}))
	c.Expect(answer.Checks).To(ContainElement(judgedCheck{"audience", "failed", "AudienceMismatch", "aud names one of: orders"}))
}

// A token is a secret, and its claims are somebody's data.
func TestVerifyKeepsTheTokenToItself(t *testing.T) {
	g := NewWithT(t)
	set := keySet(g, signer)
	issuer := trustedIssuer("auth0", set)
	c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set))
	for _, changes := range []map[string]any{nil, {"aud": "billing"}, {"exp": 0}, {"iss": "https://secret.example.com"}, {"sub": 7}} {
		bad := token(changes)
		parts := strings.Split(bad, ".")
		for _, output := range []string{"", "json"} {
			r := c.runWith(bad, "verify", "-", "--output", output)
			for _, secret := range []string{parts[0], parts[1], parts[2], "alice", "billing", "secret.example.com"} {
				c.Expect(r.out + r.err).NotTo(ContainSubstring(secret))
			}
			shown := c.runWith(bad, "verify", "-", "--show-claims", "--by", "auth0", "--output", output)
			c.Expect(shown.out).To(ContainSubstring(`"iss"`))
			c.Expect(shown.out).NotTo(ContainSubstring(parts[2]))
		}
	}
	c.Expect(c.run("verify", token(nil), "--show-claims").out).To(ContainSubstring("Claims, which the issuer vouches for:"))
	c.Expect(c.run("verify", token(map[string]any{"aud": "x"}), "--show-claims").out).To(ContainSubstring("Claims, which nobody vouches for:"))
}

func TestVerifyFindsWhoJudges(t *testing.T) {
	g := NewWithT(t)
	set := keySet(g, signer)
	one, other := trustedIssuer("one", set), clusterIssuer("other", set)
	c := newCluster(t, interceptor.Funcs{}, one, other, published(g, one, set), published(g, other, set))
	r := c.run("verify", token(nil))
	c.Expect(r).To(Equal(result{exitError, "", "Error: 2 issuer objects are for the token's issuer\nSay which one judges: --by ti/one -n orders, or --by cti/other.\n"}))
	c.Expect(c.run("verify", token(nil), "--by", "cti/other").code).To(Equal(exitOK))
	r = c.run("verify", token(map[string]any{"iss": "https://nobody.example.com"}))
	c.Expect(r.code).To(Equal(exitError))
	c.Expect(r.err).To(ContainSubstring("no issuer object in this namespace or the cluster is for the token's issuer"))
	c.Expect(c.run("verify", token(nil), "--by", "ti/absent").err).To(ContainSubstring("there is no TrustedIssuer absent in namespace orders\n`kubectl jwks status -A` shows"))
}

// The verifier drops an object as soon as somebody has deleted it, and the finalizer may
// hold it, with its keys, for a long time after that.
func TestVerifyKnowsNoObjectThatIsBeingDeleted(t *testing.T) {
	const want = "Error: TrustedIssuer orders/one is being deleted: its tokens are refused"
	g := NewWithT(t)
	set := keySet(g, signer)
	one, other := trustedIssuer("one", set, beingDeleted), clusterIssuer("other", set)
	c := newCluster(t, interceptor.Funcs{}, one, published(g, one, set))
	for _, args := range [][]string{{"verify", token(nil)}, {"verify", token(nil), "--by", "one"}} {
		r := c.run(args...)
		c.Expect(r.code).To(Equal(exitError), r.out)
		c.Expect(r.out).To(BeEmpty())
		c.Expect(r.err).To(HavePrefix(want))
	}
	c = newCluster(t, interceptor.Funcs{}, one, other, published(g, one, set), published(g, other, set))
	r := c.run("verify", token(nil))
	c.Expect(r.code).To(Equal(exitOK), r.err)
	c.Expect(r.out).To(HavePrefix("Judged by ClusterTrustedIssuer other,"), "the one that is left judges")
}

// What a tenant may read is a copy; it counts for as much as its digest does.
func TestVerifyBelievesNoConfigMapButByItsDigest(t *testing.T) {
	g := NewWithT(t)
	set, evil := keySet(g, signer), keySet(g, testissuer.NewKey("key-1", "ES256"))
	issuer := trustedIssuer("auth0", set)
	forbidden := interceptor.Funcs{Get: func(ctx context.Context, kube client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if _, ok := o.(*corev1.ConfigMap); ok && key.Namespace == operatorNamespace {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, key.Name, nil)
		}
		return kube.Get(ctx, key, o, opts...)
	}}
	g.Expect(newCluster(t, forbidden, issuer, mounted(g, issuer, set)).run("verify", token(nil)).code).To(Equal(exitOK))
	for name, objects := range map[string][]client.Object{
		"the copy":              {issuer, mounted(g, issuer, evil)},
		"the authoritative one": {issuer, published(g, issuer, evil)},
		"both are gone":         {issuer},
	} {
		r := newCluster(t, interceptor.Funcs{}, objects...).run("verify", token(nil))
		g.Expect(r.code).To(Equal(exitError), name)
		g.Expect(r.err).To(ContainSubstring("the trusted keys of TrustedIssuer orders/auth0 cannot be read"), name)
	}
}

func TestVerifyWithAnIssuerThatHasNoKeysYet(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("new", nil))
	r := c.run("verify", token(nil))
	c.Expect(r.code).To(Equal(exitUndecided))
	c.Expect(r.out).To(ContainSubstring("Cannot decide: there are no trusted keys for the issuer (NoSnapshot)."))
	c.Expect(c.run("verify", token(map[string]any{"exp": 0})).code).To(Equal(exitNo), "a definite no needs no keys")
}

func TestVerifyWithAFile(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, interceptor.Funcs{}) // is not asked
	file := filepath.Join(t.TempDir(), "keys.json")
	g.Expect(os.WriteFile(file, keySet(g, signer).JSON(), 0o600)).To(Succeed())
	args := []string{"verify", "-", "--jwks", file, "--issuer", issuerURL}
	c.Expect(c.runWith(token(nil), append(args, "--audience", "orders")...).code).To(Equal(exitOK))
	c.Expect(c.runWith(token(nil), append(args, "--audience", "x", "--audience", "y")...).code).To(Equal(exitNo))
	c.Expect(c.runWith(token(nil), args...).err).To(HavePrefix("Error: --jwks needs --issuer and --audience"))
	c.Expect(c.runWith(token(nil), "verify", "-", "--issuer", "x").err).To(HavePrefix("Error: --issuer and --audience go with --jwks"))
	g.Expect(os.WriteFile(file, []byte(`<html>`), 0o600)).To(Succeed())
	c.Expect(c.runWith(token(nil), append(args, "--audience", "orders")...).code).To(Equal(exitError))
	private, err := json.Marshal(map[string]any{"keys": []any{signer.PrivateJWK(), testissuer.NewKey("key-2", "ES256").JWK()}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(file, private, 0o600)).To(Succeed())
	r := c.runWith(token(nil), append(args, "--audience", "orders")...)
	c.Expect(r.code).To(Equal(exitNo), "a key whose private part lies open is revoked")
	c.Expect(r.out).To(ContainSubstring("(KeyRevoked)"))
}

func TestVerifyNeedsAToken(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{})
	c.Expect(c.run("verify").code).To(Equal(exitError))
	c.Expect(c.runWith("  \n", "verify", "-").err).To(Equal("Error: there is no token\nkubectl jwks verify - < token.txt\n"))
	c.Expect(c.runWith(strings.Repeat("x", maxToken+1), "verify", "-").err).To(ContainSubstring("over 64 KiB"))
}

// Every reason to refuse has advice, and every step says what it demands.
func TestVerifyAlwaysHasAdvice(t *testing.T) {
	g := NewWithT(t)
	e := verifier.Explain("", nil, start)
	for _, c := range e.Checks {
		g.Expect(demand(c.Step, judge{})).NotTo(BeEmpty(), string(c.Step))
	}
	issuer := trustedIssuer("x", nil)
	for _, reason := range verifier.Reasons() {
		e.Verdict.Reason = reason
		if reason == verifier.Accepted {
			continue
		}
		advice := (&verifyOptions{}).advice(judge{issuer: issuer}, e)
		hasNone := advice == ""
		g.Expect(hasNone).To(Equal(ofProtocols[reason]), string(reason))
	}
}

// ofProtocols are reasons that Explain never gives.
var ofProtocols = map[verifier.Reason]bool{
	verifier.AmbiguousCredentials: true, verifier.SubjectMissing: true, verifier.EmailNotVerified: true, verifier.UserRuleFailed: true,
	verifier.ReservedName: true, verifier.ClaimNotHeaderSafe: true, verifier.NotReady: true, verifier.DeadlineExceeded: true,
	verifier.Overloaded: true, verifier.InternalError: true,
}
