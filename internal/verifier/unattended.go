// unattended.go finds issuer objects that no controller works on, such as those whose
// labels no shard selects. The controllers cannot: each one sees its own alone. It is
// told from the status, which a controller keeps up to date.

package verifier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const (
	// quietPart is the part of cacheTTL after which a controller writes down the next
	// fetch, whatever came of it; what is sooner may go without a write.
	quietPart = 0.7
	// lateness is how much later that may be: a server can ask for 15 minutes.
	lateness = 20 * time.Minute
)

// attendance is when the next sign of a controller has to be there.
type attendance struct {
	// behind: the status is not of the current spec.
	behind bool
	// until is when one is due; zero for never, because nothing is fetched.
	until time.Time
}

// attendanceOf reads it from the object.
func attendanceOf(object api.Issuer) attendance {
	spec, status := object.IssuerSpec(), object.IssuerStatus()
	a := attendance{behind: status.ObservedGeneration != object.GetGeneration()}
	if spec.Static() || spec.Suspended() {
		return a
	}
	last := time.Time{}
	if status.LastAttempt != nil {
		last = status.LastAttempt.Time.Time
	}
	if s := status.Snapshot; s != nil && s.LastSuccessTime != nil && s.LastSuccessTime.After(last) {
		last = s.LastSuccessTime.Time
	}
	quiet := time.Duration(quietPart * float64(spec.CacheTTLOrDefault()))
	next := spec.CacheTTLOrDefault()
	if status.NextRefreshTime != nil {
		next = max(status.NextRefreshTime.Sub(last), 0)
	}
	if next < quiet { // a fetch that is sooner than that is not written down
		next += quiet
	}
	a.until = last.Add(next + lateness)
	return a
}

// unattended reports whether no controller works on the issuer.
func (i *Issuer) unattended(now time.Time) bool {
	return i.attendance.behind || !i.attendance.until.IsZero() && now.After(i.attendance.until)
}

var unattendedIssuers = prometheus.NewDesc("jwks_trust_unattended_issuers",
	"1 for each issuer object that no controller works on: its status is not of the current spec, or no fetch was recorded when one was due. Absent for the others.",
	[]string{"kind", "namespace", "name"}, nil)

// attendanceCollector looks when metrics are asked for.
type attendanceCollector struct{ store *Store }

// Describe implements prometheus.Collector.
func (attendanceCollector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- unattendedIssuers
}

// Collect implements prometheus.Collector.
func (c attendanceCollector) Collect(to chan<- prometheus.Metric) {
	now := c.store.now()
	for _, issuer := range c.store.all() {
		if issuer.unattended(now) {
			o := issuer.Object
			to <- prometheus.MustNewConstMetric(unattendedIssuers, prometheus.GaugeValue, 1, o.Kind, o.Namespace, o.Name)
		}
	}
}
