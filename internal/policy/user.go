// user.go makes a user of the Kubernetes API out of a token's claims.

package policy

import (
	"fmt"
	"slices"

	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	authenticationv1 "k8s.io/api/authentication/v1"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/cel/lazy"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// credentialIDKey is where Kubernetes' own authenticators put the token's "jti",
// for audit logs.
const credentialIDKey = "authentication.kubernetes.io/credential-id"

// userMapping is the compiled form of spec.kubernetesAuthentication.
type userMapping struct {
	usernamePrefix, groupsPrefix string

	username, groups, uid *value
	extra                 []extraMapping
	rules                 []*expression
}

type extraMapping struct {
	key   string
	value value
}

func compileUser(ka *api.KubernetesAuthentication, claimRules []*expression) (*userMapping, error) {
	m := &userMapping{
		usernamePrefix: ka.UsernamePrefix, groupsPrefix: ka.GroupsPrefix,
		username: &value{claim: "sub"},
	}
	if ka.GroupsPrefix != "" {
		m.groups = &value{claim: "groups"}
	}
	mappings := ka.ClaimMappings
	if mappings == nil {
		mappings = &api.ClaimMappings{}
	}
	const path = "spec.kubernetesAuthentication.claimMappings."
	for _, c := range []struct {
		name string
		from *api.ClaimOrExpression
		to   **value
	}{{"username", mappings.Username, &m.username}, {"groups", mappings.Groups, &m.groups}, {"uid", mappings.UID, &m.uid}} {
		if c.from == nil {
			continue
		}
		v, err := compileValue(path+c.name, c.from.Claim, c.from.Expression)
		if err != nil {
			return nil, err
		}
		*c.to = &v
	}
	for i, x := range mappings.Extra {
		field := fmt.Sprintf("%sextra[%d].valueExpression", path, i)
		e, err := compileClaims(field, &authenticationcel.ExtraMappingExpression{Key: x.Key, Expression: x.ValueExpression})
		if err != nil {
			return nil, err
		}
		m.extra = append(m.extra, extraMapping{x.Key, value{expression: e}})
	}
	for i, rule := range ka.UserValidationRules {
		e, err := compileUserRule(fmt.Sprintf("spec.kubernetesAuthentication.userValidationRules[%d].expression", i), rule.Expression)
		if err != nil {
			return nil, err
		}
		e.message = rule.Message
		m.rules = append(m.rules, e)
	}
	return m, m.checkEmail(path+"username.expression", claimRules)
}

// checkEmail demands what Kubernetes demands: who makes a user name of an email
// address looks at whether it has been verified.
func (m *userMapping) checkEmail(field string, claimRules []*expression) error {
	if m.username.expression == nil || !m.username.expression.uses("email") {
		return nil
	}
	looks := append([]*expression{m.username.expression}, claimRules...)
	for _, x := range m.extra {
		looks = append(looks, x.value.expression)
	}
	for _, e := range looks {
		if e.uses("email_verified") {
			return nil
		}
	}
	return &Error{field, "it uses claims.email, so claims.email_verified has to be used in it, in an expression of " +
		"claimMappings.extra, or in one of verification.claimValidationRules: anybody can claim an address that is not verified"}
}

// uses reports whether an expression reads claims.<name> or claims["<name>"], or either of
// them as an optional value: claims.?<name>.
func (e *expression) uses(name string) bool {
	found := false
	celast.PostOrderVisit(e.ast.NativeRep().Expr(), celast.NewExprVisitor(func(x celast.Expr) {
		switch x.Kind() {
		case celast.SelectKind:
			found = found || isClaims(x.AsSelect().Operand()) && x.AsSelect().FieldName() == name
		case celast.CallKind:
			args := x.AsCall().Args()
			found = found || slices.Contains(readers, x.AsCall().FunctionName()) && len(args) == 2 && isClaims(args[0]) &&
				args[1].Kind() == celast.LiteralKind && args[1].AsLiteral().Equal(types.String(name)) == types.True
		}
	}))
	return found
}

// readers are the operators that read a member which is named by an operand.
var readers = []string{operators.Index, operators.OptIndex, operators.OptSelect}

func isClaims(x celast.Expr) bool {
	return x.Kind() == celast.IdentKind && x.AsIdent() == claimsVariable
}

// User is the user that the token stands for, with the prefixes before the names.
// A policy without a mapping has none.
func (e *Evaluation) User() (user authenticationv1.UserInfo, refused *Refusal) {
	m := e.policy.user
	if m == nil {
		return user, &Refusal{UsernameMissing, "tokens of this issuer do not authenticate to the Kubernetes API"}
	}
	refused = e.bounded(func() *Refusal {
		user, refused = e.userBy(m)
		return refused
	})
	return user, refused
}

func (e *Evaluation) userBy(m *userMapping) (user authenticationv1.UserInfo, refused *Refusal) {
	name, refused := e.username(m)
	if refused != nil {
		return authenticationv1.UserInfo{}, refused
	}
	user.Username = m.usernamePrefix + name
	for _, read := range []func(*userMapping, *authenticationv1.UserInfo) *Refusal{e.groups, e.uid, e.extra} {
		if refused := read(m, &user); refused != nil {
			return authenticationv1.UserInfo{}, refused
		}
	}
	for _, rule := range m.rules {
		if !e.budget.holds(rule, userVariable, userValue(user)) {
			return authenticationv1.UserInfo{}, &Refusal{UserRuleFailed, rule.said()}
		}
	}
	return user, nil
}

// username is the user's name, without the prefix.
func (e *Evaluation) username(m *userMapping) (string, *Refusal) {
	name, present, ok := e.text(*m.username)
	switch verified := e.claims.Member("email_verified"); {
	case !ok:
		return "", &Refusal{MalformedClaims, m.username.path()}
	case !present || name == "":
		return "", &Refusal{UsernameMissing, m.username.path()}
	case m.username.claim == "email" && verified != nil && string(verified) != "true":
		return "", &Refusal{EmailNotVerified, m.username.path()}
	}
	return name, nil
}

// text is a value that has to be a string where it is there.
func (e *Evaluation) text(v value) (text string, present, ok bool) {
	if v.expression == nil {
		raw := e.claims.Member(v.claim)
		if raw == nil {
			return "", false, true
		}
		text, ok = jose.Text(raw)
		return text, true, ok
	}
	result, err := e.budget.evaluate(v.expression, claimsVariable, e.variable())
	if err != nil {
		return "", true, false
	}
	s, ok := result.(types.String)
	return string(s), true, ok
}

func (e *Evaluation) groups(m *userMapping, user *authenticationv1.UserInfo) *Refusal {
	if m.groups == nil {
		return nil
	}
	all, _, ok := e.strings(*m.groups)
	if !ok {
		return &Refusal{MalformedClaims, m.groups.path()}
	}
	for _, g := range all {
		user.Groups = append(user.Groups, m.groupsPrefix+g)
	}
	return nil
}

func (e *Evaluation) uid(m *userMapping, user *authenticationv1.UserInfo) *Refusal {
	if m.uid == nil {
		return nil
	}
	uid, present, ok := e.text(*m.uid)
	if !present || !ok {
		return &Refusal{MalformedClaims, m.uid.path()}
	}
	user.UID = uid
	return nil
}

func (e *Evaluation) extra(m *userMapping, user *authenticationv1.UserInfo) *Refusal {
	if jti, ok := jose.Text(e.claims.Member("jti")); ok && jti != "" {
		user.Extra = map[string]authenticationv1.ExtraValue{credentialIDKey: {"JTI=" + jti}}
	}
	for _, x := range m.extra {
		all, _, ok := e.strings(x.value)
		if !ok {
			return &Refusal{MalformedClaims, x.value.path()}
		}
		if len(all) == 0 {
			continue
		}
		if user.Extra == nil {
			user.Extra = map[string]authenticationv1.ExtraValue{}
		}
		user.Extra[x.key] = all
	}
	return nil
}

// userValue is the variable "user".
func userValue(user authenticationv1.UserInfo) traits.Mapper {
	extra := make(map[string][]string, len(user.Extra))
	for k, v := range user.Extra {
		extra[k] = v
	}
	groups := user.Groups
	if groups == nil {
		groups = []string{}
	}
	m := lazy.NewMapValue(types.NewObjectType("kubernetes.UserInfo"))
	for name, v := range map[string]any{"username": user.Username, "uid": user.UID, "groups": groups, "extra": extra} {
		m.Append(name, func(*lazy.MapValue) ref.Val { return unescaped(types.DefaultTypeAdapter.NativeToValue(v)) })
	}
	return m
}
