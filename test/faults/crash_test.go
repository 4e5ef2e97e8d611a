// crash_test.go ends the manager at every write of an issuer's life, by SIGKILL:
// before the server has seen the write, and after. A run without disturbance counts
// the writes of each act and says what each leaves behind. Then one run for each
// number n ends the manager at the n-th write of every act, starts it again, and
// finds the same objects, while the history has no moment without trusted keys.

package faults

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// together is how many lives of each kind are lived at a time: they mostly wait.
const together = 4

// act is a part of an issuer's life.
type act struct {
	name string
	do   func(l *life, g Gomega)
	// done says, in the undisturbed run, that it has had its effect.
	done func(l *life) bool
	// patience is what it takes by itself, besides what a crash adds.
	patience time.Duration
	// quick: a part of the bounded run.
	quick bool
}

// play has it done, and waits for its effect.
func (a act) play(l *life, g Gomega, within time.Duration) {
	a.do(l, g)
	g.Eventually(func() bool { return a.done(l) }).WithTimeout(within).WithPolling(50*time.Millisecond).Should(BeTrue(), a.name)
}

// life is that of one issuer object, with a manager of its own that is for it alone.
type life struct {
	w       *world
	id      string
	object  api.Issuer
	issuer  *testissuer.Issuer
	manager *instance
	asked   int
}

// lives are the stories, by kind.
var lives = map[string][]act{
	api.TrustedIssuerKind: {
		{name: "create", do: create, done: isReady, quick: true},
		{name: "refresh", do: refresh, done: answered},
		{name: "rotate", do: rotate, done: func(l *life) bool { return answered(l) && len(l.status().Keys) == 2 }, quick: true},
		{name: "outage", do: func(l *life, g Gomega) { l.issuer.Stop(); refresh(l, g) }, done: answered},
		{name: "recover", do: func(l *life, g Gomega) { g.Expect(l.issuer.Restart()).To(Succeed()); refresh(l, g) }, done: answered},
		{name: "edit", do: edit, done: func(l *life) bool { return isReady(l) && l.current() }, quick: true},
		{name: "drop a key", do: drop, done: func(l *life) bool { return answered(l) && len(l.status().Keys) == 1 }, patience: 35 * time.Second},
		{name: "move the copy", do: rename, done: func(l *life) bool {
			return isReady(l) && l.current() && l.status().Snapshot.ConfigMapName == "elsewhere"
		}},
		{name: "withdraw all keys", do: revoke, done: func(l *life) bool { return l.current() && l.status().Snapshot.Digest == "" }},
		{name: "trust again", do: trustAgain, done: func(l *life) bool { return isReady(l) && l.current() }},
		{name: "delete", do: remove, done: isGone, quick: true},
	},
	api.ClusterTrustedIssuerKind: {
		{name: "create", do: create, done: isReady, quick: true},
		{name: "distribute", do: distribute, done: func(l *life) bool { return l.current() && l.copies() == 2 }, quick: true},
		{name: "rotate", do: rotate, done: func(l *life) bool { return answered(l) && l.copies() == 2 }},
		{name: "edit", do: edit, done: func(l *life) bool { return isReady(l) && l.current() && l.copies() == 2 }},
		{name: "withdraw the copies", do: withdraw, done: func(l *life) bool { return l.current() && l.copies() == 0 }, quick: true},
		{name: "distribute again", do: distribute, done: func(l *life) bool { return l.current() && l.copies() == 2 }},
		{name: "delete", do: remove, done: isGone, quick: true},
	},
}

func TestCrashAtEveryWrite(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	w := inShared(t)
	for kind, acts := range lives {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			var story []act
			for _, a := range acts {
				if a.quick || *full {
					story = append(story, a)
				}
			}
			learned, err := w.undisturbed(kind, story)
			g.Expect(err).NotTo(HaveOccurred())
			most := 0
			for i, a := range story {
				t.Logf("%s: %d writes\n  %s", a.name, len(learned[i].writes), strings.Join(learned[i].writes, "\n  "))
				most = max(most, len(learned[i].writes))
			}
			var runs errgroup.Group
			runs.SetLimit(together)
			var total tally
			for n := 1; n <= most; n++ {
				for _, after := range []bool{false, true} {
					runs.Go(func() error {
						if err := w.disturbed(kind, story, learned, n, after, &total); err != nil {
							t.Error(err) // all that fail are of interest
						}
						return nil
					})
				}
			}
			_ = runs.Wait() // each has reported for itself
			g.Expect(total.crashes).To(BeNumerically(">", 2*len(story)), "there was something to interrupt")
			figures.add("SIGKILL at each write, before and after the server has seen it ("+kind+")",
				"same objects as undisturbed, within 30 s; trusted keys at every moment",
				"%d crashes in %d acts; slowest %s; %d versions judged", total.crashes, len(story), total.slowest.Round(100*time.Millisecond), total.versions)
		})
	}
}

// lesson is what the undisturbed run teaches about an act.
type lesson struct {
	writes []string
	state  string
}

// tally sums up the runs.
type tally struct {
	mu                sync.Mutex
	crashes, versions int
	slowest           time.Duration
}

func (t *tally) add(crashes, versions int, slowest time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.crashes, t.versions, t.slowest = t.crashes+crashes, t.versions+versions, max(t.slowest, slowest)
}

// undisturbed lives a life without faults.
func (w *world) undisturbed(kind string, story []act) (learned []lesson, err error) {
	err = failing(func(g Gomega) {
		l := w.newLife(g, kind, "undisturbed")
		defer l.end()
		for _, a := range story {
			a.play(l, g, mended+a.patience)
			l.quiet(g)
			state, err := l.state()
			g.Expect(err).NotTo(HaveOccurred())
			learned = append(learned, lesson{l.manager.proxy.taken(), state})
		}
	})
	return learned, err
}

// disturbed lives a life in which each act is interrupted at its n-th write.
func (w *world) disturbed(kind string, story []act, learned []lesson, n int, after bool, total *tally) error {
	when := map[bool]string{false: "before", true: "after"}[after]
	at := ""
	err := failing(func(g Gomega) {
		l := w.newLife(g, kind, fmt.Sprintf("%s-%d", when, n))
		defer l.end()
		for i, a := range story {
			at = a.name
			trap := l.trap(n, after)
			started, crashed := time.Now(), false
			again := func() {
				<-trap.sprung
				crashed = true
				l.manager.start(g)
				l.manager.ready(g)
				started = time.Now()
			}
			settle := func() {
				g.Eventually(func() (string, error) {
					select {
					case <-trap.sprung:
						if !crashed {
							again()
						}
					default:
					}
					state, err := l.state()
					return difference(state, learned[i].state), err
				}).WithTimeout(mended+a.patience).WithPolling(50*time.Millisecond).Should(BeEmpty(), a.name)
			}
			a.do(l, g)
			settle()
			if trap.disarm() && !crashed { // the last write was the one
				again()
				settle()
			}
			versions, err := w.seen.judge(l.object)
			g.Expect(err).NotTo(HaveOccurred())
			if crashed {
				total.add(1, 0, max(0, time.Since(started)-a.patience))
			}
			if i == len(story)-1 {
				total.add(0, versions, 0)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("SIGKILL %s write %d of %q: %w", when, n, at, err)
	}
	return nil
}

// trap ends a manager at its n-th write.
type trap struct {
	sprung chan struct{} // closed when the manager is gone

	mu    sync.Mutex
	left  int // until the write; 0 at it
	armed bool
}

// trap sets one.
func (l *life) trap(n int, after bool) *trap {
	t := &trap{sprung: make(chan struct{}), left: n, armed: true}
	manager := l.manager
	manager.proxy.inject(func(c call, w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		if !c.write || !t.step() {
			pass(w, r)
			return
		}
		if after {
			pastTheClient(r, pass)
		}
		manager.Kill()
		close(t.sprung)
		panic(http.ErrAbortHandler)
	})
	return t
}

// step counts a write, and says whether it is the one.
func (t *trap) step() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.armed {
		return false
	}
	t.left--
	return t.left == 0
}

// disarm makes it harmless, and says whether it has been sprung.
func (t *trap) disarm() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	return t.left <= 0
}

// newLife starts a manager for an object that is not there yet.
func (w *world) newLife(g Gomega, kind, name string) *life {
	id := fmt.Sprintf("life-%d", instances.Add(1))
	l := &life{w: w, id: id, issuer: newIssuer(g, key1())}
	about := metav1.ObjectMeta{Name: id, Labels: map[string]string{"life": id}}
	for _, ns := range []string{id, id + "-a", id + "-b", id + "-system"} {
		labels := map[string]string{}
		if strings.HasSuffix(ns, "-a") || strings.HasSuffix(ns, "-b") {
			labels["apps-of"] = id
		}
		g.Expect(w.namespace(ns, labels)).To(Succeed())
	}
	if kind == api.TrustedIssuerKind {
		ti := &api.TrustedIssuer{ObjectMeta: about}
		ti.Namespace, ti.Spec.IssuerSpec = id, specFor(l.issuer)
		l.object = ti
	} else {
		cti := &api.ClusterTrustedIssuer{ObjectMeta: about}
		cti.Spec.IssuerSpec = specFor(l.issuer)
		l.object = cti
	}
	l.manager = w.run(g, id+"-"+name, "--components=controller", "--issuer-selector=life="+id, "--operator-namespace="+id+"-system")
	return l
}

func (l *life) end() {
	l.manager.end()
	l.issuer.Close()
}

func (l *life) state() (string, error) {
	return l.w.state(l.object, l.id, "LIFE", strings.TrimPrefix(l.issuer.URL(), "https://"), "ISSUER")
}

// quiet waits until the manager has nothing left to write.
func (l *life) quiet(g Gomega) {
	g.Eventually(func(g Gomega) {
		before := l.manager.proxy.written()
		g.Consistently(l.manager.proxy.written).WithTimeout(1500 * time.Millisecond).WithPolling(100 * time.Millisecond).Should(Equal(before))
	}).WithTimeout(mended).Should(Succeed())
}

// get reads the object again; what it was before, where it is gone.
func (l *life) get() api.Issuer {
	fresh, ok := l.object.DeepCopyObject().(api.Issuer)
	if !ok || l.w.api.Get(context.Background(), client.ObjectKeyFromObject(l.object), fresh) != nil {
		return l.object
	}
	return fresh
}

func (l *life) status() *api.IssuerStatus {
	s := l.get().IssuerStatus()
	if s.Snapshot == nil {
		s.Snapshot = &api.SnapshotStatus{}
	}
	return s
}

// change patches the object.
func (l *life) change(g Gomega, edit func(api.Issuer)) {
	issuer := l.get()
	base, ok := issuer.DeepCopyObject().(client.Object)
	g.Expect(ok).To(BeTrue())
	edit(issuer)
	g.Expect(l.w.api.Patch(context.Background(), issuer, client.MergeFrom(base))).To(Succeed())
	l.object = issuer
}

// The acts.

func create(l *life, g Gomega) {
	g.Expect(l.w.api.Create(context.Background(), l.object)).To(Succeed())
}

func refresh(l *life, g Gomega) {
	l.asked++
	l.change(g, func(o api.Issuer) {
		annotations := map[string]string{api.AnnotationRefresh: fmt.Sprint(l.asked)}
		o.SetAnnotations(annotations)
	})
}

func rotate(l *life, g Gomega) {
	l.issuer.Publish(key1(), key2())
	refresh(l, g)
}

func drop(l *life, g Gomega) {
	l.issuer.Publish(key1())
	refresh(l, g)
}

func edit(l *life, g Gomega) {
	l.change(g, func(o api.Issuer) {
		s := o.IssuerSpec()
		s.Audiences = []string{"billing", "orders"}
		s.Snapshot = &api.SnapshotSpec{Labels: map[string]api.LabelValue{"team": "blue"}, AdditionalFormats: []api.SnapshotFormat{api.FormatPEM}}
	})
}

func rename(l *life, g Gomega) {
	l.change(g, func(o api.Issuer) { o.IssuerSpec().Snapshot.ConfigMapName = "elsewhere" })
}

func revoke(l *life, g Gomega) {
	l.change(g, func(o api.Issuer) { o.IssuerSpec().RevokedKeys = []string{"k1", "k2"} })
}

func trustAgain(l *life, g Gomega) {
	l.change(g, func(o api.Issuer) { o.IssuerSpec().RevokedKeys = nil })
}

func distribute(l *life, g Gomega) {
	l.selects(g, &metav1.LabelSelector{MatchLabels: map[string]string{"apps-of": l.id}})
}

func withdraw(l *life, g Gomega) { l.selects(g, nil) }

func (l *life) selects(g Gomega, s *metav1.LabelSelector) {
	l.change(g, func(o api.Issuer) {
		cti, ok := o.(*api.ClusterTrustedIssuer)
		g.Expect(ok).To(BeTrue())
		cti.Spec.NamespaceSelector = s
	})
}

func remove(l *life, g Gomega) {
	g.Expect(l.w.api.Delete(context.Background(), l.object)).To(Succeed())
}

// What an act leads to.

func isReady(l *life) bool {
	return meta.IsStatusConditionTrue(l.status().Conditions, api.ConditionReady)
}

// current: status speaks of the spec as it is, and so did the last fetch.
func (l *life) current() bool {
	o := l.get()
	s := o.IssuerStatus()
	fetched := meta.FindStatusCondition(s.Conditions, api.ConditionFetched)
	return s.ObservedGeneration == o.GetGeneration() && s.Snapshot.PendingDigest == "" &&
		fetched != nil && fetched.ObservedGeneration == o.GetGeneration() && fetched.Status != metav1.ConditionUnknown
}

// answered: the refresh that was asked for has been made.
func answered(l *life) bool {
	h := l.status().HandledRefresh
	return h != nil && h.Request == fmt.Sprint(l.asked)
}

func isGone(l *life) bool {
	err := l.w.api.Get(context.Background(), client.ObjectKeyFromObject(l.object), &api.TrustedIssuer{})
	if l.object.IssuerKind() == api.ClusterTrustedIssuerKind {
		err = l.w.api.Get(context.Background(), client.ObjectKeyFromObject(l.object), &api.ClusterTrustedIssuer{})
	}
	return client.IgnoreNotFound(err) == nil && err != nil
}

// copies is how many namespaces have the current copy.
func (l *life) copies() int {
	var list corev1.ConfigMapList
	if err := l.w.api.List(context.Background(), &list, client.MatchingLabels{api.LabelIssuerUID: string(l.object.GetUID())}); err != nil {
		return -1
	}
	n := 0
	for _, cm := range list.Items {
		if cm.Namespace != l.id+"-system" && cm.Annotations[api.AnnotationDigest] == l.status().Snapshot.Digest {
			n++
		}
	}
	return n
}
