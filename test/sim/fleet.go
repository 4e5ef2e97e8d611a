// fleet.go is a world with two issuer objects and several namespaces: a
// ClusterTrustedIssuer, whose keys are copied into the namespaces that it selects, and a
// TrustedIssuer, which shares its requests.

package sim

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

var (
	loginKey = client.ObjectKey{Name: "login"}
	// objects are the issuer objects: the one with copies, and the one that shares.
	objects = []client.ObjectKey{loginKey, issuerKey}
	// places are the namespaces that may be selected. The first two are, in the beginning.
	places = []string{"app-1", "app-2", "app-3"}
	chosen = map[string]string{"login": "enabled"}
)

// loginCopy is the copy in a namespace.
func loginCopy(namespace string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: "login-jwks"}
}

// another is the key of the server that those reach who trust other roots.
var another = newSigner("of the other server", "o")

// fleetSetting is what differs between fleets.
type fleetSetting struct {
	Grace    time.Duration
	Approval bool
	// Apart: the second object trusts other roots in the beginning, and so reaches
	// another server at the same URL.
	Apart bool
	// Removes and Retains are what spec.snapshot says of keys that have expired, and of
	// objects that are deleted.
	Removes, Retains bool
}

var fleetSettings = []fleetSetting{{}, {Grace: time.Hour}, {Approval: true}, {Apart: true}, {Removes: true}, {Retains: true}}

// fleet is all there is.
type fleet struct {
	setting        fleetSetting
	now            atomic.Pointer[time.Time]
	server         *apiserver
	issuer, beyond *issuerServer
	leader         *operator
	deposed        []*operator
	checks         *fleetChecks
	counter        int
}

func newFleet(s fleetSetting) *fleet {
	f := &fleet{setting: s, issuer: &issuerServer{}, beyond: &issuerServer{}}
	f.set(start)
	f.server = newAPIServer(f.Now)
	f.checks = newFleetChecks(f)
	f.issuer.set(signers[:2])
	f.beyond.set([]*signer{another})
	for _, name := range []string{operatorNamespace, issuerKey.Namespace} {
		f.server.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for i, name := range places {
		f.makePlace(name, i < 2)
	}
	for _, key := range objects {
		f.makeObject(key)
	}
	f.leader = newOperator(f, 0)
	f.checks.after()
	return f
}

// Now is the time. Work that a timer has woken asks for it, too.
func (f *fleet) Now() time.Time { return *f.now.Load() }

func (f *fleet) set(now time.Time) { f.now.Store(&now) }

// Since is the time that has passed since then: nobody sets this clock.
func (f *fleet) Since(t time.Time) time.Duration { return f.Now().Sub(t) }

// makePlace makes a namespace, unless it is there.
func (f *fleet) makePlace(name string, labelled bool) {
	if f.place(name) != nil {
		return
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if labelled {
		ns.Labels = chosen
	}
	f.server.create(ns)
}

func (f *fleet) place(name string) *corev1.Namespace {
	return f.server.namespaces[client.ObjectKey{Name: name}]
}

// changePlace changes a namespace.
func (f *fleet) changePlace(name string, change func(*corev1.Namespace)) {
	if ns := f.place(name); ns != nil {
		next := ns.DeepCopy()
		change(next)
		f.server.stamp(next, false)
	}
}

// endPlace is what the namespace controller does with a namespace that was deleted.
func (f *fleet) endPlace(name string) {
	ns := f.place(name)
	if ns == nil || ns.DeletionTimestamp == nil {
		return
	}
	for _, key := range sortedKeys(f.server.maps) {
		if key.Namespace == name {
			f.server.removeMap(key)
		}
	}
	f.server.stamp(ns.DeepCopy(), true)
}

// makeObject makes an issuer object, unless it is there.
func (f *fleet) makeObject(key client.ObjectKey) {
	if f.server.issuers[key] != nil {
		return
	}
	s := f.setting
	spec := api.IssuerSpec{
		Issuer: issuerName, Audiences: []string{"orders"}, JWKSURI: jwksURI,
		CacheTTL: &metav1.Duration{Duration: 10 * time.Minute}, StaleTTL: &metav1.Duration{Duration: time.Hour},
		Rotation: &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: s.Grace}},
		Snapshot: &api.SnapshotSpec{},
	}
	if s.Approval {
		spec.Rotation.Policy = api.RotationRequireApproval
	}
	if s.Removes {
		spec.Snapshot.ExpiredPolicy = api.ExpiredRemove
	}
	if s.Retains {
		spec.Snapshot.DeletionPolicy = api.DeletionRetain
	}
	if key != loginKey {
		if s.Apart {
			spec.CABundle = otherRoots
		}
		f.server.createIssuer(key, spec)
		return
	}
	o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: key.Name}}
	o.Spec.IssuerSpec = spec
	o.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: chosen}
	f.server.create(o)
}

// edit changes an issuer object as a user does.
func (f *fleet) edit(key client.ObjectKey, change func(api.Issuer)) {
	if o := f.server.issuers[key]; o != nil {
		next := copyOf(o)
		change(next)
		f.server.putIssuer(next)
	}
}

// serverOf is the server that those reach who trust these roots.
func (f *fleet) serverOf(roots string) *issuerServer {
	if roots == otherRoots {
		return f.beyond
	}
	return f.issuer
}

// count is a text that was not used before.
func (f *fleet) count() string {
	f.counter++
	return fmt.Sprint(f.counter)
}

// approve approves of what is quarantined.
func (f *fleet) approve() {
	for _, key := range objects {
		o := f.server.issuers[key]
		if o == nil || o.IssuerStatus().Rotation == nil || o.IssuerStatus().Rotation.CandidateDigest == "" ||
			api.Approves(o, o.IssuerStatus().Rotation.CandidateDigest) {
			continue
		}
		for _, k := range o.IssuerStatus().Keys {
			f.checks.approved[k.Thumbprint] = true
		}
		f.edit(key, func(o api.Issuer) {
			annotate(o, api.AnnotationApprove, api.Approval(o, o.IssuerStatus().Rotation.CandidateDigest))
		})
	}
}

func annotate(o client.Object, name, value string) {
	all := map[string]string{name: value}
	for k, v := range o.GetAnnotations() {
		if k != name {
			all[k] = v
		}
	}
	o.SetAnnotations(all)
}

// replaceDead starts the next manager where the leader has died.
func (f *fleet) replaceDead() {
	if f.leader.dead {
		f.leader = newOperator(f, 0)
	}
}

// depose makes another manager the leader; the old one may be at work, and does not
// know.
func (f *fleet) depose(lag int) {
	old := f.leader
	f.leader = newOperator(f, lag)
	busy := len(old.active) > 0
	old.handOver()
	if busy && len(f.deposed) < 2 {
		f.deposed = append(f.deposed, old)
		return
	}
	old.kill()
}

// zombie lets the deposed manager go on; it begins nothing.
func (f *fleet) zombie(pick int, fate fate) {
	if len(f.deposed) > 0 {
		f.deposed[0].goOn(pick, fate)
		f.buryIdle()
	}
}

// outlive lets the deposed manager finish what it is at.
func (f *fleet) outlive() {
	if len(f.deposed) > 0 {
		f.deposed[0].finish(false)
		f.buryIdle()
	}
}

func (f *fleet) buryIdle() {
	if p := f.deposed[0]; p.dead || len(p.active) == 0 {
		p.kill()
		f.deposed = f.deposed[1:]
	}
}

// calm lets everything work undisturbed, for that long.
func (f *fleet) calm(d time.Duration) {
	end := f.Now().Add(d)
	for range 20_000 {
		f.leader.deliverAll()
		if f.setting.Approval {
			f.approve()
		}
		f.leader.finish(true)
		if f.checks.after(); f.checks.failed() {
			return
		}
		next := f.leader.next()
		switch {
		case f.leader.behind():
		case next.IsZero() || next.After(end):
			f.set(end)
			f.checks.after()
			return
		case next.After(f.Now()):
			f.set(next)
		}
	}
	f.checks.fail("the controller finds no rest: 20000 rounds within %s", d)
}

// behind reports that a watch has not told all.
func (p *operator) behind() bool {
	for _, w := range p.watches {
		if w.seen < len(p.fleet.server.history) {
			return true
		}
	}
	return false
}

// recover ends all faults, and checks that all comes right: what is half-done when the
// longest delay after errors is over, the rest with the issuer's next answers; and that
// nothing is written then. All fleets are watched on for that.
func (f *fleet) recover(bool) {
	for _, p := range f.deposed {
		p.kill()
	}
	f.deposed = nil
	for _, name := range places {
		f.endPlace(name)
	}
	f.issuer.mode = honest
	f.calm(maxCopyDelay + 30*time.Second)
	f.checks.settled()
	if f.checks.failed() {
		return
	}
	f.calm(confirmWithin + 20*time.Minute + f.setting.Grace)
	f.checks.settled()
	if f.checks.arrived() {
		f.checks.idle(20 * time.Minute)
	}
}

// close ends all processes.
func (f *fleet) close() {
	f.leader.kill()
	for _, p := range f.deposed {
		p.kill()
	}
	synctest.Wait()
}

func (f *fleet) trouble() string { return f.checks.problem }

func (f *fleet) take(s step) {
	fleetOps[s.Op].do(f, s.Arg)
	f.checks.after()
}

// drawFleet is the schedule of a seed.
func drawFleet(seed uint64, steps int) []step {
	return fleetLife.draw(rand.New(rand.NewPCG(seed, 0)), steps) //nolint:gosec // a simulation
}
