// metrics.go says in numbers what status says in words, and more finely: status
// is written at most once per 0.7 of cacheTTL while nothing changes.

package controller

import (
	"maps"
	"slices"
	"sync"
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
	lastSuccessTime    = describe("jwks_trust_issuer_last_success_timestamp_seconds", "When the issuer last confirmed its keys, in Unix time.")
	freshUntilTime     = describe("jwks_trust_issuer_fresh_until_timestamp_seconds", "When the trusted keys become stale unless a refresh succeeds, in Unix time. Absent for static keys.")
	expiryTime         = describe("jwks_trust_issuer_expiry_timestamp_seconds", "When the trusted keys expire unless a refresh succeeds, in Unix time. Absent for static keys.")
	trustedKeys        = describe("jwks_trust_issuer_keys", "How many keys of the issuer are trusted.")
	readyIssuers       = describe("jwks_trust_issuer_ready", "1 while the condition Ready is True, else 0.")
	retiringKeys       = describe("jwks_trust_issuer_retiring_keys", "How many of the trusted keys the issuer no longer publishes.")
	retiredKeysInUse   = describe("jwks_trust_issuer_retired_keys_in_use", "How many trusted keys sign tokens although the issuer no longer publishes them.")
	compromisedKeys    = describe("jwks_trust_issuer_compromised_keys", "How many keys are refused because the issuer has published their private parts (status.compromisedKeys).")
	suspendedRotations = describe("jwks_trust_issuer_rotation_suspended", "1 while a key set is quarantined until somebody approves it, else 0.")
	allDistributed     = describe("jwks_trust_issuer_distributed", "1 while the condition Distributed is True, else 0. Absent without spec.namespaceSelector.")
	copies             = describe("jwks_trust_issuer_copies", "Namespaces of spec.namespaceSelector by the state of their copy: current, failed (see status.distribution.failed), waiting.", "state")
	rotations          = describe("jwks_trust_issuer_rotations_total", "How often the trusted key set has changed since this manager started.")
	suspectChanges     = describe("jwks_trust_issuer_suspect_changes_total", "How often the issuer has changed in a way that a correct one does not, since this manager started: all keys at once, other key material under the same kid, another host for its keys. An event tells each.")
	fetches            = describe("jwks_trust_issuer_fetches_total", "Fetches of the issuer's keys by outcome: a reason of the condition Fetched.", "outcome")
)

// describe describes a value of each issuer.
func describe(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append(slices.Clone(issuerLabels), more...), nil)
}

// ofIssuers measures all issuers. It makes its metrics when they are read, because ten
// vectors would hold more of each issuer than all else here does.
var ofIssuers = &issuerMetrics{of: map[issuerKey]*figures{}}

func init() { metrics.Registry.MustRegister(ofIssuers) }

// issuerMetrics are the figures of all issuers, as a collector of Prometheus'.
type issuerMetrics struct {
	mu sync.Mutex
	of map[issuerKey]*figures
}

type issuerKey struct {
	kind string
	types.NamespacedName
}

// figures are those of one issuer.
type figures struct {
	// measured: the gauges have been set.
	measured bool
	// The times are nil where there are none.
	success, fresh, expiry *metav1.Time
	keys, retiring, inUse  int
	compromised            int
	ready, suspended       float64
	// distribution is nil without a selector.
	distribution *copyFigures
	rotations    int64
	suspect      int
	fetches      map[string]int // by outcome
}

// copyFigures are those of an issuer's copies.
type copyFigures struct {
	complete                 float64
	current, failed, waiting int
}

// change changes the figures of an issuer.
func (m *issuerMetrics) change(issuer api.Issuer, how func(*figures)) {
	key := issuerKey{issuer.IssuerKind(), types.NamespacedName{Namespace: issuer.GetNamespace(), Name: issuer.GetName()}}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.of[key]
	if f == nil {
		f = &figures{fetches: map[string]int{}}
		m.of[key] = f
	}
	how(f)
}

// Describe implements prometheus.Collector.
func (m *issuerMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		lastSuccessTime, freshUntilTime, expiryTime, trustedKeys, readyIssuers, retiringKeys, retiredKeysInUse, compromisedKeys, suspendedRotations, allDistributed, copies,
		rotations, suspectChanges, fetches,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *issuerMetrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	all := make(map[issuerKey]figures, len(m.of))
	for key, f := range m.of {
		one := *f
		one.fetches = maps.Clone(f.fetches)
		all[key] = one
	}
	m.mu.Unlock()
	for key, f := range all {
		f.collect(key, out)
	}
}

func (f figures) collect(key issuerKey, out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, more ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, value, append([]string{key.kind, key.Namespace, key.Name}, more...)...)
	}
	for outcome, n := range f.fetches {
		send(fetches, prometheus.CounterValue, float64(n), outcome)
	}
	if !f.measured {
		return
	}
	for d, t := range map[*prometheus.Desc]*metav1.Time{lastSuccessTime: f.success, freshUntilTime: f.fresh, expiryTime: f.expiry} {
		if t != nil {
			send(d, prometheus.GaugeValue, float64(t.UnixNano())/float64(time.Second))
		}
	}
	send(trustedKeys, prometheus.GaugeValue, float64(f.keys))
	send(readyIssuers, prometheus.GaugeValue, f.ready)
	send(retiringKeys, prometheus.GaugeValue, float64(f.retiring))
	send(retiredKeysInUse, prometheus.GaugeValue, float64(f.inUse))
	send(compromisedKeys, prometheus.GaugeValue, float64(f.compromised))
	send(suspendedRotations, prometheus.GaugeValue, f.suspended)
	if d := f.distribution; d != nil {
		send(allDistributed, prometheus.GaugeValue, d.complete)
		send(copies, prometheus.GaugeValue, float64(d.current), "current")
		send(copies, prometheus.GaugeValue, float64(d.failed), "failed")
		send(copies, prometheus.GaugeValue, float64(d.waiting), "waiting")
	}
	// There from the start, so that the first one is seen as an increase.
	send(rotations, prometheus.CounterValue, float64(f.rotations))
	send(suspectChanges, prometheus.CounterValue, float64(f.suspect))
}

// measure takes over what an issuer's next status says, written or not.
func measure(issuer api.Issuer, next *api.IssuerStatus, d *distributed) {
	retiring, inUse := 0, 0
	for _, k := range next.Keys {
		if trustedState(k.State) && k.MissingSince != nil {
			retiring++
		}
		if usedThoughMissing(k) {
			inUse++
		}
	}
	s := next.Snapshot
	ofIssuers.change(issuer, func(f *figures) {
		f.measured = true
		f.success, f.fresh, f.expiry = s.LastSuccessTime, s.FreshUntil, s.ExpiresAt
		f.keys, f.retiring, f.inUse, f.compromised = int(s.Keys), retiring, inUse, len(next.CompromisedKeys)
		f.ready, f.suspended = isTrue(next, api.ConditionReady), isTrue(next, api.ConditionRotationSuspended)
		f.distribution = measureCopies(next, d)
	})
}

// measureCopies counts as status does, which lists only some of the failures.
func measureCopies(next *api.IssuerStatus, d *distributed) *copyFigures {
	if d == nil {
		return nil
	}
	f := &copyFigures{complete: isTrue(next, api.ConditionDistributed), failed: len(d.failed)}
	if s := next.Distribution; s != nil && s.Desired != nil && s.Current != nil {
		f.current = int(*s.Current)
		f.waiting = max(int(*s.Desired)-f.current-f.failed, 0)
	}
	return f
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
		ofIssuers.change(issuer, func(f *figures) { f.rotations += turned })
	}
}

func rotationCount(s *api.IssuerStatus) int64 {
	if s.Rotation == nil {
		return 0
	}
	return s.Rotation.Count
}

// suspectReasons are those of the events that tell of what a correct issuer does not do.
var suspectReasons = []string{api.ReasonKeySetReplaced, api.ReasonKeyReplaced, api.ReasonJWKSURIHostChanged}

// countSuspect counts what an event tells, if a correct issuer does not do it.
func countSuspect(issuer api.Issuer, e event) {
	if slices.Contains(suspectReasons, e.reason) {
		ofIssuers.change(issuer, func(f *figures) { f.suspect++ })
	}
}

// countFetch counts an attempt.
func countFetch(issuer api.Issuer, outcome string) {
	ofIssuers.change(issuer, func(f *figures) { f.fetches[outcome]++ })
}

// forgetMetrics removes all series of an issuer that is gone.
func forgetMetrics(kind string, key types.NamespacedName) {
	ofIssuers.mu.Lock()
	defer ofIssuers.mu.Unlock()
	delete(ofIssuers.of, issuerKey{kind, key})
}
