// operator.go is the manager process of a fleet. It does several things at the same
// time, each in a goroutine that stops at every call. All of them run in a bubble
// (testing/synctest): nothing is decided before everything stands still.

package sim

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlevent "sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/controller"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// minErrorDelay is the controller's first delay after an error, and maxCopyDelay the
// longest after a copy that could not be written.
const minErrorDelay, maxCopyDelay = 100 * time.Millisecond, 5 * time.Minute

// briefly is longer than a reconciliation waits for a fetch before it leaves it to
// itself. It is time of the bubble, not of the world.
const briefly = 50 * time.Millisecond

// standStill returns once nobody waits for a fetch any more, and everything stands still.
func standStill() {
	time.Sleep(briefly) //nolint:forbidigo // time of the bubble, which takes none
	synctest.Wait()
}

// work is what an operator's queues hold: an issuer object, or one copy.
type work struct {
	kind string // of the issuer object; empty for a copy
	key  client.ObjectKey
	copy controller.Target
}

// String names it.
func (w work) String() string {
	if w.kind == "" {
		return w.copy.String()
	}
	return w.kind + " " + w.key.String()
}

// waiting is a call that has not been made yet.
type waiting struct {
	what string
	of   work
	fate chan fate
}

// piece is a piece of work that is being done.
type piece struct {
	// from is how many changes all watches had told of when it began.
	from int
	// beganWith is the issuer object then.
	beganWith types.UID
	// again: it has to be looked at once more.
	again bool
}

// operator is a manager process.
type operator struct {
	fleet       *fleet
	watches     []*watch
	reconcilers map[string]*controller.Reconciler
	distributor *controller.Distributor
	on          controller.Handlers
	shared      *fetch.Shared
	wakes       *controller.Queue
	// delays are what the product's controllers wait after errors: with a copy, and else.
	delays map[bool]workqueue.TypedRateLimiter[work]
	// listing: the watches tell of what was there when they began.
	listing bool

	mu sync.Mutex
	// queue is what is to be done, and from when on.
	queue  map[work]time.Time
	active map[work]*piece
	calls  []*waiting
	dead   bool
}

// newOperator is a process whose watches have listed what there was, lag changes ago.
func newOperator(f *fleet, lag int) *operator {
	p := &operator{
		fleet: f, reconcilers: map[string]*controller.Reconciler{}, wakes: controller.NewQueue(),
		queue: map[work]time.Time{}, active: map[work]*piece{},
		delays: map[bool]workqueue.TypedRateLimiter[work]{
			true:  workqueue.NewTypedItemExponentialFailureRateLimiter[work](minErrorDelay, maxCopyDelay),
			false: workqueue.NewTypedItemExponentialFailureRateLimiter[work](minErrorDelay, maxErrorDelay),
		},
	}
	p.shared = fetch.Share(source{p}, f.Now, p.changed)
	for _, kind := range []string{api.ClusterTrustedIssuerKind, api.TrustedIssuerKind} {
		p.reconcilers[kind] = p.reconciler(kind)
		if err := p.wakes.Listen(kind)(context.Background(), requests{p: p, kind: kind}); err != nil {
			panic(err) // it has none
		}
	}
	p.distributor = p.reconcilers[api.ClusterTrustedIssuerKind].Distribute(reader{p: p, cached: true})
	p.on = p.distributor.Handlers()
	for _, w := range watches {
		w := &watch{contents: newContents(), has: w.has, tell: w.tell}
		for w.seen < len(f.server.history)-lag {
			w.advance(f.server.history)
		}
		p.watches = append(p.watches, w)
	}
	for _, w := range p.watches {
		p.listing = true
		for _, o := range w.all() {
			w.tell(p, nil, o)
		}
	}
	p.listing = false
	return p
}

func (p *operator) reconciler(kind string) *controller.Reconciler {
	newIssuer := func() api.Issuer { return &api.TrustedIssuer{} }
	if kind == api.ClusterTrustedIssuerKind {
		newIssuer = func() api.Issuer { return &api.ClusterTrustedIssuer{} }
	}
	return &controller.Reconciler{
		New: newIssuer, Client: kubeClient{reader: reader{p: p, cached: true}}, Reader: reader{p: p}, Copies: reader{p: p, cached: true},
		Holders: p.holders, Authorities: p.authorities(kind), Fetcher: observed{p.shared, p}, Recorder: silent{}, Clock: p.fleet,
		OperatorNamespace: operatorNamespace, Queue: p.wakes,
	}
}

// holders are the ConfigMaps of an issuer object, as cached.
func (p *operator) holders(ctx context.Context, issuer types.UID, in ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: "ConfigMapList"}}
	err := reader{p: p, cached: true}.List(ctx, &list, append(in, client.MatchingLabels{api.LabelIssuerUID: string(issuer)})...)
	return list.Items, err
}

// authorities are the UIDs of the objects of a kind that authoritative ConfigMaps were
// made for, and not kept, as cached: there is one name of each kind only.
func (p *operator) authorities(kind string) func(context.Context, types.NamespacedName) ([]types.UID, error) {
	return func(context.Context, types.NamespacedName) (out []types.UID, _ error) {
		maps := p.seen(&corev1.ConfigMap{}).maps
		for _, key := range sortedKeys(maps) {
			_, released := maps[key].Annotations[api.AnnotationReleased]
			uid := types.UID(maps[key].Labels[api.LabelIssuerUID])
			if maps[key].Labels[api.LabelIssuerKind] == kind && key.Name == snapshot.AuthoritativeName(uid) && !released {
				out = append(out, uid)
			}
		}
		return out, nil
	}
}

func (p *operator) present() *apiserver { return p.fleet.server }

func (p *operator) seen(kind client.Object) contents {
	switch kind := kind.(type) {
	case *api.ClusterTrustedIssuer:
		return p.watches[0].contents
	case *api.TrustedIssuer:
		return p.watches[1].contents
	case *corev1.ConfigMap:
		return p.watches[2].contents
	case *metav1.PartialObjectMetadata:
		if kindOf(kind) == mapKind {
			return p.watches[3].contents
		}
	}
	return p.watches[4].contents
}

// watch is what one watch of a process has told. Each goes at its own pace.
type watch struct {
	contents

	seen int
	has  func(client.Object) bool
	tell func(p *operator, before, now client.Object)
}

// watches are those of the product: which objects they have, and who hears of them.
var watches = []struct {
	name string
	has  func(client.Object) bool
	tell func(p *operator, before, now client.Object)
}{
	{"ClusterTrustedIssuers", func(o client.Object) bool { _, is := o.(*api.ClusterTrustedIssuer); return is }, func(p *operator, before, now client.Object) {
		tell(p, p.on.Issuer, before, now)
		p.enqueue(work{kind: api.ClusterTrustedIssuerKind, key: client.ObjectKeyFromObject(cmp.Or(now, before))})
	}},
	{"TrustedIssuers", func(o client.Object) bool { _, is := o.(*api.TrustedIssuer); return is }, func(p *operator, before, now client.Object) {
		p.enqueue(work{kind: api.TrustedIssuerKind, key: client.ObjectKeyFromObject(cmp.Or(now, before))})
	}},
	{"the operator's ConfigMaps", func(o client.Object) bool { return labelled(o) && o.GetNamespace() == operatorNamespace }, func(p *operator, before, now client.Object) {
		tell(p, p.on.Authoritative, before, now)
		p.enqueueIssuer(api.ClusterTrustedIssuerKind, before, now)
		p.enqueueIssuer(api.TrustedIssuerKind, before, now)
	}},
	{"all ConfigMaps", labelled, func(p *operator, before, now client.Object) {
		tell(p, p.on.Copy, metadataOrNil(before), metadataOrNil(now))
		p.enqueueIssuer(api.TrustedIssuerKind, before, now)
	}},
	{"namespaces", func(o client.Object) bool { return kindOf(o) == namespaceKind }, func(p *operator, before, now client.Object) {
		tell(p, p.on.Namespace, metadataOrNil(before), metadataOrNil(now))
	}},
}

func labelled(o client.Object) bool {
	return kindOf(o) == mapKind && o.GetLabels()[api.LabelSnapshot] == "true"
}

func metadataOrNil(o client.Object) *metav1.PartialObjectMetadata {
	if o == nil {
		return nil
	}
	return metadataOf(o)
}

// tell tells a handler of the product that an object has come, changed or gone.
func tell[O interface {
	comparable
	client.Object
}](p *operator, h handler.TypedEventHandler[O, controller.Target], before, now O) {
	var none O
	ctx := context.Background()
	switch {
	case before == none:
		h.Create(ctx, ctrlevent.TypedCreateEvent[O]{Object: now, IsInInitialList: p.listing}, targets{p: p})
	case now == none:
		h.Delete(ctx, ctrlevent.TypedDeleteEvent[O]{Object: before}, targets{p: p})
	default:
		h.Update(ctx, ctrlevent.TypedUpdateEvent[O]{ObjectOld: before, ObjectNew: now}, targets{p: p})
	}
}

// all is what the watch has, in order.
func (w *watch) all() (out []client.Object) {
	for _, key := range sortedKeys(w.issuers) {
		out = append(out, w.issuers[key])
	}
	for _, key := range sortedKeys(w.maps) {
		out = append(out, w.maps[key])
	}
	for _, key := range sortedKeys(w.namespaces) {
		out = append(out, w.namespaces[key])
	}
	return out
}

// advance takes in the next change. One that takes an object out of what is watched is
// its end, as one that takes it in is its beginning.
func (w *watch) advance(history []event) (before, now client.Object) {
	e := history[w.seen]
	w.seen++
	before = w.find(e.object, client.ObjectKeyFromObject(e.object))
	if w.has(e.object) && !e.gone {
		now = e.object
	}
	if before != nil || now != nil {
		w.take(e.object, now == nil)
	}
	return before, now
}

// deliver has a watch tell of the next change that it is to tell of.
func (p *operator) deliver(n int) bool {
	for w := p.watches[n]; !p.dead && w.seen < len(p.fleet.server.history); {
		if before, now := w.advance(p.fleet.server.history); before != nil || now != nil {
			w.tell(p, before, now)
			return true
		}
	}
	return false
}

// deliverAll has all watches tell all.
func (p *operator) deliverAll() {
	for n := range p.watches {
		for p.deliver(n) {
			continue
		}
	}
}

// requests and targets are queues as the product sees them.
type requests struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]

	p    *operator
	kind string
}

// Add adds an issuer object.
func (q requests) Add(r reconcile.Request) { q.p.enqueue(work{kind: q.kind, key: r.NamespacedName}) }

type targets struct {
	workqueue.TypedRateLimitingInterface[controller.Target]

	p *operator
}

// Add adds a copy.
func (q targets) Add(t controller.Target) { q.p.enqueue(work{copy: t}) }

func (p *operator) enqueueIssuer(kind string, of ...client.Object) {
	for _, cm := range of {
		if cm == nil {
			continue
		}
		for _, r := range controller.IssuerOf(cm, kind) {
			p.enqueue(work{kind: kind, key: r.NamespacedName})
		}
	}
}

// enqueue has something done: now, or once it has been done that is being done.
func (p *operator) enqueue(w work) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.active[w]; now != nil {
		now.again = true
		return
	}
	p.queue[w] = p.fleet.Now()
}

// due is what can be begun, in order.
func (p *operator) due() (out []work) {
	for w, at := range p.queue {
		if !at.After(p.fleet.Now()) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b work) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// next is when something will be due; zero for never.
func (p *operator) next() (first time.Time) {
	for _, at := range p.queue {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

type workKey struct{}

func workOf(ctx context.Context) work { w, _ := ctx.Value(workKey{}).(work); return w }

// begin begins a piece of work that is due.
func (p *operator) begin(pick int) bool {
	due := p.due()
	if p.dead || len(due) == 0 {
		return false
	}
	w := due[pick%len(due)]
	delete(p.queue, w)
	now := &piece{from: p.watches[0].seen}
	for _, w := range p.watches {
		now.from = min(now.from, w.seen)
	}
	if r := p.reconcilers[w.kind]; r != nil {
		if o := p.seen(r.New()).issuers[w.key]; o != nil {
			now.beganWith = o.GetUID()
		}
	}
	p.active[w] = now
	p.handOver()
	go func() {
		var result reconcile.Result
		var err error
		if ctx := context.WithValue(context.Background(), workKey{}, w); w.kind == "" {
			result, err = p.distributor.Reconcile(ctx, w.copy)
		} else {
			result, err = p.reconcilers[w.kind].Reconcile(ctx, reconcile.Request{NamespacedName: w.key})
		}
		p.ended(w, result, err)
	}()
	synctest.Wait()
	return true
}

// ended takes down when a piece of work has to be done again.
func (p *operator) ended(w work, result reconcile.Result, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.active[w].again
	delete(p.active, w)
	delays, now := p.delays[w.kind == ""], p.fleet.Now()
	switch {
	case err != nil:
		p.queue[w] = now.Add(delays.When(w))
	case result.RequeueAfter > 0:
		p.queue[w] = now.Add(result.RequeueAfter)
	}
	if err == nil {
		delays.Forget(w)
	}
	if again {
		p.queue[w] = now
	}
}

// errDead is what a process hears that is no more.
var errDead = errors.New("the process is no more")

// await stops until the scheduler has decided about a call, or the process has ended.
func (p *operator) await(ctx context.Context, what string) (fate, error) {
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return answered, errDead
	}
	c := &waiting{what: what, of: workOf(ctx), fate: make(chan fate)}
	p.calls = append(p.calls, c)
	p.mu.Unlock()
	f, lives := <-c.fate
	if !lives {
		return answered, errDead
	}
	return f, nil
}

func (p *operator) call(ctx context.Context, what string, writes bool, do func() error) error {
	f, err := p.await(ctx, what)
	if err != nil {
		return err
	}
	p.fleet.checks.caller, p.fleet.checks.at = p, workOf(ctx)
	err, dies := carryOut(f, what, writes, do)
	if dies {
		return p.die()
	}
	return err
}

func (p *operator) wrote(before, after *corev1.ConfigMap) { p.fleet.checks.wrote(before, after) }

func (p *operator) withdrew(issuer api.Issuer) { p.fleet.checks.withdrew[issuer.GetUID()] = p }

// die ends the process; what it is still at is told so as soon as all stands still.
func (p *operator) die() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	return errDead
}

// kill ends the process: no call that it waits with is made, and none after it.
func (p *operator) kill() {
	_ = p.die()
	for _, c := range p.calls {
		close(c.fate)
	}
	p.calls = nil
	p.shared.Close()
	standStill()
}

// ready are the calls that can be made, in order. An object is withdrawn once the
// copies of it that are being written have been: the product waits for that, with a lock
// on which the bubble would not stand still.
func (p *operator) ready() []*waiting {
	out := slices.DeleteFunc(slices.Clone(p.calls), func(c *waiting) bool {
		if c.of.kind != api.ClusterTrustedIssuerKind || !strings.HasPrefix(c.what, "get "+otherKind) {
			return false
		}
		for w := range p.active {
			if w.kind == "" {
				return true
			}
		}
		return false
	})
	slices.SortFunc(out, func(a, b *waiting) int {
		return cmp.Or(strings.Compare(a.what, b.what), strings.Compare(a.of.String(), b.of.String()))
	})
	return out
}

// waits reports that a reconciliation waits for its fetch, and could leave it to itself.
func (p *operator) waits() bool {
	for w := range p.active {
		if !slices.ContainsFunc(p.calls, func(c *waiting) bool { return c.of == w }) {
			return true
		}
	}
	return false
}

// handOver makes what the scheduler has done known to the pieces of work that go on next,
// some of which only a timer wakes.
func (p *operator) handOver() {
	for _, each := range append(slices.Clone(p.fleet.deposed), p.fleet.leader, p) {
		if each != nil {
			each.mu.Lock()
			each.mu.Unlock() //nolint:staticcheck // the order is all that it is for
		}
	}
}

// goOn lets one call be made, or a reconciliation leave its fetch to itself.
func (p *operator) goOn(pick int, f fate) bool {
	if p.dead {
		return false
	}
	ready, options := p.ready(), 0
	if options = len(ready); p.waits() {
		options++
	}
	if options == 0 {
		return false
	}
	if pick %= options; pick == len(ready) {
		p.handOver()
		standStill()
		return true
	}
	c := ready[pick]
	p.calls = slices.DeleteFunc(p.calls, func(other *waiting) bool { return other == c })
	p.handOver()
	c.fate <- f
	synctest.Wait()
	if p.dead {
		p.kill()
	}
	return true
}

// finish lets the process do all that it is at, undisturbed; and, if it begins anew, all
// that is due.
func (p *operator) finish(begins bool) {
	for range maxCalls * 10 {
		if !p.goOn(0, answered) && !(begins && p.begin(0)) {
			return
		}
		if p.fleet.checks.after(); p.fleet.checks.failed() {
			return
		}
	}
	p.fleet.checks.fail("a manager has made %d calls and finds no end", maxCalls*10)
}
