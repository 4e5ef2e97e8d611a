// share.go lets one request serve all who want the same document, and keeps one
// host from being a burden to the others.
//
//	Get ──> is the newest answer new enough? ──yes──> that one
//	          │ no
//	        is a request under way? ──yes──────────> wait for its answer
//	          │ no
//	        a slot of the host, a slot of all ─────> request ──> newest answer
//
// Requests are the same only if all that decides about the answer is: the URL,
// the roots and the redirects that are allowed.

package fetch

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// perHost and atOnce bound the requests under way, to one host and in all. A
	// host that hangs holds its own slots only.
	perHost, atOnce = 8, 512
	// maxKept is the largest document, and maxKeptInAll the size of all of them,
	// in bytes, that are kept to be given to others and to be revalidated.
	maxKept, maxKeptInAll = 64 << 10, 64 << 20
	// lookUpsPerHost and lookUps bound the requests that are made because of
	// tokens, per second; the bursts may come at once.
	lookUpsPerHost, lookUpBurstPerHost = 1, 10
	lookUps, lookUpBurst               = 20, 100
	// maxHosts bounds for how many hosts look-ups are counted one by one.
	maxHosts = 4096
)

// Identity is what makes two requests the same.
type Identity [sha256.Size]byte

// Identity is that of the request. Validators are not part of it.
func (r Request) Identity() Identity {
	h := sha256.New()
	var size [8]byte
	for _, part := range [][]byte{[]byte(r.URL), r.CABundle} {
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	system := byte(0)
	if r.CABundle == nil {
		system = 1
	}
	h.Write([]byte{system, byte(r.MaxRedirects)}) //nolint:gosec // at most 3
	return Identity(h.Sum(nil))
}

// Want is a request with how old an answer may be. Its validators are not used:
// Shared has its own.
type Want struct {
	Request

	// NotBefore: the answer to a request that began then, or later, will do.
	NotBefore time.Time
	// MaxAge: a success that is no older will do as well.
	MaxAge time.Duration
}

// Answer is what came of a request, which may have been made for somebody else.
type Answer struct {
	// Document has its body, also where the server said that it had not changed;
	// nil after a failure.
	Document *Document
	// Err is an *Error; nil after a success.
	Err error
	// Started is when the request began.
	Started time.Time
	// Afresh: caches on the way were asked for a fresh copy.
	Afresh bool
}

// Source makes requests; a Fetcher is one.
type Source interface {
	Fetch(ctx context.Context, r Request) (*Document, error)
}

// Shared shares requests. It is safe for concurrent use.
type Shared struct {
	from    Source
	now     func() time.Time
	changed func(Identity)
	// panicked hears of the stack of a panic.
	panicked func(stack string)

	ctx   context.Context //nolint:containedctx // requests outlive those who asked for them, not the manager
	close context.CancelFunc
	slots chan struct{}

	mu      sync.Mutex
	hosts   map[string]*hostSlots
	flights map[flightKey]*flight
	// kept are the newest answers; order has the one that was used last in front.
	kept    map[Identity]*list.Element
	order   *list.List
	size    int
	budget  *rate.Limiter
	budgets map[string]*rate.Limiter
}

// hostSlots counts the requests to one host.
type hostSlots struct {
	slots chan struct{}
	users int
}

type flightKey struct {
	identity Identity
	afresh   bool
}

// flight is a request under way.
type flight struct {
	done   chan struct{}
	answer Answer
}

// answered is the newest answer for one identity. The document is that of the
// last success, also after failures.
type answered struct {
	Answer

	identity Identity
	document *Document
	digest   [sha256.Size]byte
}

// Share shares the requests of a source. changed, if not nil, hears of each
// document that is not what it was before. now tells the time; nil for the clock.
func Share(f Source, now func() time.Time, changed func(Identity)) *Shared {
	if now == nil {
		now = time.Now
	}
	if changed == nil {
		changed = func(Identity) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Shared{
		from: f, now: now, changed: changed, panicked: reportPanic, ctx: ctx, close: cancel,
		slots: make(chan struct{}, atOnce), hosts: map[string]*hostSlots{},
		flights: map[flightKey]*flight{}, kept: map[Identity]*list.Element{}, order: list.New(),
		budget: rate.NewLimiter(lookUps, lookUpBurst), budgets: map[string]*rate.Limiter{},
	}
}

func reportPanic(stack string) {
	log.Log.WithName("fetch").Error(errPanic, "A fetch was broken off", "stack", stack)
}

// Close breaks off the requests that are under way.
func (s *Shared) Close() { s.close() }

// Get gets a document, or the answer that somebody else got to the same request.
func (s *Shared) Get(ctx context.Context, w Want) Answer {
	f, kept := s.join(ctx, w)
	if f == nil {
		return kept
	}
	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
		return Answer{Err: timedOut(w.URL, ctx.Err()), Started: s.now()}
	}
}

func timedOut(rawURL string, err error) *Error {
	e := fail(Timeout, "The fetch from %s was broken off before it began.", hostOf(rawURL))
	e.err = err
	return e
}

// join finds an answer that will do, or the request that will bring one.
func (s *Shared) join(ctx context.Context, w Want) (*flight, Answer) {
	id := w.Identity()
	s.mu.Lock()
	defer s.mu.Unlock()
	var before *answered
	if e := s.kept[id]; e != nil {
		s.order.MoveToFront(e)
		before, _ = e.Value.(*answered)
		if before.willDo(w, s.now()) {
			return nil, before.Answer
		}
	}
	if f := s.flights[flightKey{id, true}]; f != nil {
		return f, Answer{} // more than what was asked for
	}
	key := flightKey{id, w.NoCache}
	f := s.flights[key]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flights[key] = f
		go s.fly(s.inSpanOf(ctx), f, key, w.Request, before)
	}
	return f, Answer{}
}

// willDo reports whether the answer is new enough. One from the future is not:
// the clock was set back.
func (a *answered) willDo(w Want, now time.Time) bool {
	age := now.Sub(a.Started)
	switch {
	case age < 0, w.NoCache && !a.Afresh:
		return false
	case !w.NotBefore.IsZero() && !a.Started.Before(w.NotBefore):
		return true
	}
	return a.Err == nil && w.MaxAge > 0 && age <= w.MaxAge
}

// fly makes the request.
func (s *Shared) fly(ctx context.Context, f *flight, key flightKey, r Request, before *answered) {
	r.ETag, r.LastModified = "", ""
	if before != nil && before.document != nil && !r.NoCache {
		r.ETag, r.LastModified = before.document.ETag, before.document.LastModified
	}
	a := Answer{Started: s.now(), Afresh: r.NoCache}
	if release, err := s.enter(hostOf(r.URL)); err != nil {
		a.Err = timedOut(r.URL, err)
	} else {
		a.Started = s.now()
		a.Document, a.Err = s.contained(ctx, r, release)
	}
	if a.Err == nil && a.Document.NotModified {
		a.Document = renewed(before.document, a.Document)
	}
	f.answer = a
	changed := s.keep(key, a, before)
	close(f.done)
	if changed {
		s.changed(key.identity)
	}
}

// contained makes the request itself. A panic in it is a failure: here, it would end the
// manager, and the next one, again and again.
func (s *Shared) contained(ctx context.Context, r Request, release func()) (doc *Document, err error) {
	defer release()
	defer func() {
		if p := recover(); p != nil {
			// What it said could hold part of the document.
			doc, err = nil, &Error{Reason: InvalidResponse, err: errPanic, Message: fmt.Sprintf(
				"The answer of %s led to a mistake in this program, and the fetch was broken off. Report it, with what the manager's log says.", hostOf(r.URL))}
			s.panicked(string(debug.Stack()))
		}
	}()
	return s.from.Fetch(ctx, r)
}

// errPanic is what a panic is reported as.
var errPanic = errors.New("a panic in a fetch")

// renewed is the document as it was, with what the server now says of its
// freshness (RFC 9111 section 4.3.4).
func renewed(old, answer *Document) *Document {
	next := *old
	if answer.HasLifetime {
		next.Lifetime, next.HasLifetime = answer.Lifetime, true
	}
	return &next
}

// keep stores an answer, and reports whether the document has changed. One that a
// later request has overtaken is only for those who waited for it: what it says may
// be gone by now.
func (s *Shared) keep(key flightKey, a Answer, before *answered) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, key)
	if s.overtaken(key.identity, a) {
		return false
	}
	if now := s.answered(key.identity); now != nil {
		before = now // another request has brought it meanwhile
	}
	next := &answered{Answer: a, identity: key.identity}
	switch {
	case a.Err == nil && len(a.Document.Body) <= maxKept:
		next.document, next.digest = a.Document, sha256.Sum256(a.Document.Body)
		changed = before != nil && before.document != nil && !bytes.Equal(before.document.Body, a.Document.Body)
	case a.Err == nil:
		next = nil // too large to be kept
	case before != nil:
		next.document, next.digest = before.document, before.digest
	}
	s.drop(s.kept[key.identity])
	if next == nil {
		return false
	}
	s.kept[key.identity] = s.order.PushFront(next)
	s.size += next.size()
	for s.size > maxKeptInAll {
		s.drop(s.order.Back())
	}
	return changed
}

// overtaken reports whether the answer to a later request is kept. One from the
// future is no later one: the clock was set back.
func (s *Shared) overtaken(id Identity, a Answer) bool {
	kept := s.answered(id)
	return kept != nil && kept.Started.After(a.Started) && !kept.Started.After(s.now())
}

// answered is the answer that is kept; nil for none.
func (s *Shared) answered(id Identity) *answered {
	e := s.kept[id]
	if e == nil {
		return nil
	}
	a, _ := e.Value.(*answered)
	return a
}

// entrySize is about what an answer takes besides its document, in bytes.
const entrySize = 512

func (a *answered) size() int {
	if a.document == nil {
		return entrySize
	}
	return entrySize + len(a.document.Body) + len(a.document.FinalURL)
}

func (s *Shared) drop(e *list.Element) {
	if e == nil {
		return
	}
	if a, ok := e.Value.(*answered); ok {
		s.size -= a.size()
		delete(s.kept, a.identity)
	}
	s.order.Remove(e)
}

// Newest is the digest of the newest document; zero when there is none.
func (s *Shared) Newest(id Identity) (digest [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.kept[id]; e != nil {
		if a, ok := e.Value.(*answered); ok {
			digest = a.digest
		}
	}
	return digest
}

// enter waits for a slot of the host, then for one of all: who waits for a host
// that hangs takes nothing from others.
func (s *Shared) enter(name string) (release func(), err error) {
	s.mu.Lock()
	h := s.hosts[name]
	if h == nil {
		h = &hostSlots{slots: make(chan struct{}, perHost)}
		s.hosts[name] = h
	}
	h.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(s.hosts, name)
		}
	}
	select {
	case h.slots <- struct{}{}:
	case <-s.ctx.Done():
		leave()
		return nil, s.ctx.Err()
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		<-h.slots
		leave()
		return nil, s.ctx.Err()
	}
	return func() {
		<-s.slots
		<-h.slots
		leave()
	}, nil
}

// MayLookUp reports whether a request to the URL's host may be made because of a
// token, which anybody can make, and counts it.
func (s *Shared) MayLookUp(rawURL string) bool {
	name := hostOf(rawURL)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.budgets) >= maxHosts {
		clear(s.budgets) // the cap over all still holds
	}
	own := s.budgets[name]
	if own == nil {
		own = rate.NewLimiter(lookUpsPerHost, lookUpBurstPerHost)
		s.budgets[name] = own
	}
	now := s.now()
	return own.AllowN(now, 1) && s.budget.AllowN(now, 1)
}

// Discover is Fetcher.Discover over shared requests.
func (s *Shared) Discover(ctx context.Context, w Want, issuer, discoveryURL string) (string, error) {
	return discover(issuer, discoveryURL, func(place string) (*Document, error) {
		w.URL = place
		a := s.Get(ctx, w)
		return a.Document, a.Err
	})
}

// hostOf is whom a request goes to, in one form. The port is no part of it: what one host
// can bear, it can bear at all of its ports together. Only on loopback, where an
// administrator has to allow it first, each port is somebody else.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	name, _ := asciiName(u) // what can be no name is never asked
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if address, err := netip.ParseAddr(name); err == nil {
		name = address.Unmap().String()
		if address.Unmap().IsLoopback() {
			return net.JoinHostPort(name, u.Port())
		}
	}
	return name
}
