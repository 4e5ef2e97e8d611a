// Package controller keeps the trusted keys of issuers: it fetches them, writes
// them into ConfigMaps and reports in status. One Reconciler serves both kinds.
//
// The way of a reconciliation:
//
//	observe         the issuer, its authoritative ConfigMap, what is remembered
//	   │
//	plan (pure)     is a fetch due?                                     plan.go
//	   │
//	fetch, admit    a new key set, or a reason why not                source.go
//	   │
//	rotate (pure)   which keys are trusted from now on                rotate.go
//	   │
//	publish         status.pendingDigest ─> ConfigMap ─> status.digest publish.go
//	   │
//	status (pure)   the next status, saved on the error path too      status.go
//	   │
//	events          after status has been saved                       events.go
//
// A crash between any two writes harms nobody: the verifier accepts content
// whose digest is either of the two in status, and the next reconciliation
// settles what is pending before it does anything else.
package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// Reconciler keeps the keys of the issuers of one kind.
type Reconciler struct {
	// New makes an empty object of the kind.
	New func() api.Issuer
	// Client reads from the cache and writes.
	Client client.Client
	// Reader reads from the API server itself.
	Reader client.Reader
	// Copies reads the metadata of ConfigMaps in all namespaces.
	Copies client.Reader
	// Holders lists the metadata of an issuer's ConfigMaps, for reading only.
	Holders func(ctx context.Context, issuer types.UID, in ...client.ListOption) ([]metav1.PartialObjectMetadata, error)
	// Authorities are the UIDs in the authoritative ConfigMaps that were made for
	// objects of that name.
	Authorities func(ctx context.Context, of types.NamespacedName) ([]types.UID, error)
	// Fetcher gets documents from issuers.
	Fetcher Fetcher
	// Recorder sends events.
	Recorder events.EventRecorder
	// Clock tells the time.
	Clock clock.PassiveClock
	// OperatorNamespace is where the authoritative ConfigMaps live.
	OperatorNamespace string
	// Random is in [0, 1) and spreads refreshes; nil for the default source.
	Random func() float64
	// Queue lets fetches go on in the background; nil makes Reconcile wait for
	// them.
	Queue *Queue
	// Siblings lists the ClusterTrustedIssuers that answer TokenReview for an
	// issuer.
	Siblings func(ctx context.Context, issuer string) ([]api.ClusterTrustedIssuer, error)

	// distributor keeps the copies of ClusterTrustedIssuers; nil for the other
	// kind.
	distributor *Distributor
	memories    memories
	graves      graves
}

// Reconcile brings one issuer up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	began, issuer := r.Clock.Now(), r.New()
	if err := r.Client.Get(ctx, req.NamespacedName, issuer); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			return again(ctx, 0, r.collect(ctx, req.NamespacedName, ""))
		}
		return reconcile.Result{}, fmt.Errorf("reading the issuer: %w", err)
	}
	m := r.memories.of(req.NamespacedName, issuer.GetUID())
	if olderThan(issuer, m.version) {
		// The cache has not seen our own last write yet.
		if err := r.Reader.Get(ctx, req.NamespacedName, issuer); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
		m = r.memories.of(req.NamespacedName, issuer.GetUID()) // it may be another one by now
	}
	if !issuer.GetDeletionTimestamp().IsZero() {
		return again(ctx, 0, r.withdraw(ctx, issuer, req.NamespacedName))
	}
	if err := r.addFinalizer(ctx, issuer, m); err != nil {
		return again(ctx, 0, fmt.Errorf("adding the finalizer: %w", err))
	}
	out, err := r.reconcile(ctx, issuer, m)
	err = errors.Join(err, r.collect(ctx, req.NamespacedName, issuer.GetUID()))
	delay := r.wake(issuer, out, began, m)
	if m.again {
		delay, m.again = time.Millisecond, false
	}
	return again(ctx, delay, err)
}

// conflictDelay is how long to wait after a write conflict: long enough for the
// cache to catch up, short enough for nobody to notice.
const conflictDelay = 100 * time.Millisecond

// again is when to come back: after the delay, or after an error. A conflict is
// no error, only a view that was old.
func again(ctx context.Context, delay time.Duration, err error) (reconcile.Result, error) {
	if outdated(err) {
		log.FromContext(ctx).V(1).Info("An object changed meanwhile; trying again", "error", err.Error())
		return reconcile.Result{RequeueAfter: conflictDelay}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: delay}, nil
}

// outdated reports that a write was refused because an object changed meanwhile.
func outdated(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// reconcile is the flow of the package's picture for an issuer that is there to
// stay. Status is saved on the error path too.
func (r *Reconciler) reconcile(ctx context.Context, issuer api.Issuer, m *memory) (outcome, error) {
	defer m.rest()
	m.saved = issuer.IssuerStatus().DeepCopy()
	if m.told == nil { // else an event may not have been sent yet
		m.told = m.saved
	}
	if applyClear(issuer) {
		// What was left out may be admitted now.
		m.readmit = true
	}

	out, err := r.sync(ctx, issuer, m)
	err = errors.Join(err, r.save(ctx, issuer, out, m))
	if err == nil {
		// The answer has been dealt with. A users' ConfigMap that cannot be written
		// must not keep the next one away.
		m.reached(out.attempt, issuer.IssuerStatus())
		// Users' ConfigMap follows once the digest in status has moved.
		if published := r.publishCopy(ctx, issuer, out, m); published != nil {
			out.published = published.publication
			err = errors.Join(published.err, r.save(ctx, issuer, out, m))
		}
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		err = nil // nothing is left to do there, and trying again would not end
	}
	return out, err
}

// save computes the next status and writes it if it is worth it; then it sends
// the events.
func (r *Reconciler) save(ctx context.Context, issuer api.Issuer, out outcome, m *memory) error {
	now := r.Clock.Now()
	next := nextStatus(issuer, out, now)
	measure(issuer, next, out.distributed)
	switch {
	case worthWriting(m.saved, next, issuer.IssuerSpec().CacheTTLOrDefault(), now):
		if err := r.saveStatus(ctx, issuer, next, m); err != nil {
			return err
		}
	case m.told == m.saved:
		return nil
	default: // it was written before the ConfigMaps were
	}
	for _, e := range eventsFor(m.told, next, out.attempt) {
		r.send(issuer, e)
		countSuspect(issuer, e)
	}
	countRotation(issuer, m.told, next)
	m.told = m.saved
	return nil
}

// forget drops what is remembered and measured of an issuer that is gone.
func (r *Reconciler) forget(key client.ObjectKey) {
	r.memories.forget(key)
	r.Queue.leave(r.New().IssuerKind(), key)
	forgetMetrics(r.New().IssuerKind(), key)
}

func (r *Reconciler) send(issuer api.Issuer, e event) {
	r.Recorder.Eventf(issuer, nil, e.kind, e.reason, e.action, "%s", e.note)
}

// sync fetches if that is due, and brings the authoritative ConfigMap to the
// keys that are to be trusted.
func (r *Reconciler) sync(ctx context.Context, issuer api.Issuer, m *memory) (outcome, error) {
	out := outcome{configMapName: r.mountedName(issuer), invalid: m.invalid(issuer), distributed: r.distributor.progress(ctx, issuer)}
	var err error
	if out.conflict, err = r.olderSibling(ctx, issuer); err != nil {
		return out, err
	}
	content, err := r.authoritative(ctx, issuer)
	if err != nil {
		return out, err
	}
	trusted, err := r.lastGood(ctx, issuer, content, m)
	if err != nil {
		return out, err
	}
	readmit := m.readmit
	out.attempt, out.nextRefresh = r.attempt(ctx, issuer, m, trusted)
	if out.attempt == nil {
		m.expose(issuer.IssuerStatus(), r.Clock.Now())
	}

	success := m.capped(r.Clock.Now())
	if !issuer.IssuerSpec().Static() && staticKeys(issuer.IssuerStatus().Snapshot) {
		success = r.Clock.Now() // inline keys that are to be fetched from now on
	}
	turn := rotation{
		now: r.Clock.Now(), spec: issuer.IssuerSpec(), recorded: issuer.IssuerStatus().Keys, trusted: trusted,
		waited: func(since time.Time) time.Duration { return m.waited(since, r.Clock) },
		tried:  func(since time.Time) bool { return issuer.IssuerSpec().Suspended() || m.looked(since) },
	}
	if a := out.attempt; a != nil && a.succeeded {
		turn.answer, success, out.readmitted = a, a.started.Round(0), readmit
	}
	out.lastAbsent = lastAbsent(issuer, out, trusted, m)
	next := rotate(turn)
	out.missing = next.missing
	m.forgetSighted(next.missing)
	var want *keyset.Set
	if want, out.withdrawn = withoutRevoked(next.set, issuer, out.attempt); want == nil && !out.withdrawn {
		// Nothing is trusted. What a crash has left of keys that were withdrawn goes.
		if out.withdrawn, err = r.withdrawnLeftover(ctx, issuer, content, out.attempt); err != nil || !out.withdrawn {
			if s := issuer.IssuerStatus().Snapshot; err == nil && s != nil && s.Digest != "" && m.running == nil {
				out.published = r.lost(issuer)
			}
			return out, err
		}
	}
	if out.attempt != nil && want != nil {
		out.attempt.led = want.Digest()
	}
	out.exposed = out.withdrawn && exposed(next.set, issuer, out.attempt)
	out.expired = turn.answer == nil && r.removesExpired(issuer)
	if err := r.publish(ctx, issuer, trusted, want, content, out, m); err != nil {
		out.published = failedPublication(r.authoritativeKey(issuer), err)
		return out, unlessTooLarge(err)
	}
	if out.withdrawn {
		out.published = withdrawnPublication(out, r.userKey(issuer))
		return out, nil
	}
	m.trusted, m.success = want, success
	out.trusted, out.lastSuccess = want, success
	if issuer.GetNamespace() == "" {
		out.published = publicationOf(out, r.userKey(issuer))
	}
	return out, nil
}

// lost says why the trusted keys are nowhere: they were taken out of the only ConfigMap
// that held them, or it is gone.
func (r *Reconciler) lost(issuer api.Issuer) *publication {
	if issuer.GetNamespace() == "" && r.removesExpired(issuer) {
		return publicationOf(outcome{expired: true}, r.userKey(issuer))
	}
	return &publication{reason: api.ReasonKeysLost, message: keysLost}
}

const keysLost = "The ConfigMaps that held the trusted keys are gone, and with them the keys. They come back when the issuer answers; the condition Fetched says why it does not."

// lastAbsent is when the issuer's answer before the newest one came: the newest is this
// reconciliation's, or that of a publication which was interrupted. Keys that were there,
// and were not admitted, were not absent.
func lastAbsent(issuer api.Issuer, out outcome, trusted *keyset.Set, m *memory) time.Time {
	s, generation := issuer.IssuerStatus().Snapshot, issuer.GetGeneration()
	interrupted := s != nil && s.Digest != "" && trusted != nil && trusted.Digest() == s.PendingDigest
	answered := out.attempt != nil && out.attempt.succeeded
	if answered {
		generation = out.attempt.generation
	}
	if s == nil || s.ObservedGeneration != generation || out.readmitted || !answered && !interrupted {
		return time.Time{}
	}
	return later(m.success, successTime(issuer.IssuerStatus()))
}

// removesExpired reports whether the trusted keys have expired and have to be
// taken out of the ConfigMap that users read. Inline keys have not aged so far, even
// where they are to be fetched from now on.
func (r *Reconciler) removesExpired(issuer api.Issuer) bool {
	s := issuer.IssuerStatus().Snapshot
	return s != nil && issuer.IssuerSpec().RemovesExpired() && !staticKeys(s) &&
		windowOf(issuer, s).State(r.Clock.Now()) == snapshot.Expired
}

// attempt makes the fetch that is due, if one is, and says when the next is. A
// fetch goes on in the background; its end leads to another reconciliation.
func (r *Reconciler) attempt(ctx context.Context, issuer api.Issuer, m *memory, trusted *keyset.Set) (*attempt, time.Time) {
	if a := m.carried(issuer, r.Clock.Now()); a != nil {
		return a, m.last.next
	}
	if issuer.IssuerSpec().Static() {
		return r.attemptStatic(issuer, m, trusted), time.Time{}
	}
	if m.running != nil && !m.running.ended() {
		m.running.missed = true
		return nil, timeOf(issuer.IssuerStatus().NextRefreshTime)
	}
	if m.running == nil {
		now := r.Clock.Now()
		p := r.planFor(issuer, m, trusted, now)
		if p.fetch && p.why == unknownKey && !r.Fetcher.MayLookUp(sourceURL(issuer)) {
			m.wantedSince = time.Time{} // tokens have asked for enough: nobody waits for this one
			p = r.planFor(issuer, m, trusted, now)
		}
		if !p.fetch {
			return nil, p.next
		}
		m.running = r.begin(ctx, issuer, p, m)
	}
	if !m.running.ended() {
		return nil, timeOf(issuer.IssuerStatus().NextRefreshTime)
	}
	return r.conclude(ctx, issuer, m, trusted)
}

// attemptStatic admits the inline keys, where that has not been done, or what came of
// it may not have been published, or a key that was left out has been cleared.
func (r *Reconciler) attemptStatic(issuer api.Issuer, m *memory, trusted *keyset.Set) *attempt {
	s := issuer.IssuerStatus().Snapshot
	if trusted != nil && s != nil && s.ObservedGeneration == issuer.GetGeneration() && s.PendingDigest == "" && !m.readmit {
		return nil
	}
	got := r.readStatic(issuer)
	m.carry(&got.attempt)
	m.last = &attemptMemory{started: got.started, generation: got.generation}
	m.unsaved, m.readmit = &got.attempt, false
	return m.unsaved
}

// begin starts a fetch. Without a queue to come back through, it waits for it.
func (r *Reconciler) begin(ctx context.Context, issuer api.Issuer, p plan, m *memory) *running {
	f := &running{done: make(chan struct{}), readmits: m.readmit, news: p.why == news}
	known, gone, why := m.discovered, m.gone, p.why
	object, _ := issuer.DeepCopyObject().(api.Issuer)
	run := func(ctx context.Context) {
		defer close(f.done)
		f.got = r.fetchKeys(ctx, object, p, known, gone)
		log.FromContext(ctx).V(1).Info("Fetched the keys", "why", why, "outcome", f.got.reason)
	}
	if r.Queue == nil {
		run(ctx)
		return f
	}
	go func() {
		run(context.WithoutCancel(ctx)) // the fetch is bounded in time
		if f.left.Load() {
			r.Queue.wake(followerOf(object), ordinary)
		}
	}()
	f.awaitBriefly()
	return f
}

// conclude takes in the outcome of a fetch that has ended.
func (r *Reconciler) conclude(ctx context.Context, issuer api.Issuer, m *memory, trusted *keyset.Set) (*attempt, time.Time) {
	f := m.running
	m.running = nil
	got := quarantine(f.got, issuer, trusted)
	got.lapsed = m.lapsed(issuer, got.attempt)
	got.found = digests(issuer)[0]
	m.carry(&got.attempt)
	countFetch(issuer, got.reason)
	m.last = r.remember(issuer, m.last, got)
	m.discovered, m.gone, m.document = got.discovered, got.gone, m.readLast(got.document, f.news)
	r.Queue.follow(issuer, got.document.source)
	if got.generation != issuer.GetGeneration() {
		// The spec has changed meanwhile: what it said then counts no more.
		return r.attempt(ctx, issuer, m, trusted)
	}
	m.unsaved, m.readmit = &got.attempt, m.readmit && !f.readmits
	m.again = f.missed
	return m.unsaved, m.last.next
}

// sourceURL is where the keys come from, as far as is known.
func sourceURL(issuer api.Issuer) string {
	spec := issuer.IssuerSpec()
	return cmp.Or(spec.JWKSURI, issuer.IssuerStatus().JWKSURI, spec.DiscoveryURL, spec.Issuer)
}

func (r *Reconciler) planFor(issuer api.Issuer, m *memory, trusted *keyset.Set, now time.Time) plan {
	s := issuer.IssuerStatus()
	return planFetch(planInput{
		now: now, generation: issuer.GetGeneration(), spec: issuer.IssuerSpec(), status: s,
		request:  shortened(issuer.GetAnnotations()[api.AnnotationRefresh]),
		approved: approved(issuer),
		last:     m.last,
		readmit:  m.readmit,
		lost:     trusted == nil && s.Snapshot != nil && s.Snapshot.Digest != "",
		news:     r.news(m),

		wantedSince: m.since(s.RefreshRequestedAt, now),
	})
}

// news reports that another issuer object, with the same source, has got another
// document from it.
func (r *Reconciler) news(m *memory) bool {
	if m.document.digest == [sha256.Size]byte{} {
		return false
	}
	newest := r.Fetcher.Newest(m.document.source)
	return newest != [sha256.Size]byte{} && newest != m.document.digest
}

// remember schedules the attempt after this one.
func (r *Reconciler) remember(issuer api.Issuer, last *attemptMemory, got sourced) *attemptMemory {
	next := &attemptMemory{started: got.started, generation: got.generation, refused: got.refused}
	// All that share a source draw the same time, so that they go on sharing.
	random := r.random(got.document.source, got.started)
	switch {
	case got.succeeded || got.candidate != nil: // a quarantined set is not the server's failure
		next.quarantined = got.candidate != nil
		next.next = got.started.Add(refreshDelay(issuer.IssuerSpec().CacheTTLOrDefault(), got.lifetime, got.hasLifetime, random))
		return next
	case last != nil:
		next.failures = last.failures
		next.refused = next.refused || last.refused
	}
	next.failures++
	delay := retryDelay(next.failures, got.retryAfter, random)
	if got.needsChange {
		delay = backoffCap
	}
	next.next = r.Clock.Now().Add(delay)
	return next
}

// random is in [0, 1), and the same for all who got the same answer.
func (r *Reconciler) random(source fetch.Identity, started time.Time) float64 {
	if r.Random != nil {
		return r.Random()
	}
	h := fnv.New64a()
	_, _ = h.Write(source[:]) // never fails
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(started.UnixNano())))
	return float64(h.Sum64()>>11) / (1 << 53)
}

// wake is when to look at the issuer again: for the next fetch, when its snapshot
// becomes stale or expires, when a missing key is let go, and soon where a foreign ConfigMap stands in the way,
// because nobody tells when it is gone.
//
// What became due since the reconciliation began has not been seen to, and nothing
// else might bring the issuer back for it: for that it is looked at again at once.
func (r *Reconciler) wake(issuer api.Issuer, out outcome, began time.Time, m *memory) time.Duration {
	now := r.Clock.Now()
	if began.After(now) {
		began = now // the clock was set back meanwhile
	}
	times := []time.Time{out.nextRefresh}
	answered := out.attempt != nil && !out.nextRefresh.IsZero() && !out.nextRefresh.After(began) // another object got it, longer ago than that
	// A time from before the clock was set back. While a fetch goes on there is no hurry: its end leads to a look.
	jumped := m.running == nil && unplanned(out.nextRefresh, now, issuer.IssuerSpec())
	if answered || jumped {
		times[0] = now.Add(time.Millisecond)
	}
	if out.published != nil && out.published.blocked {
		times = append(times, now.Add(maxErrorDelay))
	}
	for _, k := range issuer.IssuerStatus().Keys {
		end := endOfTrust(k, issuer.IssuerSpec())
		if k.MissingSince != nil && k.State == api.KeyActive {
			end = now.Add(confirmWithin - m.waited(k.MissingSince.Time, r.Clock)) // the measure by which it is let go
		}
		times = append(times, end)
	}
	if s := issuer.IssuerStatus().Snapshot; s != nil {
		w := windowOf(issuer, s)
		times = append(times, w.FreshUntil(), w.ExpiresAt())
		if m.running != nil && !w.FreshUntil().IsZero() { // what was recorded may have to be renewed before it ends
			times = append(times, w.FreshUntil().Add(-lapseMargin))
		}
	}
	var delay time.Duration
	for _, t := range times {
		if !t.After(began) {
			continue
		}
		if d := max(t.Sub(now), time.Millisecond); delay == 0 || d < delay {
			delay = d
		}
	}
	return delay
}

// endOfTrust is when a key that is missing is let go, or retires, without any
// other event; zero for others.
func endOfTrust(k api.KeyStatus, spec *api.IssuerSpec) time.Time {
	switch {
	case k.MissingSince == nil:
	case k.State == api.KeyActive:
		return k.MissingSince.Add(confirmWithin)
	case k.State == api.KeyRetiring:
		return k.MissingSince.Add(spec.RetirementGraceOrDefault())
	}
	return time.Time{}
}

// applyClear forgets the compromised keys that the annotation names, once for
// each value of it, and reports whether it did. A value that was taken off counts anew:
// a key can be exposed again, and cleared again.
func applyClear(issuer api.Issuer) bool {
	value, status := issuer.GetAnnotations()[api.AnnotationClearCompromised], issuer.IssuerStatus()
	if shortened(value) == status.HandledClear {
		return false
	}
	clearCompromised(status, value)
	status.HandledClear = shortened(value)
	return value != ""
}

func (r *Reconciler) addFinalizer(ctx context.Context, issuer api.Issuer, m *memory) error {
	base, ok := issuer.DeepCopyObject().(client.Object)
	if !ok || !controllerutil.AddFinalizer(issuer, api.FinalizerWithdraw) {
		return nil
	}
	patch := client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, issuer, patch, client.FieldOwner(fieldManager)); err != nil {
		return err
	}
	m.version = issuer.GetResourceVersion()
	return nil
}

// authoritativeKey is the ConfigMap that the verifier reads.
func (r *Reconciler) authoritativeKey(issuer api.Issuer) client.ObjectKey {
	return client.ObjectKey{Namespace: r.OperatorNamespace, Name: snapshot.AuthoritativeName(issuer.GetUID())}
}

// userKey is the ConfigMap that users read: a copy in the namespace of a
// TrustedIssuer; the authoritative one of a ClusterTrustedIssuer.
func (r *Reconciler) userKey(issuer api.Issuer) client.ObjectKey {
	if issuer.GetNamespace() == "" {
		return r.authoritativeKey(issuer)
	}
	return client.ObjectKey{Namespace: issuer.GetNamespace(), Name: issuer.IssuerSpec().SnapshotName(issuer.GetName())}
}

// mountedName is the name of the ConfigMap that applications mount.
func (r *Reconciler) mountedName(issuer api.Issuer) string {
	if issuer.NamespaceSelector() != nil {
		return issuer.IssuerSpec().SnapshotName(issuer.GetName())
	}
	return r.userKey(issuer).Name
}

// olderThan reports whether the object is from before the write that gave it
// the version.
func olderThan(issuer api.Issuer, version string) bool {
	if version == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(issuer.GetResourceVersion(), version)
	return err == nil && order < 0
}
