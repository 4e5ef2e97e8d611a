package verifier

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

const (
	// parent and proxysParent are traceparent headers: of the request, and of a proxy's
	// call about it.
	parent       = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	proxysParent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
)

// recorded is a tracer whose spans can be looked at.
func recorded() (*requestTracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	return newRequestTracer(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))), recorder
}

// told is what a span tells.
func told(span sdktrace.ReadOnlySpan) map[attribute.Key]string {
	all := map[attribute.Key]string{}
	for _, a := range span.Attributes() {
		all[a.Key] = a.Value.AsString()
	}
	return all
}

// isChildOf matches a span whose parent a header names.
func isChildOf(traceparent string) OmegaMatcher {
	parts := strings.Split(traceparent, "-")
	return WithTransform(func(span sdktrace.ReadOnlySpan) []string {
		return []string{span.SpanContext().TraceID().String(), span.Parent().TraceID().String(), span.Parent().SpanID().String()}
	}, Equal([]string{parts[1], parts[1], parts[2]}))
}

// A span tells protocol, object and verdict, and nothing else: the list is complete.
func TestSpansOfForwardAuth(t *testing.T) {
	for name, tc := range map[string]struct {
		path, token string
		want        map[attribute.Key]string
	}{
		"accepted":           {clusterPath, ec("a").Sign(claims(nil)), map[attribute.Key]string{"jwks_trust.outcome": "accept", "jwks_trust.reason": "Accepted", "jwks_trust.issuer": "ClusterTrustedIssuer main"}},
		"refused":            {clusterPath, ec("a").Sign(claims(map[string]any{"aud": "x"})), map[attribute.Key]string{"jwks_trust.outcome": "refuse", "jwks_trust.reason": "AudienceMismatch", "jwks_trust.issuer": "ClusterTrustedIssuer main"}},
		"undecided":          {"/forward-auth/cluster/empty", ec("a").Sign(claims(nil)), map[attribute.Key]string{"jwks_trust.outcome": "cannot_decide", "jwks_trust.reason": "NoSnapshot", "jwks_trust.issuer": "ClusterTrustedIssuer empty"}},
		"no such object":     {"/forward-auth/cluster/nobody", ec("a").Sign(claims(nil)), map[attribute.Key]string{"jwks_trust.outcome": "cannot_decide", "jwks_trust.reason": "UnknownIssuer"}},
		"a token of nothing": {clusterPath, "secret", map[attribute.Key]string{"jwks_trust.outcome": "refuse", "jwks_trust.reason": "MalformedToken", "jwks_trust.issuer": "ClusterTrustedIssuer main"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			h := newForwardAuth(ordersStore(t), logr.Discard())
			var recorder *tracetest.SpanRecorder
			h.tracer, recorder = recorded()
			r := authorized(tc.path, tc.token)
			r.Header.Set("Traceparent", parent)
			r.Header.Set("Baggage", "token="+tc.token)
			h.ServeHTTP(httptest.NewRecorder(), r)
			g.Expect(recorder.Ended()).To(HaveLen(1))
			span := recorder.Ended()[0]
			g.Expect(span.Name()).To(Equal("forward_auth"))
			g.Expect(span.SpanKind()).To(Equal(trace.SpanKindServer))
			g.Expect(span).To(isChildOf(parent))
			tc.want["jwks_trust.protocol"] = "forward_auth"
			g.Expect(told(span)).To(Equal(tc.want))
			g.Expect(span.Events()).To(BeEmpty())
		})
	}
}

func TestSpansOfTokenReview(t *testing.T) {
	g := NewWithT(t)
	h := newTokenReview(ordersStore(t))
	var err error
	h.cache, err = newTokenCache(1<<20, h.now)
	g.Expect(err).NotTo(HaveOccurred())
	var recorder *tracetest.SpanRecorder
	h.tracer, recorder = recorded()
	body := reviewBody(v1, ec("a").Sign(claims(nil)))
	for range 2 { // the second one is remembered
		r := httptest.NewRequest(http.MethodPost, tokenReviewPath, bytes.NewReader(body))
		r.Header.Set("Content-Type", jsonType)
		r.Header.Set("Traceparent", parent)
		verified(h).ServeHTTP(httptest.NewRecorder(), r)
	}
	g.Expect(recorder.Ended()).To(HaveLen(2))
	for _, span := range recorder.Ended() {
		g.Expect(span).To(isChildOf(parent))
		g.Expect(told(span)).To(Equal(map[attribute.Key]string{
			"jwks_trust.protocol": "token_review", "jwks_trust.outcome": "accept", "jwks_trust.reason": "Accepted", "jwks_trust.issuer": "ClusterTrustedIssuer main",
		}))
	}
}

// The proxy's call comes before the request that it asks about.
func TestSpansOfExtAuthz(t *testing.T) {
	g := NewWithT(t)
	h := &extAuthz{auth: newForwardAuth(ordersStore(t), logr.Discard())}
	var recorder *tracetest.SpanRecorder
	h.auth.tracer, recorder = recorded()
	request := checkRequest("cluster/main", map[string]string{"authorization": "Bearer " + ec("a").Sign(claims(nil)), "traceparent": parent})
	called := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", proxysParent))
	for _, ctx := range []context.Context{t.Context(), called} {
		_, err := h.Check(ctx, request)
		g.Expect(err).NotTo(HaveOccurred())
	}
	_, err := h.Check(t.Context(), &authv3.CheckRequest{})
	g.Expect(err).NotTo(HaveOccurred())
	spans := recorder.Ended()
	g.Expect(spans).To(HaveLen(3))
	g.Expect(spans[0]).To(isChildOf(parent))
	g.Expect(spans[1]).To(isChildOf(proxysParent))
	g.Expect(told(spans[1])).To(Equal(map[attribute.Key]string{
		"jwks_trust.protocol": "ext_authz", "jwks_trust.outcome": "accept", "jwks_trust.reason": "Accepted", "jwks_trust.issuer": "ClusterTrustedIssuer main",
	}))
	g.Expect(spans[2].Parent().IsValid()).To(BeFalse())
	g.Expect(told(spans[2])).To(Equal(map[attribute.Key]string{
		"jwks_trust.protocol": "ext_authz", "jwks_trust.outcome": "cannot_decide", "jwks_trust.reason": "UnknownIssuer",
	}))
}

// discarded is where an answer goes that nobody reads.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d discarded) WriteHeader(int)             {}

// While tracing is off a token that was seen before is judged as cheaply as if there
// were none: without a single allocation.
func TestTracingCostsNothingWhileItIsOff(t *testing.T) {
	g := NewWithT(t)
	h := newForwardAuth(ordersStore(t), logr.Discard())
	var err error
	h.cache, err = newTokenCache(1<<20, h.now)
	g.Expect(err).NotTo(HaveOccurred())
	r, w := authorized(clusterPath, ec("a").Sign(claims(nil))), discarded{http.Header{}}
	h.ServeHTTP(w, r)
	g.Expect(testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })).To(BeZero())

	h.tracer, _ = recorded()
	g.Expect(testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })).NotTo(BeZero(), "it is measured at all")
}
