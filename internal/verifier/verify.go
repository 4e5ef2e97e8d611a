// verify.go judges a token. It is pure: the token, what is known of the issuer
// and the time come in; a verdict comes out.
//
// The order of the checks (a definite no never waits for keys):
//
//	size ─> strict decode ─> algorithm ─> iss ─> aud ─> exp, nbf, iat ─> typ, claims
//	     ─> kid ─> signature ─> rules
//
// What comes from a token is called untrusted until the signature has been
// checked.

package verifier

import (
	"errors"
	"slices"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// Outcome is the answer to the question whether a token is good.
type Outcome int

// The outcomes. A verdict that nobody filled in is "cannot decide".
const (
	// CannotDecide: the token may be good; ask again.
	CannotDecide Outcome = iota
	// Refuse is a definite no.
	Refuse
	// Accept: the token is good.
	Accept
)

// String is the outcome as the metric label "outcome" has it.
func (o Outcome) String() string {
	switch o {
	case Accept:
		return "accept"
	case Refuse:
		return "refuse"
	case CannotDecide:
		return "cannot_decide"
	}
	return "cannot_decide"
}

// Verdict is the outcome of a verification.
type Verdict struct {
	// Outcome is the answer, and Reason its cause.
	Outcome Outcome
	Reason  Reason
	// Detail says more about a malformed token, for the log. It holds nothing of
	// the token.
	Detail string
	// Claims are those of an accepted token; nil otherwise.
	Claims *Claims

	// accepted is an accepted token; nil otherwise.
	accepted *accepted
	// untrustedIssuer and untrustedKeyID are for the log.
	untrustedIssuer, untrustedKeyID string
}

// Verify judges a token in compact form with the keys and the policy of one
// issuer, at the time now.
func Verify(token string, issuer *Issuer, now time.Time) Verdict {
	c, refused := decode(token)
	if refused != nil {
		return *refused
	}
	return c.judge(issuer, now)
}

// candidate is a token that is well-formed, and no more than that.
type candidate struct {
	token           *jose.Token
	untrustedClaims Claims
	// gate limits the work on signatures; nil does not.
	gate *gate
}

// decode reads a token strictly: its size, its form, its header and its claims.
// The verdict is nil when all is well.
func decode(token string) (*candidate, *Verdict) {
	if token == "" {
		return nil, &Verdict{Outcome: Refuse, Reason: TokenMissing}
	}
	parsed, err := jose.ParseToken(token)
	if err != nil {
		reason, detail := joseReason(err)
		return nil, &Verdict{Outcome: Refuse, Reason: reason, Detail: detail}
	}
	claims, problem := decodeClaims(parsed.Claims)
	if problem != "" {
		return nil, &Verdict{Outcome: Refuse, Reason: MalformedClaims, Detail: problem, untrustedKeyID: parsed.KeyID}
	}
	claims.size = len(parsed.Payload)
	return &candidate{token: parsed, untrustedClaims: claims}, nil
}

// judge runs the checks after decoding, in order.
func (c *candidate) judge(issuer *Issuer, now time.Time) Verdict {
	if reason := c.checkClaims(issuer); reason != "" {
		return c.verdict(Refuse, reason)
	}
	if issuer.policy == nil {
		return c.verdict(CannotDecide, PolicyInvalid)
	}
	if reason := c.untrustedClaims.checkTimes(issuer.policy, now); reason != "" {
		return c.verdict(Refuse, reason)
	}
	if !issuer.policy.AllowsType(c.token.Type) {
		return c.verdict(Refuse, TokenTypeNotAllowed)
	}
	if refusal := issuer.policy.CheckClaims(c.token.Claims); refusal != nil {
		return c.verdict(Refuse, "").refusedBy(refusal)
	}
	key, outcome, reason := c.findKey(issuer, now)
	if key == nil {
		return c.verdict(outcome, reason)
	}
	extra := key.Cost() - 1 // every request has paid for one
	if !c.gate.work(extra) {
		return c.verdict(CannotDecide, Overloaded)
	}
	defer c.gate.done(extra)
	if err := key.Verify(c.token); err != nil {
		return c.verdict(Refuse, SignatureInvalid)
	}
	// The signature vouches for the claims now.
	evaluation := issuer.policy.Evaluate(c.token.Claims)
	if refusal := evaluation.CheckRules(); refusal != nil {
		return c.verdict(Refuse, "").refusedBy(refusal)
	}
	v := c.verdict(Accept, Accepted)
	v.accepted = c.accept(issuer, key.Thumbprint(), evaluation)
	v.Claims = &v.accepted.claims
	return v
}

// refusedBy is the same verdict, turned into what the issuer's policy says.
func (v Verdict) refusedBy(refusal *policy.Refusal) Verdict {
	v = v.refusedFor(Reason(refusal.Reason))
	v.Detail = refusal.Detail
	if refusal.Reason == policy.Busy {
		v.Outcome = CannotDecide
	}
	return v
}

// refusedFor is the same verdict, turned into a definite no.
func (v Verdict) refusedFor(reason Reason) Verdict {
	v.Outcome, v.Reason, v.Claims, v.accepted = Refuse, reason, nil, nil
	return v
}

func (c *candidate) verdict(outcome Outcome, reason Reason) Verdict {
	return Verdict{
		Outcome: outcome, Reason: reason,
		untrustedIssuer: c.untrustedClaims.Issuer, untrustedKeyID: c.token.KeyID,
	}
}

// checkClaims judges whether the issuer's tokens are like this one. It returns the
// reason of a definite no, or nothing.
func (c *candidate) checkClaims(issuer *Issuer) Reason {
	untrusted := &c.untrustedClaims
	switch {
	case !issuer.allows(c.token.Algorithm):
		return AlgorithmNotAllowed
	case untrusted.Issuer == "" || untrusted.Issuer != issuer.Issuer:
		return IssuerMismatch
	case !intersects(untrusted.Audiences, issuer.audiences):
		return AudienceMismatch
	}
	return ""
}

// checkTimes judges exp, nbf and iat (RFC 7519 sections 4.1.4 to 4.1.6).
func (c *Claims) checkTimes(p *policy.Policy, now time.Time) Reason {
	latest := now.Add(p.Leeway)
	switch {
	case c.ExpiresAt.IsZero():
		return ExpiryMissing
	case !now.Before(c.ExpiresAt.Add(p.Leeway)):
		return TokenExpired
	case latest.Before(c.NotBefore):
		return TokenNotYetValid
	case latest.Before(c.IssuedAt):
		return IssuedInFuture
	case p.MaxTokenLifetime > 0 && (c.IssuedAt.IsZero() || c.ExpiresAt.Sub(c.IssuedAt) > p.MaxTokenLifetime):
		return LifetimeTooLong
	}
	return ""
}

// findKey looks up the key within the issuer. Without one it says how the
// verification ends.
func (c *candidate) findKey(issuer *Issuer, now time.Time) (*jose.Key, Outcome, Reason) {
	key, err := selectKey(issuer.usable, c.token)
	if errors.Is(err, keyset.ErrUnknownKey) {
		if outcome, reason := c.revokedBy(issuer); reason != "" {
			return nil, outcome, reason
		}
	}
	state := issuer.window.State(now)
	switch {
	case issuer.usable != nil && state == snapshot.Expired:
		return nil, CannotDecide, SnapshotExpired
	case issuer.usable == nil || state != snapshot.Fresh && state != snapshot.Stale:
		return nil, CannotDecide, NoSnapshot
	case err == nil && key != nil:
		return key, CannotDecide, ""
	case errors.Is(err, keyset.ErrAmbiguousKey):
		return nil, Refuse, AmbiguousKey
	case errors.Is(err, keyset.ErrAlgorithmMismatch):
		return nil, Refuse, KeyAlgorithmMismatch
	}
	return nil, CannotDecide, UnknownKey
}

// revokedBy is how the verification of a token ends that no usable key fits, if it is one
// of a revoked key; no reason otherwise. Without a kid the signature alone says so: the
// key that takes the place of a revoked one makes tokens with the same header.
func (c *candidate) revokedBy(issuer *Issuer) (Outcome, Reason) {
	if c.token.HasKeyID && slices.Contains(issuer.revokedIDs, c.token.KeyID) {
		return Refuse, KeyRevoked
	}
	key, err := selectKey(issuer.revoked, c.token)
	switch {
	case err != nil:
		return CannotDecide, ""
	case c.token.HasKeyID:
		return Refuse, KeyRevoked
	}
	extra := key.Cost() - 1
	if !c.gate.work(extra) {
		return CannotDecide, Overloaded
	}
	defer c.gate.done(extra)
	if key.Verify(c.token) != nil {
		return CannotDecide, ""
	}
	return Refuse, KeyRevoked
}

// selectKey finds the key for a token in a set, which may be nil.
func selectKey(set *keyset.Set, token *jose.Token) (*jose.Key, error) {
	if set == nil {
		return nil, keyset.ErrUnknownKey
	}
	return set.Select(token.KeyID, token.HasKeyID, token.Algorithm)
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
