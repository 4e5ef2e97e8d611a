// cost.go bounds how much of the machine expressions may take. Whoever writes a
// TrustedIssuer writes expressions, and makes tokens too, so that one namespace could
// keep the verifier from everybody else's.

package policy

import (
	"context"
	"runtime"
	"time"

	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// expensive is what all expressions of a token cost together, in CEL's unit, where
// they begin to count as expensive: some milliseconds.
const expensive = celconfig.PerCallLimit / 20

// longest is how long the expressions of a call of bounded may take. Their cost ends nearly all before, but
// CEL's account of it takes time itself, as the square of how often a loop runs.
var longest = time.Second

// probation is how many evaluations of a policy need a place after one that was stopped. It
// may have been the machine that was slow.
const probation = 1000

// places are those of expensive evaluations that run at the same time. There are half
// as many as CPUs: the others' tokens have the rest.
var places = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// bounded evaluates expressions, if the policy has any. As many of one policy run at the same time as there are
// CPUs, for nobody knows what they cost before one of them has ended; others wait for
// that. Those of a policy that has been expensive before, or was stopped lately, need a
// place, and nobody waits for one.
func (e *Evaluation) bounded(evaluate func() *Refusal) *Refusal {
	if e.policy.running == nil {
		return evaluate()
	}
	e.policy.running <- struct{}{}
	defer func() { <-e.policy.running }()
	if e.policy.dearest.Load() > expensive || e.policy.probation.Load() > 0 {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			return &Refusal{Reason: Busy, Detail: "the expressions of the issuer object are expensive, and too many tokens come at once"}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	e.budget.ctx = ctx
	refusal := evaluate()
	switch {
	case e.budget.stopped:
		e.policy.probation.Store(probation)
		return &Refusal{Reason: Busy, Detail: "the expressions of the issuer object took too long"}
	case e.policy.probation.Load() > 0:
		e.policy.probation.Add(-1)
	}
	for {
		dearest := e.policy.dearest.Load()
		if e.budget.spent <= dearest || e.policy.dearest.CompareAndSwap(dearest, e.budget.spent) {
			return refusal
		}
	}
}
