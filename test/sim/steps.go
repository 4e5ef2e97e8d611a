// steps.go is what can happen. A step is an operation and its argument; one that
// makes no sense where it stands does nothing.

package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// step is one thing that happens.
type step struct {
	Op  string
	Arg int
}

// op is an operation: how often it is drawn, how many arguments it has, what it
// does, and what that is in words.
type op[W any] struct {
	weight, args int
	do           func(w W, arg int)
	words        func(arg int) string
}

// script is all that can happen in a kind of world. Its order is that of the operations:
// drawing must not depend on a map's.
type script[W any] struct {
	order []string
	ops   map[string]op[W]
}

var durations = []time.Duration{time.Second, 5 * time.Second, 31 * time.Second, time.Minute, 8 * time.Minute, 11 * time.Minute, 50 * time.Minute}

// jumps are by how much somebody sets the clock.
var jumps = []time.Duration{2 * time.Minute, time.Hour, 25 * time.Hour, -2 * time.Minute, -time.Hour, -25 * time.Hour}

func says(text string) func(int) string { return func(int) string { return text } }

func key(format string) func(int) string {
	return func(arg int) string { return fmt.Sprintf(format, signers[arg].name) }
}

var life = script[*world]{order, ops}

var order = []string{
	"advance", "run", "disturb", "finish", "deliver", "show", "show all", "restart replica", "kill", "depose", "zombie", "outlive",
	"publish", "retire", "replace", "mode", "leak", "seal", "tamper", "refresh", "ask", "revoke", "pardon", "approve", "delete", "create", "edit", "jump", "move",
}

var ops = map[string]op[*world]{
	"advance": {12, len(durations), func(w *world, arg int) { w.pass(durations[arg]) },
		func(arg int) string { return durations[arg].String() + " pass" }},
	"run": {30, 1, func(w *world, _ int) { w.leader.run(answered) }, says("the manager goes on to its next call")},
	"disturb": {8, int(fates), func(w *world, arg int) { w.disturb(w.leader, fate(arg)) },
		func(arg int) string { return "the manager's call " + fateNames[arg] }},
	"finish":  {14, 1, func(w *world, _ int) { w.finish(w.leader); w.replaceDead() }, says("the manager finishes a reconciliation")},
	"deliver": {14, 1, func(w *world, _ int) { w.leader.deliver() }, says("the manager sees the next change")},
	"show": {14, replicas, func(w *world, arg int) { w.readers[arg].deliver() },
		func(arg int) string { return fmt.Sprintf("replica %d sees the next change", arg) }},
	"show all": {6, replicas, func(w *world, arg int) {
		for w.readers[arg].deliver() {
			continue
		}
	}, func(arg int) string { return fmt.Sprintf("replica %d sees all changes", arg) }},
	"restart replica": {3, replicas * 4, func(w *world, arg int) { w.readers[arg%replicas] = newReplica(w, arg/replicas) },
		func(arg int) string {
			return fmt.Sprintf("replica %d restarts, with a view %d changes old", arg%replicas, arg/replicas)
		}},
	"kill": {3, 4, func(w *world, arg int) { w.leader.kill(); w.leader = newManager(w, arg) },
		func(arg int) string {
			return fmt.Sprintf("the manager is killed; the next one has a view %d changes old", arg)
		}},
	"depose": {2, 4, func(w *world, arg int) { w.depose(arg) },
		func(arg int) string {
			return fmt.Sprintf("another manager becomes the leader, with a view %d changes old; the old one does not know yet", arg)
		}},
	"zombie": {6, int(fates), func(w *world, arg int) { w.zombie(fate(arg)) },
		func(arg int) string { return "the deposed manager goes on; its call " + fateNames[arg] }},
	"outlive": {3, 1, func(w *world, _ int) { w.outlive() }, says("the deposed manager finishes its reconciliation")},
	"publish": {4, published, func(w *world, arg int) { w.issuer.publish(signers[arg]) }, key("the issuer publishes key %s too")},
	"retire": {3, published, func(w *world, arg int) {
		if has(w.issuer.keys, signers[arg]) {
			w.issuer.set(without(w.issuer.keys, signers[arg]))
		}
	}, key("the issuer no longer publishes key %s")},
	"replace": {1, 1, func(w *world, _ int) { w.issuer.set([]*signer{signers[3], signers[2]}) },
		says("the issuer replaces all of its keys, with another key under the kid a")},
	"mode": {5, int(modes), func(w *world, arg int) { w.issuer.mode = mode(arg) }, func(arg int) string { return "the issuer " + modeNames[arg] }},
	"leak": {1, published, func(w *world, arg int) { w.issuer.leaked = signers[arg]; w.checks.everRefused[signers[arg]] = true }, key("the issuer publishes the private part of key %s, if it publishes it")},
	"seal": {2, 1, func(w *world, _ int) { w.issuer.leaked = nil }, says("the issuer publishes no private part any more")},
	"tamper": {3, len(tamperings) * 2, func(w *world, arg int) {
		at := copyKey
		if arg%2 == 0 {
			at = w.ours()
		}
		w.checks.tampered(at)
		tamperings[arg/2].to(w.server, at)
	}, func(arg int) string {
		return "somebody " + tamperings[arg/2].name + " the " + []string{"verifier's", "users'"}[arg%2] + " ConfigMap"
	}},
	"refresh": {2, 1, func(w *world, _ int) { w.annotate(api.AnnotationRefresh, w.count()) }, says("a user asks for a refresh")},
	"ask": {3, 1, func(w *world, _ int) {
		at := metav1.NewMicroTime(w.now)
		w.server.editIssuer(func(ti *api.TrustedIssuer) { ti.Status.RefreshRequestedAt = &at })
	}, says("a replica asks for a refresh: a token names an unknown key")},
	"revoke": {1, published, func(w *world, arg int) {
		w.checks.everRefused[signers[arg]] = true
		w.server.editIssuer(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{signers[arg].thumbprint} })
	}, key("a user revokes key %s")},
	"pardon": {2, 1, func(w *world, _ int) {
		w.server.editIssuer(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = nil })
	}, says("a user revokes nothing any more")},
	"approve": {3, 1, func(w *world, _ int) { w.approve() }, says("an administrator approves what is quarantined")},
	"delete": {1, 1, func(w *world, _ int) {
		now := metav1.NewTime(w.now)
		w.server.editIssuer(func(ti *api.TrustedIssuer) { ti.DeletionTimestamp = &now })
	}, says("a user deletes the issuer object")},
	"create": {2, 1, func(w *world, _ int) {
		if w.server.issuer() == nil {
			w.server.createIssuer(issuerKey, w.spec())
		}
	}, says("a user makes the issuer object anew, if it is gone")},
	"jump": {3, len(jumps), func(w *world, arg int) { w.jump(jumps[arg]) },
		func(arg int) string { return "somebody sets the clock, if it may be set, by " + jumps[arg].String() }},
	"move": {2, 2, func(w *world, arg int) { w.issuer.move(arg == 1) }, func(arg int) string {
		return "the issuer's keys move to another place, and the old one " + []string{"is gone", "goes on showing what it did"}[arg]
	}},
	"edit": {1, 2, func(w *world, arg int) {
		stale := metav1.Duration{Duration: time.Duration(arg+1) * time.Hour}
		w.server.editIssuer(func(ti *api.TrustedIssuer) { ti.Spec.StaleTTL = &stale })
	}, func(arg int) string { return fmt.Sprintf("a user sets staleTTL to %d h", arg+1) }},
}

// draw makes a schedule of n steps.
func (s script[W]) draw(random *rand.Rand, n int) []step {
	total := 0
	for _, name := range s.order {
		total += s.ops[name].weight
	}
	out := make([]step, 0, n)
	for range n {
		at := random.IntN(total)
		for _, name := range s.order {
			if at -= s.ops[name].weight; at < 0 {
				out = append(out, step{name, random.IntN(s.ops[name].args)})
				break
			}
		}
	}
	return out
}

// words is the step in words.
func (s script[W]) words(taken step) string { return s.ops[taken.Op].words(taken.Arg) }

func (w *world) take(s step) {
	ops[s.Op].do(w, s.Arg)
	w.checks.after()
}

// disturb decides the fate of the call that a manager waits with; there is none
// between two reconciliations.
func (w *world) disturb(p *manager, f fate) {
	if p.next == nil {
		return
	}
	p.run(f)
	w.replaceDead()
}

// replaceDead starts the next manager where the leader has died.
func (w *world) replaceDead() {
	if w.leader.dead {
		w.leader.kill()
		w.leader = newManager(w, 0)
	}
}

// depose makes another manager the leader, while the old one is at work.
func (w *world) depose(lag int) {
	old := w.leader
	w.leader = newManager(w, lag)
	if old.next != nil && len(w.deposed) < 2 {
		w.deposed = append(w.deposed, old)
		return
	}
	old.kill()
}

// outlive lets a deposed manager finish what it was at, undisturbed.
func (w *world) outlive() {
	if len(w.deposed) > 0 {
		w.finish(w.deposed[0])
		w.deposed[0].kill()
		w.deposed = w.deposed[1:]
	}
}

// zombie lets a deposed manager go on with what it was at; it begins nothing.
func (w *world) zombie(f fate) {
	if len(w.deposed) == 0 {
		return
	}
	p := w.deposed[0]
	if p.run(f); p.next == nil || p.dead {
		p.kill()
		w.deposed = w.deposed[1:]
	}
}
