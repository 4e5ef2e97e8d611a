// plan.go decides when the keys of an issuer are fetched. It is pure: what is
// known comes in, with the time; what to do next comes out.
//
//	observe ──> plan ──> fetch, or wait until plan.next
//
// A fetch is due when the first of these checks says so:
//
//	requested    the refresh annotation has a value that was not handled yet
//	changed      the spec is newer than the one last tried, or a refused key was
//	             cleared
//	approved     somebody has approved of the quarantined set
//	missing      a trusted key was missing from the last answer: a second look,
//	             confirmAfter later, shall tell
//	news         another issuer object has got another document from the same
//	             source
//	unknown key  the verifier has met a token with a key that is not in the set;
//	             at most every unknownKeySpacing, counted from the last attempt,
//	             and only while somebody waits for it
//	lost         the trusted keys are in no ConfigMap and not in memory
//	unconfirmed  no success is on record, or one that lies in the future
//	scheduled    the refresh point, or the end of the backoff, has come
//
// Nothing that a user or an issuer does brings two fetches closer together
// than minAttemptSpacing, and no response header brings two scheduled ones
// closer than minRefreshInterval.

package controller

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

const (
	// minRefreshInterval is the floor for scheduled refreshes after a success,
	// whatever the response headers say.
	minRefreshInterval = time.Minute
	// minAttemptSpacing is the floor between any two fetches for an issuer, so
	// that editing an object in a loop does not become a flood for its server.
	minAttemptSpacing = 5 * time.Second
	// unknownKeySpacing is the floor between the last attempt and a fetch that
	// the verifier asked for: tokens are made by anybody.
	unknownKeySpacing = 30 * time.Second
	// unknownKeyPatience is how long somebody waits for such a fetch: a later one
	// would come for nobody. Two replicas that meet a new key at the same time ask
	// twice, and one fetch has answered both.
	unknownKeyPatience = 3 * time.Second
	// shareWithNew is how old an answer may be for an issuer object that is new.
	shareWithNew = time.Minute
	// refreshPoint is the part of the lifetime after which a refresh is due, and
	// refreshJitter how far it is spread to either side.
	refreshPoint, refreshJitter = 0.8, 0.1
	// backoffBase and backoffCap bound the delay after failures.
	backoffBase, backoffCap = 5 * time.Second, 5 * time.Minute
	// backoffMin keeps full jitter from drawing no delay at all.
	backoffMin = time.Second
)

// planInput is all that the decision rests on.
type planInput struct {
	now        time.Time
	generation int64
	spec       *api.IssuerSpec
	status     *api.IssuerStatus
	// request is the value of the refresh annotation.
	request string
	// approved: somebody has approved of the quarantined set.
	approved bool
	// wantedSince is when the verifier's request was first seen.
	wantedSince time.Time
	// last is what this process remembers of its own attempts; nil after a
	// restart, when only status speaks.
	last *attemptMemory
	// readmit: a key that was refused has been cleared.
	readmit bool
	// lost: the trusted keys are nowhere to be read.
	lost bool
	// news: the document has changed; another issuer object has seen it.
	news bool
}

// attemptMemory is what a process remembers of its newest attempt.
type attemptMemory struct {
	started    time.Time
	generation int64
	// failures counts those since the last success.
	failures int
	// quarantined: the newest answer waits for approval.
	quarantined bool
	// refused: a document has come since the last success that was not taken over.
	refused bool
	// next is when the next attempt is due.
	next time.Time
}

// over reports that the next attempt is due; never for static keys, which have
// none.
func (a *attemptMemory) over(now time.Time) bool { return !a.next.IsZero() && !now.Before(a.next) }

// plan is the decision.
type plan struct {
	// fetch says that a fetch is due now, and why.
	fetch bool
	why   string
	// revalidate allows a conditional request (RFC 9110 section 13): only a
	// scheduled fetch may be answered with "not modified", and only where that
	// speaks of a document that was taken over. Another one may be mended under the
	// ETag that it has.
	revalidate bool
	// request is the refresh annotation, and requestedAt the verifier's request,
	// that the fetch answers.
	request     string
	requestedAt *metav1.MicroTime
	// notBefore and maxAge say how old an answer may be that another issuer
	// object got from the same source (fetch.Want).
	notBefore time.Time
	maxAge    time.Duration
	// next is when to look again, if not fetch.
	next time.Time
}

// planFetch decides. For static keys, and while spec suspends the issuer, it never
// asks for a fetch.
func planFetch(in planInput) plan {
	if in.spec.Static() || in.spec.Suspended() {
		return plan{}
	}
	first := in.causes()[0]
	for _, c := range in.causes()[1:] {
		if c.at.Before(first.at) {
			first = c
		}
	}
	if first.at.After(in.now) {
		return plan{next: first.at}
	}
	p := plan{fetch: true, why: first.why, revalidate: first.why == scheduled && !in.refused() || first.why == news}
	p.notBefore, p.maxAge = in.acceptable(first)
	if in.asked() || in.wanted() {
		// One fetch answers every request that has been made.
		p.revalidate, p.maxAge = false, 0
	}
	p.request, p.requestedAt = in.request, in.status.RefreshRequestedAt
	return p
}

// acceptable is how old another's answer may be: no older than what the cause
// asks for, and never our own last one.
func (in planInput) acceptable(c cause) (notBefore time.Time, maxAge time.Duration) {
	switch c.why {
	case news:
		return in.now, max(in.spec.CacheTTLOrDefault(), minRefreshInterval)
	case scheduled:
		if in.last == nil {
			return in.now.Add(-minAttemptSpacing), 0
		}
		return c.at, c.at.Sub(in.last.started) / 4
	case secondLook:
		look := in.secondLook()
		if in.last != nil && !in.last.started.Before(look) {
			look = in.last.started.Add(1) // one that failed: the same answer again would be no look
		}
		return look, 0
	case unknownKey:
		return in.now.Add(1 - unknownKeySpacing), 0
	}
	if in.attemptedGeneration() < 0 { // a new object takes what others have
		return in.now.Add(1 - minAttemptSpacing), shareWithNew
	}
	return in.now.Add(1 - minAttemptSpacing), 0
}

// cause is a reason to fetch, with the time from which it may lead to a fetch.
type cause struct {
	why string
	at  time.Time
}

// The causes that need more than a name; scheduled is always there.
const (
	scheduled  = "scheduled"
	news       = "news"
	secondLook = "missing"
	unknownKey = "unknown key"
)

// causes are the checks of the picture above, most urgent first.
func (in planInput) causes() []cause {
	var out []cause
	add := func(holds bool, why string, at time.Time) {
		if holds {
			out = append(out, cause{why, at})
		}
	}
	add(in.asked(), "requested", in.spaced(minAttemptSpacing))
	add(in.attemptedGeneration() != in.generation || in.readmit, "changed", in.spaced(minAttemptSpacing))
	add(in.approved, "approved", later(in.spaced(minAttemptSpacing), in.backoff()))
	add(in.missing() != nil, secondLook, later(later(in.secondLook(), in.spaced(minAttemptSpacing)), in.patience()))
	add(in.news, news, in.spaced(minAttemptSpacing)) // a request, where the spec has another source by now
	if lookUp := later(later(in.now, in.spaced(unknownKeySpacing)), in.backoff()); lookUp.Before(in.wantedSince.Add(unknownKeyPatience)) {
		add(in.wanted(), unknownKey, lookUp)
	}
	add(in.lost, "lost", later(in.spaced(minAttemptSpacing), in.patience()))
	add(in.unconfirmed(), "unconfirmed", later(in.spaced(minAttemptSpacing), in.patience()))
	add(true, scheduled, in.scheduled())
	return out
}

// asked reports a refresh annotation that was not handled yet.
func (in planInput) asked() bool {
	h := in.status.HandledRefresh
	return in.request != "" && (h == nil || h.Request != in.request)
}

// wanted reports a request of the verifier that was not handled yet. It compares
// for inequality: the clocks of two replicas have no order.
func (in planInput) wanted() bool {
	h := in.status.HandledRefresh
	return in.status.RefreshRequestedAt != nil && (h == nil || !in.status.RefreshRequestedAt.Equal(h.RequestedAt))
}

// missing is since when a key that waits for a second look is missing; nil when
// none does. It is the earliest time of all.
func (in planInput) missing() *metav1.Time {
	var first *metav1.Time
	for _, k := range in.status.Keys {
		if k.State == api.KeyActive && k.MissingSince != nil && (first == nil || k.MissingSince.Before(first)) {
			first = k.MissingSince
		}
	}
	return first
}

// secondLook is when to look again for missing keys. A clock that was set back
// makes their times say nothing.
func (in planInput) secondLook() time.Time {
	since := in.missing()
	if since == nil || since.After(in.now) {
		return in.now
	}
	return since.Add(confirmAfter)
}

// attemptedGeneration is the generation of the spec that was last tried; -1
// when none was.
func (in planInput) attemptedGeneration() int64 {
	if in.last != nil {
		return in.last.generation
	}
	if c := findCondition(in.status, api.ConditionFetched); c != nil && c.Status != metav1.ConditionUnknown && in.status.LastAttempt != nil {
		return c.ObservedGeneration
	}
	return -1
}

// unconfirmed reports that status holds no success, or one from the future:
// then the clock that wrote it was wrong, and its window cannot be trusted.
func (in planInput) unconfirmed() bool {
	s := in.status.Snapshot
	if s == nil || s.LastSuccessTime.IsZero() {
		return true
	}
	return s.LastSuccessTime.Time.After(in.now.Add(snapshot.MaxClockAhead))
}

// scheduled is when the next fetch is due. A time further away than any schedule of
// ours means that the clock has jumped, or that spec has another cacheTTL by now: then it
// is as soon as any fetch may be.
func (in planInput) scheduled() time.Time {
	var next time.Time
	switch {
	case in.last != nil:
		next = in.last.next
	case in.status.NextRefreshTime != nil:
		next = in.status.NextRefreshTime.Time
	default:
		return in.now
	}
	if unplanned(next, in.now, in.spec) {
		return later(in.now, in.spaced(minAttemptSpacing))
	}
	return next
}

// unplanned reports a time that is further away than any schedule of ours.
func unplanned(next, now time.Time, spec *api.IssuerSpec) bool {
	return next.After(now.Add(max(spec.CacheTTLOrDefault(), maxRetryAfter)))
}

// spaced is when the last attempt is that long ago. A clock that was set back
// makes old times say nothing.
func (in planInput) spaced(spacing time.Duration) time.Time {
	var started time.Time
	switch {
	case in.last != nil:
		started = in.last.started
	case in.status.LastAttempt != nil:
		started = in.status.LastAttempt.Time.Time
	}
	if started.IsZero() || started.After(in.now) {
		return in.now
	}
	return started.Add(spacing)
}

// backoff is when a running backoff ends.
func (in planInput) backoff() time.Time {
	var end time.Time
	switch {
	case in.last != nil && in.last.failures > 0:
		end = in.last.next
	case in.last == nil && failed(in.status.LastAttempt) && in.status.NextRefreshTime != nil:
		end = in.status.NextRefreshTime.Time
	}
	if end.After(in.now.Add(maxRetryAfter)) {
		return in.now // beyond any backoff of ours: the clock was set back
	}
	return end
}

// patience is the backoff, and the schedule too while what the issuer publishes is
// quarantined: asking again does not approve of it.
func (in planInput) patience() time.Time {
	s := in.status
	quarantined := in.last != nil && in.last.quarantined ||
		in.last == nil && s.LastAttempt != nil && s.LastAttempt.Reason == api.ReasonQuarantined
	if quarantined {
		return later(in.scheduled(), in.backoff())
	}
	return in.backoff()
}

// refused reports that the newest document was not taken over. After a restart there
// is none to revalidate.
func (in planInput) refused() bool { return in.last != nil && in.last.refused }

// failed reports that the server did not give what it should. A quarantined set
// is not its failure.
func failed(a *api.AttemptStatus) bool {
	return a != nil && a.Reason != api.ReasonSucceeded && a.Reason != api.ReasonQuarantined
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// maxRetryAfter is the longest that a server can put off the next attempt.
const maxRetryAfter = 15 * time.Minute

// refreshDelay is the time from a success to the next scheduled fetch. The
// lifetime that the response headers gave can shorten it, never lengthen it.
// random is in [0, 1).
func refreshDelay(cacheTTL, lifetime time.Duration, hasLifetime bool, random float64) time.Duration {
	ttl := cacheTTL
	if hasLifetime && lifetime < ttl {
		ttl = lifetime
	}
	part := refreshPoint + refreshJitter*(2*random-1)
	return max(time.Duration(float64(ttl)*part), minRefreshInterval)
}

// retryDelay is the time from the n-th failure in a row (n >= 1) to the next
// attempt: full jitter under an exponentially growing cap, and at least what
// the server asked for. random is in [0, 1).
func retryDelay(failures int, retryAfter time.Duration, random float64) time.Duration {
	limit := backoffCap
	if n := failures - 1; n < 6 { // 5s << 6 is past the cap
		limit = min(backoffBase<<n, backoffCap)
	}
	delay := max(time.Duration(float64(limit)*random), backoffMin)
	return max(delay, min(retryAfter, maxRetryAfter))
}
