package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// another is a TrustedIssuer for the same issuer in another namespace, under the
// same manager.
func (s *scene) another() *scene {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "team-"}}
	Expect(server.Create(s.ctx, ns)).To(Succeed())
	twin := *s
	twin.key = client.ObjectKey{Namespace: ns.Name, Name: s.key.Name}
	return &twin
}

var _ = Describe("Issuer objects with the same source", func() {
	var all []*scene
	BeforeEach(func(ctx context.Context) {
		first := newScene(ctx)
		first.r.Random = nil // the jitter decides whether they go on sharing
		all = []*scene{first, first.another(), first.another()}
		for _, s := range all {
			s.create()
			s.reconcile()
		}
	})

	It("share one request per refresh", func() {
		issuer := all[0].issuer
		Expect(issuer.Requests()).To(Equal(1))
		for range 60 { // an hour, looked at every minute
			all[0].clock.SetTime(all[0].clock.Now().Add(time.Minute))
			for _, s := range all {
				s.reconcile()
			}
		}
		Expect(issuer.Requests()).To(BeNumerically("<=", 1+60/7), "as many as one object makes")
		for _, s := range all {
			Expect(s.status()).To(isReady(api.ReasonFresh))
		}
	})

	It("share the backoff of an issuer that fails", func() {
		issuer := all[0].issuer
		issuer.Respond(testissuer.Status(500))
		all[0].clock.SetTime(all[0].clock.Now().Add(10 * time.Minute))
		before := issuer.Requests()
		for range 12 * 30 { // half an hour, looked at every five seconds
			for _, s := range all {
				s.reconcile()
			}
			all[0].clock.SetTime(all[0].clock.Now().Add(5 * time.Second))
		}
		Expect(issuer.Requests()-before).To(BeNumerically("<=", 25), "about as many as one object makes")
	})

	It("all have a new key as soon as one of them has", func() {
		all[0].issuer.Publish(key1(), key2())
		all[0].annotate(api.AnnotationRefresh, "now")
		all[0].clock.SetTime(all[0].clock.Now().Add(time.Minute))
		before := all[0].issuer.Requests()
		for _, s := range all {
			s.reconcile()
			Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		}
		Expect(all[0].issuer.Requests() - before).To(Equal(1))
	})

	It("all have a new key as soon as one of them has, also where their last fetch has failed", func() {
		issuer := all[0].issuer
		all[0].r.Random = func() float64 { return 0.99 }
		issuer.Respond(testissuer.Status(500))
		for range 12 { // until they are patient
			all[0].clock.SetTime(all[0].clock.Now().Add(10 * time.Minute))
			for _, s := range all {
				s.reconcile()
			}
		}
		issuer.Respond(nil)
		issuer.Publish(key1(), key2())
		all[0].annotate(api.AnnotationRefresh, "now")
		all[0].clock.SetTime(all[0].clock.Now().Add(10 * time.Second))
		before := issuer.Requests()
		for _, s := range all {
			s.reconcile()
			Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		}
		Expect(issuer.Requests() - before).To(Equal(1))
	})

	It("share the look-up of an unknown key", func() {
		all[0].clock.SetTime(all[0].clock.Now().Add(time.Minute))
		before := all[0].issuer.Requests()
		for _, s := range all {
			s.verifierAsks()
			s.reconcile()
			Expect(s.status().HandledRefresh.Outcome).To(Equal(api.ReasonSucceeded))
		}
		Expect(all[0].issuer.Requests()-before).To(Equal(1), "one in 30 s for the source, however many objects ask")
	})
})

// spent is a fetcher whose budget for look-ups is used up.
type spent struct{ Fetcher }

func (spent) MayLookUp(string) bool { return false }

var _ = It("fetches at once after an answer that another object got longer ago than its own next refresh", func(ctx context.Context) {
	a := newScene(ctx)
	a.issuer.Header("Cache-Control", "max-age=500")
	b := a.another()
	a.create()
	b.create()
	for range 2 {
		a.reconcile()
		b.reconcile()
	}
	a.issuer.Header("Cache-Control", "max-age=60")
	a.after(400 * time.Second)
	asked := a.issuer.Requests()
	next := b.after(90 * time.Second) // the manager was busy
	Expect(a.issuer.Requests()).To(Equal(asked), "the other one's answer will do")
	Expect(next.RequeueAfter).To(Equal(time.Millisecond))
	b.after(next.RequeueAfter)
	Expect(a.issuer.Requests()).To(Equal(asked + 1))
})

var _ = Describe("A token with an unknown key", func() {
	It("is not called unknown for good because its key was fetched and could not be published", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.issuer.Publish(key1(), key2())
		s.clock.SetTime(s.clock.Now().Add(time.Minute))
		s.verifierAsks()
		granted := s.r.Reader
		s.r.Reader = interceptor.NewClient(server, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if _, ok := o.(*corev1.ConfigMap); ok {
					return apierrors.NewForbidden(corev1.Resource("configmaps"), key.Name, errors.New("no"))
				}
				return c.Get(ctx, key, o, options...)
			},
		})
		s.keepReconciling(2, time.Second)
		Expect(s.status().HandledRefresh.Outcome).To(Equal(api.ReasonPublishFailed))
		s.r.Reader = granted
		s.keepReconciling(2, time.Second)
		Expect(s.status().HandledRefresh.Outcome).To(Equal(api.ReasonSucceeded))
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})

	It("causes no fetch while tokens have asked for enough, now or later; the schedule goes on", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.r.Fetcher = spent{s.r.Fetcher}
		s.clock.SetTime(noon.Add(7*time.Minute + 50*time.Second))
		s.verifierAsks()
		Expect(s.reconcile().RequeueAfter).To(BeNumerically("<=", 10*time.Second), "the refresh that is due then")
		Expect(s.issuer.Requests()).To(Equal(1))
		s.after(10 * time.Second)
		Expect(s.issuer.Requests()).To(Equal(2))
	})
})

// gate holds fetches back until it is opened.
type gate struct {
	Fetcher
	open chan struct{}
}

func (g *gate) Get(ctx context.Context, w fetch.Want) fetch.Answer {
	<-g.open
	return g.Fetcher.Get(ctx, w)
}

// panicking stands for a mistake in what reads an issuer's answers.
type panicking struct{ Fetcher }

func (panicking) Get(context.Context, fetch.Want) fetch.Answer { panic("a mistake") }

var _ = Describe("A fetch that takes its time", func() {
	var s *scene
	var g *gate
	BeforeEach(func(ctx context.Context) {
		s = newScene(ctx)
		g = &gate{s.r.Fetcher, make(chan struct{})}
		s.r.Fetcher, s.r.Queue = g, NewQueue()
		s.create()
		s.reconcile()
		Expect(s.r.memories.of(s.key, s.get().UID).running).NotTo(BeNil())
		s.writes.take()
	})
	ends := func() {
		GinkgoHelper()
		running := s.r.memories.of(s.key, s.get().UID).running
		close(g.open)
		Eventually(running.done).Should(BeClosed())
	}

	It("holds nothing up, and is taken in when it ends", func() {
		s.after(5 * time.Second)
		Expect(s.writes.take()).To(BeEmpty(), "nothing is new meanwhile")
		ends()
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.issuer.Requests()).To(Equal(1))
	})

	It("does not swallow what is asked for meanwhile", func() {
		s.annotate(api.AnnotationRefresh, "meanwhile")
		s.reconcile()
		ends()
		Expect(s.reconcile().RequeueAfter).To(Equal(time.Millisecond))
		s.after(5 * time.Second)
		Eventually(func() string { s.reconcile(); return requestOf(s.status()) }).Should(Equal("meanwhile"))
		Expect(s.issuer.Requests()).To(Equal(2))
	})

	It("counts for nothing when spec has changed meanwhile", func() {
		other, err := testissuer.Start()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(other.Close)
		other.Publish(key2())
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI, ti.Spec.CABundle = other.JWKSURI(), other.CABundle() })
		s.reconcile()
		ends()
		s.reconcile()
		Expect(s.status().Snapshot.Digest).To(BeEmpty())
		s.clock.SetTime(s.clock.Now().Add(5 * time.Second))
		Eventually(func() string { s.reconcile(); return s.status().Snapshot.Digest }).ShouldNot(BeEmpty())
		Expect(s.kids()).To(Equal([]string{"k2"}))
	})

	It("counts for the keys that it exposes, though spec has suspended the issuer meanwhile", func() {
		s.issuer.Publish(key1(), key2())
		ends()
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		g.open = make(chan struct{})
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
		s.after(8 * time.Minute)
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Suspend = ptr.To(true) })
		s.reconcile()
		ends()
		s.events()
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status().CompromisedKeys).To(ConsistOf(HaveField("KeyID", "k2")))
		Expect(s.events()).To(ContainElement(HavePrefix("Warning PrivateKeyExposed")))

		s.annotate(api.AnnotationClearCompromised, s.status().CompromisedKeys[0].Thumbprint)
		s.reconcile()
		s.reconcile()
		Expect(s.status().CompromisedKeys).To(BeEmpty())
	})

	It("does not pass for metadata that name another host when spec did", func() {
		ends()
		s.reconcile()
		other, err := testissuer.Start()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(other.Close)
		other.Publish(key2())
		g.open = make(chan struct{})
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI, ti.Spec.CABundle = other.JWKSURI(), other.CABundle() })
		s.after(5 * time.Second)
		ends()
		s.reconcile()
		Expect(s.status().JWKSURI).To(Equal(other.JWKSURI()))
		Expect(s.events()).NotTo(ContainElement(ContainSubstring(api.ReasonJWKSURIHostChanged)))
	})

	It("ends in a failure like any other when it panics", func() {
		ends()
		s.reconcile()
		s.r.Fetcher = panicking{s.r.Fetcher}
		s.clock.SetTime(s.clock.Now().Add(8 * time.Minute))
		Eventually(func() api.IssuerStatus { s.reconcile(); return s.status() }).
			Should(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonConnectionFailed))
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.r.Fetcher = g
		s.clock.SetTime(s.clock.Now().Add(time.Minute))
		Eventually(func() api.IssuerStatus { s.reconcile(); return s.status() }).Should(isReady(api.ReasonFresh))
	})

	It("does not keep what the issuer has confirmed out of status until the record has expired", func() {
		ends()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.StaleTTL = &metav1.Duration{} })
		s.issuer.Header("Cache-Control", "max-age=225")
		for _, d := range []time.Duration{5 * time.Second, 3 * time.Minute, 3 * time.Minute} {
			s.clock.SetTime(s.clock.Now().Add(d))
			Eventually(func() *running { s.reconcile(); return s.r.memories.of(s.key, s.get().UID).running }).Should(BeNil())
		}
		recorded := s.status().Snapshot.ExpiresAt.Time
		Expect(recorded).To(BeTemporally("==", noon.Add(5*time.Second).Add(10*time.Minute)), "two successes since were not worth a write")
		g.open = make(chan struct{})
		DeferCleanup(func() { close(g.open) })
		next := s.after(3 * time.Minute)
		Expect(next.RequeueAfter).To(BeNumerically(">", 0))
		Expect(s.clock.Now().Add(next.RequeueAfter)).To(BeTemporally("<", recorded), "the fetch has not ended")
		s.after(next.RequeueAfter)
		Expect(s.status().Snapshot.ExpiresAt.Time).To(BeTemporally("==", recorded.Add(6*time.Minute)))
	})

	It("is forgotten with its object", func() {
		Expect(server.Delete(s.ctx, s.get())).To(Succeed())
		close(g.open)
		s.reconcile()
		s.reconcile()
		Expect(s.r.memories.byUID).To(BeEmpty())
	})
})

func requestOf(s api.IssuerStatus) string {
	if s.HandledRefresh == nil {
		return ""
	}
	return s.HandledRefresh.Request
}

func TestSharedAnswers(t *testing.T) {
	last := &attemptMemory{started: noon.Add(-8 * time.Minute), generation: 1, next: noon}
	spec := &api.IssuerSpec{JWKSURI: "https://issuer.example.com/jwks"}
	wanted := known(noon.Add(-8*time.Minute), noon.Add(time.Hour))
	wanted.RefreshRequestedAt = ptrTo(metav1.NewMicroTime(noon))
	missed := known(noon.Add(-time.Minute), noon.Add(time.Hour))
	missed.Keys = []api.KeyStatus{{State: api.KeyActive, MissingSince: ptrTo(metav1.NewTime(noon.Add(-time.Minute)))}}
	for name, tc := range map[string]struct {
		in        planInput
		notBefore time.Time
		maxAge    time.Duration
	}{
		"scheduled: begun when it was due, or a success of the last quarter": {
			planInput{status: known(noon.Add(-8*time.Minute), noon), last: last}, noon, 2 * time.Minute,
		},
		"asked for: new": {
			planInput{status: known(noon.Add(-8*time.Minute), noon), last: last, request: "now"}, noon.Add(1 - minAttemptSpacing), 0,
		},
		"a new object: a success of the last minute": {
			planInput{status: &api.IssuerStatus{}}, noon.Add(1 - minAttemptSpacing), time.Minute,
		},
		"an unknown key: of the last 30 s": {
			planInput{status: wanted, wantedSince: noon}, noon.Add(1 - unknownKeySpacing), 0,
		},
		"a second look: at least 30 s after the first": {
			planInput{status: missed}, noon.Add(-30 * time.Second), 0,
		},
		"a second look after one that failed: newer than that, or it would be the same answer again, for ever": {
			planInput{status: missed, last: &attemptMemory{started: noon.Add(-10 * time.Second), generation: 1, failures: 1, next: noon}}, noon.Add(1 - 10*time.Second), 0,
		},
		"news: what made them": {
			planInput{status: known(noon.Add(-time.Minute), noon.Add(time.Minute)), news: true}, noon, 10 * time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			tc.in.now, tc.in.generation, tc.in.spec = noon, 1, spec
			p := planFetch(tc.in)
			g.Expect(p.fetch).To(BeTrue())
			g.Expect(p.notBefore).To(Equal(tc.notBefore))
			g.Expect(p.maxAge).To(Equal(tc.maxAge))
		})
	}
}

func TestJitterIsThatOfTheSource(t *testing.T) {
	g := NewWithT(t)
	r := &Reconciler{}
	a, b := fetch.Request{URL: "https://a.example.com"}.Identity(), fetch.Request{URL: "https://b.example.com"}.Identity()
	g.Expect(r.random(a, noon)).To(Equal(r.random(a, noon)))
	g.Expect(r.random(a, noon)).NotTo(Equal(r.random(b, noon)))
	g.Expect(r.random(a, noon)).NotTo(Equal(r.random(a, noon.Add(time.Second))))
	sum, least, most := 0.0, 1.0, 0.0
	for n := range 1000 {
		x := r.random(a, noon.Add(time.Duration(n)*time.Millisecond))
		sum, least, most = sum+x, min(least, x), max(most, x)
	}
	g.Expect(sum / 1000).To(BeNumerically("~", 0.5, 0.05))
	g.Expect(least).To(And(BeNumerically(">=", 0), BeNumerically("<", 0.02)))
	g.Expect(most).To(And(BeNumerically("<", 1), BeNumerically(">", 0.98)))
}

func TestQueueWakesWhoReadsADocument(t *testing.T) {
	g := NewWithT(t)
	q := NewQueue()
	source := fetch.Request{URL: "https://a.example.com"}.Identity()
	object := func(name string) *api.TrustedIssuer {
		return &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
	}
	q.follow(object("moved"), source)
	q.follow(object("moved"), fetch.Identity{1})
	q.follow(object("gone"), source)
	q.leave(api.TrustedIssuerKind, types.NamespacedName{Namespace: "n", Name: "gone"})
	q.follow(object("stays"), source)
	g.Expect(q.followers[source]).To(HaveLen(1))
	q.Changed(source) // no controller listens yet
	var none *Queue
	none.follow(object("x"), source)
	none.leave(api.TrustedIssuerKind, types.NamespacedName{})
}
