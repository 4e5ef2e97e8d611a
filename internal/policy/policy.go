// Package policy is what an issuer object demands of a token's claims and makes
// of them, compiled once: rules, the Kubernetes user, headers for a proxy.
//
// Expressions are in CEL, with the environment, the variables and the conversions
// of Kubernetes' structured authentication, so that a rule means here what it
// means in an AuthenticationConfiguration.
package policy

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// Policy is compiled, and does not change. It is safe for concurrent use.
type Policy struct {
	// Leeway is how far the clocks may differ.
	Leeway time.Duration
	// MaxTokenLifetime is the longest exp minus iat; 0 for any.
	MaxTokenLifetime time.Duration
	// Cookie names the cookie that may have the token; empty for none.
	Cookie string
	// Headers are the names of the headers for a proxy, in the order of
	// HeaderValues.
	Headers []string

	tokenTypes   []string
	required     []string
	values       []requiredValue
	rules        []*expression
	headerValues []value
	user         *userMapping

	// dearest is the most that the expressions of one token have cost so far.
	dearest atomic.Uint64
	// probation counts down the evaluations that need a place after one that was stopped.
	probation atomic.Int64
	// running has an element for each evaluation that runs; nil without expressions.
	running chan struct{}
}

// requiredValue is a claim that has to be this string.
type requiredValue struct{ claim, value, field string }

// Error says which field of spec cannot be used.
type Error struct {
	// Field is its path, such as spec.verification.claimValidationRules[0].expression.
	Field string
	// Detail is what the compiler says.
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return e.Field + ": " + e.Detail }

// MaxExpressionBytes is how long all expressions of an issuer object may be together.
// Compiling takes about a second for a hundred thousand bytes, and news of other issuer
// objects wait meanwhile.
const MaxExpressionBytes = 16 << 10

// size is how long they are.
func size(spec *api.VerificationSpec, ka *api.KubernetesAuthentication) (n int) {
	for _, r := range spec.ClaimValidationRules {
		n += len(r.Expression)
	}
	for _, h := range spec.ResponseHeaders {
		n += len(h.Expression)
	}
	if ka == nil {
		return n
	}
	for _, r := range ka.UserValidationRules {
		n += len(r.Expression)
	}
	m := ka.ClaimMappings
	if m == nil {
		return n
	}
	for _, c := range []*api.ClaimOrExpression{m.Username, m.Groups, m.UID} {
		if c != nil {
			n += len(c.Expression)
		}
	}
	for _, x := range m.Extra {
		n += len(x.ValueExpression)
	}
	return n
}

// Compile makes the policy of an issuer object. ka is nil where its tokens do not
// authenticate to the Kubernetes API. Its errors are *Error.
func Compile(spec *api.VerificationSpec, ka *api.KubernetesAuthentication) (*Policy, error) {
	if spec == nil {
		spec = &api.VerificationSpec{}
	}
	n := size(spec, ka)
	if n > MaxExpressionBytes {
		return nil, &Error{"spec.verification", fmt.Sprintf("all expressions together, those of kubernetesAuthentication included, have %d bytes, over the limit of %d", n, MaxExpressionBytes)}
	}
	p := &Policy{
		Leeway: api.DefaultLeeway, Cookie: spec.Cookie,
		required: spec.RequiredClaims,
	}
	if n > 0 {
		p.running = make(chan struct{}, runtime.GOMAXPROCS(0))
	}
	if spec.Leeway != nil {
		p.Leeway = spec.Leeway.Duration
	}
	if spec.MaxTokenLifetime != nil {
		p.MaxTokenLifetime = spec.MaxTokenLifetime.Duration
	}
	for _, t := range spec.TokenTypes {
		p.tokenTypes = append(p.tokenTypes, mediaType(t))
	}
	if err := p.compileRules(spec.ClaimValidationRules); err != nil {
		return nil, err
	}
	if err := p.compileHeaders(spec.ResponseHeaders); err != nil {
		return nil, err
	}
	if ka == nil {
		return p, nil
	}
	var err error
	p.user, err = compileUser(ka, p.rules)
	return p, err
}

func (p *Policy) compileRules(rules []api.ClaimValidationRule) error {
	for i, rule := range rules {
		field := fmt.Sprintf("spec.verification.claimValidationRules[%d]", i)
		if rule.Expression == "" {
			p.values = append(p.values, requiredValue{rule.Claim, rule.RequiredValue, field})
			continue
		}
		e, err := compileClaims(field+".expression", &authenticationcel.ClaimValidationCondition{Expression: rule.Expression})
		if err != nil {
			return err
		}
		e.message = rule.Message
		p.rules = append(p.rules, e)
	}
	return nil
}

func (p *Policy) compileHeaders(headers []api.ResponseHeader) error {
	for i, h := range headers {
		field := fmt.Sprintf("spec.verification.responseHeaders[%d]", i)
		v, err := compileValue(field, h.Claim, h.Expression)
		if err != nil {
			return err
		}
		p.Headers = append(p.Headers, h.Name)
		p.headerValues = append(p.headerValues, v)
	}
	return nil
}

// AllowsType reports whether a token may have this "typ"; empty for none.
func (p *Policy) AllowsType(typ string) bool {
	if len(p.tokenTypes) == 0 {
		return true
	}
	typ = mediaType(typ)
	for _, allowed := range p.tokenTypes {
		if typ == allowed {
			return true
		}
	}
	return false
}

// mediaType is a "typ" as it is compared: RFC 7515 section 4.1.9.
func mediaType(typ string) string {
	typ = strings.ToLower(typ)
	if short, ok := strings.CutPrefix(typ, "application/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return typ
}
