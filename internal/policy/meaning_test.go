package policy

import (
	"fmt"
	"strings"
	"testing"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	. "github.com/onsi/gomega"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// whatever is an expression of any type.
type whatever string

func (w whatever) GetExpression() string      { return string(w) }
func (w whatever) ReturnTypes() []*celgo.Type { return []*celgo.Type{celgo.AnyType} }

// said is what an evaluation comes to. Nobody sees what errors say.
func said(value ref.Val, err error) string {
	if err != nil {
		return "error"
	}
	return fmt.Sprintf("%s %v", value.Type().TypeName(), shown(value))
}

func shown(value ref.Val) any {
	if o, ok := value.(*types.Optional); ok && o.HasValue() {
		return shown(o.GetValue())
	}
	if value.Type() == types.ListType || value.Type() == types.MapType {
		return types.Format(value)
	}
	return value.Value()
}

// The bounds change what expressions cost, and nothing of what they mean to Kubernetes.
func TestBoundedExpressionsMeanWhatTheyMeanToKubernetes(t *testing.T) {
	g := NewWithT(t)
	groups := make([]string, 400)
	for i := range groups {
		groups[i] = fmt.Sprintf("%q", fmt.Sprintf("CN=team-%d,OU=groups,DC=example,DC=com", i))
	}
	claims, err := jose.ReadObject(fmt.Appendf(nil, `{"sub":"alice","email":"alice@example.com","email_verified":true,"n":7,"half":0.5,"no":null,"utf":"Jürgen ✓",
		"iat":1700000000,"ip":"10.1.2.3","net":"10.0.0.0/8","url":"https://example.com:8443/a/b?c=d&c=e","v":"1.2.3-rc.1","q":"1500Mi","ts":"2024-02-29T10:00:00Z","scope":"read write admin",
		"roles":["admin","dev","admin"],"nested":[["a"],["b","c"]],"realm_access":{"roles":["x","y"]},"a.b/c":{"d.e":1},"pattern":"^al.*e$","bad":"(","groups":[%s]}`, strings.Join(groups, ",")), 32)
	g.Expect(err).NotTo(HaveOccurred())
	ours, theirs := compiler(), authenticationcel.NewDefaultCompiler()
	for _, x := range strings.Split(strings.TrimSpace(expressions), "\n") {
		x = strings.TrimSpace(x)
		want, wantErr := theirs.CompileClaimsExpression(whatever(x))
		got, gotErr := ours.CompileClaimsExpression(whatever(x))
		if wantErr != nil {
			g.Expect(gotErr).To(MatchError(wantErr.Error()), x)
			continue
		}
		g.Expect(checkGrowth("x", x)).To(Succeed(), x)
		g.Expect(gotErr).NotTo(HaveOccurred(), x)
		wantValue, wantDetails, wantErr := want.Program.Eval(map[string]any{claimsVariable: claimsValue(claims)})
		gotValue, gotDetails, gotErr := got.Program.Eval(map[string]any{claimsVariable: claimsValue(claims)})
		g.Expect(said(gotValue, gotErr)).To(Equal(said(wantValue, wantErr)), x)
		if testing.Verbose() {
			t.Log(*wantDetails.ActualCost(), *gotDetails.ActualCost(), x, said(gotValue, gotErr)[:min(60, len(said(gotValue, gotErr)))])
		}
		g.Expect(*gotDetails.ActualCost()).To(BeNumerically("<", max(expensive, 2**wantDetails.ActualCost())), x)
	}
}

const expressions = `
claims.sub
claims.nowhere
"prefix:" + claims.sub
claims.email_verified == true && claims.email.endsWith("@example.com")
claims.?email_verified.orValue(true)
has(claims.sub) && !has(claims.nowhere)
has(claims.realm_access.roles) ? claims.realm_access.roles : []
claims.?realm_access.roles.orValue([])
claims.?nowhere.roles.orValue([])
claims[?"nowhere"].hasValue()
claims.?sub.optMap(s, "u:" + s).orValue("none")
claims.?nowhere.optMap(s, "u:" + s)
claims.?realm_access.optFlatMap(r, dyn(r).?roles).orValue([])
optional.of(dyn(claims.sub)).or(optional.of(dyn("x"))).value()
optional.none().value()
optional.ofNonZeroValue("").hasValue()
[?claims.?sub, ?claims.?nowhere]
{?"a": claims.?sub, ?"b": claims.?nowhere, "c": 1}
dyn(claims.groups)[?0]
claims.a__dot__b__slash__c.d__dot__e
claims["a__dot__b__slash__c"]
dyn(claims.groups).map(g, "oidc:" + g)
dyn(claims.groups).filter(g, g.startsWith("CN=team-1")).map(g, g.split(",")[0].substring(3))
dyn(claims.groups).filter(g, g.matches("^CN=team-[0-9]{1,2},.*$")).size()
dyn(claims.groups).exists(g, g == "CN=team-399,OU=groups,DC=example,DC=com")
dyn(claims.groups).exists_one(g, g.contains("team-7,"))
dyn(claims.groups).all(g, g.size() < 100)
dyn(claims.groups).map(g, g.contains("team-1"), g.replace("CN=", "").lowerAscii())
dyn(claims.groups).map(g, g.find("team-[0-9]+"))
dyn(claims.groups).map(g, g.findAll("[A-Z]{2}").join("+"))
dyn(claims.groups).map(g, g.indexOf(",")).distinct()
dyn(claims.groups).map(g, string(g)).join(",").size()
dyn(claims.groups).map(g, {"name": g, "team": g.find("[0-9]+")}).filter(x, x.team == "7")
dyn(claims.groups).map(g, [g, g.upperAscii()])[3]
dyn(claims.groups).transformList(i, g, i % 100 == 0, g)
dyn(claims.groups).transformMap(i, g, i < 3, g)
["a", "b"].transformMapEntry(i, g, {g: i})
{"a": 1, "b": 2}.transformMap(k, v, v + 1)
{"a": 1, "b": 2}.all(k, v, k != "" && v > 0)
{"a": 1, "b": 2}.exists(k, v, k == "b" && v == 2)
{"a": 1, "b": 2}.existsOne(k, v, v == 2)
{"a": 1}.map(k, k)
claims.map(k, k).size() > 3
"alice" in [claims.sub, "bob"]
claims.sub in ["alice", "bob"]
"sub" in claims
claims.sub in {"alice": 1}
"x" in claims.realm_access.roles
claims.scope.split(" ")
dyn(claims.scope).split(" ", 2)
claims.scope.split(" ", -1)
claims.scope.split("").size()
claims.scope.split(" ").exists(s, s == "admin")
"admin" in claims.scope.split(" ")
claims.sub.replace("l", "L")
claims.sub.replace("l", "L", 0)
claims.utf.replace("", "-")
claims.n.replace("l", "L")
dyn(7).replace("l", "L", 2)
claims.roles.join()
["a", "b"].join()
["a", "b"].join("-")
dyn(["a", 1]).join("-")
[].join("-")
"%s is %d, %f %e %b %x %o".format(["a", 7, 0.5, 0.5, 5, 255, 8])
"%s".format([claims.sub])
"%s %s".format([claims.sub])
"%.3f".format([claims.half])
"%s".format([{"a": [1, 2.5, b"x", true, null]}])
"%d".format(["a"])
"%z".format(["a"])
"%s".format([duration("1h")])
[[1, 2], [3]].flatten()
[[1, [2]], [3, [4]]].flatten(2)
[[1], [2]].flatten(-1)
claims.nested.flatten()
claims.sub.flatten()
dyn([[1], 2]).flatten()
dyn("a").flatten()
dyn([1]).flatten(dyn("a"))
["a", "b", "a"].distinct()
claims.roles.distinct()
claims.sub.distinct()
[1, 1.0, 1u].distinct()
[3, 1, 2].sort()
["b", "a"].sortBy(x, x)
dyn(claims.groups).sortBy(g, string(g)).slice(0, 2)
[1, 2, 3].reverse()
[1, 2, 3].slice(1, 2)
[1, 2, 3].slice(2, 9)
[1, 2, 3].first()
lists.range(5)
lists.range(-1)
[1, 2].sum()
[1, 2].min()
["a", "b"].max()
[1, 2].isSorted()
["a", "b", "a"].indexOf("a")
["a", "b", "a"].lastIndexOf("a")
[["a"], ["b"]].indexOf(["b"])
["a"].includes("a")
claims.sub.indexOf("l")
claims.sub.indexOf("")
claims.sub.indexOf("c", 2)
claims.sub.indexOf("c", -2)
claims.sub.lastIndexOf("e")
claims.sub.lastIndexOf("l", 0)
claims.utf.indexOf("✓")
claims.roles.indexOf("dev")
claims.n.indexOf("dev")
claims.sub.charAt(0)
claims.sub.charAt(99)
claims.sub.substring(1, 3)
claims.sub.substring(3, 1)
" a ".trim()
claims.sub.upperAscii()
strings.quote(claims.utf)
sets.contains(["a", "b"], ["a"])
sets.contains(claims.roles, ["dev"])
sets.equivalent(["a", "b", "a"], ["b", "a"])
sets.intersects(claims.roles, ["none", "dev"])
sets.intersects(claims.groups, ["CN=team-7,OU=groups,DC=example,DC=com", "b", "c"])
sets.contains(claims.sub, ["a"])
claims.sub.matches("^al")
matches(claims.sub, "^al")
matches(string(claims.sub), claims.pattern)
claims.sub.matches(claims.pattern)
claims.sub.matches(claims.bad)
claims.sub.matches(claims.n)
claims.n.matches("a")
claims.nowhere.matches("a")
claims.sub.matches("^" + claims.sub.substring(0, 2) + ".{2,3}$")
claims.sub.matches("(")
claims.sub.find("l.c")
claims.sub.find(claims.pattern)
claims.sub.find("z")
claims.sub.findAll("[a-l]")
claims.sub.findAll("[a-l]", 2)
claims.sub.findAll("[a-l]", -1)
claims.sub.findAll(claims.pattern, 1)
claims.sub.findAll(claims.pattern, claims.n)
claims.sub.findAll(claims.bad)
claims.sub.findAll(dyn("[a-l]"), dyn(2))
claims.n.findAll("[a-l]")
claims.utf.find("ü.*")
quantity(claims.q).isGreaterThan(quantity("1Gi"))
quantity("1.5").asApproximateFloat()
quantity("1k").add(quantity("1")).asInteger()
quantity("1e3").compareTo(quantity("1k"))
quantity("1E3").sub(1).sign()
quantity("1e")
quantity("1E").isInteger()
quantity("x")
quantity("")
isQuantity("10Ki") && isQuantity("1E") && isQuantity("-1e-3") && !isQuantity("1ee3") && !isQuantity("e")
isQuantity(claims.sub)
isQuantity(dyn(7))
quantity(dyn("7m")) == quantity("0.007")
ip(claims.ip).family()
isIP(claims.ip)
cidr(claims.net).containsIP(claims.ip)
cidr(claims.net).containsCIDR("10.1.0.0/16")
ip("10.0.0.1") == ip("10.0.0.1")
url(claims.url).getHostname()
url(claims.url).getQuery()
url(claims.url).getPort() + url(claims.url).getEscapedPath()
url(claims.url) == url("https://example.com:8443/a/b?c=d&c=e")
isURL("x") || isURL(claims.url)
semver(claims.v).isLessThan(semver("1.2.3"))
semver("1.2.3").compareTo(semver("1.10.0"))
isSemver(claims.v)
semver("v1.2", true).major()
format.dns1123Label().validate(claims.sub)
!format.dns1123Label().validate("a_b").hasValue()
!format.named("uuid").value().validate("x").hasValue()
timestamp(claims.ts).getMonth()
timestamp(claims.ts).getHours("Asia/Tokyo")
timestamp(claims.ts).getHours("+05:30")
timestamp(claims.ts).getHours("No/Where")
timestamp(claims.ts) + duration("1h") > timestamp("2024-02-29T10:59:59Z")
timestamp(int(claims.iat)) < timestamp("2030-01-01T00:00:00Z")
duration("90m").getHours()
int(claims.n) + 1
claims.n + 1.0
claims.n == 7
claims.half * 2.0
string(claims.n)
double("0.25")
int("x")
uint(7)
bytes(claims.utf).size()
string(b"abc")
size(claims.groups)
size(claims.utf)
type(claims.sub) == string
claims.no == null
claims.groups == claims.groups
[claims.roles, claims.roles] == [claims.roles, claims.roles]
{"a": claims.roles} == {"a": claims.roles}
[1, 2] + [3]
(dyn(claims.groups) + dyn(claims.groups)).size()
[claims.sub, claims.email].filter(x, x != "")
[claims.sub + "x", "y"][0]
{claims.sub: claims.n}["alice"]
{"a": 1}[claims.sub]
[1][claims.sub]
[1][5]
1 / 0 == 1 || true
claims.sub > "a" && claims.sub <= "b" ? "low" : "high"
claims.groups.map(g, g)
claims.sub + 1
undeclared
claims.sub ==
`
