// process.go is the processes: managers, whose Reconcile runs as a coroutine that
// stops at every call, and verifier replicas, which live on what watches tell.

package sim

import (
	"context"
	"iter"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/controller"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// view is what a process has seen of the API server: all changes up to seen.
type view struct {
	contents

	seen int
}

func newView(history []event, upTo int) view {
	v := view{contents: newContents()}
	for v.seen < upTo {
		v.advance(history)
	}
	return v
}

// advance takes in the next change.
func (v *view) advance(history []event) event {
	e := history[v.seen]
	v.seen++
	v.take(e.object, e.gone)
	return e
}

// manager is a manager process.
type manager struct {
	world      *world
	view       view
	reconciler *controller.Reconciler

	// next resumes the reconciliation under way; nil when none is.
	next  func() (string, bool)
	stop  func()
	yield func(string) bool
	fate  fate
	// waits is the call that it waits for.
	waits string
	dead  bool

	// due: there is something to look at, from that time on.
	due    bool
	wakeAt time.Time
	kept   map[string]keptAnswer // by URL
	// asked is when it last asked the issuer for its keys.
	// askedFor is the object that it saw then, the one that there was, and the URL.
	asked    time.Time
	askedFor [3]string
	// jumps is how often the clock had been set by then.
	jumps int
	// beganWith is the object that the reconciliation under way began with.
	beganWith string
	// failing: the issuer's last answer was no success.
	failing bool
}

func newManager(w *world, lag int) *manager {
	p := &manager{world: w, view: newView(w.server.history, max(0, len(w.server.history)-lag)), due: true, kept: map[string]keptAnswer{}}
	p.reconciler = &controller.Reconciler{
		New:    func() api.Issuer { return &api.TrustedIssuer{} },
		Client: kubeClient{reader: reader{p: p, cached: true}}, Reader: reader{p: p}, Copies: reader{p: p, cached: true},
		Fetcher: fetcher{p}, Recorder: silent{}, Clock: w, Holders: p.holders, Authorities: p.authorities, OperatorNamespace: operatorNamespace, Random: w.random.Float64,
	}
	return p
}

// holders are the ConfigMaps of an issuer object, as cached.
func (p *manager) holders(ctx context.Context, issuer types.UID, in ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	var list metav1.PartialObjectMetadataList
	err := reader{p: p, cached: true}.List(ctx, &list, append(in, client.MatchingLabels{api.LabelIssuerUID: string(issuer)})...)
	return list.Items, err
}

// authorities are the UIDs of the objects that authoritative ConfigMaps were made for,
// as cached: there is one name only.
func (p *manager) authorities(context.Context, types.NamespacedName) ([]types.UID, error) {
	var out []types.UID
	for _, key := range sortedKeys(p.view.maps) {
		if uid := types.UID(p.view.maps[key].Labels[api.LabelIssuerUID]); key.Name == snapshot.AuthoritativeName(uid) {
			out = append(out, uid)
		}
	}
	return out, nil
}

// silent is a recorder that nobody listens to.
type silent struct{}

// Eventf does nothing.
func (silent) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// died unwinds a process that has died.
type died struct{}

func (p *manager) call(_ context.Context, what string, writes bool, do func() error) error {
	err, dies := carryOut(p.await(what), what, writes, do)
	if dies {
		p.die()
	}
	return err
}

func (p *manager) present() *apiserver { return p.world.server }

func (p *manager) seen(client.Object) contents { return p.view.contents }

func (p *manager) wrote(before, after *corev1.ConfigMap) {
	w := p.world
	w.checks.lateCopy = w.checks.lateCopy || before == nil && w.leader != p && client.ObjectKeyFromObject(after) == copyKey
}

func (p *manager) withdrew(api.Issuer) { p.world.withdrew = p }

// await stops until the scheduler has decided about a call.
func (p *manager) await(what string) fate {
	if p.dead || !p.yield(what) {
		p.die()
	}
	return p.fate
}

// die unwinds the reconciliation. Where the product recovers from it, the next call
// unwinds it again.
func (p *manager) die() {
	p.dead = true
	panic(died{})
}

// run lets the process go on to its next call, whose fate before it is given. It
// begins a reconciliation where none is under way.
func (p *manager) run(f fate) {
	if p.dead {
		return
	}
	if p.next == nil {
		p.begin()
	} else {
		p.fate = f
	}
	what, more := p.next()
	p.waits = what
	if !more {
		p.next, p.waits = nil, ""
	}
}

func (p *manager) begin() {
	p.due, p.wakeAt, p.beganWith = false, time.Time{}, uidOf(p.view.issuer())
	p.next, p.stop = iter.Pull(func(yield func(string) bool) {
		p.yield = yield
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(died); !ok {
					panic(r)
				}
				p.dead = true
			}
		}()
		result, err := p.reconciler.Reconcile(context.Background(), reconcile.Request{NamespacedName: issuerKey})
		switch now := p.world.passed; {
		case err != nil:
			p.wakeAt = now.Add(maxErrorDelay)
		case result.RequeueAfter > 0:
			p.wakeAt = now.Add(result.RequeueAfter)
		}
	})
}

// maxErrorDelay is the controller's longest delay after an error.
const maxErrorDelay = 20 * time.Second

// kill ends the process between two calls.
func (p *manager) kill() {
	p.dead = true
	if p.next != nil {
		p.stop()
		p.next = nil
	}
}

// deliver shows the process the next change, which makes it look.
func (p *manager) deliver() bool {
	if p.dead || p.view.seen == len(p.world.server.history) {
		return false
	}
	p.view.advance(p.world.server.history)
	p.due = true
	return true
}

// replica is a verifier process. It is fed through the product's own watch.
type replica struct {
	world    *world
	store    *verifier.Store
	view     view
	handlers map[string]toolscache.ResourceEventHandler
	memo     memo
}

// informers stands in for a cache: it only takes down who listens.
type informers struct {
	cache.Cache

	to *replica
}

// GetInformer makes an informer for the kind of an object.
func (i informers) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	kind := "other"
	switch o.(type) {
	case *api.TrustedIssuer:
		kind = "issuer"
	case *corev1.ConfigMap:
		kind = "ConfigMap"
	}
	return informer{to: i.to, kind: kind}, nil
}

type informer struct {
	cache.Informer

	to   *replica
	kind string
}

// AddEventHandler takes down who listens.
func (i informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.to.handlers[i.kind] = h
	return registration{}, nil
}

type registration struct {
	toolscache.ResourceEventHandlerRegistration
}

// HasSynced is true: what there is at the start is handed over at once.
func (registration) HasSynced() bool { return true }

// newReplica is a replica that has listed what there was, lag changes ago.
func newReplica(w *world, lag int) *replica {
	r := &replica{world: w, view: newView(w.server.history, max(0, len(w.server.history)-lag)), handlers: map[string]toolscache.ResourceEventHandler{}}
	r.store = verifier.NewStore(w.Now)
	if _, err := verifier.SetupWatch(context.Background(), informers{to: r}, r.store, operatorNamespace, logr.Discard()); err != nil {
		panic(err) // the stand-in has no errors
	}
	for _, key := range sortedKeys(r.view.maps) {
		r.handlers["ConfigMap"].OnAdd(r.view.maps[key], true)
	}
	if r.view.issuer() != nil {
		r.handlers["issuer"].OnAdd(r.view.issuer(), true)
	}
	return r
}

// deliver shows the replica the next change.
func (r *replica) deliver() bool {
	if r.view.seen == len(r.world.server.history) {
		return false
	}
	e := r.view.advance(r.world.server.history)
	h := r.handlers["issuer"]
	if _, ok := e.object.(*corev1.ConfigMap); ok {
		h = r.handlers["ConfigMap"]
	}
	if e.gone {
		h.OnDelete(e.object)
	} else {
		h.OnUpdate(nil, e.object)
	}
	return true
}
