// check.go judges the claims of a token.

package policy

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/cel-go/common/types/traits"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// Reasons of a refusal. They are stable.
const (
	// RequiredClaimMissing: a claim of spec.verification.requiredClaims is not
	// there, or null.
	RequiredClaimMissing = "RequiredClaimMissing"
	// ClaimRuleFailed: a rule of spec.verification.claimValidationRules does not
	// hold.
	ClaimRuleFailed = "ClaimRuleFailed"
	// UserRuleFailed: a rule of kubernetesAuthentication.userValidationRules does
	// not hold.
	UserRuleFailed = "UserRuleFailed"
	// EmailNotVerified: the user name is the claim "email", and "email_verified" is
	// there and not true.
	EmailNotVerified = "EmailNotVerified"
	// UsernameMissing: the token has no user name.
	UsernameMissing = "SubjectMissing"
	// MalformedClaims: a claim that is mapped has the wrong type.
	MalformedClaims = "MalformedClaims"
	// NotHeaderSafe: a claim cannot be a header's value without being changed on
	// the way.
	NotHeaderSafe = "ClaimNotHeaderSafe"
	// Busy is no refusal, in fact: the token may be good, and there is no room now to
	// evaluate the expressions.
	Busy = "Overloaded"
)

// Refusal says why a token is refused.
type Refusal struct {
	Reason string
	// Detail names the rule, for the log. It holds nothing of the token.
	Detail string
}

// CheckClaims judges what costs next to nothing, so that it can be done before
// the signature is known to be good.
func (p *Policy) CheckClaims(untrusted jose.Object) *Refusal {
	for _, name := range p.required {
		if raw := untrusted.Member(name); raw == nil || string(raw) == "null" {
			return &Refusal{RequiredClaimMissing, name}
		}
	}
	for _, v := range p.values {
		if text, ok := jose.Text(untrusted.Member(v.claim)); !ok || text != v.value {
			return &Refusal{ClaimRuleFailed, v.field}
		}
	}
	return nil
}

// Evaluation evaluates the expressions of a policy for one token, within one
// budget. It is not for concurrent use.
type Evaluation struct {
	policy *Policy
	claims jose.Object
	value  traits.Mapper
	budget budget
}

// Evaluate begins an evaluation. The signature of the token has been checked: only
// the issuer decides how much work its claims make.
func (p *Policy) Evaluate(claims jose.Object) *Evaluation {
	return &Evaluation{policy: p, claims: claims}
}

// variable is "claims", made when it is first needed.
func (e *Evaluation) variable() traits.Mapper {
	if e.value == nil {
		e.value = claimsValue(e.claims)
	}
	return e.value
}

// CheckRules judges the expressions among the rules for claims.
func (e *Evaluation) CheckRules() *Refusal {
	if len(e.policy.rules) == 0 {
		return nil
	}
	return e.bounded(func() *Refusal {
		for _, rule := range e.policy.rules {
			if !e.budget.holds(rule, claimsVariable, e.variable()) {
				return &Refusal{ClaimRuleFailed, rule.said()}
			}
		}
		return nil
	})
}

// said names a rule, with the administrator's own words for it.
func (e *expression) said() string {
	if e.message == "" {
		return e.field
	}
	return e.field + ": " + e.message
}

// MaxHeaderBytes is the limit for all values of HeaderValues together: what a token
// could hold itself. Proxies do not take much more.
const MaxHeaderBytes = jose.MaxTokenSize

// HeaderValues are the values of the policy's Headers, in the same order; empty
// where the token has none.
func (e *Evaluation) HeaderValues() (values []string, refused *Refusal) {
	refused = e.bounded(func() *Refusal {
		values, refused = e.headerValues()
		return refused
	})
	return values, refused
}

func (e *Evaluation) headerValues() ([]string, *Refusal) {
	values, room := make([]string, len(e.policy.headerValues)), MaxHeaderBytes
	for i, v := range e.policy.headerValues {
		all, list, ok := e.scalars(v)
		switch {
		case !ok:
			return nil, &Refusal{MalformedClaims, v.path()}
		case list && slices.ContainsFunc(all, unlisted):
			return nil, &Refusal{NotHeaderSafe, v.path()}
		}
		values[i] = strings.Join(all, ",")
		if room -= len(values[i]); room < 0 || !headerSafe(values[i]) {
			return nil, &Refusal{NotHeaderSafe, v.path()}
		}
	}
	return values, nil
}

// unlisted reports whether somebody who reads a list with commas would not read this
// element of it as it is: one with a comma passes for two, and white space at its ends
// is cut off.
func unlisted(element string) bool {
	return strings.Contains(element, ",") || element != strings.TrimSpace(element)
}

// headerSafe reports whether a value arrives as it was sent: no control characters,
// and no white space at its ends (RFC 9110 section 5.5).
func headerSafe(s string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return !strings.ContainsFunc(s, control) && s == strings.Trim(s, " ")
}

// scalars is a value as strings: also of a number or a boolean. list tells an array
// from a single one; ok is false where it is something else.
func (e *Evaluation) scalars(v value) (all []string, list, ok bool) {
	if v.expression == nil {
		raw := e.claims.Member(v.claim)
		if len(raw) > 0 && strings.IndexByte("-0123456789tf", raw[0]) >= 0 {
			return []string{string(raw)}, false, true
		}
	}
	return e.strings(v)
}

// strings is a value as strings: of a string, an array of strings, or nothing.
func (e *Evaluation) strings(v value) (all []string, list, ok bool) {
	if v.expression != nil {
		all, list, err := e.budget.strings(v.expression, e.variable())
		return all, list, err == nil
	}
	return texts(e.claims.Member(v.claim))
}

// texts reads a string or an array of strings; nothing and null are none.
func texts(raw json.RawMessage) (all []string, list, ok bool) {
	if raw == nil || string(raw) == "null" {
		return nil, false, true
	}
	if one, ok := jose.Text(raw); ok {
		return nonEmpty([]string{one}), false, true
	}
	all, ok = jose.Texts(raw)
	return nonEmpty(all), true, ok
}
