// trouble.go says what is wrong with an issuer, worst first. It is computed from
// spec, status and the time, so that it is right also where no controller runs that
// would update the conditions.

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// severity orders troubles; the worst comes first.
type severity int

const (
	// critical: no token can be judged.
	critical severity = iota
	// degraded: it works, and will not for ever.
	degraded
	// notice: somebody may want to know.
	notice
	// healthy: there is no trouble.
	healthy
)

func (s severity) String() string {
	return [...]string{"critical", "degraded", "notice", "healthy"}[s]
}

// trouble is something that is wrong.
type trouble struct {
	Severity string `json:"severity"`
	Reason   string `json:"reason"`
	Message  string `json:"message,omitempty"`
	// Do is what to do about it; empty where the message says it.
	Do string `json:"do,omitempty"`

	severity severity
}

// troublesOf are an issuer's, the worst first.
func troublesOf(issuer api.Issuer, now time.Time) []trouble {
	t := &troubles{issuer: issuer, status: issuer.IssuerStatus(), now: now}
	t.ofFreshness()
	t.ofConditions()
	t.ofKeys()
	slices.SortStableFunc(t.found, func(a, b trouble) int { return cmp.Compare(a.severity, b.severity) })
	return t.found
}

// worst is the severity of the first trouble.
func worst(found []trouble) severity {
	if len(found) == 0 {
		return healthy
	}
	return found[0].severity
}

type troubles struct {
	issuer api.Issuer
	status *api.IssuerStatus
	now    time.Time
	found  []trouble
}

func (t *troubles) add(s severity, reason, message, do string) {
	for _, before := range t.found {
		if before.Reason == reason {
			return
		}
	}
	t.found = append(t.found, trouble{s.String(), reason, plain(message), do, s})
}

// condition is a condition of the issuer's; one that is not there is Unknown.
func (t *troubles) condition(kind string) metav1.Condition {
	if c := meta.FindStatusCondition(t.status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionUnknown, Reason: api.ReasonPending}
}

// ofFreshness are those of the age of the keys.
func (t *troubles) ofFreshness() {
	fetched := t.condition(api.ConditionFetched)
	failing := fetched.Status == metav1.ConditionFalse && fetched.Reason != api.ReasonQuarantined && fetched.Reason != api.ReasonSuspended
	switch windowOf(t.issuer, t.now).State(t.now) {
	case snapshot.Expired:
		t.add(critical, api.ReasonExpired, cause(fetched), t.mendFetch(failing))
	case snapshot.Pending:
		ready := t.condition(api.ConditionReady)
		switch {
		case t.condition(api.ConditionRotationSuspended).Status == metav1.ConditionTrue: // said below
		case failing:
			t.add(critical, fetched.Reason, fetched.Message, "")
		default:
			t.add(critical, ready.Reason, strings.TrimSpace("There are no trusted keys yet. "+ready.Message), t.mendFetch(false))
		}
	case snapshot.Stale:
		t.add(degraded, api.ReasonServingStale, cause(fetched), t.mendFetch(failing))
	case snapshot.Fresh:
		if failing {
			t.add(degraded, fetched.Reason, fetched.Message, "")
		}
	}
}

// cause is why keys grow old.
func cause(fetched metav1.Condition) string {
	if fetched.Status == metav1.ConditionFalse {
		return fetched.Reason + ": " + fetched.Message
	}
	return "The issuer has not been asked again since the last success."
}

// mendFetch is what to do about keys that grow old.
func (t *troubles) mendFetch(failing bool) string {
	switch {
	case t.issuer.IssuerSpec().Suspended():
		return "Set spec.suspend to false: no keys are fetched meanwhile."
	case t.condition(api.ConditionRotationSuspended).Status == metav1.ConditionTrue:
		return ""
	case failing && t.issuer.IssuerSpec().Static():
		return tryAgain(t.issuer)
	case failing:
		return "Mend that, then: " + tryAgain(t.issuer)
	}
	return "Is the controller running? kubectl jwks check"
}

// ofConditions are those that the controller has seen.
func (t *troubles) ofConditions() {
	if !t.issuer.GetDeletionTimestamp().IsZero() {
		t.add(critical, "Deleting", "The object is being deleted; its tokens are refused.", "")
	}
	if c := t.condition(api.ConditionStalled); c.Status == metav1.ConditionTrue {
		t.add(critical, c.Reason, c.Message, "Only a change of spec, or of the administrator's policy, can help.")
	}
	if c := t.condition(api.ConditionRotationSuspended); c.Status == metav1.ConditionTrue {
		s := degraded
		if windowOf(t.issuer, t.now).State(t.now) == snapshot.Pending {
			s = critical
		}
		name := argumentsFor(t.issuer)
		// The controller's message has kubectl's command for it; ours looks first.
		message, _, _ := strings.Cut(c.Message, " Ask the issuer's owner")
		t.add(s, c.Reason, message, fmt.Sprintf("Look (kubectl jwks diff --candidate %s), ask the issuer's owner, then: kubectl jwks approve %s", name, name))
	}
	if c := t.condition(api.ConditionSnapshotPublished); c.Status == metav1.ConditionFalse {
		t.add(degraded, c.Reason, c.Message, "")
	}
	if c := t.condition(api.ConditionDistributed); c.Status == metav1.ConditionFalse && c.Reason != api.ReasonDistributing {
		t.add(degraded, c.Reason, c.Message, "")
	}
	if t.status.ObservedGeneration < t.issuer.GetGeneration() && t.status.ObservedGeneration >= 0 {
		t.add(notice, "NotObserved", "The controller has not yet acted on the newest spec.", "")
	}
	if t.issuer.IssuerSpec().Suspended() {
		t.add(notice, api.ReasonSuspended, "spec.suspend stops all fetches; the keys grow old.", "")
	}
}

// ofKeys are those of single keys.
func (t *troubles) ofKeys() {
	for _, k := range t.status.CompromisedKeys {
		t.add(degraded, api.ReasonPrivateKeyExposed, fmt.Sprintf("The issuer published the private part of key %s; it is refused.", keyName(k.KeyID)), "Have the issuer make new keys, at once.")
	}
	for _, k := range keysIn(t.issuer, api.KeyActive, api.KeyRetiring) {
		if k.MissingSince != nil && k.LastUsedTime != nil && k.LastUsedTime.After(k.MissingSince.Time) {
			t.add(degraded, api.ReasonRetiredKeyInUse, fmt.Sprintf("Key %s still signs tokens, and the issuer no longer publishes it.", keyName(k.KeyID)), "Ask the issuer's owner: it was removed too early, or was meant to be revoked.")
		}
		if k.EarlyUseTime != nil {
			t.add(notice, api.ReasonKeyUsedEarly, fmt.Sprintf("Key %s signed a token before the issuer published it.", keyName(k.KeyID)), "")
		}
	}
	if keys := keysIn(t.issuer, api.KeyRetiring); len(keys) > 0 {
		t.add(notice, api.ConditionKeysRetiring, count(len(keys), "key")+" that the issuer no longer publishes: trusted until the grace period ends.", "")
	}
}
