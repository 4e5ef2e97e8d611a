// Package tracing sends spans to an OpenTelemetry collector, over OTLP and gRPC, where
// the administrator names one. The rest is set by the standard OTEL_* variables: the
// sampler, headers, certificates, batches, attributes of the resource.
//
// Spans wait in a queue that nobody waits for: while the collector is away, or slow,
// they are dropped.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// flushTimeout is how long the last spans may take at the end.
	flushTimeout = 3 * time.Second
	// errorInterval is how often it is said that spans do not get through.
	errorInterval = time.Minute
)

// Options say where spans go, and whose they are.
type Options struct {
	// Endpoint is the collector's URL, http or https.
	Endpoint string
	// Service, Version and Namespace describe this process, unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES say otherwise.
	Service, Version, Namespace string
	Log                         logr.Logger
}

// Start begins to send spans; stop sends the last ones, and gives up after three
// seconds. The provider is not made the process' global one: no library adds spans of
// its own, nor trace headers to requests that go out.
func Start(ctx context.Context, o Options) (provider trace.TracerProvider, stop func(), err error) {
	if err := CheckEndpoint(o.Endpoint); err != nil {
		return nil, nil, err
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(o.Endpoint))
	if err != nil {
		return nil, nil, fmt.Errorf("setting up the export of spans: %w", err)
	}
	process, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", o.Service), attribute.String("service.version", o.Version), attribute.String("k8s.namespace.name", o.Namespace),
	), resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		o.Log.Info("Not all that describes this process in traces is known", "error", err.Error())
	}
	problems := &reporter{log: o.Log}
	otel.SetErrorHandler(problems)
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(process),
		sdktrace.WithoutPanicRecording()) // what a panic says can hold part of a token
	return p, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			o.Log.Info("The last spans have not been sent", "error", err.Error())
		}
		problems.end() // what did not end in time may go on for a moment
	}, nil
}

// CheckEndpoint reports what is wrong with the collector's URL.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("the collector's URL must be such as http://otel-collector.observability.svc:4317, or https")
	case u.User != nil:
		return errors.New("the collector's URL must not have user information; OTEL_EXPORTER_OTLP_HEADERS can carry credentials")
	}
	return nil
}

// reporter says now and then that spans do not get through, until the end.
type reporter struct {
	log logr.Logger

	mu    sync.Mutex
	last  time.Time
	ended bool
}

// Handle implements otel.ErrorHandler.
func (r *reporter) Handle(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); !r.ended && (r.last.IsZero() || now.Sub(r.last) >= errorInterval) {
		r.last = now
		r.log.Info("Spans do not get through to the collector, and are dropped; nothing else is affected", "error", err.Error())
	}
}

func (r *reporter) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}
