// explain.go says how a verdict came about, check by check, for people. It judges
// with decode and judge, as Verify does, and reads off the verdict which check
// ended it: there is no second opinion that could differ.

package verifier

import (
	"maps"
	"slices"
	"time"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// Step is one of the checks, in the order in which they are made.
type Step string

// The steps. One that ends a verification leaves the later ones undone.
const (
	// StepSize: there is a token, of at most 16 KiB.
	StepSize Step = "size"
	// StepForm: it is a JWS in compact form, read strictly, with a header that asks
	// for nothing unusual and names a supported algorithm.
	StepForm Step = "form"
	// StepClaimTypes: the registered claims have their types.
	StepClaimTypes Step = "claim types"
	// StepAlgorithm: spec.allowedAlgorithms has the algorithm.
	StepAlgorithm Step = "algorithm"
	// StepIssuer: "iss" is spec.issuer.
	StepIssuer Step = "issuer"
	// StepAudience: "aud" names one of spec.audiences.
	StepAudience Step = "audience"
	// StepPolicy: the expressions in spec can be compiled.
	StepPolicy Step = "policy"
	// StepExpiry: "exp" is there and has not passed.
	StepExpiry Step = "expiry"
	// StepNotBefore: "nbf" has come.
	StepNotBefore Step = "not before"
	// StepIssuedAt: "iat" has come.
	StepIssuedAt Step = "issued at"
	// StepLifetime: it was issued for no longer than
	// spec.verification.maxTokenLifetime.
	StepLifetime Step = "lifetime"
	// StepType: spec.verification.tokenTypes has "typ".
	StepType Step = "type"
	// StepRequired: the required claims are there, those of claimValidationRules
	// with their values.
	StepRequired Step = "required claims"
	// StepRevocation: it names no revoked key.
	StepRevocation Step = "revocation"
	// StepKeys: there are trusted keys, which have not expired.
	StepKeys Step = "trusted keys"
	// StepKey: one of them fits the token.
	StepKey Step = "key"
	// StepSignature: that key made the signature.
	StepSignature Step = "signature"
	// StepRules: the expressions of spec.verification.claimValidationRules hold.
	StepRules Step = "rules"
)

// steps are all of them in order, with the reasons that each can end with.
var steps = []struct {
	step    Step
	reasons []Reason
}{
	{StepSize, []Reason{TokenMissing, TokenTooLarge}},
	{StepForm, []Reason{MalformedToken, HeaderNotAllowed}}, // and AlgorithmNotAllowed, of one that is not supported
	{StepClaimTypes, []Reason{MalformedClaims}},
	{StepAlgorithm, []Reason{AlgorithmNotAllowed}},
	{StepIssuer, []Reason{IssuerMismatch}},
	{StepAudience, []Reason{AudienceMismatch}},
	{StepPolicy, []Reason{PolicyInvalid}},
	{StepExpiry, []Reason{ExpiryMissing, TokenExpired}},
	{StepNotBefore, []Reason{TokenNotYetValid}},
	{StepIssuedAt, []Reason{IssuedInFuture}},
	{StepLifetime, []Reason{LifetimeTooLong}},
	{StepType, []Reason{TokenTypeNotAllowed}},
	{StepRequired, []Reason{RequiredClaimMissing, ClaimRuleFailed}}, // a claim's value
	{StepRevocation, []Reason{KeyRevoked}},
	{StepKeys, []Reason{NoSnapshot, SnapshotExpired}},
	{StepKey, []Reason{AmbiguousKey, KeyAlgorithmMismatch, UnknownKey}},
	{StepSignature, []Reason{SignatureInvalid}},
	{StepRules, []Reason{ClaimRuleFailed}}, // an expression
}

// Result says how a check ended.
type Result string

// The results.
const (
	// Passed: the check holds.
	Passed Result = "passed"
	// Failed: it does not, and the token is refused.
	Failed Result = "failed"
	// Undecided: it cannot be made now, and nothing can be decided.
	Undecided Result = "undecided"
	// NotReached: an earlier check ended the verification.
	NotReached Result = "not reached"
)

// Check is a step and how it ended.
type Check struct {
	Step   Step
	Result Result
	// Reason and Detail are those of the verdict; empty where the check was passed,
	// or not reached.
	Reason Reason
	Detail string
}

// Explanation is a verdict and how it came about.
type Explanation struct {
	Verdict Verdict
	// Checks are all the steps, in order.
	Checks []Check
	// UntrustedPayload is that of a token that could be decoded; nil otherwise.
	// Unless the token is accepted nobody vouches for it.
	UntrustedPayload []byte
	// UntrustedKeyID and UntrustedAlgorithm are those of its header.
	UntrustedKeyID, UntrustedAlgorithm string
}

// Explain judges as Verify does, and says how. issuer may be nil for a token that
// cannot be decoded: it ends before anybody asks whose it is. One that names no issuer
// needs none either: no issuer object is for it.
func Explain(token string, issuer *Issuer, now time.Time) Explanation {
	c, refused := decode(token)
	if refused != nil {
		at := stepOf(refused.Reason)
		if refused.Reason == AlgorithmNotAllowed {
			at = StepForm
		}
		e := explained(*refused, at)
		if parsed, err := jose.ParseToken(token); err == nil { // it is the claims that are bad
			e = e.of(&candidate{token: parsed})
		}
		return e
	}
	if issuer == nil && c.untrustedClaims.Issuer == "" {
		return explained(c.verdict(Refuse, IssuerMismatch), StepIssuer).of(c)
	}
	if issuer == nil {
		return explained(c.verdict(CannotDecide, UnknownIssuer), StepIssuer).of(c)
	}
	v := c.judge(issuer, now)
	at := stepOf(v.Reason)
	if v.Reason == ClaimRuleFailed && issuer.policy.CheckClaims(c.token.Claims) == nil {
		at = StepRules
	}
	if v.Outcome != Accept && at == "" { // too much work at once, which only the rules make here
		at = StepRules
	}
	return explained(v, at).of(c)
}

// of adds what a token that could be decoded says of itself.
func (e Explanation) of(c *candidate) Explanation {
	e.UntrustedPayload = c.token.Payload
	e.UntrustedKeyID, e.UntrustedAlgorithm = c.token.KeyID, string(c.token.Algorithm)
	return e
}

// explained lists the checks of a verification that ended at a step; one that
// passed them all ended at none.
func explained(v Verdict, at Step) Explanation {
	e := Explanation{Verdict: v, Checks: make([]Check, 0, len(steps))}
	result := Passed
	for _, s := range steps {
		check := Check{Step: s.step, Result: result}
		if v.Outcome != Accept && s.step == at {
			check.Result, check.Reason, check.Detail = Failed, v.Reason, v.Detail
			if v.Outcome == CannotDecide {
				check.Result = Undecided
			}
			result = NotReached
		}
		e.Checks = append(e.Checks, check)
	}
	return e
}

// stepOf is the first step that can end with a reason; empty for a reason that
// is not one of Verify's.
func stepOf(r Reason) Step {
	for _, s := range steps {
		if slices.Contains(s.reasons, r) {
			return s.step
		}
	}
	return ""
}

// UntrustedIssuer is the "iss" of a token, for finding out whom to ask about it;
// empty where it has none, or is not well-formed.
func UntrustedIssuer(token string) string {
	c, refused := decode(token)
	if refused != nil {
		return ""
	}
	return c.untrustedClaims.Issuer
}

// NewIssuer is what a verifier that starts now knows of the issuer object, with the
// data of its authoritative ConfigMap.
func NewIssuer(object api.Issuer, data map[string]string, now time.Time) *Issuer {
	return join(object, data, nil, now)
}

// Usable are the keys that may verify the issuer's tokens while their time lasts; nil when
// there are none.
func (i *Issuer) Usable() *keyset.Set { return i.usable }

// WindowOf is the time during which a verifier that starts now trusts the keys that the
// status of the issuer object names.
func WindowOf(object api.Issuer, now time.Time) snapshot.Window {
	return new(Issuer).date(object, &Issuer{}, now)
}

// Reasons are all that a verdict can bear, sorted.
func Reasons() []Reason { return slices.Sorted(maps.Keys(texts)) }
