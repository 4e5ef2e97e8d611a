// metrics.go serves the metrics: to everyone, or only to those who may; and says
// which build they are of.

package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

func init() { ctrlmetrics.Registry.MustRegister(buildInfo(version.Get())) }

// buildInfo is 1, and its labels say what runs: during an upgrade two versions do.
func buildInfo(b version.Build) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "jwks_trust_build_info", Help: "Always 1; the labels say which version of jwks-trust-manager this is, and what it was built from.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	return info
}

// metrics are the options of the metrics server. Who asks is decided by the API
// server: a TokenReview says who it is, a SubjectAccessReview whether they may.
func (o *options) metrics() metricsserver.Options {
	if !o.metricsSecure {
		return metricsserver.Options{BindAddress: o.metricsAddress}
	}
	return metricsserver.Options{
		BindAddress:    o.metricsAddress,
		SecureServing:  true,
		CertDir:        o.metricsCertDir,
		FilterProvider: filters.WithAuthenticationAndAuthorization,
	}
}
