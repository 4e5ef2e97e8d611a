package verifier

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// defect is what makes a token, or what is known of its issuer, fail at one step.
type defect struct {
	step   Step
	reason Reason
	// claims, header and issuer are changes to a good token and its issuer; token,
	// where set, changes the finished text.
	claims map[string]any
	header []testissuer.SignOption
	issuer edit
	token  func(good string) string
}

// verification changes spec.verification.
func verification(change func(*api.VerificationSpec)) edit {
	return func(c *api.ClusterTrustedIssuer) {
		if c.Spec.Verification == nil {
			c.Spec.Verification = &api.VerificationSpec{}
		}
		change(c.Spec.Verification)
	}
}

// defects has each step once or more, in the order of the steps.
func defects() []defect {
	unix := func(d time.Duration) int64 { return start.Add(d).Unix() }
	return []defect{
		{step: StepSize, reason: TokenTooLarge, claims: map[string]any{"pad": strings.Repeat("x", 16<<10)}},
		{step: StepForm, reason: HeaderNotAllowed, header: []testissuer.SignOption{testissuer.WithHeader("crit", []string{"exp"})}},
		{step: StepForm, reason: AlgorithmNotAllowed, header: []testissuer.SignOption{testissuer.WithHeader("alg", "HS256")}},
		{step: StepForm, reason: MalformedToken, token: func(good string) string { return good + "=" }},
		{step: StepClaimTypes, reason: MalformedClaims, claims: map[string]any{"sub": 7}},
		{step: StepAlgorithm, reason: AlgorithmNotAllowed, issuer: algorithms("RS256")},
		{step: StepIssuer, reason: IssuerMismatch, claims: map[string]any{"iss": "https://evil.example.com/"}},
		{step: StepAudience, reason: AudienceMismatch, claims: map[string]any{"aud": "x"}},
		{step: StepPolicy, reason: PolicyInvalid, issuer: verification(func(v *api.VerificationSpec) {
			v.ClaimValidationRules = append(v.ClaimValidationRules, api.ClaimValidationRule{Expression: "claims."})
		})},
		{step: StepExpiry, reason: TokenExpired, claims: map[string]any{"exp": unix(-time.Hour)}},
		{step: StepNotBefore, reason: TokenNotYetValid, claims: map[string]any{"nbf": unix(time.Hour)}},
		{step: StepIssuedAt, reason: IssuedInFuture, claims: map[string]any{"iat": unix(time.Hour)}},
		{step: StepLifetime, reason: LifetimeTooLong, issuer: verification(func(v *api.VerificationSpec) {
			v.MaxTokenLifetime = &metav1.Duration{Duration: time.Nanosecond}
		})},
		{step: StepType, reason: TokenTypeNotAllowed, issuer: verification(func(v *api.VerificationSpec) { v.TokenTypes = []string{"at+jwt"} })},
		{step: StepRequired, reason: RequiredClaimMissing, issuer: verification(func(v *api.VerificationSpec) { v.RequiredClaims = []string{"tenant"} })},
		{step: StepRevocation, reason: KeyRevoked, issuer: func(c *api.ClusterTrustedIssuer) { c.Spec.RevokedKeys = []string{"k", "?"} }},
		{step: StepKeys, reason: NoSnapshot, issuer: func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.LastSuccessTime = nil }},
		{step: StepKey, reason: UnknownKey, header: []testissuer.SignOption{testissuer.WithHeader("kid", "?")}},
		{step: StepSignature, reason: SignatureInvalid, token: func(good string) string { return good[:strings.LastIndex(good, ".")] + "." + strings.Repeat("A", 86) }},
		{step: StepRules, reason: ClaimRuleFailed, issuer: verification(func(v *api.VerificationSpec) {
			v.ClaimValidationRules = append(v.ClaimValidationRules, api.ClaimValidationRule{Expression: "claims.sub == 'root'", Message: "only root"})
		})},
	}
}

// judged explains a token with all these defects.
func judged(t *testing.T, with ...defect) Explanation {
	t.Helper()
	changes, header, edits := map[string]any{}, []testissuer.SignOption{}, []edit{}
	for _, d := range with {
		maps.Copy(changes, d.claims)
		header = append(header, d.header...)
		if d.issuer != nil {
			edits = append(edits, d.issuer)
		}
	}
	token := ec("k").Sign(claims(changes), header...)
	for _, d := range slices.Backward(with) {
		if d.token != nil {
			token = d.token(token)
		}
	}
	issuer, now := trusted(t, keySet(t, ec("k"), ec("other")), edits...), start
	e := Explain(token, issuer, now)
	v := Verify(token, issuer, now)
	g := NewWithT(t)
	g.Expect([]any{e.Verdict.Outcome, e.Verdict.Reason, e.Verdict.Detail}).To(Equal([]any{v.Outcome, v.Reason, v.Detail}), "one verdict, explained or not")
	return e
}

// endedAt is the step that ended a verification; those before it were passed, those
// after it not reached.
func endedAt(t *testing.T, e Explanation) Step {
	t.Helper()
	g := NewWithT(t)
	g.Expect(e.Checks).To(HaveLen(len(steps)))
	var at Step
	for i, c := range e.Checks {
		g.Expect(c.Step).To(Equal(steps[i].step))
		switch {
		case at != "":
			g.Expect(c).To(Equal(Check{Step: c.Step, Result: NotReached}))
		case c.Result != Passed:
			at = c.Step
			want := Failed
			if e.Verdict.Outcome == CannotDecide {
				want = Undecided
			}
			g.Expect(c).To(Equal(Check{Step: at, Result: want, Reason: e.Verdict.Reason, Detail: e.Verdict.Detail}))
		}
	}
	passed := at == ""
	g.Expect(passed).To(Equal(e.Verdict.Outcome == Accept), "accepted if, and only if, every check was passed")
	return at
}

func TestExplainEachStep(t *testing.T) {
	g := NewWithT(t)
	g.Expect(endedAt(t, judged(t))).To(BeEmpty())
	seen := map[Step]bool{}
	for _, d := range defects() {
		t.Run(fmt.Sprintf("%s: %s", d.step, d.reason), func(t *testing.T) {
			g := NewWithT(t)
			e := judged(t, d)
			g.Expect([]any{endedAt(t, e), e.Verdict.Reason}).To(Equal([]any{d.step, d.reason}))
		})
		seen[d.step] = true
	}
	for _, s := range steps {
		g.Expect(seen).To(HaveKey(s.step), "each step is tested")
	}
}

// The order of the steps is that of the code: of two defects, the one that belongs to
// the earlier step ends the verification. A check that is said to be passed was
// therefore made.
func TestExplainInTheOrderOfTheCode(t *testing.T) {
	all := defects()
	for i, first := range all {
		for _, second := range all[i+1:] {
			if first.step == second.step {
				continue
			}
			t.Run(fmt.Sprintf("%s before %s", first.reason, second.reason), func(t *testing.T) {
				e := judged(t, first, second)
				NewWithT(t).Expect(endedAt(t, e)).To(Equal(first.step))
			})
		}
	}
}

// Every reason that Verify can give belongs to a step; the rest belong to protocols.
func TestExplainKnowsEveryReason(t *testing.T) {
	g := NewWithT(t)
	ofProtocols := []Reason{
		Accepted, AmbiguousCredentials, SubjectMissing, EmailNotVerified, UserRuleFailed, ReservedName, ClaimNotHeaderSafe,
		UnknownIssuer, NotReady, DeadlineExceeded, Overloaded, InternalError,
	}
	for reason := range texts {
		none := stepOf(reason) == ""
		g.Expect(none).To(Equal(slices.Contains(ofProtocols, reason)), string(reason))
	}
}

// Tokens of all sorts, cut and changed everywhere: whatever the verdict, the
// explanation ends with it.
func TestExplanationAndVerdictAgree(t *testing.T) {
	tokens := []string{"", "d2VsY29tZQ", strings.Repeat(".", 1000), " ", "a.b.c"}
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		k := key("k", algorithm)
		good := k.Sign(claims(nil))
		tokens = append(tokens, good, k.Sign(claims(nil), testissuer.WithoutHeader("kid")), k.Sign(claims(map[string]any{"exp": absent{}})),
			k.Sign(claims(map[string]any{"iss": []string{"x"}})), k.Sign(claims(map[string]any{"exp": json.RawMessage("1e999")})),
			k.SignRaw([]byte(`[]`)), k.SignRaw([]byte(`{"iss":"a","iss":"b"}`)), testissuer.NewKey("k", algorithm).Sign(claims(nil)))
		for i := range good {
			changed := []byte(good)
			changed[i] ^= 4
			tokens = append(tokens, string(changed), good[:i])
		}
	}
	issuers := []*Issuer{
		trusted(t, keySet(t, ec("k"), key("ed", "EdDSA"))), trusted(t, keySet(t, key("k", "RS256"))), trusted(t, keySet(t, key("k", "EdDSA"), key("rs", "PS256"))),
		trusted(t, keySet(t, ec("k")), algorithms("RS256")), NewIssuer(cluster(), nil, start), {},
	}
	for _, issuer := range issuers {
		for _, token := range tokens {
			for _, now := range []time.Time{start, start.Add(2 * time.Hour)} {
				v, e := Verify(token, issuer, now), Explain(token, issuer, now)
				if v.Outcome != e.Verdict.Outcome || v.Reason != e.Verdict.Reason {
					t.Fatalf("verdict %v (%s), explained as %v (%s)", v.Outcome, v.Reason, e.Verdict.Outcome, e.Verdict.Reason)
				}
				endedAt(t, e)
			}
		}
	}
	NewWithT(t).Expect(len(tokens)).To(BeNumerically(">", 3000))
}

// Who asks without a verifier at hand is told what one would go by.
func TestWindowOfIsTheVerifiers(t *testing.T) {
	g := NewWithT(t)
	set := keySet(t, ec("k"))
	expires := func(c *api.ClusterTrustedIssuer) {
		c.Status.Snapshot.ExpiresAt = &metav1.Time{Time: start.Add(time.Hour)}
	}
	never := func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.ExpiresAt = nil }
	for name, edits := range map[string][]edit{
		"fetched keys":          {publishes(set, start), expires},
		"inline keys":           {publishes(set, start), inline, never},
		"inline keys, edited":   {publishes(set, start), inline, never, edited},
		"inline keys in vain":   {publishes(set, start), expires, inline, edited},
		"inline keys until now": {publishes(set, start), never, edited},
		"from the future":       {publishes(set, start.Add(time.Hour)), expires},
		"without a stale time":  {publishes(set, start), expires, func(c *api.ClusterTrustedIssuer) { c.Spec.StaleTTL = &metav1.Duration{} }},
	} {
		for _, now := range []time.Time{start, start.Add(100 * time.Hour)} {
			object := cluster(edits...)
			g.Expect(WindowOf(object, now)).To(Equal(NewIssuer(object, content(t, set), now).window), name)
		}
	}
	g.Expect(WindowOf(&api.TrustedIssuer{}, start).State(start)).To(Equal(snapshot.Pending))
}

func TestExplainWithoutAnIssuer(t *testing.T) {
	g := NewWithT(t)
	g.Expect(endedAt(t, Explain("a.b", nil, start))).To(Equal(StepForm))
	e := Explain(ec("k").Sign(claims(nil)), nil, start)
	g.Expect(endedAt(t, e)).To(Equal(StepIssuer))
	g.Expect(e.Verdict.Outcome).To(Equal(CannotDecide))
	// Whoever judges a token that names no issuer refuses it.
	for name, without := range map[string]map[string]any{"no iss": {"iss": absent{}}, "an empty iss": {"iss": ""}} {
		token := ec("k").Sign(claims(without))
		e, v := Explain(token, nil, start), Verify(token, trusted(t, keySet(t, ec("k"))), start)
		g.Expect(endedAt(t, e)).To(Equal(StepIssuer), name)
		g.Expect([]any{e.Verdict.Outcome, e.Verdict.Reason}).To(Equal([]any{Refuse, IssuerMismatch}), name)
		g.Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{Refuse, IssuerMismatch}), name)
	}
	g.Expect(UntrustedIssuer(ec("k").Sign(claims(nil)))).To(Equal(issuerName))
	g.Expect(UntrustedIssuer("a.b")).To(BeEmpty())
}
