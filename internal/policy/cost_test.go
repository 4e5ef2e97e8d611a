package policy

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// dear costs 300,000 in CEL's unit, which allows a million, for the claims of wide; and
// next to nothing for those of narrow.
const dear = `claims.a.contains(claims.b)`

func wide(g *WithT) jose.Object {
	return object(g, strings.Repeat("a", 6000), strings.Repeat("b", 5000))
}

func narrow(g *WithT) jose.Object { return object(g, "a", "b") }

func object(g *WithT, a, b string) jose.Object {
	o, err := jose.ReadObject(fmt.Appendf(nil, `{"sub":"a","a":%q,"b":%q}`, a, b), 8)
	g.Expect(err).NotTo(HaveOccurred())
	return o
}

// One namespace's expressions must not keep the verifier from everybody else's tokens.
func TestExpensiveExpressionsLeaveRoomForOthers(t *testing.T) {
	g := NewWithT(t)
	spec := api.VerificationSpec{
		ClaimValidationRules: []api.ClaimValidationRule{{Expression: "!" + dear}},
		ResponseHeaders:      []api.ResponseHeader{{Name: "X-A", Expression: dear + ` ? "yes" : "no"`}},
	}
	ka := &api.KubernetesAuthentication{UsernamePrefix: "a:", UserValidationRules: []api.UserValidationRule{{Expression: "true"}}}
	expensive, err := Compile(&spec, ka)
	g.Expect(err).NotTo(HaveOccurred())
	cheap, err := Compile(&spec, ka)
	g.Expect(err).NotTo(HaveOccurred())
	few, many := narrow(g), wide(g)
	g.Expect(cheap.Evaluate(few).CheckRules()).To(BeNil())
	g.Expect(expensive.Evaluate(many).CheckRules()).To(BeNil(), "nobody knows yet")

	for range cap(places) {
		places <- struct{}{}
	}
	g.Expect(cheap.Evaluate(few).CheckRules()).To(BeNil())
	g.Expect(expensive.Evaluate(few).CheckRules()).To(HaveField("Reason", Busy), "whatever this token would cost")
	_, refusal := expensive.Evaluate(few).HeaderValues()
	g.Expect(refusal).To(HaveField("Reason", Busy))
	_, refusal = expensive.Evaluate(few).User()
	g.Expect(refusal).To(HaveField("Reason", Busy))
	for range cap(places) {
		<-places
	}
	g.Expect(expensive.Evaluate(many).CheckRules()).To(BeNil())
	g.Expect(places).To(BeEmpty(), "every place has been given back")
}

// All expressions of one token share one budget, whoever asks for them.
func TestOneTokenHasOneBudget(t *testing.T) {
	g := NewWithT(t)
	spec := api.VerificationSpec{
		ClaimValidationRules: []api.ClaimValidationRule{{Expression: "!" + dear}, {Expression: "!" + dear}},
		ResponseHeaders: []api.ResponseHeader{
			{Name: "X-A", Expression: dear + ` ? "yes" : "no"`}, {Name: "X-B", Expression: dear + ` ? "yes" : "no"`},
		},
	}
	p, err := Compile(&spec, nil)
	g.Expect(err).NotTo(HaveOccurred())
	_, refusal := p.Evaluate(wide(g)).HeaderValues()
	g.Expect(refusal).To(BeNil(), "by themselves they are not too much")
	e := p.Evaluate(wide(g))
	g.Expect(e.CheckRules()).To(BeNil(), "nor are the others")
	_, refusal = e.HeaderValues()
	g.Expect(refusal).To(HaveField("Reason", MalformedClaims))
}
