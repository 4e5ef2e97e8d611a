// Package sim runs the product's own controller and verifier under a seeded
// scheduler with virtual time, against a modelled API server and a modelled issuer.
//
//	seed ──> schedule (a list of steps) ──> world ──> after each step: checks
//	                                          │
//	                                        calm: faults stop, all must come right
//
// A schedule holds every choice, so that it can be replayed, and shrunk by leaving
// steps out. Nothing here runs at the same time as anything else: a Reconcile is a
// coroutine that stops at each of its calls.
package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

const (
	operatorNamespace = "jwks-trust-system"
	issuerName        = "https://issuer.example.com/"
	jwksURI           = "https://issuer.example.com/jwks.json"
	replicas          = 2
	maxCalls          = 200 // of one reconciliation
)

var (
	issuerKey = client.ObjectKey{Namespace: "team", Name: "auth"}
	copyKey   = client.ObjectKey{Namespace: "team", Name: "auth-jwks"}
	start     = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// setting is what differs between worlds.
type setting struct {
	Grace             time.Duration
	Approval, Overlap bool
	// Discovery: the issuer's metadata say where its keys are.
	Discovery bool
	// Jumps: somebody sets the clock that all live by.
	Jumps bool
}

// world is all there is.
type world struct {
	setting setting
	// now is what the clock says, and passed what it would say if nobody had ever set
	// it. readings has what passed was when now was read last.
	now, passed time.Time
	readings    map[time.Time]time.Time
	jumps       int
	random      *rand.Rand
	server      *apiserver
	issuer      *issuerServer
	leader      *manager
	deposed     []*manager
	readers     []*replica
	checks      *checks
	counter     int
	// withdrew is the manager that let the issuer object go.
	withdrew *manager
}

func newWorld(s setting, seed uint64) *world {
	w := &world{setting: s, now: start, passed: start, readings: map[time.Time]time.Time{}, random: rand.New(rand.NewPCG(seed, 1)), issuer: &issuerServer{}} //nolint:gosec // a simulation
	w.server = newAPIServer(w.Now)
	w.checks = newChecks(w)
	w.issuer.set(signers[:2])
	w.server.createIssuer(issuerKey, w.spec())
	w.leader = newManager(w, 0)
	for range replicas {
		w.readers = append(w.readers, newReplica(w, 0))
	}
	return w
}

func (w *world) spec() api.IssuerSpec {
	spec := api.IssuerSpec{
		Issuer: issuerName, Audiences: []string{"orders"}, JWKSURI: jwksURI,
		CacheTTL: &metav1.Duration{Duration: 10 * time.Minute}, StaleTTL: &metav1.Duration{Duration: time.Hour},
		Rotation: &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: w.setting.Grace}},
	}
	switch {
	case w.setting.Approval:
		spec.Rotation.Policy = api.RotationRequireApproval
	case w.setting.Overlap:
		spec.Rotation.Policy = api.RotationRequireOverlap
	case w.setting.Discovery:
		spec.JWKSURI = ""
	}
	return spec
}

// Now is the time.
func (w *world) Now() time.Time {
	w.readings[w.now] = w.passed
	return w.now
}

// Since is the time that has passed since the clock said that, however it was set
// meanwhile; with Now it makes the world a clock, of the kind that Go has.
func (w *world) Since(t time.Time) time.Duration {
	if then, read := w.readings[t]; read {
		return w.passed.Sub(then)
	}
	return w.now.Sub(t)
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.now, w.passed = w.now.Add(d), w.passed.Add(d) }

// jump sets the clock, but not to before the tokens were made.
func (w *world) jump(by time.Duration) {
	if next := w.now.Add(by); w.setting.Jumps && !next.Before(start) {
		w.now = next
		w.jumps++
	}
}

// ours is the authoritative ConfigMap.
func (w *world) ours() client.ObjectKey {
	if w.server.issuer() == nil {
		return client.ObjectKey{}
	}
	return client.ObjectKey{Namespace: operatorNamespace, Name: snapshot.AuthoritativeName(w.server.issuer().UID)}
}

// close ends all coroutines.
func (w *world) close() {
	w.leader.kill()
	for _, p := range w.deposed {
		p.kill()
	}
}

// finish lets a manager's reconciliation go to its end, undisturbed.
func (w *world) finish(p *manager) {
	for range maxCalls {
		p.run(answered)
		w.checks.after()
		if p.next == nil {
			return
		}
	}
	w.checks.fail("a reconciliation has made %d calls and does not end", maxCalls)
}

// wake is what the controller's work queue does: a new reconciliation when
// something was seen, or when its time has come. It reports whether there was one.
func (w *world) wake(p *manager) bool {
	if p.next == nil && (p.due || !p.wakeAt.IsZero() && !w.passed.Before(p.wakeAt)) {
		p.run(answered)
		return true
	}
	return false
}

func sortedKeys[V any](m map[client.ObjectKey]V) []client.ObjectKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b client.ObjectKey) int { return cmp.Compare(a.String(), b.String()) })
}

func labelSet(m map[string]string) k8slabels.Set { return m }

// tampering is what others do to ConfigMaps.
var tamperings = []struct {
	name string
	to   func(s *apiserver, key client.ObjectKey)
}{
	{"deletes", func(s *apiserver, key client.ObjectKey) { s.removeMap(key) }},
	{"writes keys of its own into", func(s *apiserver, key client.ObjectKey) {
		s.changeMap(key, func(cm *corev1.ConfigMap) {
			cm.Data = map[string]string{snapshot.KeyJWKSJSON: string(canonical(signers[published:]))}
		})
	}},
	{"rolls back", func(s *apiserver, key client.ObjectKey) {
		for _, e := range s.history {
			if cm, ok := e.object.(*corev1.ConfigMap); ok && client.ObjectKeyFromObject(cm) == key && len(cm.Data) > 0 {
				s.changeMap(key, func(now *corev1.ConfigMap) { now.Data = maps.Clone(cm.Data) })
				return
			}
		}
	}},
	{"takes the labels off", func(s *apiserver, key client.ObjectKey) {
		s.changeMap(key, func(cm *corev1.ConfigMap) { cm.Labels = nil })
	}},
	{"empties", func(s *apiserver, key client.ObjectKey) {
		s.changeMap(key, func(cm *corev1.ConfigMap) { cm.Data = nil })
	}},
	{"makes immutable", func(s *apiserver, key client.ObjectKey) {
		s.changeMap(key, func(cm *corev1.ConfigMap) { cm.Immutable = ptr.To(true) })
	}},
}

func (s *apiserver) changeMap(key client.ObjectKey, change func(*corev1.ConfigMap)) {
	if cm := s.maps[key]; cm != nil && (cm.Immutable == nil || !*cm.Immutable) {
		next := cm.DeepCopy()
		change(next)
		s.putMap(next)
	}
}

// calm lets everything work undisturbed, for that long. Nothing happens but for
// what the product has asked to be woken for.
func (w *world) calm(d time.Duration) {
	end := w.passed.Add(d)
	for range 20_000 {
		for w.leader.deliver() {
			continue
		}
		for _, r := range w.readers {
			for r.deliver() {
				continue
			}
		}
		w.approveAll()
		switch {
		case w.leader.next != nil || w.wake(w.leader):
			if w.leader.next != nil {
				w.finish(w.leader)
			}
			w.checks.after()
		case w.leader.view.seen < len(w.server.history):
		case w.leader.wakeAt.IsZero() || w.leader.wakeAt.After(end):
			w.pass(end.Sub(w.passed))
			w.checks.after()
			return
		default:
			w.pass(w.leader.wakeAt.Sub(w.passed))
		}
		if w.checks.failed() {
			return
		}
	}
	w.checks.fail("the controller finds no rest: 20000 rounds within %s", d)
}

// approveAll is an administrator who trusts what is quarantined.
func (w *world) approveAll() {
	if w.setting.Approval || w.setting.Overlap {
		w.approve()
	}
}

func (w *world) approve() {
	ti := w.server.issuer()
	if ti == nil || ti.Status.Rotation == nil || ti.Status.Rotation.CandidateDigest == "" ||
		api.Approves(ti, ti.Status.Rotation.CandidateDigest) {
		return
	}
	w.checks.approved(ti.Status.Keys)
	w.annotate(api.AnnotationApprove, api.Approval(ti, ti.Status.Rotation.CandidateDigest))
}

func (w *world) annotate(name, value string) {
	w.server.editIssuer(func(ti *api.TrustedIssuer) { metav1.SetMetaDataAnnotation(&ti.ObjectMeta, name, value) })
}

// count is a text that was not used before.
func (w *world) count() string {
	w.counter++
	return fmt.Sprint(w.counter)
}
