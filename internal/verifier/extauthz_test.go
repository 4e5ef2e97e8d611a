package verifier

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// dialGRPC connects to the gRPC side of a running server, as Envoy does.
func (r *running) dialGRPC(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(r.clientTLS())))
	connection, err := grpc.NewClient(r.ExtAuthzAddr(), options...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// checkRequest is Envoy's question about a request with these headers.
func checkRequest(object string, headers map[string]string) *authv3.CheckRequest {
	r := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Headers: headers}},
	}}
	if object != "" {
		r.Attributes.ContextExtensions = map[string]string{ContextIssuer: object}
	}
	return r
}

func withExtAuthz(s *Server) { s.options.ExtAuthzAddress = "127.0.0.1:0" }

func headersOf(options []*corev3.HeaderValueOption) map[string]string {
	all := map[string]string{}
	for _, o := range options {
		all[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
	}
	return all
}

func TestExtAuthz(t *testing.T) {
	headers := []api.ResponseHeader{{Name: "X-Auth-Email", Claim: "email"}}
	s := ordersStore(t)
	set := keySet(t, ec("a"))
	s.put(t, cluster(publishes(set, start), identity("mail", "mail"), verifies(api.VerificationSpec{ResponseHeaders: headers, Cookie: "session"})), set)
	client := authv3.NewAuthorizationClient(run(t, s, withExtAuthz).dialGRPC(t))
	good := ec("a").Sign(claims(nil))
	bearer := func(token string) map[string]string { return map[string]string{"authorization": "Bearer " + token} }
	for name, tc := range map[string]struct {
		object  string
		headers map[string]string
		code    codes.Code
		status  int
		reason  Reason
	}{
		"a good token":                           {"ns/orders/main", bearer(good), codes.OK, 0, ""},
		"a good token for the cluster's":         {"cluster/main", bearer(good), codes.OK, 0, ""},
		"in a cookie":                            {"cluster/mail", map[string]string{"cookie": "session=" + good}, codes.OK, 0, ""},
		"no token":                               {"cluster/main", nil, codes.Unauthenticated, 401, TokenMissing},
		"a bad signature":                        {"cluster/main", bearer(tamper(good)), codes.Unauthenticated, 401, SignatureInvalid},
		"an unknown key":                         {"cluster/main", bearer(ec("other").Sign(claims(nil))), codes.Unauthenticated, 401, UnknownKey},
		"two headers, as Envoy joins them":       {"cluster/main", map[string]string{"authorization": "Bearer x,Bearer " + good}, codes.Unauthenticated, 401, MalformedToken},
		"no keys":                                {"cluster/empty", bearer(good), codes.Unavailable, 503, NoSnapshot},
		"an object that is not there":            {"ns/orders/nobody", bearer(good), codes.Unavailable, 503, UnknownIssuer},
		"another namespace's":                    {"ns/other/main", bearer(good), codes.Unavailable, 503, UnknownIssuer},
		"THREATS 67: a route that names none":    {"", bearer(good), codes.Unavailable, 503, UnknownIssuer},
		"a route that names nonsense":            {"ns/orders/main/../../x", bearer(good), codes.Unavailable, 503, UnknownIssuer},
		"the client's own words about the route": {"", map[string]string{"authorization": "Bearer " + good, ContextIssuer: "cluster/main"}, codes.Unavailable, 503, UnknownIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r, err := client.Check(t.Context(), checkRequest(tc.object, tc.headers))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(codes.Code(r.GetStatus().GetCode())).To(Equal(tc.code))
			if tc.code == codes.OK {
				h := headersOf(r.GetOkResponse().GetHeaders())
				g.Expect(h).To(HaveKeyWithValue("x-auth-subject", subject))
				g.Expect(h).To(HaveKeyWithValue("x-auth-issuer", issuerName))
				return
			}
			d := r.GetDeniedResponse()
			g.Expect(int(d.GetStatus().GetCode())).To(Equal(tc.status))
			h := headersOf(d.GetHeaders())
			g.Expect(h).To(HaveKeyWithValue("x-jwks-trust-reason", string(tc.reason)))
			if tc.status == http.StatusUnauthorized {
				g.Expect(h["www-authenticate"]).To(HavePrefix(`Bearer realm="jwks-trust"`))
			} else {
				g.Expect(h).NotTo(HaveKey("www-authenticate"))
			}
			g.Expect(r.String()).NotTo(ContainSubstring(good[len(good)/2:]))
		})
	}
}

// THREATS 44: what a client sends in place of our headers does not get through.
func TestExtAuthzReplacesWhatAClientSends(t *testing.T) {
	g := NewWithT(t)
	s := storeWith(t, verifies(api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X-Auth-Email", Claim: "email"}}}))
	client := authv3.NewAuthorizationClient(run(t, s, withExtAuthz).dialGRPC(t))
	r, err := client.Check(t.Context(), checkRequest("cluster/main", map[string]string{
		"authorization": "Bearer " + ec("a").Sign(claims(nil)),
		"x-auth-email":  "root@example.com", "x_auth_email": "root@example.com", "x.auth-subject": "root", "x-other": "kept",
	}))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.GetOkResponse().GetHeadersToRemove()).To(ConsistOf("x_auth_email", "x.auth-subject"))
	for _, o := range r.GetOkResponse().GetHeaders() {
		g.Expect(o.GetAppendAction()).To(Equal(corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
		g.Expect(o.GetKeepEmptyValue()).To(BeTrue(), "an empty value replaces the client's too")
	}
	g.Expect(headersOf(r.GetOkResponse().GetHeaders())).To(HaveKeyWithValue("x-auth-email", ""))
}

// Envoy can send each header apart (encode_raw_headers): then two tokens show.
func TestExtAuthzWithRawHeaders(t *testing.T) {
	g := NewWithT(t)
	client := authv3.NewAuthorizationClient(run(t, ordersStore(t), withExtAuthz).dialGRPC(t))
	good := []byte("Bearer " + ec("a").Sign(claims(nil)))
	raw := func(values ...[]byte) *authv3.CheckRequest {
		r := checkRequest("cluster/main", nil)
		m := &corev3.HeaderMap{}
		for _, v := range values {
			m.Headers = append(m.Headers, &corev3.HeaderValue{Key: "authorization", RawValue: v})
		}
		r.Attributes.Request.Http.HeaderMap = m
		return r
	}
	r, err := client.Check(t.Context(), raw(good))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.GetOkResponse()).NotTo(BeNil())
	r, err = client.Check(t.Context(), raw(good, good))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(headersOf(r.GetDeniedResponse().GetHeaders())).To(HaveKeyWithValue("x-jwks-trust-reason", string(AmbiguousCredentials)))
}

func TestExtAuthzDeniesWhateverHappens(t *testing.T) {
	g := NewWithT(t)
	h := &extAuthz{auth: newForwardAuth(fakeIssuers{true, panics}, logr.Discard())}
	for _, request := range []*authv3.CheckRequest{nil, {}, {Attributes: &authv3.AttributeContext{}}, checkRequest("cluster/main", map[string]string{"authorization": "Bearer x"})} {
		r, err := h.Check(t.Context(), request)
		g.Expect(err).NotTo(HaveOccurred(), "an error might let a request pass")
		g.Expect(r.GetDeniedResponse().GetStatus().GetCode()).To(BeEquivalentTo(503))
	}
	for h.auth.gate.enter() { // nothing has kept a place
	}
	r, err := h.Check(t.Context(), checkRequest("cluster/main", nil))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(headersOf(r.GetDeniedResponse().GetHeaders())).To(HaveKeyWithValue("x-jwks-trust-reason", string(Overloaded)))
}

func TestExtAuthzHealth(t *testing.T) {
	g := NewWithT(t)
	s := ordersStore(t)
	s.ready.Store(false)
	r := run(t, s, withExtAuthz)
	client := healthpb.NewHealthClient(r.dialGRPC(t))
	state := func() (string, error) {
		answer, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
		return answer.GetStatus().String(), err
	}
	g.Eventually(state, 5*time.Second).Should(Equal("NOT_SERVING"))
	s.ready.Store(true)
	g.Eventually(state, 5*time.Second).Should(Equal("SERVING"))
}

func TestExtAuthzNeedsACertificate(t *testing.T) {
	g := NewWithT(t)
	_, err := NewServer(ServerOptions{ExtAuthzAddress: ":0"}, newStore(), logr.Discard())
	g.Expect(err).To(MatchError(ContainSubstring("over TLS alone")))
	g.Expect(strings.ToLower(err.Error())).To(ContainSubstring("certificate"))
}

// A client that begins requests and does not send them keeps nothing here for long:
// gRPC itself would wait until the connection ends.
func TestExtAuthzRequestsThatNeverArrive(t *testing.T) {
	g := NewWithT(t)
	store := ordersStore(t)
	r := run(t, store, withExtAuthz, func(s *Server) { s.checkTimeout = 100 * time.Millisecond })
	connection := r.dialGRPC(t)
	check := authv3.Authorization_Check_FullMethodName
	stream, err := connection.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, check)
	g.Expect(err).NotTo(HaveOccurred())
	ended := make(chan error, 1)
	go func() { ended <- stream.RecvMsg(&authv3.CheckResponse{}) }()
	g.Eventually(ended, 10*time.Second).Should(Receive(HaveOccurred()))

	watch, err := healthpb.NewHealthClient(connection).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	g.Expect(err).NotTo(HaveOccurred())
	for _, ready := range []bool{true, false, true} { // takes longer than that
		store.ready.Store(ready)
		for {
			answer, err := watch.Recv()
			g.Expect(err).NotTo(HaveOccurred(), "watching has no end")
			if (answer.GetStatus() == healthpb.HealthCheckResponse_SERVING) == ready {
				break
			}
		}
	}
}

// gRPC does not contain panics: one would end the process.
func TestExtAuthzContainsPanics(t *testing.T) {
	g := NewWithT(t)
	var logged strings.Builder
	log := funcr.New(func(_, args string) { logged.WriteString(args) }, funcr.Options{})
	broken := *newForwardAuth(ordersStore(t), log)
	broken.gate = nil // entering it panics
	r, err := (&extAuthz{auth: &broken}).Check(t.Context(), checkRequest("cluster/main", nil))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.GetDeniedResponse().GetStatus().GetCode()).To(BeEquivalentTo(503), "THREATS 60")
	g.Expect(headersOf(r.GetDeniedResponse().GetHeaders())).To(HaveKeyWithValue("x-jwks-trust-reason", string(InternalError)))
	g.Expect(logged.String()).To(ContainSubstring("panicked"))
}
