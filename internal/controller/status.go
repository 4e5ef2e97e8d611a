// status.go computes the next status of an issuer from its last one and from
// what a reconciliation found out. It is pure: no client, no clock.

package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

const (
	// maxCompromised bounds status.compromisedKeys. Entries are never evicted.
	maxCompromised = 100
	// maxHistory bounds status.rotation.history, and maxRevoked the revoked keys
	// that status.keys lists.
	maxHistory, maxRevoked = 50, 100
	// maxNamed bounds each list of kids in status.rotation. A whole trusted set can
	// go at once, missing keys included, and is twice as long.
	maxNamed = 100
	// maxMessage is the longest message of a condition, in bytes. What others say, and what
	// spec says wrong, can be longer, and must not keep the rest of status from being saved.
	maxMessage = 32 << 10
	// recordAfter is the part of cacheTTL after which a success that changed
	// nothing but its own time is written down.
	recordAfter = 0.7
	// lapseMargin is the time that a refresh may take, retries included, before
	// a recorded freshness must not have ended.
	lapseMargin = 15 * time.Second
)

// attempt is the outcome of one fetch, or of reading static keys.
type attempt struct {
	started time.Time
	// generation is that of the spec which was tried.
	generation int64
	// request and requestedAt are the refresh requests that it answers, if any.
	request     string
	requestedAt *metav1.MicroTime
	uri         string
	// reason and message go into the condition Fetched.
	reason, message string
	succeeded       bool
	// needsChange: only a change of spec, or of the administrator's policy, can
	// help.
	needsChange bool
	// set is what the issuer published; nil unless succeeded.
	set *keyset.Set
	// afresh: no cache on the way was asked whether the document had changed.
	afresh bool
	// candidate is a set that is quarantined, and suspended the reason.
	candidate *keyset.Set
	suspended string
	// found is the digest of the trusted set that it was made with, and led the digest of
	// the one that it leads to.
	found, led string
	// lapsed is an approval that has ended, because its set did not come again.
	lapsed string
	// skipped is how many keys of the document were not admitted, and excluded the
	// thumbprints of those whose use spec does not admit.
	skipped  int
	excluded []string
	// compromised are keys found with their private part.
	compromised []keyset.Compromised
}

// publication is the outcome of bringing the ConfigMaps up to date.
type publication struct {
	reason, message string
	succeeded       bool
	// blocked: something that nobody tells the end of stands in the way.
	blocked bool
}

// outcome is all that a reconciliation found out.
type outcome struct {
	// attempt is nil when none was due.
	attempt *attempt
	// trusted is the key set that the authoritative ConfigMap holds now; nil
	// when there is none.
	trusted *keyset.Set
	// missing are those of its keys that the issuer no longer publishes.
	missing map[keyset.Ref]missing
	// lastSuccess is when the issuer last confirmed the trusted set; zero where
	// only status knows.
	lastSuccess time.Time
	// lastAbsent is when the issuer's answer before this one came: a key that is
	// new was not in it. Zero where that cannot be said.
	lastAbsent time.Time
	// readmitted: keys that were left out before may have been admitted.
	readmitted bool
	// withdrawn: nothing is trusted any more, because every key is compromised
	// or revoked.
	withdrawn bool
	// exposed: that is because the issuer has published their private part.
	exposed bool
	// expired: the keys were taken out of the ConfigMap that users read, because
	// they have expired.
	expired bool
	// published is nil when nothing was tried.
	published *publication
	// configMapName is the ConfigMap that users read.
	configMapName string
	// nextRefresh is when the next fetch is due; zero for never.
	nextRefresh time.Time
	// conflict names the older ClusterTrustedIssuer that answers TokenReview
	// for the same issuer.
	conflict string
	// invalid says which expression in spec cannot be compiled; empty when all can.
	invalid string
	// distributed is nil where there is nothing to distribute.
	distributed *distributed
}

// confirmed reports whether the issuer's newest answer is what the trust rests on
// now.
func (out outcome) confirmed() bool {
	return out.attempt != nil && out.attempt.succeeded && out.trusted != nil
}

// nextStatus is the status after the outcome. It does not change issuer.
func nextStatus(issuer api.Issuer, out outcome, now time.Time) *api.IssuerStatus {
	next := issuer.IssuerStatus().DeepCopy()
	next.ObservedGeneration = issuer.GetGeneration()

	recordAttempt(next, out, now)
	recordApproval(next, issuer, out)
	recordTrusted(next, issuer, out, now)
	next.NextRefreshTime = timeOrNil(out.nextRefresh)
	setConditions(next, issuer, out, now)
	answerRefresh(next, issuer, now)
	return next
}

// shortened is the value of an annotation as status repeats it: its digest where it is
// too long for that, so that no two values look the same.
func shortened(value string) string {
	if len(value) <= maxText {
		return value
	}
	return snapshot.DigestOf([]byte(value))
}

// answerRefresh answers the refresh annotation where no fetch will: with the reason
// that the condition Fetched has. Somebody may be waiting for it.
func answerRefresh(next *api.IssuerStatus, issuer api.Issuer, now time.Time) {
	spec, request, h := issuer.IssuerSpec(), shortened(issuer.GetAnnotations()[api.AnnotationRefresh]), next.HandledRefresh
	if !spec.Static() && !spec.Suspended() || request == "" || h != nil && h.Request == request {
		return
	}
	answer := &api.HandledRefresh{Request: request, StartTime: metav1.NewMicroTime(now), Outcome: findCondition(next, api.ConditionFetched).Reason}
	if h != nil {
		answer.RequestedAt = h.RequestedAt
	}
	next.HandledRefresh = answer
}

// recordAttempt notes the newest fetch and the compromised keys that it found. Whoever
// asked for it is answered once it is known whether its keys are trusted: a success that
// did not reach the ConfigMap is no reason to call a key unknown.
func recordAttempt(next *api.IssuerStatus, out outcome, now time.Time) {
	a := out.attempt
	if a == nil {
		return
	}
	next.JWKSURI = a.uri
	next.LastAttempt = &api.AttemptStatus{Time: metav1.NewTime(a.started), Reason: a.reason, Message: a.message}
	result := a.reason
	if a.succeeded && !out.confirmed() && !out.withdrawn {
		result = ""
		if out.published != nil {
			result = out.published.reason
		}
	}
	h := next.HandledRefresh
	if h == nil {
		h = &api.HandledRefresh{}
	}
	started := metav1.NewMicroTime(a.started)
	other := a.request != h.Request || !a.requestedAt.Equal(h.RequestedAt)
	better := result == api.ReasonSucceeded && h.Outcome != result && started.Equal(&h.StartTime)
	if result != "" && (other || better) {
		next.HandledRefresh = &api.HandledRefresh{Request: a.request, RequestedAt: a.requestedAt, StartTime: started, Outcome: result}
	}
	for _, c := range a.compromised {
		addCompromised(next, c, now)
	}
}

func addCompromised(next *api.IssuerStatus, c keyset.Compromised, now time.Time) {
	known := slices.ContainsFunc(next.CompromisedKeys, func(k api.CompromisedKey) bool { return k.Thumbprint == c.Thumbprint })
	if known || len(next.CompromisedKeys) >= maxCompromised {
		return
	}
	next.CompromisedKeys = append(next.CompromisedKeys, api.CompromisedKey{
		Thumbprint: c.Thumbprint, KeyID: c.KeyID, SeenTime: metav1.NewTime(now),
	})
}

// clearCompromised forgets the compromised keys that an administrator named.
func clearCompromised(status *api.IssuerStatus, annotation string) {
	named := strings.Split(annotation, ",")
	for i := range named {
		named[i] = strings.TrimSpace(named[i])
	}
	status.CompromisedKeys = slices.DeleteFunc(status.CompromisedKeys, func(k api.CompromisedKey) bool {
		return slices.Contains(named, k.Thumbprint)
	})
}

// recordApproval notes that an approval has been used: by an answer, or by the
// publication that a crash interrupted, whose keys still stand as quarantined. One that
// the annotation no longer has is forgotten.
func recordApproval(next *api.IssuerStatus, issuer api.Issuer, out outcome) {
	value, _ := api.ApprovalOf(issuer)
	if r := next.Rotation; r != nil && r.HandledApproval != value {
		r.HandledApproval = ""
	}
	if a := out.attempt; a != nil && value != "" && a.lapsed == value {
		rotationOf(next).HandledApproval = value
	}
	if !approved(issuer) || out.trusted == nil {
		return
	}
	digest := issuer.IssuerStatus().Rotation.CandidateDigest
	answered := out.confirmed() && out.attempt.set.Digest() == digest
	settled := slices.ContainsFunc(next.Keys, func(k api.KeyStatus) bool {
		return k.State == api.KeyQuarantined && out.trusted.Has(keyset.Ref{KeyID: k.KeyID, Thumbprint: k.Thumbprint})
	})
	if answered || settled {
		rotationOf(next).HandledApproval = value
	}
}

// recordTrusted describes the trusted set: its digest, its keys, its rotation
// and how long it is trusted.
func recordTrusted(next *api.IssuerStatus, issuer api.Issuer, out outcome, now time.Time) {
	if next.Snapshot == nil {
		next.Snapshot = &api.SnapshotStatus{}
	}
	s := next.Snapshot
	s.ConfigMapName = out.configMapName
	recordKeys(next, issuer, out, now)
	if out.withdrawn {
		s.Digest, s.PendingDigest, s.Keys = "", "", 0
	}
	if out.trusted != nil {
		s.Digest, s.PendingDigest = out.trusted.Digest(), ""
		s.Keys = int32(out.trusted.Len()) //nolint:gosec // at most maxTrusted
	}
	confirmed := out.confirmed()
	if confirmed {
		s.ObservedGeneration = out.attempt.generation
	}
	// What is recorded can be newer than what this process remembers.
	if confirmed || out.lastSuccess.After(successTime(next)) {
		// In whole seconds, as it will be read again: what is judged by it now is judged
		// by it then, and at the very times for which wake brings the issuer back.
		s.LastSuccessTime = timeOrNil(inStatus(out.lastSuccess))
	}
	if !confirmed && !issuer.IssuerSpec().Static() && staticKeys(issuer.IssuerStatus().Snapshot) {
		// Inline keys have not aged. They do from now on, whatever becomes of the fetch.
		s.LastSuccessTime = ptrTo(metav1.NewTime(inStatus(now)))
	}
	if s.LastSuccessTime != nil && s.LastSuccessTime.After(now.Add(snapshot.MaxClockAhead)) {
		s.LastSuccessTime = ptrTo(metav1.NewTime(now))
	}
	w := windowOf(issuer, s)
	s.FreshUntil, s.ExpiresAt = timeOrNil(w.FreshUntil()), timeOrNil(w.ExpiresAt())
}

// recordKeys lists the keys: the trusted ones, then those that are not.
func recordKeys(next *api.IssuerStatus, issuer api.Issuer, out outcome, now time.Time) {
	old := next.Keys
	trusted := slices.DeleteFunc(slices.Clone(old), func(k api.KeyStatus) bool { return !trustedState(k.State) })
	if out.trusted != nil || out.withdrawn {
		recordRotation(next, trusted, out.trusted, now)
		trusted = listTrusted(old, next.KeyUsage, out, now)
	}
	next.Keys = slices.Concat(trusted, listQuarantined(next, old, trusted, out.attempt, now), listRevoked(issuer.IssuerSpec(), old, trusted))
}

// recordRotation notes how the trusted set changes. The first set of an issuer is
// not a rotation. A nil set has no keys.
func recordRotation(next *api.IssuerStatus, old []api.KeyStatus, set *keyset.Set, now time.Time) {
	var refs []keyset.Ref
	if set != nil {
		refs = set.Refs()
	}
	change := keyset.Diff(keyRefs(old), refs)
	if len(old) == 0 || change.Empty() {
		return
	}
	r := rotationOf(next)
	r.Count++
	r.LastRotationTime = ptrTo(metav1.NewTime(now))
	r.Added, r.Removed, r.Replaced = firstNames(change.Added), firstNames(change.Removed), firstNames(change.Replaced)
	for _, k := range old {
		if slices.Contains(refs, keyset.Ref{KeyID: k.KeyID, Thumbprint: k.Thumbprint}) {
			continue
		}
		r.History = slices.Insert(r.History, 0, api.RemovedKey{
			KeyID: k.KeyID, Thumbprint: k.Thumbprint, FirstSeenTime: k.FirstSeenTime, RemovedTime: metav1.NewTime(now),
		})
	}
	r.History = r.History[:min(len(r.History), maxHistory)]
}

// rotationOf is the status' part about rotation, made where there is none.
func rotationOf(s *api.IssuerStatus) *api.RotationStatus {
	if s.Rotation == nil {
		s.Rotation = &api.RotationStatus{}
	}
	return s.Rotation
}

// listTrusted lists the keys of the trusted set, with the times that are already
// known.
func listTrusted(old []api.KeyStatus, usage []api.KeyUsage, out outcome, now time.Time) []api.KeyStatus {
	if out.trusted == nil {
		return nil
	}
	keys := make([]api.KeyStatus, 0, out.trusted.Len())
	for _, k := range out.trusted.Keys() {
		ks := keyStatus(old, k, api.KeyActive, now)
		m, isMissing := out.missing[keyset.RefOf(k)]
		switch {
		case isMissing:
			ks.MissingSince = ptrTo(metav1.NewTime(m.since))
			if m.retiring {
				ks.State = api.KeyRetiring
			}
		case out.confirmed():
			ks.LastSeenTime = metav1.NewTime(now)
		}
		for _, u := range usage {
			if u.Thumbprint == ks.Thumbprint {
				ks.LastUsedTime, ks.EarlyUseTime = timeOrNil(u.LastUsedTime.Time), u.EarlyUseTime
			}
		}
		if !slices.ContainsFunc(old, func(o api.KeyStatus) bool { return o.Thumbprint == ks.Thumbprint }) {
			ks.LastAbsentTime = timeOrNil(out.lastAbsent)
		}
		keys = append(keys, ks)
	}
	return keys
}

// listQuarantined lists the keys that wait for approval, and notes the digest of
// their set. An answer that is taken over ends the wait; a failure changes
// nothing.
func listQuarantined(next *api.IssuerStatus, old, trusted []api.KeyStatus, a *attempt, now time.Time) []api.KeyStatus {
	isTrusted := func(thumbprint string) bool {
		return slices.ContainsFunc(trusted, func(k api.KeyStatus) bool { return k.Thumbprint == thumbprint })
	}
	switch {
	case a != nil && a.candidate != nil:
		rotationOf(next).CandidateDigest = a.candidate.Digest()
		var keys []api.KeyStatus
		for _, k := range a.candidate.Keys() {
			if !isTrusted(k.Thumbprint()) {
				keys = append(keys, keyStatus(old, k, api.KeyQuarantined, now))
			}
		}
		return keys
	case a != nil && a.succeeded:
		if r := next.Rotation; r != nil {
			r.CandidateDigest = ""
			if r.Count == 0 && r.HandledApproval == "" {
				next.Rotation = nil // the API server takes an object that was emptied for null
			}
		}
		return nil
	}
	// One that is trusted now was approved of before a crash.
	return slices.DeleteFunc(slices.Clone(old), func(k api.KeyStatus) bool { return k.State != api.KeyQuarantined || isTrusted(k.Thumbprint) })
}

// listRevoked lists the keys that were trusted until spec revoked them, for as
// long as it does.
func listRevoked(spec *api.IssuerSpec, old, trusted []api.KeyStatus) []api.KeyStatus {
	var keys []api.KeyStatus
	for _, k := range old {
		still := slices.ContainsFunc(trusted, func(t api.KeyStatus) bool { return t.Thumbprint == k.Thumbprint })
		named := slices.Contains(spec.RevokedKeys, k.Thumbprint) || k.KeyID != "" && slices.Contains(spec.RevokedKeys, k.KeyID)
		if named && !still && k.State != api.KeyQuarantined && len(keys) < maxRevoked {
			k.State, k.MissingSince = api.KeyRevoked, nil
			keys = append(keys, k)
		}
	}
	return keys
}

// keyStatus describes a key, with the times that are already known.
func keyStatus(old []api.KeyStatus, k *keyset.Key, state api.KeyState, now time.Time) api.KeyStatus {
	ks := api.KeyStatus{
		KeyID: k.KeyID(), KeyType: k.KeyType(), Algorithm: string(k.Algorithm()),
		Bits: int32(k.Bits()), Curve: k.Curve(), //nolint:gosec // at most 8192
		Thumbprint: k.Thumbprint(), State: state,
		FirstSeenTime: metav1.NewTime(now), LastSeenTime: metav1.NewTime(now),
	}
	for _, before := range old {
		if before.Thumbprint == ks.Thumbprint && before.KeyID == ks.KeyID {
			ks.FirstSeenTime, ks.LastSeenTime, ks.LastAbsentTime = before.FirstSeenTime, before.LastSeenTime, before.LastAbsentTime
			ks.LastUsedTime, ks.EarlyUseTime = before.LastUsedTime, before.EarlyUseTime
		}
	}
	if state == api.KeyQuarantined {
		ks.LastSeenTime = metav1.NewTime(now)
	}
	return ks
}

// setConditions derives every condition from the rest of the status. Those
// that were not reached are Unknown.
func setConditions(next *api.IssuerStatus, issuer api.Issuer, out outcome, now time.Time) {
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&next.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: cutTo(maxMessage, message),
			ObservedGeneration: next.ObservedGeneration, LastTransitionTime: metav1.NewTime(now),
		})
	}
	setFetched(next, issuer.IssuerSpec(), out, set)
	setPublished(next, issuer.IssuerSpec(), out, set)

	state := windowOf(issuer, next.Snapshot).State(now)
	if next.Snapshot.Digest == "" {
		state = snapshot.Pending
	}
	setFreshness(next, state, set)
	setRetiring(next, issuer.IssuerSpec(), state, set)
	setSuspended(next, out.attempt, set)
	setStalled(next, issuer.IssuerSpec(), out, set)
	setDistributed(next, out.distributed, set)
	setReady(next, issuer.IssuerSpec(), state, set)
}

// setCondition sets one condition of the status under construction.
type setCondition func(kind string, status metav1.ConditionStatus, reason, message string)

func setFetched(next *api.IssuerStatus, spec *api.IssuerSpec, out outcome, set setCondition) {
	if spec.Suspended() && !spec.Static() {
		set(api.ConditionFetched, metav1.ConditionUnknown, api.ReasonSuspended, "spec.suspend stops all fetches; set it to false to go on.")
		return
	}
	if a := out.attempt; a != nil {
		set(api.ConditionFetched, conditionStatus(a.succeeded), a.reason, a.message)
		return
	}
	switch c := findCondition(next, api.ConditionFetched); {
	case c == nil:
		set(api.ConditionFetched, metav1.ConditionUnknown, api.ReasonPending, "The keys have not been fetched yet.")
	case c.ObservedGeneration != next.ObservedGeneration:
		set(api.ConditionFetched, metav1.ConditionUnknown, api.ReasonPending, "The keys have not been fetched since spec was changed; those that are trusted still are.")
	}
}

func setPublished(next *api.IssuerStatus, spec *api.IssuerSpec, out outcome, set setCondition) {
	before := findCondition(next, api.ConditionSnapshotPublished)
	answered := out.attempt != nil && out.attempt.succeeded
	switch p := out.published; {
	case p != nil && p.succeeded && !answered && before != nil && before.Reason == api.ReasonSnapshotTooLarge && before.ObservedGeneration == next.ObservedGeneration:
		// What is published are the keys from before the ones that are too many.
	case p != nil:
		set(api.ConditionSnapshotPublished, conditionStatus(p.succeeded), p.reason, p.message)
	case before == nil || next.Snapshot.Digest == "" && (before.Status == metav1.ConditionTrue || readmits(next, spec, before.Reason)):
		set(api.ConditionSnapshotPublished, metav1.ConditionUnknown, api.ReasonPending, "There are no keys to publish yet.")
	}
}

// readmits reports that what the keys were taken out for is no more: none is revoked, or
// compromised. They come back with the next answer.
func readmits(next *api.IssuerStatus, spec *api.IssuerSpec, reason string) bool {
	switch reason {
	case api.ReasonAllKeysRevoked:
		return len(spec.RevokedKeys) == 0
	case api.ReasonPrivateKeyExposed:
		return len(next.CompromisedKeys) == 0
	}
	return false
}

// setFreshness sets Stale and Expired from the state of the window.
func setFreshness(next *api.IssuerStatus, state snapshot.State, set setCondition) {
	since := "The last success was at " + formatTime(next.Snapshot.LastSuccessTime)
	switch state {
	case snapshot.Pending:
		set(api.ConditionStale, metav1.ConditionUnknown, api.ReasonPending, "There is no snapshot yet.")
		set(api.ConditionExpired, metav1.ConditionUnknown, api.ReasonPending, "There is no snapshot yet.")
	case snapshot.Fresh:
		set(api.ConditionStale, metav1.ConditionFalse, api.ReasonFresh, "")
		set(api.ConditionExpired, metav1.ConditionFalse, api.ReasonNotExpired, "")
	case snapshot.Stale:
		set(api.ConditionStale, metav1.ConditionTrue, api.ReasonServingStale, fmt.Sprintf(
			"%s; the last good keys go on being trusted until %s. %s",
			since, formatTime(next.Snapshot.ExpiresAt), lastFailure(next)))
		set(api.ConditionExpired, metav1.ConditionFalse, api.ReasonNotExpired, "")
	case snapshot.Expired:
		set(api.ConditionStale, metav1.ConditionFalse, api.ReasonExpired, "The keys are no longer served: they have expired.")
		set(api.ConditionExpired, metav1.ConditionTrue, api.ReasonExpired, fmt.Sprintf(
			"%s; the keys expired at %s and the verifier fails closed. %s",
			since, formatTime(next.Snapshot.ExpiresAt), lastFailure(next)))
	}
}

// setRetiring names the keys that are trusted although the issuer no longer
// publishes them.
func setRetiring(next *api.IssuerStatus, spec *api.IssuerSpec, state snapshot.State, set setCondition) {
	var retiring []string
	var last time.Time
	for _, k := range next.Keys {
		if k.State == api.KeyRetiring {
			retiring = append(retiring, k.KeyID)
			last = later(last, endOfTrust(k, spec))
		}
	}
	switch {
	case state == snapshot.Pending:
		set(api.ConditionKeysRetiring, metav1.ConditionUnknown, api.ReasonPending, "There is no snapshot yet.")
	case len(retiring) > 0:
		set(api.ConditionKeysRetiring, metav1.ConditionTrue, api.ReasonGracePeriod, fmt.Sprintf(
			"The issuer no longer publishes %s; spec.rotation.retirementGrace keeps them trusted, the last until %s.",
			list(retiring), last.UTC().Format(time.RFC3339)))
	default:
		set(api.ConditionKeysRetiring, metav1.ConditionFalse, api.ReasonNoneRetiring, "")
	}
}

// setSuspended says whether a key set waits for approval. Only another answer of
// the issuer changes that.
func setSuspended(next *api.IssuerStatus, a *attempt, set setCondition) {
	switch {
	case a != nil && a.candidate != nil:
		set(api.ConditionRotationSuspended, metav1.ConditionTrue, a.suspended, a.message)
	case a != nil && a.succeeded:
		set(api.ConditionRotationSuspended, metav1.ConditionFalse, api.ReasonNotSuspended, "")
	case findCondition(next, api.ConditionRotationSuspended) == nil:
		set(api.ConditionRotationSuspended, metav1.ConditionUnknown, api.ReasonPending, "The keys have not been fetched yet.")
	}
}

// setStalled says whether only a change can help. One that was made has to be tried
// before it is known whether it has helped.
func setStalled(next *api.IssuerStatus, spec *api.IssuerSpec, out outcome, set setCondition) {
	before := findCondition(next, api.ConditionStalled)
	untried := before != nil && before.Status == metav1.ConditionTrue && before.ObservedGeneration != next.ObservedGeneration
	switch {
	case out.invalid != "":
		set(api.ConditionStalled, metav1.ConditionTrue, api.ReasonInvalidExpression, out.invalid+". Until it is mended the verifier decides about no token of the issuer; applications that mount the keys are not affected.")
	case out.conflict != "":
		set(api.ConditionStalled, metav1.ConditionTrue, api.ReasonIssuerConflict, fmt.Sprintf(
			"The older ClusterTrustedIssuer %q has kubernetesAuthentication for the same issuer and answers TokenReview; remove spec.kubernetesAuthentication from one of the two.", out.conflict))
	case out.attempt != nil && out.attempt.needsChange:
		set(api.ConditionStalled, metav1.ConditionTrue, out.attempt.reason, out.attempt.message)
	case out.attempt != nil || before == nil || before.Reason == api.ReasonIssuerConflict || before.Reason == api.ReasonInvalidExpression:
		set(api.ConditionStalled, metav1.ConditionFalse, api.ReasonNotStalled, "")
	case untried && spec.Suspended():
		set(api.ConditionStalled, metav1.ConditionUnknown, api.ReasonSuspended, "spec has changed since, and spec.suspend stops all fetches; set it to false to have it tried.")
	case untried:
		set(api.ConditionStalled, metav1.ConditionUnknown, api.ReasonPending, "spec has changed since and has not been tried yet.")
	}
}

// setDistributed says how far the copies have come. What was said of the same keys
// under the same spec stands while they are looked at again, after a restart.
func setDistributed(next *api.IssuerStatus, d *distributed, set setCondition) {
	if d == nil {
		next.Distribution = nil
		meta.RemoveStatusCondition(&next.Conditions, api.ConditionDistributed)
		return
	}
	if d.invalid != "" {
		set(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonInvalidSelector, fmt.Sprintf(
			"spec.namespaceSelector cannot be understood: %s. Correct it; the copies stay as they are.", d.invalid))
		return
	}
	settled := d.settled && d.digest == next.Snapshot.Digest
	before := findCondition(next, api.ConditionDistributed)
	known := before != nil && before.ObservedGeneration == next.ObservedGeneration && before.Reason != api.ReasonDistributing &&
		next.Distribution != nil && next.Distribution.Digest == next.Snapshot.Digest
	if !settled && known {
		return
	}
	if d.digest != next.Snapshot.Digest {
		d.current = 0
	}
	desired, current := int32(d.desired), int32(d.current) //nolint:gosec // numbers of namespaces
	next.Distribution = &api.DistributionStatus{
		Digest: next.Snapshot.Digest, Desired: &desired, Current: &current, Failed: d.failed[:min(len(d.failed), maxFailed)],
	}
	switch failed := len(d.failed); {
	case !settled:
		set(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonDistributing, fmt.Sprintf("%d of %d namespaces have the current copy.", current, desired))
	case failed > 0:
		var names []string
		for _, f := range d.failed {
			names = append(names, f.Namespace)
		}
		set(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonNamespacesFailed, fmt.Sprintf(
			"%d of %d namespaces have the current copy. Not %s: status.distribution.failed says why.", current, desired, list(names)))
	case desired == 0:
		set(api.ConditionDistributed, metav1.ConditionTrue, api.ReasonNothingSelected, "spec.namespaceSelector matches no namespace; label those that have to have a copy, or correct it.")
	default:
		set(api.ConditionDistributed, metav1.ConditionTrue, api.ReasonDistributed, fmt.Sprintf("%d of %d namespaces have the current copy.", current, desired))
	}
}

// setReady sums up, in the order of what stands in the way first.
func setReady(next *api.IssuerStatus, spec *api.IssuerSpec, state snapshot.State, set setCondition) {
	fetched := findCondition(next, api.ConditionFetched)
	published := findCondition(next, api.ConditionSnapshotPublished)
	ready := func(status metav1.ConditionStatus, reason, message string) {
		set(api.ConditionReady, status, reason, message)
	}
	behind := next.Snapshot.ObservedGeneration != next.ObservedGeneration && !spec.Suspended()
	switch {
	case invalid(next):
		stalled := findCondition(next, api.ConditionStalled)
		ready(metav1.ConditionFalse, stalled.Reason, stalled.Message)
	case published.Status == metav1.ConditionFalse:
		ready(metav1.ConditionFalse, published.Reason, published.Message)
	case state == snapshot.Pending || behind && fetched.Status != metav1.ConditionTrue:
		ready(notTrue(fetched.Status), fetched.Reason, fetched.Message)
	case published.Status != metav1.ConditionTrue:
		ready(metav1.ConditionUnknown, published.Reason, published.Message)
	case state == snapshot.Expired:
		c := findCondition(next, api.ConditionExpired)
		ready(metav1.ConditionFalse, c.Reason, c.Message)
	case state == snapshot.Stale:
		ready(metav1.ConditionTrue, api.ReasonServingStale, keysTrusted(next)+" The issuer has not confirmed them in time; the condition Fetched says why, and what mends it.")
	default:
		ready(metav1.ConditionTrue, api.ReasonFresh, keysTrusted(next))
	}
}

// invalid reports that an expression in spec cannot be compiled.
func invalid(s *api.IssuerStatus) bool {
	c := findCondition(s, api.ConditionStalled)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == api.ReasonInvalidExpression
}

// worthWriting reports whether next says anything that old does not, times
// that move with every refresh aside; those are written once recordAfter of
// cacheTTL has passed, which keeps an idle issuer at one write per cacheTTL.
func worthWriting(old, next *api.IssuerStatus, cacheTTL time.Duration, now time.Time) bool {
	if !equality.Semantic.DeepEqual(timeless(old), timeless(next)) {
		return true
	}
	quiet := time.Duration(recordAfter * float64(cacheTTL))
	return moved(successTime(old), successTime(next), quiet) ||
		moved(attemptTime(old), attemptTime(next), quiet) ||
		lapses(old, next, now)
}

// lapses reports that the recorded freshness would end before the next refresh
// can renew it, although there has been a success since. One that is due, and has not
// ended yet, can take as long from now.
func lapses(old, next *api.IssuerStatus, now time.Time) bool {
	if old.Snapshot == nil || old.Snapshot.FreshUntil == nil || next.NextRefreshTime == nil {
		return false
	}
	// Status holds whole seconds: the rest of one is no news.
	return successTime(next).Truncate(time.Second).After(successTime(old)) &&
		!later(next.NextRefreshTime.Time, now).Add(lapseMargin).Before(old.Snapshot.FreshUntil.Time)
}

// moved reports whether a recorded time is off by limit or more, in either
// direction: a clock that was set back must be able to correct the record.
func moved(old, next time.Time, limit time.Duration) bool {
	return next.Sub(old).Abs() >= limit
}

// timeless is a copy without the times that move with every refresh.
func timeless(s *api.IssuerStatus) *api.IssuerStatus {
	c := s.DeepCopy()
	c.NextRefreshTime = nil
	c.RefreshRequestedAt, c.KeyUsage = nil, nil // the verifier's own
	if c.LastAttempt != nil {
		c.LastAttempt.Time = metav1.Time{}
	}
	if c.Snapshot != nil {
		c.Snapshot.LastSuccessTime, c.Snapshot.FreshUntil, c.Snapshot.ExpiresAt = nil, nil, nil
	}
	for i := range c.Keys {
		k := &c.Keys[i]
		k.LastSeenTime = metav1.Time{}
		k.LastUsedTime = nil
		if usedThoughMissing(s.Keys[i]) {
			k.LastUsedTime = k.MissingSince // that it is used is news, when is not
		}
	}
	return c
}

// usedThoughMissing reports that a key which the issuer no longer publishes has
// signed tokens since.
func usedThoughMissing(k api.KeyStatus) bool {
	return trustedState(k.State) && k.MissingSince != nil && k.LastUsedTime != nil && k.LastUsedTime.After(k.MissingSince.Time)
}

// windowOf is the time during which the snapshot that s describes is trusted.
// Inline keys never expire; but an edit to inline keys that cannot be used must
// not give the fetched ones, which stay, eternal life.
func windowOf(issuer api.Issuer, s *api.SnapshotStatus) snapshot.Window {
	spec := issuer.IssuerSpec()
	w := snapshot.Window{CacheTTL: spec.CacheTTLOrDefault(), StaleTTL: spec.StaleTTLOrDefault()}
	w.Static = spec.Static() && (s.ObservedGeneration == issuer.GetGeneration() || staticKeys(s))
	if s.LastSuccessTime != nil {
		w.LastSuccess = s.LastSuccessTime.Time
	}
	return w
}

// staticKeys reports whether the keys that s describes were given inline.
func staticKeys(s *api.SnapshotStatus) bool {
	return s != nil && s.Digest != "" && s.LastSuccessTime != nil && s.ExpiresAt == nil
}

func successTime(s *api.IssuerStatus) time.Time {
	if s.Snapshot == nil || s.Snapshot.LastSuccessTime == nil {
		return time.Time{}
	}
	return s.Snapshot.LastSuccessTime.Time
}

func attemptTime(s *api.IssuerStatus) time.Time {
	if s.LastAttempt == nil {
		return time.Time{}
	}
	return s.LastAttempt.Time.Time
}

func keyRefs(keys []api.KeyStatus) []keyset.Ref {
	refs := make([]keyset.Ref, 0, len(keys))
	for _, k := range keys {
		refs = append(refs, keyset.Ref{KeyID: k.KeyID, Thumbprint: k.Thumbprint})
	}
	return refs
}

// firstNames are as many names as status lists.
func firstNames(refs []keyset.Ref) []string {
	all := names(refs)
	return all[:min(len(all), maxNamed)]
}

// names are the kids of refs; the thumbprint where a key has none.
func names(refs []keyset.Ref) []string {
	var out []string
	for _, r := range refs {
		if r.KeyID == "" {
			out = append(out, r.Thumbprint)
			continue
		}
		out = append(out, r.KeyID)
	}
	slices.Sort(out)
	return out
}

func keysTrusted(s *api.IssuerStatus) string {
	return countKeys(int(s.Snapshot.Keys), " is trusted.", " are trusted.")
}

func lastFailure(s *api.IssuerStatus) string {
	if c := findCondition(s, api.ConditionFetched); c != nil && c.Status == metav1.ConditionFalse {
		return c.Reason + ": " + c.Message
	}
	return ""
}

func findCondition(s *api.IssuerStatus, kind string) *metav1.Condition {
	return meta.FindStatusCondition(s.Conditions, kind)
}

func conditionStatus(ok bool) metav1.ConditionStatus {
	if ok {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// notTrue keeps a summary from being True while what it sums up is not.
func notTrue(s metav1.ConditionStatus) metav1.ConditionStatus {
	if s == metav1.ConditionTrue {
		return metav1.ConditionUnknown
	}
	return s
}

func formatTime(t *metav1.Time) string {
	if t == nil {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

func timeOrNil(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return ptrTo(metav1.NewTime(t))
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

func ptrTo[T any](v T) *T { return &v }
