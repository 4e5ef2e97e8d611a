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

// endpointFromEnvironment is the collector that OpenTelemetry's own variables name.
func endpointFromEnvironment() string {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return ""
	}
	return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

// startTracing is where spans go: nil for nowhere.
func (o *options) startTracing(ctx context.Context, log logr.Logger) (spans trace.TracerProvider, stop func(), err error) {
	if o.tracingEndpoint == "" {
		return nil, func() {}, nil
	}
	if wrong := tracing.CheckEndpoint(o.tracingEndpoint); wrong != nil { // the environment's, which need not be meant for us
		log.Info("Going on without traces: what the environment names is no collector's URL", "problem", wrong.Error())
		return nil, func() {}, nil
	}
	service := "jwks-trust-manager"
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
