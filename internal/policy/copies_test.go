package policy

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// Anybody who may write a TrustedIssuer could end every controller and every verifier, with
// 200 bytes and without a token. Here it is half a second, so that this test survives
// without the bound.
func TestExpressionsThatCopyThemselvesAreNotCompiled(t *testing.T) {
	chain := func(macro string) string {
		return `optional.of(dyn("a"))` + strings.Repeat("."+macro, 8) + `.orValue("x") == "a"`
	}
	for name, rule := range map[string]string{
		"optMap":                  chain("optMap(x, x)"),
		"optFlatMap":              chain("optFlatMap(x, optional.of(x))"),
		"in a list":               `[` + chain("optMap(x, x)") + `] == [true]`,
		"in a map":                `{"a": ` + chain("optMap(x, x)") + `} == {"a": true}`,
		"in what it is mapped to": `claims.?a.optMap(x, ` + chain("optMap(x, x)") + `).orValue(true)`,
		"in an operand":           `(` + chain("optMap(x, x)") + `) == true`,
		"on something long":       `optional.of([` + strings.Repeat("1,", 300) + `1]).optMap(x, x.size()).orValue(0) == 301`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
			g.Expect(err).To(HaveField("Field", "spec.verification.claimValidationRules[0].expression"))
			g.Expect(err).To(MatchError(ContainSubstring("optMap and optFlatMap stand for twice what they are called on")))
			_, err = Compile(nil, &api.KubernetesAuthentication{UsernamePrefix: "a:", UserValidationRules: []api.UserValidationRule{{Expression: strings.ReplaceAll(rule, "claims", "user")}}})
			g.Expect(err).To(MatchError(ContainSubstring("optMap and optFlatMap stand for twice what they are called on")))
		})
	}
}

func TestExpressionsMayCopyALittle(t *testing.T) {
	for _, rule := range []string{
		`claims.?realm.roles.optMap(r, "admin" in dyn(r)).orValue(false)`,
		`claims.?a.optFlatMap(a, dyn(a).?b).optMap(b, b == "c").orValue(true)`,
		`claims.?a.optMap(x, claims.?b.optMap(y, x == y).orValue(false)).orValue(true)`,
		`claims[?"https://example.com/roles"].hasValue() && claims.?tenant.orValue("") != "" && dyn(claims.groups).all(g, g.size() < 100)`,
		"has(claims.a) && claims.a in [" + strings.Repeat(`"a",`, 500) + `"b"] // as ever`,
	} {
		_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), rule)
	}
}

// The type of a map that has maps of maps as its keys doubles each time: 40 times are 600
// bytes, and no end. Here it is a tenth of a second, so that this test survives without
// the bound.
func TestExpressionsWhoseTypesDoubleAreNotCompiled(t *testing.T) {
	for name, rule := range map[string]string{
		"keys":                     `[1]` + strings.Repeat(".map(a, {a: a})", 8) + `.size() == 1`,
		"keys of loops over pairs": `{1: 1}` + strings.Repeat(".transformMapEntry(k, v, {v: v})", 8) + `.size() == 1`,
		"some of the keys":         `[1]` + strings.Repeat(".map(a, {a: a, a: a})", 8) + `.size() == 1`,
	} {
		_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("more than 4 maps are written down with keys that are no constants")), name)
	}
	for _, rule := range []string{
		`dyn(claims.groups).map(g, {"name": g}).map(m, {"of": m, "also": m}).map(m, {1: m}).map(m, {true: m}).map(m, {"x": m}).size() > 0`,
		`["a", "b"].transformMapEntry(i, g, {g: i}).transformMapEntry(g, i, {string(i): g}).size() == 2`,
	} {
		_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), rule)
	}
}

// A pattern of some letters can be large: they were compiled whole, and kept.
func TestLargePatternsAreNotCompiled(t *testing.T) {
	counted := strings.Repeat("a{999}", 5)
	for name, rule := range map[string]string{
		"matches":           `claims.a.matches("` + counted + `")`,
		"as a function":     `matches(claims.a, "` + counted + `")`,
		"find":              `dyn(claims.a).find("` + counted + `") == ""`,
		"findAll":           `dyn(claims.a).findAll("` + counted + `", 2).size() == 0`,
		"several":           `[` + strings.Repeat(`claims.a.matches("a{999}"),`, 5) + `true][0]`,
		"nested counts":     `claims.a.matches("` + strings.Repeat("((abcda{9}){10}){10}", 4) + `")`,
		"classes":           `claims.a.matches(r"` + strings.Repeat(`\pL`, 50) + `")`,
		"without case":      `claims.a.matches(r"(?i)` + strings.Repeat(`[B-\x{10fff0}]`, 5) + `")`,
		"without case, too": `claims.a.matches(r"(?s-U:(?mi:` + strings.Repeat(`[B-\x{10fff0}]`, 5) + `))")`,
		"by letters":        `claims.a.matches("(?i)` + strings.Repeat("[B-\U0010fff0]", 5) + `")`,
	} {
		_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("regular expressions are too large")), name)
	}
	for _, rule := range []string{
		`claims.a.matches(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$")`,
		`claims.a.matches(r"(?i)^[\p{L}0-9._%+-]{1,64}@([a-z0-9-]{1,63}\.)+[a-z]{2,}$")`,
		`claims.a.matches("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$") && claims.a.matches("^.{1,1000}$")`,
		`claims.a.matches("(?i)^(Jürgen|François|Zoë)$")`,
		`claims.a.matches("^team-" + claims.b + "$")`,
	} {
		_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), rule)
	}
	for _, rule := range []string{`claims.a.matches("(")`, `claims.a.matches("a{2000}")`} {
		_, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rule}}}, nil)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("invalid matches argument")), rule)
	}
}
