// metrics.go serves the metrics: to everyone, or only to those who may.

package main

import (
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

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
