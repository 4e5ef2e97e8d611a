package policy

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// squared costs with the square of the number of groups.
const squared = `dyn(claims.groups).all(x, dyn(claims.groups).all(y, x != "never" && y != "never"))`

func withGroups(g *WithT, n int) jose.Object {
	groups := make([]string, n)
	for i := range groups {
		groups[i] = fmt.Sprintf(`"g%d"`, i)
	}
	o, err := jose.ReadObject([]byte(`{"sub":"a","groups":[`+strings.Join(groups, ",")+`]}`), 8)
	g.Expect(err).NotTo(HaveOccurred())
	return o
}

// One namespace's expressions must not keep the verifier from everybody else's tokens.
func TestExpensiveExpressionsLeaveRoomForOthers(t *testing.T) {
	g := NewWithT(t)
	spec := api.VerificationSpec{
		ClaimValidationRules: []api.ClaimValidationRule{{Expression: squared}},
		ResponseHeaders:      []api.ResponseHeader{{Name: "X-A", Expression: squared + ` ? "yes" : "no"`}},
	}
	ka := &api.KubernetesAuthentication{UsernamePrefix: "a:", UserValidationRules: []api.UserValidationRule{{Expression: "true"}}}
	dear, err := Compile(&spec, ka)
	g.Expect(err).NotTo(HaveOccurred())
	cheap, err := Compile(&spec, ka)
	g.Expect(err).NotTo(HaveOccurred())
	few, many := withGroups(g, 2), withGroups(g, 100)
	g.Expect(cheap.Evaluate(few).CheckRules()).To(BeNil())
	g.Expect(dear.Evaluate(many).CheckRules()).To(BeNil(), "nobody knows yet")

	for range cap(places) {
		places <- struct{}{}
	}
	g.Expect(cheap.Evaluate(few).CheckRules()).To(BeNil())
	g.Expect(dear.Evaluate(few).CheckRules()).To(HaveField("Reason", Busy), "whatever this token would cost")
	_, refusal := dear.Evaluate(few).HeaderValues()
	g.Expect(refusal).To(HaveField("Reason", Busy))
	_, refusal = dear.Evaluate(few).User()
	g.Expect(refusal).To(HaveField("Reason", Busy))
	for range cap(places) {
		<-places
	}
	g.Expect(dear.Evaluate(many).CheckRules()).To(BeNil())
	g.Expect(places).To(BeEmpty(), "every place has been given back")
}

// All expressions of one token share one budget, whoever asks for them.
func TestOneTokenHasOneBudget(t *testing.T) {
	g := NewWithT(t)
	spec := api.VerificationSpec{
		ClaimValidationRules: []api.ClaimValidationRule{{Expression: squared}},
		ResponseHeaders:      []api.ResponseHeader{{Name: "X-A", Expression: squared + ` ? "yes" : "no"`}},
	}
	p, err := Compile(&spec, nil)
	g.Expect(err).NotTo(HaveOccurred())
	claims := withGroups(g, 280)
	_, refusal := p.Evaluate(claims).HeaderValues()
	g.Expect(refusal).To(BeNil(), "by itself it is not too much")
	e := p.Evaluate(claims)
	g.Expect(e.CheckRules()).To(BeNil(), "nor is the other")
	_, refusal = e.HeaderValues()
	g.Expect(refusal).To(HaveField("Reason", MalformedClaims))
}
