// metrics.go says in numbers what status says in words, and more finely: status
// is written at most once per 0.7 of cacheTTL while nothing changes.

package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// issuerLabels name an issuer object. No label holds what an issuer's server
// can choose.
var issuerLabels = []string{"kind", "namespace", "name"}

var (
	lastSuccessTime    = gauge("jwks_trust_issuer_last_success_timestamp_seconds", "When the issuer last confirmed its keys, in Unix time.")
	freshUntilTime     = gauge("jwks_trust_issuer_fresh_until_timestamp_seconds", "When the trusted keys become stale unless a refresh succeeds, in Unix time. Absent for static keys.")
	expiryTime         = gauge("jwks_trust_issuer_expiry_timestamp_seconds", "When the trusted keys expire unless a refresh succeeds, in Unix time. Absent for static keys.")
	trustedKeys        = gauge("jwks_trust_issuer_keys", "How many keys of the issuer are trusted.")
	readyIssuers       = gauge("jwks_trust_issuer_ready", "1 while the condition Ready is True, else 0.")
	retiringKeys       = gauge("jwks_trust_issuer_retiring_keys", "How many of the trusted keys the issuer no longer publishes.")
	retiredKeysInUse   = gauge("jwks_trust_issuer_retired_keys_in_use", "How many trusted keys sign tokens although the issuer no longer publishes them.")
	suspendedRotations = gauge("jwks_trust_issuer_rotation_suspended", "1 while a key set is quarantined until somebody approves it, else 0.")
	rotations          = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jwks_trust_issuer_rotations_total",
		Help: "How often the trusted key set has changed since this manager started.",
	}, issuerLabels)
	fetches = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jwks_trust_issuer_fetches_total",
		Help: "Fetches of the issuer's keys by outcome: a reason of the condition Fetched.",
	}, append([]string{"outcome"}, issuerLabels...))
)

// gauge is a value of each issuer.
func gauge(name, help string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, issuerLabels)
}

// deletable is what all our vectors can do.
type deletable interface {
	DeletePartialMatch(prometheus.Labels) int
}

var ofIssuers = []interface {
	prometheus.Collector
	deletable
}{lastSuccessTime, freshUntilTime, expiryTime, trustedKeys, readyIssuers, retiringKeys, retiredKeysInUse, suspendedRotations, rotations, fetches}

func init() {
	for _, vec := range ofIssuers {
		metrics.Registry.MustRegister(vec)
	}
}

func labelsOf(kind string, key types.NamespacedName) prometheus.Labels {
	return prometheus.Labels{"kind": kind, "namespace": key.Namespace, "name": key.Name}
}

// labels are those of the issuer.
func labels(issuer api.Issuer) prometheus.Labels {
	return labelsOf(issuer.IssuerKind(), types.NamespacedName{Namespace: issuer.GetNamespace(), Name: issuer.GetName()})
}

// measure sets the gauges of an issuer to what its next status says, written or
// not.
func measure(issuer api.Issuer, next *api.IssuerStatus) {
	l := labels(issuer)
	s := next.Snapshot
	setTime(lastSuccessTime, l, s.LastSuccessTime)
	setTime(freshUntilTime, l, s.FreshUntil)
	setTime(expiryTime, l, s.ExpiresAt)
	trustedKeys.With(l).Set(float64(s.Keys))
	readyIssuers.With(l).Set(isTrue(next, api.ConditionReady))
	suspendedRotations.With(l).Set(isTrue(next, api.ConditionRotationSuspended))
	retiring, inUse := 0, 0
	for _, k := range next.Keys {
		if trustedState(k.State) && k.MissingSince != nil {
			retiring++
		}
		if usedThoughMissing(k) {
			inUse++
		}
	}
	retiringKeys.With(l).Set(float64(retiring))
	retiredKeysInUse.With(l).Set(float64(inUse))
	rotations.With(l).Add(0) // there from the start, so that the first one is seen as an increase
}

// isTrue is 1 while the condition is True, else 0.
func isTrue(s *api.IssuerStatus, condition string) float64 {
	if c := findCondition(s, condition); c != nil && c.Status == metav1.ConditionTrue {
		return 1
	}
	return 0
}

// countRotation counts the step from one saved status to the next.
func countRotation(issuer api.Issuer, before, next *api.IssuerStatus) {
	if turned := rotationCount(next) - rotationCount(before); turned > 0 {
		rotations.With(labels(issuer)).Add(float64(turned))
	}
}

func setTime(vec *prometheus.GaugeVec, l prometheus.Labels, t *metav1.Time) {
	if t == nil {
		vec.Delete(l)
		return
	}
	vec.With(l).Set(float64(t.UnixNano()) / float64(time.Second))
}

func rotationCount(s *api.IssuerStatus) int64 {
	if s.Rotation == nil {
		return 0
	}
	return s.Rotation.Count
}

// countFetch counts an attempt.
func countFetch(issuer api.Issuer, outcome string) {
	l := labels(issuer)
	l["outcome"] = outcome
	fetches.With(l).Inc()
}

// forgetMetrics removes all series of an issuer that is gone.
func forgetMetrics(kind string, key types.NamespacedName) {
	for _, vec := range ofIssuers {
		vec.DeletePartialMatch(labelsOf(kind, key))
	}
}
