// trace.go makes a span of each verification, in the trace of the request that it is
// about, where the administrator wants them. A span says how a token was judged, and
// nothing of the token: no claim, no kid.

package verifier

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

const scope = "github.com/jwks-trust/jwks-trust-manager/internal/verifier"

// traceparent is the header that names the caller's span (W3C Trace Context).
const traceparent = "Traceparent"

// requestTracer makes the spans. A nil one makes none, and costs nothing.
type requestTracer struct{ tracer trace.Tracer }

// newRequestTracer is nil without a provider.
func newRequestTracer(provider trace.TracerProvider) *requestTracer {
	if provider == nil {
		return nil
	}
	return &requestTracer{provider.Tracer(scope)}
}

// requestSpan is the span of one verification; without one, nothing.
type requestSpan struct{ span trace.Span }

// start begins the span of a request that came with these headers. Of what a caller can
// send along only the trace's name is taken over, and whether it is recorded; neither its
// state nor baggage.
func (t *requestTracer) start(ctx context.Context, p protocol, header http.Header) (context.Context, requestSpan) {
	if t == nil {
		return ctx, requestSpan{}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	if sent := trace.SpanContextFromContext(ctx); sent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, sent.WithTraceState(trace.TraceState{}))
	}
	ctx, span := t.tracer.Start(ctx, string(p), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("jwks_trust.protocol", string(p))))
	return ctx, requestSpan{span}
}

// startCall is the same for a gRPC call. The proxy's own span for the call goes before
// that of the request which it asks about.
func (t *requestTracer) startCall(ctx context.Context, p protocol, header http.Header) (context.Context, requestSpan) {
	if t == nil {
		return ctx, requestSpan{}
	}
	if sent := metadata.ValueFromIncomingContext(ctx, traceparent); len(sent) == 1 {
		header = http.Header{traceparent: sent}
	}
	return t.start(ctx, p, header)
}

// end ends the span with the verdict about a token for an issuer object, which is named
// if there is such an object.
func (s requestSpan) end(v Verdict, object string) {
	if s.span == nil {
		return
	}
	s.span.SetAttributes(attribute.String("jwks_trust.outcome", v.Outcome.String()), attribute.String("jwks_trust.reason", string(v.Reason)))
	if v.Reason != UnknownIssuer && object != "" {
		s.span.SetAttributes(attribute.String("jwks_trust.issuer", object))
	}
	if v.Outcome == CannotDecide {
		s.span.SetStatus(codes.Error, string(v.Reason))
	}
	s.span.End()
}

// startSpan begins a part of a verification that has a span.
func startSpan(ctx context.Context, what string) (context.Context, trace.Span) {
	within := trace.SpanFromContext(ctx)
	if !within.IsRecording() {
		return ctx, within
	}
	return within.TracerProvider().Tracer(scope).Start(ctx, what)
}
