package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// collector is one of OpenTelemetry's, on loopback.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer

	url string
	// hangs: nothing is ever answered.
	hangs bool

	mu      sync.Mutex
	spans   []*tracev1.Span
	process []*commonv1.KeyValue
}

func startCollector(t *testing.T, hangs bool) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	c := &collector{url: "http://" + listener.Addr().String(), hangs: hangs}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	t.Cleanup(server.Stop)
	return c
}

// Export implements collectorv1.TraceServiceServer.
func (c *collector) Export(ctx context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	if c.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceSpans() {
		c.process = of.GetResource().GetAttributes()
		for _, in := range of.GetScopeSpans() {
			c.spans = append(c.spans, in.GetSpans()...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// find is a span of that name and parent; nil for none.
func (c *collector) find(name string, trace, parent []byte) *tracev1.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name && (trace == nil || string(s.GetTraceId()) == string(trace)) && (parent == nil || string(s.GetParentSpanId()) == string(parent)) {
			return s
		}
	}
	return nil
}

// TestTracing follows an issuer's keys, and a token, in the traces of a whole manager.
func TestTracing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	c := startCollector(t, false)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	s := newStage(t, func(o *options) { o.tracingEndpoint = c.url })
	sent := s.watchIssuer()
	s.trustAuth("?tenant=secret-of-the-url")
	s.Eventually(s.answer).WithTimeout(20 * time.Second).Should(Equal(http.StatusOK))

	// The way of the keys is one trace.
	span := func(name string, in *tracev1.Span) *tracev1.Span {
		t.Helper()
		var found *tracev1.Span
		s.Eventually(func() *tracev1.Span {
			found = c.find(name, in.GetTraceId(), in.GetSpanId())
			return found
		}).WithTimeout(20*time.Second).ShouldNot(BeNil(), name)
		return found
	}
	got := span("get keys", nil)
	fetched := span("fetch", got)
	s.Expect(values(fetched.GetAttributes())).To(Equal(map[string]string{
		"server.address": strings.TrimPrefix(s.issuer.URL(), "https://"), "http.response.status_code": "200", "jwks_trust.outcome": "Succeeded",
	}))
	var reconciled *tracev1.Span
	s.Eventually(func() []byte { // it ends after what is within it
		reconciled = c.find("reconcile", got.GetTraceId(), nil)
		return reconciled.GetSpanId()
	}).WithTimeout(20 * time.Second).Should(Equal(got.GetParentSpanId()))
	s.Expect(values(reconciled.GetAttributes())).To(Equal(map[string]string{"jwks_trust.issuer": "TrustedIssuer default/auth"}))
	s.Expect(values(span("publish", nil).GetAttributes())).To(HaveKey("k8s.configmap.name"))
	span("save status", nil)

	// That of a token is the caller's.
	const caller, callersSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	token := s.key.Sign(testissuer.Claims(s.issuer.URL(), "alice", "orders", time.Now(), time.Hour))
	s.Expect(s.askTraced(token, "00-"+caller+"-"+callersSpan+"-01")).To(Equal(http.StatusOK))
	trace, err := hex.DecodeString(caller)
	s.Expect(err).NotTo(HaveOccurred())
	s.Eventually(func() *tracev1.Span { return c.find("forward_auth", trace, nil) }).WithTimeout(20 * time.Second).ShouldNot(BeNil())
	judged := c.find("forward_auth", trace, nil)
	s.Expect(hex.EncodeToString(judged.GetParentSpanId())).To(Equal(callersSpan))
	s.Expect(values(judged.GetAttributes())).To(HaveKeyWithValue("jwks_trust.reason", "Accepted"))

	c.tellsNothingOf(s, append(strings.Split(token, "."), "alice", s.key.ID, "secret-of-the-url", "orders"))
	s.Expect(values(c.process)).To(And(HaveKeyWithValue("service.name", "jwks-trust-manager"), HaveKeyWithValue("deployment.environment.name", "test")))
	for _, header := range sent() {
		for name := range header {
			s.Expect(strings.ToLower(name)).NotTo(Or(Equal("traceparent"), Equal("tracestate"), Equal("baggage")), "traces are not for issuers")
		}
	}
}

// values are attributes as text.
func values(attributes []*commonv1.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		all[a.GetKey()] = a.GetValue().GetStringValue()
		if n, ok := a.GetValue().GetValue().(*commonv1.AnyValue_IntValue); ok {
			all[a.GetKey()] = fmt.Sprint(n.IntValue)
		}
	}
	return all
}

// tellsNothingOf looks through all that has been sent.
func (c *collector) tellsNothingOf(s *stage, secrets []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Expect(len(c.spans)).To(BeNumerically(">", 5))
	for _, span := range c.spans {
		for _, secret := range secrets {
			for name, value := range values(span.GetAttributes()) {
				s.Expect(value).NotTo(ContainSubstring(secret), "%s of %s", name, span.GetName())
			}
			s.Expect(span.GetStatus().GetMessage()).NotTo(ContainSubstring(secret), span.GetName())
		}
		s.Expect(span.GetEvents()).To(BeEmpty(), span.GetName())
	}
}

// trustAuth makes the TrustedIssuer that answer asks about.
func (s *stage) trustAuth(query string) {
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "auth"}}
	ti.Spec.IssuerSpec = api.IssuerSpec{
		Issuer: s.issuer.URL(), Audiences: []string{"orders"}, JWKSURI: s.issuer.JWKSURI() + query, CABundle: s.issuer.CABundle(),
	}
	s.Expect(s.api.Create(s.ctx, ti)).To(Succeed())
}

// watchIssuer keeps the headers of requests to the issuer.
func (s *stage) watchIssuer() (sent func() []http.Header) {
	var mu sync.Mutex
	var all []http.Header
	keys, err := json.Marshal(map[string]any{"keys": []any{s.key.JWK()}})
	s.Expect(err).NotTo(HaveOccurred())
	s.issuer.Respond(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r.Header.Clone())
		_, _ = w.Write(keys) // a client that hung up shows
	})
	return func() []http.Header {
		mu.Lock()
		defer mu.Unlock()
		s.Expect(all).NotTo(BeEmpty())
		return all
	}
}

// askTraced is what forward-auth says to a token, in somebody's trace.
func (s *stage) askTraced(token, traceparent string) (int, error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "https://"+s.at+"/forward-auth/ns/default/auth", http.NoBody)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Traceparent", traceparent)
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// A collector that is away, or takes connections and never answers, costs spans and
// nothing else: not one answer waits for it, and the manager ends in time.
func TestACollectorThatIsAwayHoldsNobodyUp(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	nobody, err := harness.FreeAddress()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, url := range map[string]string{"away": "http://" + nobody, "hanging": startCollector(t, true).url} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
			t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
			s := newStage(t, func(o *options) { o.tracingEndpoint = url })
			s.trustAuth("")
			s.Eventually(s.answer).WithTimeout(20 * time.Second).Should(Equal(http.StatusOK))
			for range 200 { // many times what the queue holds
				s.Expect(s.answer()).To(Equal(http.StatusOK))
			}
		})
	}
}

// TestTheEnvironmentMayNameNoCollector: its variables need not be meant for us.
func TestTheEnvironmentMayNameNoCollector(t *testing.T) {
	for endpoint, want := range map[string]string{
		"": "", "collector:4317": "", "http://user:secret@collector:4317": "", "http://collector:4317": "http://collector:4317",
	} {
		t.Run(endpoint, func(t *testing.T) {
			g := NewWithT(t)
			t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			var o options
			f := flag.NewFlagSet("", flag.ContinueOnError)
			o.register(f)
			g.Expect(f.Parse([]string{"--operator-namespace=x", "--components=controller"})).To(Succeed())
			g.Expect(o.check()).To(Succeed())
			g.Expect(o.tracingEndpoint).To(Equal(want))
			if want == "" {
				spans, stop, err := o.startTracing(t.Context(), logr.Discard())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(spans).To(BeNil())
				stop()
			}
		})
	}
}
