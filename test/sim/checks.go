// checks.go is what must hold after every step. It looks from outside: at what the
// issuer has served, at what stands in the API server, and at the verdicts.

package sim

import (
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

const (
	// confirmAfter and confirmWithin are the controller's, less the part of a second
	// that times in status do not have.
	confirmAfter, confirmWithin = 29 * time.Second, 10*time.Minute - time.Second
	// spacing is the least time between two fetches of one manager; after a failure
	// it is the backoff's.
	spacing, spacingAfterFailure = 5 * time.Second, time.Second
)

// verdict is the first problem that was found.
type verdict struct{ problem string }

func (v *verdict) failed() bool { return v.problem != "" }

// fail records the first problem.
func (v *verdict) fail(format string, args ...any) {
	if v.problem == "" {
		v.problem = fmt.Sprintf(format, args...)
	}
}

// checks is what is known from outside.
type checks struct {
	verdict

	w *world

	// everServed and everApproved are keys.
	everServed, everApproved map[*signer]bool
	// everRefused are keys that were revoked or leaked at any time: an answer with no
	// others may be no success to a manager with an old view.
	everRefused map[*signer]bool
	// lastServed is what the clock said at the newest answer, and latestServed the latest that
	// it said at one: a clock may be set back in between.
	lastServed, latestServed time.Time
	lacks                    map[*signer]*lack
	// must are the keys that a replica which starts now has to trust.
	must    map[*signer]bool
	touched map[client.ObjectKey]bool
	// listed are the keys that status called trusted when it was looked at last.
	listed map[*signer]bool
	// newest are those of the newest answer; dropped are no longer listed, and no answer
	// has had them since.
	newest, dropped map[*signer]bool
	// robbed: tampering has left the keys that status names nowhere but in memory.
	robbed bool
	// lateCopy: a deposed manager has created the users' ConfigMap. Nothing can fence a
	// creation; where the issuer object was deleted meanwhile, only the manager that
	// withdrew it knows that.
	lateCopy bool
	uid      string
	checked  int
}

// lack is what the issuer's answers without a trusted key amount to.
type lack struct {
	// first and lastAfresh are by the time that has passed.
	first, lastAfresh time.Time
	replaced          bool
	// jumps is how often the clock had been set at first, and by whom the issuer was asked
	// then; tries is how often it was asked since, and second that an answer came.
	jumps  int
	leader *manager
	tries  int
	second bool
	// back is when an answer had the key again; it counts once status says so.
	back time.Time
}

func newChecks(w *world) *checks {
	return &checks{
		w: w, everServed: map[*signer]bool{}, everRefused: map[*signer]bool{}, everApproved: map[*signer]bool{},
		newest: map[*signer]bool{}, dropped: map[*signer]bool{}, lacks: map[*signer]*lack{}, must: map[*signer]bool{}, touched: map[client.ObjectKey]bool{},
	}
}

// asked: a manager asks the issuer for its keys.
func (c *checks) asked(p *manager, url string) {
	least := spacing
	if p.failing {
		least = spacingAfterFailure
	}
	// An object that is made anew may be fetched for at once.
	// And nobody knows what a clock said before it was set.
	of := [3]string{p.beganWith, uidOf(c.w.server.issuer()), url}
	same := p.askedFor == of && of[0] == of[1] && p.jumps == c.w.jumps
	p.askedFor, p.jumps = of, c.w.jumps
	if gap := c.w.passed.Sub(p.asked); same && gap < least {
		c.fail("budget: a manager asks the issuer again after %s, and %s is the least", gap, least)
	}
	p.asked = c.w.passed
	c.tried()
}

// tried: a manager looks for the issuer's keys, where they are or where its metadata say
// that they are.
func (c *checks) tried() {
	for _, l := range c.lacks {
		l.tries++
	}
}

func uidOf(ti *api.TrustedIssuer) string {
	if ti == nil {
		return ""
	}
	return string(ti.UID)
}

// served: the issuer answers with keys.
func (c *checks) served(keys []*signer, afresh bool) {
	c.lastServed = c.w.now
	if c.lastServed.After(c.latestServed) {
		c.latestServed = c.lastServed
	}
	for _, s := range signers[:published] {
		if has(keys, s) {
			c.everServed[s] = true
			c.newest[s] = true
			delete(c.dropped, s)
			if l := c.lacks[s]; l != nil {
				l.back = c.w.now
			}
			continue
		}
		delete(c.newest, s)
		l := c.lacks[s]
		if l == nil {
			l = &lack{first: c.w.passed, jumps: c.w.jumps, leader: c.w.leader}
			c.lacks[s] = l
		} else {
			l.second, l.back = l.second || afresh, time.Time{}
		}
		if afresh {
			l.lastAfresh = c.w.passed
		}
		for _, k := range keys {
			l.replaced = l.replaced || k.kid == s.kid
		}
	}
}

// approved: an administrator approves of these keys.
func (c *checks) approved(keys []api.KeyStatus) {
	for _, k := range keys {
		for _, s := range signers {
			if k.Thumbprint == s.thumbprint {
				c.everApproved[s] = true
			}
		}
	}
}

// tampered: somebody changes a ConfigMap.
func (c *checks) tampered(key client.ObjectKey) {
	c.touched[key] = true
	c.forgive()
}

// forgive: while somebody has a ConfigMap in their hands and the other one does not
// hold the keys that status names, only memory can bring those back, and nothing is
// promised.
func (c *checks) forgive() {
	ti := c.w.server.issuer()
	for tampered, other := range map[client.ObjectKey]client.ObjectKey{copyKey: c.w.ours(), c.w.ours(): copyKey} {
		cm := c.w.server.maps[other]
		whole := cm != nil && ti != nil && ti.Status.Snapshot != nil && snapshot.Digest(cm.Data) == ti.Status.Snapshot.Digest
		if c.touched[tampered] && (c.touched[other] || !whole) {
			clear(c.must)
			c.robbed = true
		}
	}
}

// after checks everything.
func (c *checks) after() {
	for i, r := range c.w.readers {
		c.replica(fmt.Sprintf("replica %d", i), r)
	}
	if c.checked != c.w.server.version {
		c.checked = c.w.server.version
		c.server()
	}
}

// memo is what a replica accepted when it was looked at last.
type memo struct {
	issuer   *verifier.Issuer
	reason   verifier.Reason
	accepted [6]bool
	known    bool
}

var object = verifier.Object{Kind: api.TrustedIssuerKind, Namespace: "team", Name: "auth"}

// look asks a replica for its verdicts on all tokens. Only the age of the keys can
// change them while what it knows is the same: the token of a stranger tells.
func (r *replica) look() memo {
	issuer, ok := r.store.ForObject(object)
	if !ok {
		return memo{known: true}
	}
	m := memo{issuer: issuer, known: true, reason: verifier.Verify(stranger.token, issuer, r.world.now).Reason}
	if r.memo.known && r.memo.issuer == m.issuer && r.memo.reason == m.reason {
		return r.memo
	}
	for i, s := range signers {
		m.accepted[i] = verifier.Verify(s.token, issuer, r.world.now).Outcome == verifier.Accept
	}
	return m
}

var stranger = newSigner("a stranger's", "stranger")

// replica checks one replica's verdicts.
func (c *checks) replica(name string, r *replica) {
	before, now := r.memo, r.look()
	r.memo = now
	for i, s := range signers {
		if now.accepted[i] {
			c.mayAccept(name, r.view.issuer(), s)
		} else if before.accepted[i] {
			c.mayRefuse(name, r, s, now.reason)
		}
	}
}

// mayAccept checks that a key which is accepted may be.
func (c *checks) mayAccept(name string, ti *api.TrustedIssuer, s *signer) {
	switch {
	case !c.everServed[s]:
		c.fail("wrong accept: %s accepts key %s, which the issuer never published", name, s.name)
	case ti == nil || ti.DeletionTimestamp != nil:
		c.fail("wrong accept: %s accepts key %s, though the issuer object is gone", name, s.name)
	case c.w.setting.Approval && !c.everApproved[s]:
		c.fail("wrong accept: %s accepts key %s, which nobody approved", name, s.name)
	case refused(ti, s):
		c.fail("wrong accept: %s accepts key %s, which is revoked", name, s.name)
	case !c.w.now.Before(c.confirmed(ti).Add(max(ti.Spec.CacheTTL.Duration, ti.Spec.StaleTTL.Duration))):
		c.fail("wrong accept: %s accepts key %s, though the issuer last answered at %s", name, s.name, c.confirmed(ti).Format(time.TimeOnly))
	case !listed(ti, s) && (ti.Status.Snapshot == nil || ti.Status.Snapshot.PendingDigest == ""):
		c.fail("wrong accept: %s accepts key %s, which status no longer lists", name, s.name)
	}
}

// confirmed is from when the keys' time counts for one who sees the object like that: from
// the newest answer, or from an older one with a later time, where only that is known yet.
func (c *checks) confirmed(ti *api.TrustedIssuer) time.Time {
	if s := ti.Status.Snapshot; s != nil && s.LastSuccessTime != nil {
		if t := s.LastSuccessTime.Time; t.After(c.lastServed) && !t.After(c.latestServed) {
			return t
		}
	}
	return c.lastServed
}

// mayRefuse checks that a replica which accepted a key has a reason to no longer.
// One who sees a new set in place, before status lists its keys, has: whether that
// set may lack the key is judged where the set stands.
func (c *checks) mayRefuse(name string, r *replica, s *signer, reason verifier.Reason) {
	ti := r.view.issuer()
	if ti != nil && ti.Status.Snapshot != nil {
		cm := r.view.maps[client.ObjectKey{Namespace: operatorNamespace, Name: snapshot.AuthoritativeName(ti.UID)}]
		if cm != nil && ti.Status.Snapshot.PendingDigest != "" && snapshot.Digest(cm.Data) == ti.Status.Snapshot.PendingDigest {
			return
		}
	}
	if ti == nil || ti.DeletionTimestamp != nil || refused(ti, s) || !listed(ti, s) || reason == verifier.SnapshotExpired {
		return
	}
	c.fail("lost: %s no longer accepts key %s (%s), though status lists it", name, s.name, reason)
}

// refused reports that spec or status takes the key away.
func refused(issuer api.Issuer, s *signer) bool {
	for _, r := range issuer.IssuerSpec().RevokedKeys {
		if r == s.thumbprint || r == s.kid {
			return true
		}
	}
	for _, k := range issuer.IssuerStatus().CompromisedKeys {
		if k.Thumbprint == s.thumbprint {
			return true
		}
	}
	return false
}

// listed reports that status calls the key Active or Retiring.
func listed(issuer api.Issuer, s *signer) bool {
	for _, k := range issuer.IssuerStatus().Keys {
		if k.Thumbprint == s.thumbprint && (k.State == api.KeyActive || k.State == api.KeyRetiring) {
			return true
		}
	}
	return false
}

// server checks what stands in the API server: a replica that starts now must
// accept every key that was trusted, unless something has ended that.
func (c *checks) server() {
	ti := c.w.server.issuer()
	if ti == nil || ti.DeletionTimestamp != nil || string(ti.UID) != c.uid {
		clear(c.must)
		clear(c.lacks)
		clear(c.touched)
		clear(c.dropped)
		c.listed, c.uid = nil, ""
		if ti == nil || ti.DeletionTimestamp != nil {
			return
		}
		c.uid = string(ti.UID)
	}
	for _, key := range []client.ObjectKey{c.w.ours(), copyKey} {
		// One that is immutable can only be made anew. And one that holds the set before the
		// pending one is put right once that is the trusted one: the manager may have written it.
		if cm := c.w.server.maps[key]; cm != nil && cm.Immutable == nil && ti.Status.Snapshot != nil && isNewest(ti.Status.Snapshot, snapshot.Digest(cm.Data)) && cm.Labels[api.LabelSnapshot] == "true" {
			delete(c.touched, key)
		}
	}
	listing := listing(ti)
	c.overlaps(ti, listing)
	c.returns(ti, listing)
	c.listed = listing
	c.robbed = c.robbed && c.touched[c.w.ours()]
	c.forgive()
	fresh := newReplica(c.w, 0).look()
	for i, s := range signers {
		switch {
		case fresh.accepted[i]:
			c.mayAccept("a replica that starts now", ti, s)
			c.must[s] = true
			if l := c.lacks[s]; l != nil && l.jumps == c.w.jumps && !l.back.IsZero() && present(ti, s) && !ti.Status.Snapshot.LastSuccessTime.Time.Before(l.back.Truncate(time.Second)) {
				delete(c.lacks, s)
			}
		case c.must[s] && !c.touched[c.w.ours()]:
			if !refused(ti, s) && fresh.reason != verifier.SnapshotExpired && !c.mayHaveGone(s) {
				c.fail("lost: a replica that starts now does not accept key %s (%s)", s.name, fresh.reason)
			}
			delete(c.must, s)
		}
	}
}

// overlaps checks, where that is required, that a set which shares no key with the one
// before it was approved. Keys that are refused by now are no longer trusted.
func (c *checks) overlaps(ti *api.TrustedIssuer, now map[*signer]bool) {
	before, shared := false, false
	for s := range c.listed {
		before, shared = before || !refused(ti, s), shared || now[s] && !refused(ti, s)
	}
	if c.w.setting.Overlap && before && !shared {
		for s := range now {
			if !c.everApproved[s] {
				c.fail("wrong accept: key %s is trusted with none of those that were trusted before, and nobody approved it", s.name)
			}
		}
	}
}

// returns checks that a key which was let go of comes back with an answer alone.
func (c *checks) returns(ti *api.TrustedIssuer, now map[*signer]bool) {
	for _, s := range signers {
		switch {
		case c.listed[s] && !now[s] && !refused(ti, s) && !c.newest[s]:
			c.dropped[s] = true
		case now[s] && c.dropped[s]:
			c.fail("wrong accept: key %s is trusted again, which was let go of, and which the issuer has not published since", s.name)
		}
	}
}

// listing is all that status lists as trusted.
func listing(ti *api.TrustedIssuer) map[*signer]bool {
	now := map[*signer]bool{}
	for _, s := range signers {
		if listed(ti, s) {
			now[s] = true
		}
	}
	return now
}

// isNewest reports the digest of the newest set that status names.
func isNewest(s *api.SnapshotStatus, digest string) bool {
	return names(s, digest) && (s.PendingDigest == "" || s.PendingDigest == digest)
}

func names(s *api.SnapshotStatus, digest string) bool {
	return digest != "" && (digest == s.Digest || digest == s.PendingDigest)
}

// present reports that status has the key as one that the issuer publishes.
func present(ti *api.TrustedIssuer, s *signer) bool {
	for _, k := range ti.Status.Keys {
		if k.Thumbprint == s.thumbprint {
			return k.State == api.KeyActive && k.MissingSince == nil
		}
	}
	return false
}

// mayHaveGone reports that the issuer's answers allow to let go of a key: a second
// look has missed it too, or there was none for long, or its kid has another key.
func (c *checks) mayHaveGone(s *signer) bool {
	l := c.lacks[s]
	if c.everRefused[s] {
		return true // and pardoned before the set without it was in place: it comes back with a fetch
	}
	switch {
	case l == nil:
		return false
	case l.replaced, l.lastAfresh.Sub(l.first) >= confirmAfter, l.tries > 0 && c.w.passed.Sub(l.first) >= confirmWithin:
		return true
	case l.jumps == c.w.jumps:
		return false
	}
	// A clock that was set says when the second look has to be, not that it was. What a
	// manager that starts then knows of the time before, it knows by that clock alone.
	return l.second || l.tries > 0 && c.w.leader != l.leader
}

// settled checks that no publication is left half-done. One that was given up before
// the ConfigMap had the set may go on being announced until the issuer answers.
func (c *checks) settled() {
	ti := c.w.server.issuer()
	if ti == nil || ti.DeletionTimestamp != nil {
		left := len(c.w.server.maps)
		if c.lateCopy && c.w.withdrew != c.w.leader && c.w.server.maps[copyKey] != nil {
			left--
		}
		if ti != nil || left > 0 {
			c.fail("unfinished: the issuer object was deleted, and %d ConfigMaps are left", len(c.w.server.maps))
		}
		return
	}
	s := ti.Status.Snapshot
	if s == nil || s.Digest == "" || c.robbed {
		return
	}
	for _, key := range []client.ObjectKey{c.w.ours(), copyKey} {
		cm := c.w.server.maps[key]
		if cm == nil || snapshot.Digest(cm.Data) != s.Digest {
			c.fail("unfinished: ConfigMap %s does not hold the set that status names", key)
		}
	}
}

// arrived checks that the replicas trust what the issuer publishes, and nothing
// else.
func (c *checks) arrived() {
	if missing := c.hasArrived(); missing != "" {
		c.fail("%s", missing)
	}
}

// hasArrived says what is missing to that; nothing is, where it is empty.
func (c *checks) hasArrived() string {
	ti := c.w.server.issuer()
	if ti != nil && !c.w.admits(c.w.issuer.keys) {
		return "" // it publishes nothing that can be trusted: the last good keys go with their time
	}
	if ti != nil && ti.Status.Snapshot != nil && ti.Status.Snapshot.PendingDigest != "" {
		return "unfinished: status still has a pendingDigest"
	}
	for n, r := range c.w.readers {
		for i, s := range signers {
			want := ti != nil && ti.DeletionTimestamp == nil && has(c.w.issuer.keys, s) && !refused(ti, s)
			if got := r.memo.accepted[i]; got != want {
				return fmt.Sprintf("not arrived: replica %d accepts key %s: %t, though it should be %t", n, s.name, got, want)
			}
		}
	}
	return ""
}

// canonical is a set in the form of the snapshot.
func canonical(keys []*signer) []byte {
	parsed, err := keyset.Parse(document(keys, nil), keyset.Policy{})
	if err != nil {
		panic(err) // they are good
	}
	return parsed.Set.JSON()
}
