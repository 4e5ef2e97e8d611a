// events.go says which events a change of status is worth. It is pure; the
// caller sends them, once status has been saved.

package controller

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// maxText is the longest text that is passed on, in bytes: as much as the events
// API takes as a note.
const maxText = 1024

// event is one entry for the events API (events.k8s.io/v1).
type event struct {
	kind   string // corev1.EventTypeNormal or EventTypeWarning
	reason string
	action string // what the controller was doing
	note   string
}

// eventsFor lists the events for the step from old to next, which the attempt,
// if there was one, led to.
func eventsFor(old, next *api.IssuerStatus, a *attempt) []event {
	var out []event
	add := func(kind, reason, action, note string) {
		out = append(out, event{kind: kind, reason: reason, action: action, note: cut(note)})
	}
	fetchEvents(old, next, add)
	movedEvent(old, next, add)
	skippedEvent(old, a, add)
	keyEvents(old, next, add)
	rotationEvents(old, next, add)
	suspendedEvent(old, next, add)
	usageEvents(old, next, add)
	conditionEvents(old, next, add)
	return out
}

type addEvent func(kind, reason, action, note string)

// fetchEvents tells of failures when they begin or change, and of recovery.
func fetchEvents(old, next *api.IssuerStatus, add addEvent) {
	before, now := findCondition(old, api.ConditionFetched), findCondition(next, api.ConditionFetched)
	if now == nil || before != nil && before.Status == now.Status && before.Reason == now.Reason {
		return
	}
	switch {
	case now.Reason == api.ReasonQuarantined: // suspendedEvent tells
	case now.Status == metav1.ConditionFalse:
		add(corev1.EventTypeWarning, now.Reason, "Fetch", now.Message)
	case now.Status == metav1.ConditionTrue && before != nil && before.Status == metav1.ConditionFalse && before.Reason != api.ReasonQuarantined:
		add(corev1.EventTypeNormal, api.ReasonRecovered, "Fetch", now.Message)
	}
}

// movedEvent tells when discovery found the keys at another host although spec
// is the same: who controls the metadata controls the trust. The host counts once
// keys from there have been confirmed under this spec: status observes a new one
// before the fetch under it has ended.
func movedEvent(old, next *api.IssuerStatus, add addEvent) {
	before, now := hostOf(old.JWKSURI), hostOf(next.JWKSURI)
	if before == "" || now == before || old.Snapshot == nil || old.Snapshot.ObservedGeneration != next.ObservedGeneration {
		return
	}
	add(corev1.EventTypeWarning, api.ReasonJWKSURIHostChanged, "Discover", fmt.Sprintf(
		"The issuer's metadata now name %s for its keys; before it was %s. Make sure that the issuer meant this.", now, before))
}

func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Host
}

// skippedEvent tells which keys of a set were left out, when that changes.
func skippedEvent(old *api.IssuerStatus, a *attempt, add addEvent) {
	before := findCondition(old, api.ConditionFetched)
	if a != nil && a.succeeded && a.skipped > 0 && (before == nil || before.Message != a.message) {
		add(corev1.EventTypeWarning, api.ReasonKeysSkipped, "Admit", a.message)
	}
}

// keyEvents tells of keys found with their private part.
func keyEvents(old, next *api.IssuerStatus, add addEvent) {
	for _, k := range next.CompromisedKeys {
		if !slices.ContainsFunc(old.CompromisedKeys, func(o api.CompromisedKey) bool { return o.Thumbprint == k.Thumbprint }) {
			add(corev1.EventTypeWarning, api.ReasonPrivateKeyExposed, "Admit", fmt.Sprintf(
				"The issuer publishes the private part of key %q (thumbprint %s). The key is refused from now on; have the issuer replace it.", k.KeyID, k.Thumbprint))
		}
	}
}

// rotationEvents tells of changes of the trusted set.
func rotationEvents(old, next *api.IssuerStatus, add addEvent) {
	if before, now := published(old.Keys), published(next.Keys); len(before) > 0 && len(now) > 0 && !overlap(before, now) {
		add(corev1.EventTypeWarning, api.ReasonKeySetReplaced, "Rotate", fmt.Sprintf(
			"The issuer replaced all of its keys at once: %s are gone, %s are new. A correct issuer publishes a new key beside the old ones first; ask it why.",
			list(names(before)), list(names(now))))
	}
	r := next.Rotation
	if r == nil || r.Count == 0 || old.Rotation != nil && old.Rotation.Count == r.Count {
		return
	}
	add(corev1.EventTypeNormal, api.ReasonKeysRotated, "Rotate", fmt.Sprintf(
		"The key set changed: added %s; removed %s.", list(r.Added), list(r.Removed)))
	if len(r.Replaced) > 0 {
		add(corev1.EventTypeWarning, api.ReasonKeyReplaced, "Rotate", fmt.Sprintf(
			"The issuer put other key material under the same kid: %s. A correct issuer never does this; ask it why.", list(r.Replaced)))
	}
}

// published are the trusted keys that the issuer publishes.
func published(keys []api.KeyStatus) []keyset.Ref {
	return keyRefs(slices.DeleteFunc(slices.Clone(keys), func(k api.KeyStatus) bool {
		return k.State != api.KeyActive || k.MissingSince != nil
	}))
}

// overlap reports whether two lists share a key.
func overlap(a, b []keyset.Ref) bool {
	return slices.ContainsFunc(a, func(x keyset.Ref) bool {
		return slices.ContainsFunc(b, func(y keyset.Ref) bool { return x.Thumbprint == y.Thumbprint })
	})
}

// suspendedEvent tells of each key set that waits for approval, once.
func suspendedEvent(old, next *api.IssuerStatus, add addEvent) {
	c := findCondition(next, api.ConditionRotationSuspended)
	if c == nil || c.Status != metav1.ConditionTrue || candidate(old) == candidate(next) {
		return
	}
	add(corev1.EventTypeWarning, c.Reason, "Rotate", c.Message)
}

// usageEvents tells of keys that sign when they should not.
func usageEvents(old, next *api.IssuerStatus, add addEvent) {
	for _, k := range next.Keys {
		before := api.KeyStatus{}
		if i := slices.IndexFunc(old.Keys, func(o api.KeyStatus) bool { return o.Thumbprint == k.Thumbprint }); i >= 0 {
			before = old.Keys[i]
		}
		if usedThoughMissing(k) && !usedThoughMissing(before) {
			add(corev1.EventTypeWarning, api.ReasonRetiredKeyInUse, "Verify", fmt.Sprintf(
				"Tokens are still signed with key %q, which the issuer no longer publishes. They are refused once the key is gone.", k.KeyID))
		}
		if k.EarlyUseTime != nil && before.EarlyUseTime == nil {
			add(corev1.EventTypeWarning, api.ReasonKeyUsedEarly, "Verify", fmt.Sprintf(
				"Key %q signed a token at %s, but the issuer did not publish it before %s. An issuer should publish a key before it signs with it.",
				k.KeyID, formatTime(k.EarlyUseTime), formatTime(k.LastAbsentTime)))
		}
	}
}

func candidate(s *api.IssuerStatus) string {
	if s.Rotation == nil {
		return ""
	}
	return s.Rotation.CandidateDigest
}

// conditionEvents tells of conditions that turned bad, and of the first
// publication.
func conditionEvents(old, next *api.IssuerStatus, add addEvent) {
	for _, c := range next.Conditions {
		before := findCondition(old, c.Type)
		if before != nil && before.Status == c.Status && before.Reason == c.Reason {
			continue
		}
		switch {
		case c.Type == api.ConditionSnapshotPublished && c.Status == metav1.ConditionFalse:
			add(corev1.EventTypeWarning, c.Reason, "Publish", c.Message)
		case c.Type == api.ConditionSnapshotPublished && c.Status == metav1.ConditionTrue:
			add(corev1.EventTypeNormal, c.Reason, "Publish", c.Message)
		case (c.Type == api.ConditionStale || c.Type == api.ConditionExpired) && c.Status == metav1.ConditionTrue:
			add(corev1.EventTypeWarning, c.Reason, "Refresh", c.Message)
		case c.Type == api.ConditionDistributed && (c.Reason == api.ReasonNamespacesFailed || c.Reason == api.ReasonInvalidSelector):
			add(corev1.EventTypeWarning, c.Reason, "Distribute", c.Message)
		case c.Type == api.ConditionStalled && c.Status == metav1.ConditionTrue && (c.Reason == api.ReasonIssuerConflict || c.Reason == api.ReasonInvalidExpression):
			add(corev1.EventTypeWarning, c.Reason, "Reconcile", c.Message)
		}
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%q and %d more", names[:most], len(names)-most)
	}
	return fmt.Sprintf("%q", names)
}

// cut shortens s to at most maxText bytes.
func cut(s string) string { return cutTo(maxText, s) }

// cutTo shortens s to at most so many bytes, between two characters.
func cutTo(most int, s string) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}
