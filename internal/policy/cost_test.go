package policy

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// No test depends on how fast the machine is.
func TestMain(m *testing.M) {
	longest = time.Hour
	os.Exit(m.Run())
}

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

// 35 bytes kept a CPU for minutes within what they may cost. What is stopped is not refused:
// it may be the machine that is slow.
func TestLoopsEndWhenTheirTimeIsOver(t *testing.T) {
	g := NewWithT(t)
	p, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: "lists.range(1000).all(i, true)"}}}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(p.Evaluate(narrow(g)).CheckRules()).To(BeNil())
	e := p.Evaluate(narrow(g))
	refusal := e.bounded(func() *Refusal {
		_, limited := e.budget.ctx.Deadline()
		g.Expect(limited).To(BeTrue())
		over, end := context.WithCancel(e.budget.ctx)
		end()
		e.budget.ctx = over
		g.Expect(e.budget.holds(p.rules[0], claimsVariable, e.variable())).To(BeFalse())
		return &Refusal{Reason: ClaimRuleFailed}
	})
	g.Expect(refusal).To(HaveField("Reason", Busy))

	for range cap(places) {
		places <- struct{}{}
	}
	g.Expect(p.Evaluate(narrow(g)).CheckRules()).To(HaveField("Reason", Busy), "the next ones need a place")
	for range cap(places) {
		<-places
	}
	for range probation {
		g.Expect(p.Evaluate(narrow(g)).CheckRules()).To(BeNil())
	}
	for range cap(places) {
		places <- struct{}{}
	}
	g.Expect(p.Evaluate(narrow(g)).CheckRules()).To(BeNil(), "and not for ever: it may have been the machine")
	for range cap(places) {
		<-places
	}
}

// A token that is refused is refused, also where that took long.
func TestARefusalInTimeStands(t *testing.T) {
	g := NewWithT(t)
	p, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: `claims.sub == "nobody"`}}}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	e := p.Evaluate(narrow(g))
	g.Expect(e.bounded(func() *Refusal {
		over, end := context.WithCancel(e.budget.ctx)
		end()
		e.budget.ctx = over
		g.Expect(e.budget.holds(p.rules[0], claimsVariable, e.variable())).To(BeFalse())
		return &Refusal{Reason: ClaimRuleFailed}
	})).To(HaveField("Reason", ClaimRuleFailed))
}

// Most issuer objects have no expressions: their tokens wait for nobody, and need no clock.
func TestWithoutExpressionsThereIsNothingToBound(t *testing.T) {
	g := NewWithT(t)
	p, err := Compile(&api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X-A", Claim: "a"}}}, &api.KubernetesAuthentication{UsernamePrefix: "a:"})
	g.Expect(err).NotTo(HaveOccurred())
	e := p.Evaluate(narrow(g))
	g.Expect(e.HeaderValues()).To(Equal([]string{"a"}))
	user, refusal := e.User()
	g.Expect(refusal).To(BeNil())
	g.Expect(user.Username).To(Equal("a:a"))
	g.Expect(e.budget.ctx).To(BeNil())
}

// Many tokens at once, of an issuer object that nobody has seen a token of, must not take
// all CPUs and all memory before the first of them has said what it costs.
func TestABurstOfUnknownExpressionsWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		rules := &api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: "true"}}}
		unknown, err := Compile(rules, nil)
		g.Expect(err).NotTo(HaveOccurred())
		var running, most, evaluated, busy int
		var count sync.Mutex
		end, tokens := make(chan struct{}), cap(unknown.running)+cap(places)+20
		for range tokens {
			e := unknown.Evaluate(narrow(g))
			go func() {
				refusal := e.bounded(func() *Refusal {
					count.Lock()
					running++
					most = max(most, running)
					count.Unlock()
					<-end
					e.budget.spent = expensive + 1
					count.Lock()
					running--
					evaluated++
					count.Unlock()
					return nil
				})
				count.Lock()
				defer count.Unlock()
				if refusal != nil && refusal.Reason == Busy {
					busy++
				}
			}()
		}
		synctest.Wait()
		g.Expect(running).To(Equal(runtime.GOMAXPROCS(0)), "of as many as there are CPUs nobody knows what they cost")
		other, err := Compile(rules, nil)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(other.Evaluate(narrow(g)).bounded(func() *Refusal { return nil })).To(BeNil(), "nobody else waits")

		for range runtime.GOMAXPROCS(0) {
			end <- struct{}{}
		}
		synctest.Wait()
		g.Expect(running).To(Equal(cap(places)), "they are known to be expensive now")
		close(end)
		synctest.Wait()
		g.Expect(most).To(Equal(runtime.GOMAXPROCS(0)))
		g.Expect(evaluated + busy).To(Equal(tokens))
		g.Expect(busy).To(BeNumerically(">", 0))
		g.Expect(unknown.running).To(BeEmpty())
		g.Expect(places).To(BeEmpty())
	})
}

// Whoever waits gets an answer where expressions are not expensive: load costs no token.
func TestABurstOfCheapExpressionsIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		p, err := Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: "!" + dear}}}, nil)
		g.Expect(err).NotTo(HaveOccurred())
		refusals := make(chan *Refusal, 500)
		for range cap(refusals) {
			e := p.Evaluate(narrow(g))
			go func() { refusals <- e.CheckRules() }()
		}
		for range cap(refusals) {
			g.Expect(<-refusals).To(BeNil())
		}
	})
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
