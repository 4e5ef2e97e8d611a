// trace.go makes a span of each request to an issuer, where whoever asks has one. Of
// the URL it tells the host alone. No trace header is sent: what a cluster's traces are
// called is nobody's business out there.

package fetch

import (
	"context"
	"errors"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/jwks-trust/jwks-trust-manager/internal/fetch"

// Fetch gets a document. Its errors are *Error.
func (f *Fetcher) Fetch(ctx context.Context, r Request) (*Document, error) {
	asked := trace.SpanFromContext(ctx)
	if !asked.IsRecording() {
		return f.fetch(ctx, r)
	}
	ctx, span := asked.TracerProvider().Tracer(scope).Start(ctx, "fetch", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("server.address", hostOf(r.URL))))
	defer span.End()
	document, err := f.fetch(ctx, r)
	status, outcome := http.StatusOK, "Succeeded"
	var problem *Error
	switch {
	case errors.As(err, &problem):
		status, outcome = problem.Status, string(problem.Reason)
		span.SetStatus(codes.Error, outcome)
	case document != nil && document.NotModified:
		status = http.StatusNotModified
	}
	if status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	span.SetAttributes(attribute.String("jwks_trust.outcome", outcome))
	return document, err
}

// inSpanOf is the context for a request that somebody asks for: it has their span, and
// does not end with them.
func (s *Shared) inSpanOf(ctx context.Context) context.Context {
	return trace.ContextWithSpan(s.ctx, trace.SpanFromContext(ctx))
}
