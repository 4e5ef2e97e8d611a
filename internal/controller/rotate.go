// rotate.go decides which keys are trusted after the issuer's answer. It is
// pure: the recorded keys, the answer and the time come in.
//
//	published, trusted ──────────────────────────────────> Active
//	published, new ──── spec.rotation.policy lets it ────> Active
//	                └── else the whole set waits ────────> Quarantined
//	trusted, missing ── second look, 30 s later ─────────> Retiring ── grace ──> gone
//	                ├── it is there again ───────────────> Active
//	                └── its kid has another key ─────────> gone at once
//
// A key that is missing is looked for a second time because caches in front of
// an issuer differ: one that lags shows an old set for a while.

package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

const (
	// confirmAfter is the time between a first look that misses a key and the
	// second one that confirms it.
	confirmAfter = 30 * time.Second
	// confirmWithin is when a missing key goes without a second look, because
	// none that was tried has succeeded: removing a key is the issuer's only way to
	// revoke it.
	confirmWithin = 10 * time.Minute
	// maxTrusted bounds the trusted set, the missing keys included.
	maxTrusted = 2 * keyset.MaxKeys
)

// missing is what is known of a trusted key that the issuer no longer
// publishes.
type missing struct {
	since time.Time
	// retiring: confirmed, and trusted until its grace period ends.
	retiring bool
}

// held is the set of keys to be trusted, with those that are missing from what
// the issuer publishes.
type held struct {
	set     *keyset.Set
	missing map[keyset.Ref]missing
}

// rotation is what the decision rests on.
type rotation struct {
	now  time.Time
	spec *api.IssuerSpec
	// recorded are the keys in status.
	recorded []api.KeyStatus
	// trusted is the set as it is; nil for none.
	trusted *keyset.Set
	// answer is the issuer's newest one; nil where there is none, or none that
	// counts.
	answer *attempt
	// waited is for how long a key has been missing, as far as status says so and this
	// process has seen the time pass.
	waited func(since time.Time) time.Duration
	// tried: a second look has been tried, or cannot be. No clock can say that.
	tried func(since time.Time) bool
}

// rotate is the set to trust from now on; its set is nil where nothing is.
func rotate(in rotation) held {
	out := held{set: in.trusted, missing: map[keyset.Ref]missing{}}
	if in.answer != nil {
		out.set = in.answer.set
	}
	if in.trusted == nil || in.spec.Static() && in.answer != nil {
		return out
	}
	out.missing = in.missing()
	var gone []*keyset.Key
	for _, k := range in.trusted.Keys() {
		if _, stays := out.missing[keyset.RefOf(k)]; stays {
			gone = append(gone, k)
		}
	}
	out.set = in.published().With(gone)
	return out
}

// published are the keys that the issuer publishes, as far as is known.
func (in rotation) published() *keyset.Set {
	if in.answer != nil {
		return in.answer.set
	}
	known := in.knownMissing()
	return in.trusted.Filter(func(k *keyset.Key) bool {
		_, isMissing := known[keyset.RefOf(k)]
		return !isMissing
	})
}

// knownMissing are the recorded keys that were missing before.
func (in rotation) knownMissing() map[keyset.Ref]missing {
	out := map[keyset.Ref]missing{}
	for _, k := range in.recorded {
		if k.MissingSince != nil && trustedState(k.State) {
			out[keyset.Ref{KeyID: k.KeyID, Thumbprint: k.Thumbprint}] = missing{k.MissingSince.Time, k.State == api.KeyRetiring}
		}
	}
	return out
}

// missing are the trusted keys that are not published and stay trusted all the
// same.
func (in rotation) missing() map[keyset.Ref]missing {
	known, published := in.knownMissing(), in.published()
	replaced := keyIDs(published)
	var all []keyset.Ref
	out := map[keyset.Ref]missing{}
	for _, k := range in.trusted.Keys() {
		ref := keyset.RefOf(k)
		// A key without a name cannot stand beside others.
		// And one that spec no longer admits is not missing.
		if published.Has(ref) || in.excluded(k) || replaced[ref.KeyID] || replaced[""] || ref.KeyID == "" || !slices.ContainsFunc(algorithms(in.spec), k.Fits) {
			continue
		}
		m, before := known[ref]
		if !before {
			// One look is never two, though the clock was set back while it was made.
			m = missing{since: in.now}
			if in.answer != nil && in.answer.started.Before(in.now) {
				m.since = in.answer.started
			}
			in.waited(m.since) // from now on this process knows
		} else {
			m = in.look(m)
		}
		if m.retiring && !in.now.Before(m.since.Add(in.spec.RetirementGraceOrDefault())) {
			continue
		}
		out[ref] = m
		all = append(all, ref)
	}
	in.bound(out, all, published.Len())
	return out
}

// excluded reports that the issuer publishes the key, for a use that spec does not admit.
func (in rotation) excluded(k *keyset.Key) bool {
	return in.answer != nil && slices.Contains(in.answer.excluded, k.Thumbprint())
}

// look is what the newest answer, or the lack of one, says of a missing key.
func (in rotation) look(m missing) missing {
	if in.answer != nil {
		if in.answer.started.Before(m.since) {
			m.since = in.answer.started // the clock was set back: it is the first look
		}
		m.retiring = m.retiring || in.answer.afresh && in.answer.started.Sub(m.since) >= confirmAfter
	}
	m.retiring = m.retiring || in.waited(m.since) >= confirmWithin && in.tried(m.since)
	return m
}

// bound lets go of the keys that have been missing for the longest time where
// there are too many.
func (in rotation) bound(out map[keyset.Ref]missing, refs []keyset.Ref, published int) {
	room := max(maxTrusted-published, 0)
	if len(refs) <= room {
		return
	}
	slices.SortFunc(refs, func(a, b keyset.Ref) int {
		return cmp.Or(out[b].since.Compare(out[a].since), cmp.Compare(a.KeyID, b.KeyID), cmp.Compare(a.Thumbprint, b.Thumbprint))
	})
	for _, ref := range refs[room:] {
		delete(out, ref)
	}
}

// quarantine turns an answer that spec.rotation.policy does not take over into
// one that has not succeeded, for as long as nobody has approved of it. standing is the
// set that is trusted before the answer is: while the first one is being published,
// status does not list its keys yet, and the answer must overlap with them all the same. But
// not with keys that are refused by now: status may list them until this very answer.
func quarantine(got sourced, issuer api.Issuer, standing *keyset.Set) sourced {
	spec := issuer.IssuerSpec()
	if !got.succeeded || spec.Static() || api.Approves(issuer, got.set.Digest()) {
		return got
	}
	policy := spec.RotationPolicyOrDefault()
	overlaps, refused := policy == api.RotationRequireOverlap, refusal(issuer, &got.attempt)
	trusted := map[string]bool{}
	for _, k := range issuer.IssuerStatus().Keys {
		if trustedState(k.State) && !(overlaps && refused(k.KeyID, k.Thumbprint)) {
			trusted[k.Thumbprint] = true
		}
	}
	if left, _ := withoutRevoked(standing, issuer, &got.attempt); left != nil && len(trusted) == 0 && overlaps {
		for _, k := range left.Keys() {
			trusted[k.Thumbprint()] = true
		}
	}
	isNew := func(k *keyset.Key) bool { return !trusted[k.Thumbprint()] }
	unknown := got.set.Filter(isNew).Len()
	switch {
	case policy == api.RotationRequireApproval && unknown > 0:
		got.suspended = api.ReasonApprovalRequired
		got.message = fmt.Sprintf("The issuer publishes %s, %d of them not approved yet. %s", countKeys(got.set.Len(), "", ""), unknown, howToApprove(issuer, got.set))
	case overlaps && len(trusted) > 0 && unknown == got.set.Len():
		got.suspended = api.ReasonNoOverlap
		got.message = "The issuer publishes none of the trusted keys any more. " + howToApprove(issuer, got.set)
	default:
		return got
	}
	got.candidate, got.set = got.set, nil
	got.succeeded, got.refused, got.reason = false, true, api.ReasonQuarantined
	return got
}

// countKeys is a number of keys, and what is said of one or of several.
func countKeys(n int, one, several string) string {
	if n == 1 {
		return "1 key" + one
	}
	return fmt.Sprintf("%d keys%s", n, several)
}

func howToApprove(issuer api.Issuer, set *keyset.Set) string {
	in, short := "", "cti/"+issuer.GetName()
	if ns := issuer.GetNamespace(); ns != "" {
		in, short = " -n "+ns, "ti/"+issuer.GetName()+" -n "+ns
	}
	return fmt.Sprintf("kubectl jwks diff --candidate %[1]s shows them. Ask the issuer's owner; if they are right: kubectl jwks approve %[1]s, or kubectl annotate%[2]s --overwrite %[3]s %[4]s %[5]s=%[6]s",
		short, in, resourceOf(issuer), issuer.GetName(), api.AnnotationApprove, api.Approval(issuer, set.Digest()))
}

// approved reports whether somebody has approved of the quarantined set.
func approved(issuer api.Issuer) bool {
	r := issuer.IssuerStatus().Rotation
	return r != nil && api.Approves(issuer, r.CandidateDigest)
}

// trustedState reports whether a key in that state may verify tokens.
func trustedState(s api.KeyState) bool { return s == api.KeyActive || s == api.KeyRetiring }

func keyIDs(set *keyset.Set) map[string]bool {
	out := map[string]bool{}
	for _, k := range set.Keys() {
		out[k.KeyID()] = true
	}
	return out
}
