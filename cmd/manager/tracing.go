// tracing.go sends traces to where the administrator wants them.

package main

import (
	"cmp"
	"context"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace"

	"github.com/jwks-trust/jwks-trust-manager/internal/tracing"
	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

// collectorInEnvironment is the collector that OpenTelemetry's own variables name. They
// need not be meant for us: what is no collector's URL is a problem to tell of, no more.
func collectorInEnvironment() (endpoint string, problem error) {
	endpoint = cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	if endpoint == "" || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return "", nil
	}
	if err := tracing.CheckEndpoint(endpoint); err != nil {
		return "", err
	}
	return endpoint, nil
}

// startTracing begins to send spans to the collector; without one there is no provider.
func (o *options) startTracing(ctx context.Context, log logr.Logger) (spans trace.TracerProvider, stop func(), err error) {
	if o.tracingEndpoint == "" {
		if _, problem := collectorInEnvironment(); problem != nil {
			log.Info("Going on without traces: what the environment names is no collector's URL", "problem", problem.Error())
		}
		return nil, func() {}, nil
	}
	service := programName
	switch {
	case !o.runs(componentVerifier):
		service = "jwks-trust-controller"
	case !o.runs(componentController):
		service = "jwks-trust-verifier"
	}
	return tracing.Start(ctx, tracing.Options{
		Endpoint: o.tracingEndpoint, Service: service, Version: version.Get().Version, Namespace: o.operatorNamespace, Log: log.WithName("tracing"),
	})
}
