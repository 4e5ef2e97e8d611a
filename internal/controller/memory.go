// memory.go holds what a manager process remembers of each issuer between two
// reconciliations. None of it is needed for correctness after a restart: status
// and the ConfigMaps say everything that must survive.

package controller

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// memory is the recollection of one issuer object. One reconciliation at a
// time works with it.
type memory struct {
	// last is the newest attempt; nil when this process made none.
	last *attemptMemory
	// running is the fetch that is under way; nil when none is.
	running *running
	// wanted is the verifier's request that was seen last, and wantedSince when.
	wanted      metav1.MicroTime
	wantedSince time.Time
	// sighted is when this process first heard of each time since which a key is
	// missing.
	sighted map[time.Time]sighting
	// again: something asked for a look while a fetch was under way.
	again bool
	// document is what the keys were last read from.
	document documentID
	// unsaved is an attempt whose outcome has not reached status yet, because a
	// write failed. It is carried on, so that no fetch has to be repeated.
	unsaved *attempt
	// exposed are keys found with their private part that have not reached status yet.
	exposed []keyset.Compromised
	// trusted is the published set, and success when the issuer last confirmed
	// it, more finely than status says.
	trusted *keyset.Set
	success time.Time
	// discovered is where the issuer's metadata say that the keys are, and gone
	// that they turned out not to be there.
	discovered discovered
	gone       bool
	// version is the resourceVersion of the issuer after our last write.
	version string
	// readmit: keys that were left out may be admitted now.
	readmit bool
	// copyVersion is the resourceVersion of the ConfigMap for users that was
	// last seen to hold copyData, a digest of what it has to hold.
	copyVersion, copyData string
	// unmet is an approval whose set was not in the newest answer.
	unmet string
	// expressions is what is wrong with those of the spec of a generation.
	expressions struct {
		generation int64
		wrong      string
	}
	// saved is the status that the API server holds, during a reconciliation, and
	// told the one that events have spoken of, while an attempt is unsaved or they have not
	// spoken of the one that is saved.
	saved, told *api.IssuerStatus
}

// rest ends a reconciliation: what the next one reads anew is not kept until then,
// since there are many issuers.
func (m *memory) rest() {
	if m.unsaved == nil && m.told == m.saved {
		m.told = nil
	}
	m.saved = nil
}

// carry adds to an attempt's compromised keys those of attempts before it that never
// reached status: a document that has been corrected since does not clear a key.
func (m *memory) carry(a *attempt) {
	for _, k := range m.exposed {
		if !slices.ContainsFunc(a.compromised, func(c keyset.Compromised) bool { return c.Thumbprint == k.Thumbprint }) {
			a.compromised = append(a.compromised, k)
		}
	}
	m.exposed = a.compromised
}

// carried is the attempt that was made and has not reached status; nil when there is
// none, or when the next one is due.
//
// One that another manager has overtaken, because it has published a set since, is
// dropped. Which answer is the newer one cannot be told, so that the issuer is asked
// again, and unconditionally.
func (m *memory) carried(issuer api.Issuer, now time.Time) *attempt {
	a := m.unsaved
	if a == nil || a.generation != issuer.GetGeneration() || m.last.over(now) {
		return nil
	}
	if trusted := digests(issuer)[0]; issuer.IssuerSpec().Static() || trusted == a.found || trusted == a.led {
		return a
	}
	m.unsaved, m.document = nil, documentID{}
	m.last.next, m.last.refused = m.last.started.Add(minAttemptSpacing), true
	return nil
}

// expose notes keys in status that an answer has exposed which counts no more. There may
// be no other attempt: spec may have suspended the issuer since.
func (m *memory) expose(status *api.IssuerStatus, now time.Time) {
	for _, k := range m.exposed {
		addCompromised(status, k, now)
	}
}

// reached forgets what only had to be kept until status had it: the attempt that it has
// now, if there was one, and with it all that was carried along.
func (m *memory) reached(a *attempt, status *api.IssuerStatus) {
	m.unsaved = nil
	if a != nil {
		m.exposed = nil
	}
	m.exposed = slices.DeleteFunc(slices.Clone(m.exposed), func(k keyset.Compromised) bool {
		return slices.ContainsFunc(status.CompromisedKeys, func(c api.CompromisedKey) bool { return c.Thumbprint == k.Thumbprint })
	})
}

// readLast is what the keys were last read from, after an attempt that read this. One
// that failed leaves it, so that what another issuer object gets is news all the same;
// but not where it failed to get just that, or it would be tried again and again.
func (m *memory) readLast(document documentID, news bool) documentID {
	if document.digest == [sha256.Size]byte{} && document.source == m.document.source && !news {
		return m.document
	}
	return document
}

// lapsed is the approval that ends with this answer: its set was neither in this one nor
// in the one before, which may have come from a cache that lags. It must not wait for
// somebody to bring the set back.
func (m *memory) lapsed(issuer api.Issuer, a attempt) string {
	value, digest := api.ApprovalOf(issuer)
	is := func(set *keyset.Set) bool { return set != nil && set.Digest() == digest }
	switch {
	case !a.succeeded && a.candidate == nil:
		return ""
	case digest == "" || is(a.set) || is(a.candidate):
		m.unmet = ""
		return ""
	case m.unmet != value:
		m.unmet = value
		return ""
	}
	return value
}

// invalid says which expression in spec cannot be compiled; empty when all can. It
// compiles them once for each spec.
func (m *memory) invalid(issuer api.Issuer) string {
	if e := &m.expressions; e.generation != issuer.GetGeneration() {
		e.generation, e.wrong = issuer.GetGeneration(), ""
		if _, err := policy.Compile(issuer.IssuerSpec().Verification, issuer.KubernetesAuthentication()); err != nil {
			e.wrong = firstLines(err.Error())
		}
	}
	return m.expressions.wrong
}

// firstLines cuts a compiler's message to what a condition can hold.
func firstLines(message string) string {
	const most = 1024
	return strings.ToValidUTF8(message[:min(len(message), most)], "")
}

// capped is when the issuer last confirmed the trusted set. A time that lies ahead
// of the clock is brought back once: the clock has been put right since.
func (m *memory) capped(now time.Time) time.Time {
	now = now.Round(0) // the wall clock is what others see
	if m.success.After(now.Add(snapshot.MaxClockAhead)) {
		m.success = now
	}
	return m.success
}

// sighting is how long a key had been missing by the clock when this process first heard
// of it, and when that was.
type sighting struct {
	before time.Duration
	at     time.Time
}

// waited is how long ago that time is: by the clock until this process first heard of it,
// and from then on as the process itself has seen the time pass, whatever is done to the
// clock meanwhile.
func (m *memory) waited(since time.Time, c clock.PassiveClock) time.Duration {
	since = inStatus(since)
	s, known := m.sighted[since]
	if !known {
		now := c.Now()
		s = sighting{before: now.Round(0).Sub(since), at: now}
		if m.sighted == nil {
			m.sighted = map[time.Time]sighting{}
		}
		m.sighted[since] = s
	}
	return s.before + c.Since(s.at)
}

// looked reports that a second look for a key that is missing since then has been tried,
// by the same measure.
func (m *memory) looked(since time.Time) bool {
	s, known := m.sighted[inStatus(since)]
	return known && m.last != nil && s.before+m.last.started.Sub(s.at) >= confirmAfter
}

// inStatus is a time as status has it.
func inStatus(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// forgetSighted forgets the times of keys that are missing no more.
func (m *memory) forgetSighted(still map[keyset.Ref]missing) {
	kept := make(map[time.Time]bool, len(still))
	for _, k := range still {
		kept[inStatus(k.since)] = true
	}
	maps.DeleteFunc(m.sighted, func(since time.Time, _ sighting) bool { return !kept[since] })
}

// running is a fetch under way. Its outcome is there once done is closed.
type running struct {
	done chan struct{}
	got  sourced
	// left: nobody waits for it any more; its end has to wake the issuer.
	left atomic.Bool
	// missed: the issuer was looked at meanwhile, and has to be looked at again.
	missed bool
	// readmits: it may admit keys again that were left out.
	readmits bool
	// news: it was begun for what another issuer object had got.
	news bool
}

// awaitBriefly gives the fetch the time that quick ones need.
func (f *running) awaitBriefly() {
	timer := time.NewTimer(briefly)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
		f.left.Store(true)
	}
}

// briefly is how long a reconciliation waits for a fetch before it leaves it to
// itself: quick ones, and shared answers, then need no second reconciliation.
const briefly = 20 * time.Millisecond

// ended reports whether the fetch is over.
func (f *running) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// since is when the verifier's request was first seen by this process.
func (m *memory) since(requested *metav1.MicroTime, now time.Time) time.Time {
	if requested == nil {
		return time.Time{}
	}
	if !m.wanted.Equal(requested) {
		m.wanted, m.wantedSince = *requested, now
	}
	return m.wantedSince
}

// discovered is the outcome of discovery under one generation of the spec.
type discovered struct {
	uri        string
	at         time.Time
	generation int64
}

// memories are those of all issuers, by UID: an object that is deleted and made
// anew is another issuer, and nothing carries over.
type memories struct {
	mu    sync.Mutex
	byUID map[types.UID]*memory
	byKey map[types.NamespacedName]types.UID
}

// of returns the memory of the object with this key and UID, and forgets another
// object of that name, but for the version of our last write: what is older than that
// has been overtaken, whichever object it is of.
func (m *memories) of(key types.NamespacedName, uid types.UID) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byUID == nil {
		m.byUID, m.byKey = map[types.UID]*memory{}, map[types.NamespacedName]types.UID{}
	}
	written := ""
	if before, ok := m.byKey[key]; ok && before != uid {
		written = m.byUID[before].version
		delete(m.byUID, before)
	}
	m.byKey[key] = uid
	if m.byUID[uid] == nil {
		m.byUID[uid] = &memory{version: written}
	}
	return m.byUID[uid]
}

// forget drops the object with this key.
func (m *memories) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byUID, m.byKey[key])
	delete(m.byKey, key)
}
