// lookup.go is what happens when a good-looking token names a key that is not in
// the trusted set: issuers that sign with a new key the moment they have it are
// common. The controller is asked to fetch the keys, for all replicas at once,
// and the request waits for the answer.
//
//	judge ──> UnknownKey ──> asked lately? ──no──> status.refreshRequestedAt
//	                              │                        │
//	                              └──yes──> wait (2 s) <───┘
//	                                           │
//	             new set <─────────────────────┴──────────> looked up, still unknown
//	             judge again                                a definite no
//
// Tokens are made by anybody, so only one whose claims pass gets here; the
// controller fetches at most once in 30 s; few requests wait; and a kid that
// stayed unknown is not asked for again for a minute.

package verifier

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=jwks-trust.dev,resources=trustedissuers/status;clustertrustedissuers/status,verbs=patch

const (
	// lookupWait is how long a request waits for the answer, the asking included.
	lookupWait = 2 * time.Second
	// lookupSpacing is how often the controller is asked for one issuer. It
	// would not fetch more often.
	lookupSpacing = 30 * time.Second
	// maxWaiters is how many requests wait for one issuer at the same time, and
	// maxWaitersInAll for all of them. They keep their places in the gate: half of
	// those of one protocol stay free.
	maxWaiters, maxWaitersInAll = 32, DefaultMaxInFlight / 2
	// maxAlone is how many requests that nobody waits for are made at the same time.
	maxAlone = 32
	// unknownFor is how long a kid that stayed unknown is remembered, and
	// maxUnknown how many are for one issuer.
	unknownFor, maxUnknown = time.Minute, 256
	// fieldManager is the verifier's name in server-side apply.
	fieldManager = "jwks-trust-verifier"
)

// asker asks the controller to refresh the keys of an issuer.
type asker func(ctx context.Context, issuer *Issuer, at time.Time) error

// statusAsker asks through the issuer's status, by a field of its own.
func statusAsker(c client.SubResourceClientConstructor) asker {
	return func(ctx context.Context, issuer *Issuer, at time.Time) error {
		return applyStatus(ctx, c, issuer, fieldManager, map[string]any{"refreshRequestedAt": at.UTC().Format(metav1.RFC3339Micro)})
	}
}

// lookup gives tokens with an unknown key a second chance. A nil lookup gives
// none.
type lookup struct {
	issuers issuers
	ask     asker
	now     func() time.Time
	log     logr.Logger

	mu    sync.Mutex
	byUID map[types.UID]*inquiry
	// waiters are those of all issuers, and alone the requests that nobody waits for.
	waiters, alone int
}

// inquiry is what is going on for one issuer.
type inquiry struct {
	waiters int
	// asked is when this replica last asked, and before the last fetch that was known then.
	asked, before time.Time
	// digest is the set that unknown speaks of.
	digest  string
	unknown map[string]time.Time
}

func newLookup(issuers issuers, ask asker, now func() time.Time, log logr.Logger) *lookup {
	return &lookup{issuers: issuers, ask: ask, now: now, log: log, byUID: map[types.UID]*inquiry{}}
}

// judge judges a token, and waits for a look-up where its key is unknown. It
// returns what was known of the issuer when it judged, which may be newer.
func (l *lookup) judge(ctx context.Context, c *candidate, issuer *Issuer, now time.Time) (Verdict, *Issuer) {
	v := c.judge(issuer, now)
	if l == nil || v.Reason != UnknownKey {
		return v, issuer
	}
	v, issuer = l.lookUp(ctx, c, issuer, v, now)
	issuer.countUnknown(c, v)
	return v, issuer
}

// countUnknown counts what became of a token whose key was unknown. That it names
// a key which was trusted once, anybody can claim.
func (i *Issuer) countUnknown(c *candidate, v Verdict) {
	outcome := unknownFound
	switch {
	case v.Reason != UnknownKey:
	case c.token.HasKeyID && i.removedIDs[c.token.KeyID]:
		outcome = unknownRemoved
	case v.Outcome == Refuse:
		outcome = unknownStill
	default:
		outcome = unknownNotLookedUp
	}
	i.unknown[outcome].Add(1)
}

// lookUp has the controller fetch the keys, unless that has been done lately, and
// waits for them.
func (l *lookup) lookUp(ctx context.Context, c *candidate, issuer *Issuer, v Verdict, now time.Time) (Verdict, *Issuer) {
	ask, wait := l.enter(issuer, c.keyName(), now)
	switch {
	case wait:
		defer l.leave(issuer.UID)
	case ask:
		go l.requestAlone(ctx, issuer, now)
		return v, issuer
	default:
		return v, issuer
	}
	ctx, span := startSpan(ctx, "look up an unknown key")
	defer span.End()
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	if ask && !l.request(ctx, issuer, now) {
		return v, issuer
	}
	return l.wait(ctx, c, issuer, now)
}

// request asks the controller, and reports whether it could. It does so for all who
// wait, and so to the end, though the client may have gone.
func (l *lookup) request(ctx context.Context, issuer *Issuer, now time.Time) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupWait)
	defer cancel()
	err := l.ask(ctx, issuer, now)
	if err != nil {
		l.log.V(1).Info("The controller could not be asked to refresh the keys", "issuer", issuer.Object.String(), "error", err.Error())
		l.failed(issuer.UID)
	}
	return err == nil
}

// requestAlone asks for whoever comes later.
func (l *lookup) requestAlone(ctx context.Context, issuer *Issuer, now time.Time) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.alone--
	}()
	contained(l.log, func() (v Verdict) {
		l.request(ctx, issuer, now)
		return v
	})
}

// enter reports whether the token may wait, and whether the controller has to be
// asked first. Where all places are taken it is asked all the same: they can be those
// of issuers that never answer.
func (l *lookup) enter(issuer *Issuer, key string, now time.Time) (ask, wait bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.byUID[issuer.UID]
	if q == nil {
		q = &inquiry{}
		l.byUID[issuer.UID] = q
	}
	if q.digest != issuer.held.digest {
		q.digest, q.unknown = issuer.held.digest, nil
	}
	if until, known := q.unknown[key]; known && now.Before(until) {
		return false, false
	}
	// The controller's clock may have been ahead: what was known before is no answer.
	unanswered := issuer.attempted.Before(q.asked) || issuer.attempted.Equal(q.before)
	running := now.Sub(q.asked).Abs() < lookupWait && unanswered
	// What another replica, or a schedule, has fetched lately counts too: the
	// controller would only wait.
	spent := now.Sub(q.asked).Abs() < lookupSpacing || now.Sub(issuer.attempted).Abs() < lookupSpacing
	full := q.waiters >= maxWaiters || l.waiters >= maxWaitersInAll
	if spent && !running || full && (running || l.alone >= maxAlone) {
		return false, false
	}
	if !running {
		q.asked, q.before = now, issuer.attempted
	}
	if full {
		l.alone++
		return true, false
	}
	q.waiters++
	l.waiters++
	return !running, true
}

func (l *lookup) leave(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiters--
	if q := l.byUID[uid]; q != nil {
		q.waiters--
	}
}

// failed lets the next token ask again: nobody was asked.
func (l *lookup) failed(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.byUID[uid]; q != nil {
		q.asked = time.Time{}
	}
}

// forget drops what is known of an issuer that is gone.
func (l *lookup) forget(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byUID, uid)
}

// remember notes that a key stayed unknown.
func (l *lookup) remember(issuer *Issuer, key string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.byUID[issuer.UID]
	if q == nil {
		return
	}
	if q.digest != issuer.held.digest || q.unknown == nil {
		q.digest, q.unknown = issuer.held.digest, map[string]time.Time{}
	}
	for k, until := range q.unknown {
		if !now.Before(until) {
			delete(q.unknown, k)
		}
	}
	if len(q.unknown) < maxUnknown {
		q.unknown[key] = now.Add(unknownFor)
	}
}

// wait judges the token again whenever news of the issuer arrive, until the context
// ends.
func (l *lookup) wait(ctx context.Context, c *candidate, issuer *Issuer, arrived time.Time) (Verdict, *Issuer) {
	for {
		current, ok := l.issuers.ForObject(issuer.Object)
		if !ok || current.UID != issuer.UID {
			return c.verdict(CannotDecide, NoSnapshot), issuer
		}
		v := c.judge(current, l.now())
		switch {
		case v.Reason != UnknownKey:
			return v, current
		case current.lookedUpSince(arrived, issuer):
			l.remember(current, c.keyName(), l.now())
			return c.verdict(Refuse, UnknownKey), current
		case current.failed.After(arrived) && !current.failed.Equal(issuer.failed):
			return v, current // nothing more will come
		}
		select {
		case <-current.replaced:
		case <-ctx.Done():
			return v, current
		}
	}
}

// keyName is what a token calls its key: without a kid, its algorithm does.
func (c *candidate) keyName() string {
	if !c.token.HasKeyID {
		return "alg:" + string(c.token.Algorithm)
	}
	return "kid:" + c.token.KeyID
}

// lookedUpSince reports whether the keys were fetched for a request, with
// success, since then, and what was fetched is what is held. What was known then is
// no news, although the controller's clock may have been ahead when it was written.
func (i *Issuer) lookedUpSince(then time.Time, known *Issuer) bool {
	return i.settled && i.lookedUp.After(then) && !i.lookedUp.Equal(known.lookedUp)
}
