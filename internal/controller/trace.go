// trace.go makes spans of reconciliations and of what they wait for, where the
// administrator wants them. They name objects and reasons, and nothing of their content.

package controller

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const scope = "github.com/jwks-trust/jwks-trust-manager/internal/controller"

// traced makes a span of each reconciliation; name says whose it is. Without a provider
// it is the reconciler itself.
func traced[R comparable](provider trace.TracerProvider, what string, name func(R) string, next reconcile.TypedReconciler[R]) reconcile.TypedReconciler[R] {
	if provider == nil {
		return next
	}
	tracer := provider.Tracer(scope)
	return reconcile.TypedFunc[R](func(ctx context.Context, request R) (reconcile.Result, error) {
		ctx, span := tracer.Start(ctx, what, trace.WithAttributes(attribute.String("jwks_trust.issuer", name(request))))
		result, err := next.Reconcile(ctx, request)
		endSpan(span, err)
		return result, err
	})
}

// nameOfRequest names issuer objects of a kind, as the verifier does.
func nameOfRequest(kind string) func(reconcile.Request) string {
	return func(r reconcile.Request) string {
		if r.Namespace == "" {
			return kind + " " + r.Name
		}
		return kind + " " + r.Namespace + "/" + r.Name
	}
}

func nameOfTarget(t target) string { return api.ClusterTrustedIssuerKind + " " + t.issuer }

// startSpan begins a part of a reconciliation that has a span.
func startSpan(ctx context.Context, what string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	within := trace.SpanFromContext(ctx)
	if !within.IsRecording() {
		return ctx, within
	}
	return within.TracerProvider().Tracer(scope).Start(ctx, what, trace.WithAttributes(attributes...))
}

// endSpan ends it. Of an error it tells the API server's reason, not the text.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, string(apierrors.ReasonForError(err)))
	}
	span.End()
}
