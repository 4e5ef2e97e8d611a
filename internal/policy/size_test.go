package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// header is what an expression makes of claims: a text of 400 bytes, a long one, and a
// list of 300 groups.
func header(g *WithT, expression string) (string, *Refusal) {
	groups := make([]string, 300)
	for i := range groups {
		groups[i] = fmt.Sprintf("%q", fmt.Sprintf("group-%d", i))
	}
	claims, err := jose.ReadObject(fmt.Appendf(nil, `{"sub":"alice","a":%q,"long":%q,"groups":[%s]}`,
		strings.Repeat("a", 400), strings.Repeat("b", 4000), strings.Join(groups, ",")), 8)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := Compile(&api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X-A", Expression: expression}}}, nil)
	g.Expect(err).NotTo(HaveOccurred(), expression)
	values, refusal := p.Evaluate(claims).HeaderValues()
	return strings.Join(values, ""), refusal
}

// Whoever writes a TrustedIssuer could end every verifier with one token: an expression of
// some hundred bytes made terabytes, or compared for years, and cost next to nothing. Here
// it is megabytes and milliseconds, so that this test survives without the bounds.
func TestExpressionsDoNotMakeMuchOfLittle(t *testing.T) {
	doubled := func(n int) string { return `[["a","b"]]` + strings.Repeat(".map(l, l+l)", n) + `[0]` }
	nested := func(n int) string { return `[dyn("a")]` + strings.Repeat(".map(x, dyn([x, x]))", n) }
	inMap := `[dyn("a")]` + strings.Repeat(`.map(x, dyn({"a": x, "b": x}))`, 17)
	optional := `[dyn("a")]` + strings.Repeat(".map(x, optional.of(x).optMap(y, dyn([y, y])).value())", 17)
	long := `[claims.long.replace("b", "` + strings.Repeat("a", 25) + `")]`
	for what, expression := range map[string]string{
		"a list of itself":                 doubled(19),
		"lists in lists that are compared": nested(17) + ` == ` + nested(17) + ` ? "yes" : "no"`,
		"maps in lists that are compared":  inMap + ` == ` + inMap + ` ? "yes" : "no"`,
		"lists by way of optional values":  optional + ` == ` + optional + ` ? "yes" : "no"`,
		"a text in place of each letter":   `claims.a.replace("a", claims.a).replace("a", claims.a)`,
		"only the first ones":              `claims.a.replace("a", claims.a).replace("a", claims.a, 100000)`,
		"a text between all letters":       `claims.a.replace("", claims.a).replace("", claims.a)`,
		"a list of a text, formatted":      `"%s".format([claims.long.split("").map(x, string(claims.long))])`,
		"letters of a long text":           long + `.all(s, lists.range(200).all(i, s.charAt(0) == "a")) ? "yes" : "no"`,
		"the size of a long text":          long + `.all(s, lists.range(500).all(i, s.size() > 1)) ? "yes" : "no"`,
		"a long text compared":             long + `.all(s, lists.range(500).all(i, s != "b")) ? "yes" : "no"`,
		"the query of a long URL":          `[url("http://a/?" + claims.long.replace("b", "b&"))].all(u, lists.range(2000).all(i, u.getQuery().size() > 0)) ? "yes" : "no"`,
		"long versions":                    `[semver("1.0.0-" + claims.a.replace("a", "a.") + "a")].all(v, lists.range(10000).all(i, v.compareTo(v) == 0)) ? "yes" : "no"`,
		"time zones":                       `lists.range(4000).all(i, timestamp("2020-01-01T00:00:00Z").getHours("UTC") == 0) ? "yes" : "no"`,
		"a text in a long text":            long + `.all(s, s.indexOf(s.substring(90000) + "b") < 0) ? "yes" : "no"`,
		"a text from the end":              long + `.all(s, s.lastIndexOf(s.substring(90000) + "b") < 0) ? "yes" : "no"`,
		"lists of a list made flat":        `[lists.range(1000)].all(x, lists.range(300).all(i, [x, x, x, x].flatten().size() > 1)) ? "yes" : "no"`,
		"numbers as a text":                `[lists.range(50000)].all(x, "%s".format([[x, x, x, x, x, x, x, x]]).size() > 1) ? "yes" : "no"`,
		"digits as it says":                `("%.20" + "000000f").format([1.5]).size() > 1 ? "yes" : "no"`,
		"a text in letters":                `claims.long.replace("b", "` + strings.Repeat("b", 300) + `").split("").size() > 1 ? "yes" : "no"`,
		"a quantity of many digits":        `quantity("1e1000000").isGreaterThan(quantity("1")) ? "yes" : "no"`,
		"a small quantity of many digits":  `isQuantity("1E-10000" + "00") ? "yes" : "no"`,
		"lists written down":               `[lists.range(1000)].all(x, lists.range(300).all(i, [x, x, x, x].size() > 1)) ? "yes" : "no"`,
		"optional lists written down":      `[optional.of(lists.range(1000))].all(x, lists.range(300).all(i, [?x, ?x, ?x, ?x].size() > 1)) ? "yes" : "no"`,
		"maps written down":                `[lists.range(1000)].all(x, lists.range(300).all(i, {"a": x, "b": x, "c": x, "d": x}.size() > 1)) ? "yes" : "no"`,
		"a pattern that repeats":           `lists.range(8).all(i, claims.long.matches("^(b?){999}$") || true) ? "yes" : "no"`,
		"a pattern that is compiled":       `lists.range(8).all(i, claims.sub.matches("" + "` + strings.Repeat("a{999}", 30) + `") || true) ? "yes" : "no"`,
		"a pattern that finds":             `lists.range(8).all(i, claims.sub.find("" + "` + strings.Repeat("a{999}", 30) + `") == "" || true) ? "yes" : "no"`,
		"a pattern that finds all":         `lists.range(8).all(i, claims.sub.findAll("" + "` + strings.Repeat("a{999}", 30) + `", 3).size() == 0 || true) ? "yes" : "no"`,
		"replaced again and again":         `lists.range(1000).map(x, claims.a.replace("a", claims.a)).size() > 1 ? "yes" : "no"`,
	} {
		t.Run(what, func(t *testing.T) {
			g := NewWithT(t)
			value, refusal := header(g, expression)
			g.Expect(refusal).To(HaveField("Reason", MalformedClaims), value)
		})
	}
}

// What would be too much is not even begun.
func TestCallsThatWouldMakeTooMuchAreNotMade(t *testing.T) {
	list := func(n int) ref.Val { return types.DefaultTypeAdapter.NativeToValue(make([]string, n)) }
	lists := func(n int) ref.Val {
		return types.DefaultTypeAdapter.NativeToValue(slices.Repeat([]ref.Val{list(1000)}, n))
	}
	text := func(n int) ref.Val { return types.String(strings.Repeat("a", n)) }
	texts := func(n int) ref.Val {
		return types.DefaultTypeAdapter.NativeToValue(slices.Repeat([]ref.Val{text(1000)}, n))
	}
	for function, args := range map[string]struct{ few, many []ref.Val }{
		"replace":         {[]ref.Val{text(3000), text(1), text(3000)}, []ref.Val{text(4000), text(1), text(4000)}},
		"join":            {[]ref.Val{texts(3000), text(1000)}, []ref.Val{texts(6000), text(1000)}},
		"format":          {[]ref.Val{text(1), texts(9000)}, []ref.Val{text(1), texts(11000)}},
		"flatten":         {[]ref.Val{lists(300)}, []ref.Val{lists(400)}},
		"split":           {[]ref.Val{text(300_000), text(0)}, []ref.Val{text(400_000), text(1)}},
		"indexOf":         {[]ref.Val{text(100_000), text(900)}, []ref.Val{text(100_000), text(1100)}},
		"lastIndexOf":     {[]ref.Val{text(100_000), text(900)}, []ref.Val{text(100_000), text(1100)}},
		"quantity":        {[]ref.Val{types.String("1e1000")}, []ref.Val{types.String("1e99999999999999999999")}},
		"isQuantity":      {[]ref.Val{types.String("1Ei")}, []ref.Val{types.String("1E-1001")}},
		"distinct":        {[]ref.Val{list(3000)}, []ref.Val{list(4000)}},
		"sets.contains":   {[]ref.Val{list(3000), list(3000)}, []ref.Val{list(4000), list(3000)}},
		"sets.equivalent": {[]ref.Val{list(3000), list(3000)}, []ref.Val{list(4000), list(3000)}},
		"sets.intersects": {[]ref.Val{list(3000), list(3000)}, []ref.Val{list(4000), list(3000)}},
	} {
		g, called := NewWithT(t), false
		call := boundedCall(makes[function], &functions.Overload{
			Unary:    func(ref.Val) ref.Val { called = true; return types.True },
			Binary:   func(ref.Val, ref.Val) ref.Val { called = true; return types.True },
			Function: func(...ref.Val) ref.Val { called = true; return types.True },
		})
		call(args.few...)
		g.Expect(called).To(BeTrue(), function)
		called = false
		g.Expect(types.IsError(call(args.many...))).To(BeTrue(), function)
		g.Expect(called).To(BeFalse(), function)
	}
}

// What the usual rules do stays possible, and means the same.
func TestExpressionsMakeWhatTheyNeed(t *testing.T) {
	for expression, want := range map[string]string{
		`dyn(claims.groups).filter(g, g.endsWith("99")).map(g, "r-" + g)`:                                                            "r-group-99,r-group-199,r-group-299",
		`dyn(claims.groups).all(g, g in dyn(claims.groups)) ? "yes" : "no"`:                                                          "yes",
		`(dyn(claims.groups) + dyn(claims.groups)).filter(g, g == "group-7")`:                                                        "group-7,group-7",
		`dyn(claims.groups).map(g, [dyn(g), dyn(g + "x")]).filter(g, g[0] == "group-7")[0]`:                                          "group-7,group-7x",
		`claims.sub.replace("li", "LI").replace("c", "", 1)`:                                                                         "aLIe",
		`["a", "b"].join("-") + ["a", "b"].join()`:                                                                                   "a-bab",
		`"%s-%d".format([string(claims.sub), 7])`:                                                                                    "alice-7",
		`[["a"], ["b"]].flatten()`:                                                                                                   "a,b",
		`[dyn("a"), dyn([["b"]])].flatten(2)`:                                                                                        "a,b",
		`"a,b,,c".split(",").filter(x, x != "") + "a".split("") + "a-b-c".split("-", 2)`:                                             "a,b,c,a,a,b-c",
		`claims.sub.substring(0, claims.sub.indexOf("i")) + string(claims.sub.lastIndexOf("e", 4))`:                                  "al4",
		`string(["a", "b", "a"].indexOf("b")) + string(["a", "b", "a"].lastIndexOf("a"))`:                                            "12",
		`"%.2f %d %s".format([1.5, 7, ["a", "b"]])`:                                                                                  "1.50 7 [\"a\", \"b\"]",
		`isQuantity("1E") && isQuantity("1e3") && !isQuantity("1e") && quantity("1Gi").isGreaterThan(quantity("1G")) ? "yes" : "no"`: "yes",
		`url("https://a/b?c=d").getQuery()["c"][0]`:                                                                                  "d",
		`["a", "b", "a"].distinct()`:                                                                                                 "a,b",
		`sets.contains(claims.groups, ["group-7"]) && !sets.intersects(claims.groups, ["x"]) ? "yes" : "no"`:                         "yes",
		`sets.equivalent(claims.groups, dyn(claims.groups)) && claims.groups == dyn(claims.groups) ? "yes" : "no"`:                   "yes",
		`claims.?nowhere.orValue("none")`:                                                                                            "none",
		`claims.?groups.optMap(g, g.size()).orValue(0) == 300 ? "yes" : "no"`:                                                        "yes",
	} {
		t.Run(expression, func(t *testing.T) {
			g := NewWithT(t)
			value, refusal := header(g, expression)
			g.Expect(refusal).To(BeNil())
			g.Expect(value).To(Equal(want))
		})
	}
	_, refusal := header(NewWithT(t), `dyn(claims.sub).join("")`)
	NewWithT(t).Expect(refusal).To(HaveField("Reason", MalformedClaims), "there is no such function for a text")
}
