package policy_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
)

const payload = `{
	"iss": "https://issuer.example.com/", "sub": "alice", "jti": "7b0c", "email": "alice@example.com", "email_verified": true,
	"tenant": "blue", "level": 3, "admin": false, "groups": ["developers", "", "on-call"], "role": "editor",
	"realm": {"roles": ["a", "b"], "org.unit": "x"}, "flags": {"a__b__c": true, "d__dot__e": true}, "units": [{"a__b__c": 1, "org.unit": "x"}], "https://example.com/roles": ["r1"], "nothing": null, "odd": "a\tb", "commas": ["a,b", "c"]
}`

func claims(g Gomega, text string) jose.Object {
	o, err := jose.ReadObject([]byte(text), 32)
	g.Expect(err).NotTo(HaveOccurred())
	return o
}

func compile(g Gomega, v *api.VerificationSpec, ka *api.KubernetesAuthentication) *policy.Policy {
	p, err := policy.Compile(v, ka)
	g.Expect(err).NotTo(HaveOccurred())
	return p
}

func TestDefaults(t *testing.T) {
	g := NewWithT(t)
	p := compile(g, nil, nil)
	g.Expect(p.Leeway).To(Equal(time.Minute))
	g.Expect(p.MaxTokenLifetime).To(BeZero())
	g.Expect(p.AllowsType("")).To(BeTrue())
	g.Expect(p.CheckClaims(claims(g, `{}`))).To(BeNil())
	g.Expect(p.Evaluate(claims(g, `{}`)).CheckRules()).To(BeNil())
	values, refusal := p.Evaluate(claims(g, `{}`)).HeaderValues()
	g.Expect(values).To(BeEmpty())
	g.Expect(refusal).To(BeNil())
	_, refusal = p.Evaluate(claims(g, payload)).User()
	g.Expect(refusal).NotTo(BeNil(), "without kubernetesAuthentication nobody is a user")
}

func TestTokenTypes(t *testing.T) {
	g := NewWithT(t)
	p := compile(g, &api.VerificationSpec{TokenTypes: []string{"at+jwt", "Application/Vnd.example+JWT"}, Leeway: &metav1.Duration{}}, nil)
	g.Expect(p.Leeway).To(BeZero())
	for typ, allowed := range map[string]bool{
		"at+jwt": true, "AT+JWT": true, "application/at+jwt": true, "Application/At+Jwt": true, "vnd.example+jwt": true,
		"": false, "JWT": false, "at+jwt ": false, "text/at+jwt": false, "application/x/at+jwt": false, "application/": false,
	} {
		g.Expect(p.AllowsType(typ)).To(Equal(allowed), typ)
	}
}

func TestCheckClaims(t *testing.T) {
	for name, test := range map[string]struct {
		spec api.VerificationSpec
		want string
	}{
		"required":                   {api.VerificationSpec{RequiredClaims: []string{"sub", "admin", "level"}}, ""},
		"required and missing":       {api.VerificationSpec{RequiredClaims: []string{"sub", "azp"}}, policy.RequiredClaimMissing},
		"required and null":          {api.VerificationSpec{RequiredClaims: []string{"nothing"}}, policy.RequiredClaimMissing},
		"required in another case":   {api.VerificationSpec{RequiredClaims: []string{"Sub"}}, policy.RequiredClaimMissing},
		"the value":                  {rules(api.ClaimValidationRule{Claim: "tenant", RequiredValue: "blue"}), ""},
		"another value":              {rules(api.ClaimValidationRule{Claim: "tenant", RequiredValue: "green"}), policy.ClaimRuleFailed},
		"the value, as a number":     {rules(api.ClaimValidationRule{Claim: "level", RequiredValue: "3"}), policy.ClaimRuleFailed},
		"the value, within an array": {rules(api.ClaimValidationRule{Claim: "groups", RequiredValue: "developers"}), policy.ClaimRuleFailed},
		"the value of no claim":      {rules(api.ClaimValidationRule{Claim: "azp", RequiredValue: "x"}), policy.ClaimRuleFailed},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			expectRefusal(g, compile(g, &test.spec, nil).CheckClaims(claims(g, payload)), test.want)
		})
	}
}

func rules(all ...api.ClaimValidationRule) api.VerificationSpec {
	return api.VerificationSpec{ClaimValidationRules: all}
}

func expectRefusal(g Gomega, refusal *policy.Refusal, want string) {
	if want == "" {
		g.Expect(refusal).To(BeNil())
		return
	}
	g.Expect(refusal).NotTo(BeNil())
	g.Expect(refusal.Reason).To(Equal(want))
}

func TestExpressionRules(t *testing.T) {
	for expression, holds := range map[string]bool{
		`claims.tenant == "blue"`:                                               true,
		`claims.tenant == "green"`:                                              false,
		`claims.level >= 3.0 && !claims.admin`:                                  true,
		`claims.level == 3`:                                                     true,
		`"on-call" in claims.groups`:                                            true,
		`dyn(claims.groups).exists(g, g.startsWith("dev"))`:                     true,
		`has(claims.azp)`:                                                       false,
		`claims.azp == "x"`:                                                     false, // there is no such claim
		`claims.?azp.orValue("x") == "x"`:                                       true,
		`claims.nothing == null`:                                                true,
		`claims["https://example.com/roles"][0] == "r1"`:                        true,
		`claims.realm.roles.size() == 2`:                                        true,
		`claims.realm.org__dot__unit == "x"`:                                    true,
		`has(claims.realm.org__dot__unit)`:                                      true,
		`claims.realm["org.unit"] == "x"`:                                       true,
		`has(claims.realm.nowhere)`:                                             false,
		`has(claims.flags.a__b__c) && claims.flags["a__b__c"] == true`:          true, // no escape: that is its name
		`claims.flags.?a__b__c.orValue(false) == true`:                          true,
		`"a__b__c" in claims.flags && "d__dot__e" in claims.flags`:              true, // a name in quotes has none
		`has(claims.flags.d__dot__e)`:                                           false,
		`"org__dot__unit" in claims.realm`:                                      false,
		`claims.units[0].org__dot__unit == "x"`:                                 true,
		`dyn(claims.units).exists(u, has(u.a__b__c))`:                           true,
		`dyn(claims.units).exists(u, has(u.org__dot__unit))`:                    false, // as in the API server
		`claims.email.split("@")[1] == "example.com"`:                           true,
		`claims.tenant.matches("^b")`:                                           true,
		`claims.level.contains("x")`:                                            false, // no such function for a number
		`dyn(claims.groups).all(x, dyn(claims.groups).all(y, x != "z"))`:        true,
		`type(claims.level) == double`:                                          true,
		`claims.exists(name, name == "tenant") || true`:                         true,
		`size(claims.groups) == 3 && claims.groups[1] == ""`:                    true,
		`dyn(claims.tenant) == 7`:                                               false,
		`dyn(claims.realm) == {"roles": dyn(["a", "b"]), "org.unit": dyn("x")}`: true,
		`dyn(claims.realm.roles).map(r, r + "!").join(",") == "a!,b!"`:          true,
		`claims.email_verified == true && claims.email.size() > 0`:              true,
	} {
		t.Run(expression, func(t *testing.T) {
			g := NewWithT(t)
			spec := rules(api.ClaimValidationRule{Expression: expression, Message: "say so"})
			refusal := compile(g, &spec, nil).Evaluate(claims(g, payload)).CheckRules()
			g.Expect(refusal == nil).To(Equal(holds))
			if !holds {
				g.Expect(refusal.Reason).To(Equal(policy.ClaimRuleFailed))
				g.Expect(refusal.Detail).To(Equal("spec.verification.claimValidationRules[0].expression: say so"))
			}
		})
	}
}

// What one expression may not cost, many cheap ones may not cost either.
func TestExpressionsHaveABudget(t *testing.T) {
	g := NewWithT(t)
	// Looking for one of these in the other costs 300,000, of a million, and takes no
	// time.
	wide := claims(g, `{"a":"`+strings.Repeat("a", 6000)+`","b":"`+strings.Repeat("b", 5000)+`","four":[1,2,3,4]}`)
	spec := rules(api.ClaimValidationRule{Expression: `dyn(claims.four).all(x, !claims.a.contains(claims.b))`})
	expectRefusal(g, compile(g, &spec, nil).Evaluate(wide).CheckRules(), policy.ClaimRuleFailed)

	one := api.ClaimValidationRule{Expression: `!claims.a.contains(claims.b)`}
	spec = rules(one, one, one)
	expectRefusal(g, compile(g, &spec, nil).Evaluate(wide).CheckRules(), "")
	spec = rules(one, one, one, one)
	expectRefusal(g, compile(g, &spec, nil).Evaluate(wide).CheckRules(), policy.ClaimRuleFailed)
}

func TestCompileNamesTheField(t *testing.T) {
	expression := func(text string) *api.ClaimOrExpression { return &api.ClaimOrExpression{Expression: text} }
	user := func(m api.ClaimMappings, rules ...api.UserValidationRule) *api.KubernetesAuthentication {
		return &api.KubernetesAuthentication{UsernamePrefix: "ext:", ClaimMappings: &m, UserValidationRules: rules}
	}
	ok := api.ClaimValidationRule{Expression: "true"}
	for field, test := range map[string]struct {
		spec api.VerificationSpec
		ka   *api.KubernetesAuthentication
		says string
	}{
		"spec.verification.claimValidationRules[1].expression":                      {rules(ok, api.ClaimValidationRule{Expression: "claims.sub =="}), nil, "Syntax error"},
		"spec.verification.claimValidationRules[0].expression":                      {rules(api.ClaimValidationRule{Expression: "user.username == ''"}), nil, "undeclared reference"},
		"spec.verification.claimValidationRules[2].expression":                      {rules(ok, ok, api.ClaimValidationRule{Expression: "'yes'"}), nil, "must evaluate to bool"},
		"spec.verification.responseHeaders[0].expression":                           {api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X", Expression: "nope"}}}, nil, "undeclared reference"},
		"spec.kubernetesAuthentication.claimMappings.username.expression":           {api.VerificationSpec{}, user(api.ClaimMappings{Username: expression("claims.sub(")}), "Syntax error"},
		"spec.kubernetesAuthentication.claimMappings.groups.expression":             {api.VerificationSpec{}, user(api.ClaimMappings{Groups: expression("x")}), "undeclared reference"},
		"spec.kubernetesAuthentication.claimMappings.uid.expression":                {api.VerificationSpec{}, user(api.ClaimMappings{UID: expression("x")}), "undeclared reference"},
		"spec.kubernetesAuthentication.claimMappings.extra[0].valueExpression":      {api.VerificationSpec{}, user(api.ClaimMappings{Extra: []api.ExtraMapping{{Key: "a.b/c", ValueExpression: "x"}}}), "undeclared reference"},
		"spec.kubernetesAuthentication.userValidationRules[0].expression":           {api.VerificationSpec{}, user(api.ClaimMappings{}, api.UserValidationRule{Expression: "claims.sub == ''"}), "undeclared reference"},
		"spec.kubernetesAuthentication.claimMappings.username.expression, an email": {api.VerificationSpec{}, user(api.ClaimMappings{Username: expression("claims.email")}), "email_verified"},
		"spec.kubernetesAuthentication.claimMappings.username.expression, indexed":  {api.VerificationSpec{}, user(api.ClaimMappings{Username: expression("claims['email']")}), "email_verified"},
		"spec.kubernetesAuthentication.claimMappings.username.expression, optional": {api.VerificationSpec{}, user(api.ClaimMappings{Username: expression("claims.?email.orValue(claims.sub)")}), "email_verified"},
	} {
		t.Run(field, func(t *testing.T) {
			g := NewWithT(t)
			_, err := policy.Compile(&test.spec, test.ka)
			var bad *policy.Error
			g.Expect(err).To(BeAssignableToTypeOf(bad))
			name, _, _ := strings.Cut(field, ",")
			g.Expect(err.Error()).To(HavePrefix(name + ": "))
			g.Expect(err.Error()).To(ContainSubstring(test.says))
		})
	}
	g := NewWithT(t)
	compile(g, nil, user(api.ClaimMappings{Username: expression("claims.email_verified ? claims.email : claims.sub")}))
	verified := rules(api.ClaimValidationRule{Expression: "claims.email_verified == true"})
	compile(g, &verified, user(api.ClaimMappings{Username: expression("claims.email")}))
	ifThere := rules(api.ClaimValidationRule{Expression: "claims.?email_verified.orValue(true) == true"})
	compile(g, &ifThere, user(api.ClaimMappings{Username: expression("claims.email")}))
}

// Compiling takes time, which news of other issuer objects wait for: what one of them
// may take is bounded, wherever its expressions stand.
func TestExpressionsHaveALimitTogether(t *testing.T) {
	half := `"` + strings.Repeat("x", policy.MaxExpressionBytes/2-len(`"" != ""`)) + `" != ""`
	text := `"` + strings.Repeat("x", policy.MaxExpressionBytes/2-2) + `"`
	rule := api.ClaimValidationRule{Expression: half}
	for name, more := range map[string]struct {
		spec api.VerificationSpec
		ka   api.KubernetesAuthentication
	}{
		"rules":    {spec: rules(rule)},
		"headers":  {spec: api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X", Expression: text}}}},
		"users":    {ka: api.KubernetesAuthentication{UserValidationRules: []api.UserValidationRule{{Expression: half}}}},
		"username": {ka: api.KubernetesAuthentication{ClaimMappings: &api.ClaimMappings{Username: &api.ClaimOrExpression{Expression: text}}}},
		"groups":   {ka: api.KubernetesAuthentication{ClaimMappings: &api.ClaimMappings{Groups: &api.ClaimOrExpression{Expression: text}}}},
		"uid":      {ka: api.KubernetesAuthentication{ClaimMappings: &api.ClaimMappings{UID: &api.ClaimOrExpression{Expression: text}}}},
		"extra":    {ka: api.KubernetesAuthentication{ClaimMappings: &api.ClaimMappings{Extra: []api.ExtraMapping{{Key: "a.b/c", ValueExpression: text}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			spec := more.spec
			spec.ClaimValidationRules = append(spec.ClaimValidationRules, rule)
			_, err := policy.Compile(&spec, &more.ka)
			g.Expect(err).NotTo(HaveOccurred(), "as long as they may be")
			spec.ClaimValidationRules[0].Expression += " "
			_, err = policy.Compile(&spec, &more.ka)
			g.Expect(err).To(MatchError(ContainSubstring("over the limit of 16384")))
		})
	}
}

func TestHeaderValues(t *testing.T) {
	header := func(claim string) api.ResponseHeader { return api.ResponseHeader{Name: "X-A", Claim: claim} }
	computed := func(text string) api.ResponseHeader { return api.ResponseHeader{Name: "X-A", Expression: text} }
	for name, test := range map[string]struct {
		header        api.ResponseHeader
		value, refuse string
	}{
		"a string":                       {header("email"), "alice@example.com", ""},
		"a number":                       {header("level"), "3", ""},
		"a boolean":                      {header("admin"), "false", ""},
		"an array":                       {header("groups"), "developers,on-call", ""},
		"null":                           {header("nothing"), "", ""},
		"no claim":                       {header("azp"), "", ""},
		"an object":                      {header("realm"), "", policy.MalformedClaims},
		"a tab":                          {header("odd"), "", policy.NotHeaderSafe},
		"a comma within one of several":  {header("commas"), "", policy.NotHeaderSafe},
		"a comma within the only one":    {computed(`["developers,admin"]`), "", policy.NotHeaderSafe},
		"a comma within text":            {computed(`"Doe, John"`), "Doe, John", ""},
		"a space before one of several":  {computed(`["developers", " admin"]`), "", policy.NotHeaderSafe},
		"a space after one of several":   {computed(`["admin ", "developers"]`), "", policy.NotHeaderSafe},
		"a no-break space at an end":     {computed(`["developers", "\u00a0admin"]`), "", policy.NotHeaderSafe},
		"a space within one of several":  {computed(`["on call", "developers"]`), "on call,developers", ""},
		"an expression":                  {computed(`claims.tenant + "/" + claims.sub`), "blue/alice", ""},
		"an expression: a list":          {computed(`claims.realm.roles`), "a,b", ""},
		"an expression: a filtered list": {computed(`dyn(claims.groups).filter(g, g != "")`), "developers,on-call", ""},
		"an expression: null":            {computed(`claims.nothing`), "", ""},
		"an expression: a number":        {computed(`claims.level`), "", policy.MalformedClaims},
		"an expression: mixed":           {computed(`[dyn("a"), dyn(1)]`), "", policy.MalformedClaims},
		"an expression: no claim":        {computed(`claims.azp`), "", policy.MalformedClaims},
		"an expression: a line break":    {computed(`"a\r\nX-Admin: true"`), "", policy.NotHeaderSafe},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := compile(g, &api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{test.header}}, nil)
			values, refusal := p.Evaluate(claims(g, payload)).HeaderValues()
			expectRefusal(g, refusal, test.refuse)
			if refusal == nil {
				g.Expect(p.Headers).To(Equal([]string{"X-A"}))
				g.Expect(values).To(Equal([]string{test.value}))
			}
		})
	}
}

// The only group of a user, as a claim: it must not pass for two.
func TestOneGroupDoesNotPassForTwo(t *testing.T) {
	for text, want := range map[string]string{
		`["developers,admin"]`:      policy.NotHeaderSafe,
		`["developers", ", admin"]`: policy.NotHeaderSafe,
		`["developers"]`:            "",
	} {
		g := NewWithT(t)
		p := compile(g, &api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X-Auth-Groups", Claim: "groups"}}}, nil)
		_, refusal := p.Evaluate(claims(g, `{"groups":`+text+`}`)).HeaderValues()
		expectRefusal(g, refusal, want)
	}
}

// An expression can make much of little. What no proxy would take is refused, and
// takes no memory.
func TestHeaderValuesAreBounded(t *testing.T) {
	g := NewWithT(t)
	text := strings.Repeat("a", 1000)
	values := func(headers ...api.ResponseHeader) *policy.Refusal {
		p := compile(g, &api.VerificationSpec{ResponseHeaders: headers}, nil)
		_, refusal := p.Evaluate(claims(g, `{"a":"`+text+`"}`)).HeaderValues()
		return refusal
	}
	sixteen := strings.TrimSuffix(strings.Repeat("claims.a+", 16), "+")
	one := api.ResponseHeader{Name: "X-A", Expression: sixteen}
	expectRefusal(g, values(one), "")
	expectRefusal(g, values(one, api.ResponseHeader{Name: "X-B", Claim: "a"}), policy.NotHeaderSafe)
	expectRefusal(g, values(api.ResponseHeader{Name: "X-A", Expression: sixteen + "+" + sixteen}), policy.NotHeaderSafe)
}

func TestUser(t *testing.T) {
	credential := authenticationv1.ExtraValue{"JTI=7b0c"}
	full := authenticationv1.UserInfo{
		Username: "ext:alice", Groups: []string{"ext:developers", "ext:on-call"},
		Extra: map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/credential-id": credential},
	}
	named := func(name string) authenticationv1.UserInfo {
		u := full
		u.Username = name
		return u
	}
	claim := func(name string) *api.ClaimOrExpression { return &api.ClaimOrExpression{Claim: name} }
	expression := func(text string) *api.ClaimOrExpression { return &api.ClaimOrExpression{Expression: text} }
	for name, test := range map[string]struct {
		mappings api.ClaimMappings
		rules    []api.UserValidationRule
		payload  string
		user     authenticationv1.UserInfo
		refuse   string
	}{
		"as usual":                     {user: full},
		"another claim":                {mappings: api.ClaimMappings{Username: claim("role")}, user: named("ext:editor")},
		"a verified email":             {mappings: api.ClaimMappings{Username: claim("email")}, user: named("ext:alice@example.com")},
		"an email not verified":        {mappings: api.ClaimMappings{Username: claim("email")}, payload: `{"email":"a@b","email_verified":false}`, refuse: policy.EmailNotVerified},
		"an email verified as text":    {mappings: api.ClaimMappings{Username: claim("email")}, payload: `{"email":"a@b","email_verified":"true"}`, refuse: policy.EmailNotVerified},
		"an email, nothing said of it": {mappings: api.ClaimMappings{Username: claim("email")}, payload: `{"email":"a@b"}`, user: authenticationv1.UserInfo{Username: "ext:a@b"}},
		"no subject":                   {payload: `{}`, refuse: policy.UsernameMissing},
		"an empty subject":             {payload: `{"sub":""}`, refuse: policy.UsernameMissing},
		"a subject that is no text":    {payload: `{"sub":7}`, refuse: policy.MalformedClaims},
		"null":                         {payload: `{"sub":null}`, refuse: policy.MalformedClaims},
		"an expression":                {mappings: api.ClaimMappings{Username: expression(`claims.tenant + ":" + claims.sub`)}, user: named("ext:blue:alice")},
		"an expression: empty":         {mappings: api.ClaimMappings{Username: expression(`""`)}, refuse: policy.UsernameMissing},
		"an expression: a number":      {mappings: api.ClaimMappings{Username: expression(`claims.level`)}, refuse: policy.MalformedClaims},
		"an expression: no claim":      {mappings: api.ClaimMappings{Username: expression(`claims.azp`)}, refuse: policy.MalformedClaims},
		"groups that are no texts":     {payload: `{"sub":"a","groups":[1]}`, refuse: policy.MalformedClaims},
		"groups within groups":         {payload: `{"sub":"a","groups":[["x"]]}`, refuse: policy.MalformedClaims},
		"groups as an object":          {payload: `{"sub":"a","groups":{"x":true}}`, refuse: policy.MalformedClaims},
		"one group":                    {payload: `{"sub":"a","groups":"x"}`, user: authenticationv1.UserInfo{Username: "ext:a", Groups: []string{"ext:x"}}},
		"no groups":                    {payload: `{"sub":"a","groups":null}`, user: authenticationv1.UserInfo{Username: "ext:a"}},
		"an empty group":               {payload: `{"sub":"a","groups":""}`, user: authenticationv1.UserInfo{Username: "ext:a"}},
		"groups, another claim": {mappings: api.ClaimMappings{Groups: claim("role")}, payload: `{"sub":"a","role":"x","groups":["y"]}`,
			user: authenticationv1.UserInfo{Username: "ext:a", Groups: []string{"ext:x"}}},
		"groups, an expression": {mappings: api.ClaimMappings{Groups: expression(`dyn(claims.realm.roles).map(r, "r-" + r)`)}, payload: `{"sub":"a","realm":{"roles":["x"]}}`,
			user: authenticationv1.UserInfo{Username: "ext:a", Groups: []string{"ext:r-x"}}},
		"a uid":         {mappings: api.ClaimMappings{UID: claim("id")}, payload: `{"sub":"a","id":"u"}`, user: authenticationv1.UserInfo{Username: "ext:a", UID: "u"}},
		"no uid":        {mappings: api.ClaimMappings{UID: claim("id")}, payload: `{"sub":"a"}`, refuse: policy.MalformedClaims},
		"uid, a number": {mappings: api.ClaimMappings{UID: expression("1")}, payload: `{"sub":"a"}`, refuse: policy.MalformedClaims},
		"extra": {mappings: api.ClaimMappings{Extra: []api.ExtraMapping{{Key: "a.b/t", ValueExpression: "claims.t"}, {Key: "a.b/none", ValueExpression: `""`}}},
			payload: `{"sub":"a","t":["x","y"]}`,
			user:    authenticationv1.UserInfo{Username: "ext:a", Extra: map[string]authenticationv1.ExtraValue{"a.b/t": {"x", "y"}}}},
		"extra, a number":  {mappings: api.ClaimMappings{Extra: []api.ExtraMapping{{Key: "a.b/t", ValueExpression: "7"}}}, refuse: policy.MalformedClaims},
		"a rule":           {rules: []api.UserValidationRule{{Expression: `user.username == "ext:alice" && "ext:on-call" in user.groups && user.uid == ""`}}, user: full},
		"a rule for extra": {rules: []api.UserValidationRule{{Expression: `user.extra["authentication.kubernetes.io/credential-id"] == ["JTI=7b0c"]`}}, user: full},
		"a broken rule":    {rules: []api.UserValidationRule{{Expression: "true"}, {Expression: `user.groups.all(g, g != "ext:on-call")`}}, refuse: policy.UserRuleFailed},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			if test.payload == "" {
				test.payload = payload
			}
			ka := &api.KubernetesAuthentication{
				UsernamePrefix: "ext:", GroupsPrefix: "ext:", ClaimMappings: &test.mappings, UserValidationRules: test.rules,
			}
			user, refusal := compile(g, nil, ka).Evaluate(claims(g, test.payload)).User()
			expectRefusal(g, refusal, test.refuse)
			g.Expect(user).To(Equal(test.user), "and nothing of a refused one is passed on")
		})
	}
}

func TestGroupsNeedAPrefix(t *testing.T) {
	g := NewWithT(t)
	user, refusal := compile(g, nil, &api.KubernetesAuthentication{UsernamePrefix: "ext:"}).Evaluate(claims(g, `{"sub":"a","groups":["x"]}`)).User()
	g.Expect(refusal).To(BeNil())
	g.Expect(user.Groups).To(BeEmpty())
}
