// forwardauth_test.go asks as reverse proxies do, over real HTTP.

package verifier

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// fakeIssuers is a store whose lookups the test decides on.
type fakeIssuers struct {
	ready  bool
	lookup func() (*Issuer, bool)
}

func (f fakeIssuers) Ready() bool                           { return f.ready }
func (f fakeIssuers) ForObject(Object) (*Issuer, bool)      { return f.lookup() }
func (f fakeIssuers) ForTokenReview(string) (*Issuer, bool) { return f.lookup() }
func panics() (*Issuer, bool)                               { panic("token: eyJhbGciOiJub25lIn0") }
func newForwardAuth(i issuers, log logr.Logger) *forwardAuth {
	return &forwardAuth{issuers: i, now: newStore().now, gate: newGate(1), log: log}
}

// ordersStore has the TrustedIssuer orders/main and the ClusterTrustedIssuer
// main, both trusting the key "a", and one issuer without keys.
func ordersStore(t testing.TB) *Store {
	t.Helper()
	set := keySet(t, ec("a"))
	s := newStore()
	s.put(t, cluster(publishes(set, start)), set)
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: "main", UID: "ti"}}
	ti.Spec.IssuerSpec = cluster().Spec.IssuerSpec
	ti.Status = cluster(publishes(set, start)).Status
	s.setIssuer(ti)
	s.setContent("ti", content(t, set))
	s.setIssuer(cluster(identity("empty", "empty"), func(c *api.ClusterTrustedIssuer) { c.Spec.KubernetesAuthentication = nil }))
	return s
}

// serve serves a handler over real HTTP.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// forwardAuthServer is the plain HTTP side of a Server.
func forwardAuthServer(t *testing.T, s *Store) string {
	t.Helper()
	server, err := NewServer(ServerOptions{}, s, logr.Discard())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return serve(t, server.HTTPHandler())
}

// ask sends a proxy's request.
func ask(t *testing.T, method, url string, authorization ...string) *http.Response {
	t.Helper()
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	g.Expect(err).NotTo(HaveOccurred())
	for _, a := range authorization {
		request.Header.Add("Authorization", a)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

const (
	namespacedPath = "/forward-auth/ns/orders/main"
	clusterPath    = "/forward-auth/cluster/main"
)

func TestForwardAuthAccepts(t *testing.T) {
	url := forwardAuthServer(t, ordersStore(t))
	token := ec("a").Sign(claims(nil))
	for _, path := range []string{namespacedPath, clusterPath} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"} {
			for _, scheme := range []string{"Bearer ", "bearer ", "BEARER ", "bEaReR   "} {
				t.Run(path+" "+method+" "+scheme, func(t *testing.T) {
					g := NewWithT(t)
					r := ask(t, method, url+path, scheme+token)
					g.Expect(r.StatusCode).To(Equal(http.StatusOK), "THREATS 16: a Bearer scheme in odd case")
					g.Expect(r.Header.Values(HeaderSubject)).To(Equal([]string{subject}))
					g.Expect(r.Header.Values(HeaderIssuer)).To(Equal([]string{issuerName}))
					g.Expect(r.Header.Get("Cache-Control")).To(Equal("no-store"))
					g.Expect(r.Header).NotTo(HaveKey(HeaderReason))
					g.Expect(r.Header).NotTo(HaveKey("Www-Authenticate"))
				})
			}
		}
	}
}

func TestForwardAuthAlwaysSendsItsHeaders(t *testing.T) {
	g := NewWithT(t)
	url := forwardAuthServer(t, ordersStore(t))
	r := ask(t, "GET", url+clusterPath, "Bearer "+ec("a").Sign(claims(map[string]any{"sub": absent{}})))
	g.Expect(r.StatusCode).To(Equal(http.StatusOK))
	g.Expect(r.Header.Values(HeaderSubject)).To(Equal([]string{""}), "empty, so that what a client sent does not stand")
}

func TestForwardAuthAnswers(t *testing.T) {
	url := forwardAuthServer(t, ordersStore(t))
	good := "Bearer " + ec("a").Sign(claims(nil))
	for name, tc := range map[string]struct {
		path          string
		authorization []string
		status        int
		reason        Reason
		challenge     string
	}{
		"no token":                         {clusterPath, nil, 401, TokenMissing, `Bearer realm="jwks-trust"`},
		"THREATS 16: a token in the query": {clusterPath + "?access_token=" + good[7:] + "&token=" + good[7:], nil, 401, TokenMissing, `Bearer realm="jwks-trust"`},
		"another scheme":                   {clusterPath, []string{"Basic YTpi"}, 401, TokenMissing, `Bearer realm="jwks-trust"`},
		"a scheme and nothing":             {clusterPath, []string{"Bearer"}, 401, TokenMissing, `Bearer realm="jwks-trust"`},
		"no space after the scheme":        {clusterPath, []string{"Bearer" + good[7:]}, 401, TokenMissing, `Bearer realm="jwks-trust"`},
		"a tab after the scheme":           {clusterPath, []string{"Bearer\t" + good[7:]}, 401, TokenMissing, `Bearer realm="jwks-trust"`},
		"THREATS 16: two headers":          {clusterPath, []string{good, good}, 401, AmbiguousCredentials, `Bearer realm="jwks-trust", error="invalid_request", error_description="there is more than one token"`},
		"a bad one hidden by another":      {clusterPath, []string{"Basic YTpi", good}, 401, AmbiguousCredentials, `Bearer realm="jwks-trust", error="invalid_request", error_description="there is more than one token"`},
		"two tokens in one header":         {clusterPath, []string{good + ", " + good}, 401, MalformedToken, `Bearer realm="jwks-trust", error="invalid_token", error_description="the token is not a well-formed JWT"`},
		"a token and more":                 {clusterPath, []string{good + " x"}, 401, MalformedToken, `Bearer realm="jwks-trust", error="invalid_token", error_description="the token is not a well-formed JWT"`},
		"THREATS 10: over 16 KiB":          {clusterPath, []string{good + strings.Repeat("x", 16<<10)}, 401, TokenTooLarge, `Bearer realm="jwks-trust", error="invalid_token", error_description="the token is over 16 KiB"`},
		"an expired token":                 {clusterPath, []string{"Bearer " + ec("a").Sign(claims(map[string]any{"exp": 1}))}, 401, TokenExpired, `Bearer realm="jwks-trust", error="invalid_token", error_description="the token has expired"`},
		"an unknown key":                   {clusterPath, []string{"Bearer " + ec("?").Sign(claims(nil))}, 401, UnknownKey, `Bearer realm="jwks-trust", error="invalid_token", error_description="no trusted key fits the token"`},
		"THREATS 58: no snapshot":          {"/forward-auth/cluster/empty", []string{good}, 503, NoSnapshot, ""},
		"no such issuer object":            {"/forward-auth/cluster/other", []string{good}, 503, UnknownIssuer, ""},
		"not in this namespace":            {"/forward-auth/ns/billing/main", []string{good}, 503, UnknownIssuer, ""},
		"no token for no such issuer":      {"/forward-auth/cluster/other", nil, 401, TokenMissing, `Bearer realm="jwks-trust"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := ask(t, "GET", url+tc.path, tc.authorization...)
			g.Expect(r.StatusCode).To(Equal(tc.status))
			g.Expect(r.Header.Values(HeaderReason)).To(Equal([]string{string(tc.reason)}))
			g.Expect(r.Header.Get("WWW-Authenticate")).To(Equal(tc.challenge))
			g.Expect(r.Header.Get("Cache-Control")).To(Equal("no-store"))
			for _, absent := range []string{HeaderSubject, HeaderIssuer, "Retry-After"} {
				g.Expect(r.Header.Values(absent)).To(BeEmpty(), absent)
			}
			body, err := io.ReadAll(r.Body)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(body).To(BeEmpty())
		})
	}
}

func TestForwardAuthUnknownPaths(t *testing.T) {
	url := forwardAuthServer(t, ordersStore(t))
	for _, path := range []string{
		"/", "/tokenreview", "/forward-auth", "/forward-auth/", "/forward-auth/cluster", "/forward-auth/cluster/",
		"/forward-auth/cluster/main/", "/forward-auth//cluster/main", "/forward-auth/cluster//main", "/forward-auth/ns/orders",
		"/forward-auth/ns/orders/", "/forward-auth/ns//main", "/forward-auth/ns/orders/main/x", "/forward-auth/cluster/MAIN",
		"/forward-auth/cluster/ma%69n", "/forward-auth/ns/orders%2Fmain", "/forward-auth/cluster/..", "/forward-auth/ns/../cluster/main",
		"/forward-auth/ns/or.ders/main", "/forward-auth/cluster/" + strings.Repeat("a", 254), "/Forward-Auth/cluster/main", "/x/forward-auth/cluster/main",
	} {
		t.Run(path, func(t *testing.T) {
			g := NewWithT(t)
			r := ask(t, "GET", url+path, "Bearer "+ec("a").Sign(claims(nil)))
			g.Expect(r.StatusCode).To(Equal(http.StatusNotFound), "THREATS 66: a wrong path")
			g.Expect(r.Header.Get("Content-Type")).To(HavePrefix("text/plain"))
			g.Expect(r.Header).NotTo(HaveKey(HeaderSubject))
		})
	}
}

func TestForwardAuthRefusesWhatAHeaderCannotCarry(t *testing.T) {
	url := forwardAuthServer(t, ordersStore(t))
	for _, sub := range []string{
		"alice\r\nX-Auth-Subject: root", "alice\nroot", "alice\x00", "alice\t", "alice\x7f", "jürgen", " alice", "alice ", "\u202eecila",
	} {
		t.Run(fmt.Sprintf("%q", sub), func(t *testing.T) {
			g := NewWithT(t)
			r := ask(t, "GET", url+clusterPath, "Bearer "+ec("a").Sign(claims(map[string]any{"sub": sub})))
			g.Expect(r.StatusCode).To(Equal(http.StatusUnauthorized))
			g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(ClaimNotHeaderSafe)))
			g.Expect(r.Header.Values(HeaderSubject)).To(BeEmpty())
		})
	}
	for _, sub := range []string{"auth0|507f1f77", "a b", "system:serviceaccount:ns:sa", `"quoted", 100%`, "~"} {
		t.Run(sub, func(t *testing.T) {
			r := ask(t, "GET", url+clusterPath, "Bearer "+ec("a").Sign(claims(map[string]any{"sub": sub})))
			NewWithT(t).Expect(r.Header.Values(HeaderSubject)).To(Equal([]string{sub}), "printable ASCII arrives as it is")
		})
	}
}

func TestForwardAuthIgnoresTheBody(t *testing.T) {
	g := NewWithT(t)
	url := forwardAuthServer(t, ordersStore(t))
	request, err := http.NewRequestWithContext(t.Context(), "POST", url+clusterPath, bytes.NewReader(make([]byte, 3<<20)))
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer "+ec("a").Sign(claims(nil)))
	request.Header.Set("Expect", "100-continue")
	r, err := http.DefaultTransport.RoundTrip(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = r.Body.Close() }()
	g.Expect(r.StatusCode).To(Equal(http.StatusOK), "THREATS 66: a 3 MiB body")
}

func TestForwardAuthBeforeTheStoreIsReady(t *testing.T) {
	g := NewWithT(t)
	s := ordersStore(t)
	s.ready.Store(false)
	url := forwardAuthServer(t, s)
	r := ask(t, "GET", url+"/forward-auth/cluster/other", "Bearer x")
	g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable))
	g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(NotReady)))
	r = ask(t, "GET", url+clusterPath, "Bearer "+ec("a").Sign(claims(nil)))
	g.Expect(r.StatusCode).To(Equal(http.StatusOK), "an issuer that has been read does not wait for others")
}

func TestForwardAuthContainsPanics(t *testing.T) {
	g := NewWithT(t)
	var logged bytes.Buffer
	log := funcr.New(func(prefix, args string) { logged.WriteString(prefix + args) }, funcr.Options{Verbosity: 1})
	h := newForwardAuth(fakeIssuers{true, panics}, log)
	url := serve(t, h)
	for range 3 { // more often than the gate has places
		r := ask(t, "GET", url+clusterPath, "Bearer x")
		g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable), "THREATS 60: a panic is contained")
		g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(InternalError)))
	}
	g.Expect(logged.String()).To(ContainSubstring("panicked"))
	g.Expect(logged.String()).NotTo(ContainSubstring("eyJ"), "what a panic says may hold a token")
}

func TestForwardAuthSheds(t *testing.T) {
	g := NewWithT(t)
	entered, finish := make(chan struct{}), make(chan struct{})
	h := newForwardAuth(fakeIssuers{true, func() (*Issuer, bool) {
		close(entered)
		<-finish
		return nil, false
	}}, logr.Discard())
	url := serve(t, h)
	first := make(chan *http.Response)
	go func() { first <- ask(t, "GET", url+clusterPath, "Bearer x") }()
	<-entered
	before := counted(protocolForwardAuth, CannotDecide, Overloaded)
	r := ask(t, "GET", url+clusterPath, "Bearer x")
	end := sync.OnceFunc(func() { close(finish) })
	defer end()
	g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable), "THREATS 59: a bare 503 under overload")
	g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(Overloaded)), "proxies log why they could let nobody in")
	g.Expect(r.Header).NotTo(HaveKey("Retry-After"))
	g.Expect(r.ContentLength).To(BeZero())
	g.Expect(counted(protocolForwardAuth, CannotDecide, Overloaded)).To(Equal(before + 1))
	end()
	g.Expect((<-first).Header.Get(HeaderReason)).To(Equal(string(UnknownIssuer)), "the one that was in is answered")
}

func TestForwardAuthLogsNoToken(t *testing.T) {
	g := NewWithT(t)
	var logged bytes.Buffer
	log := funcr.New(func(_, args string) { logged.WriteString(args + "\n") }, funcr.Options{Verbosity: 1})
	h := newForwardAuth(ordersStore(t), log)
	token := ec("?").Sign(claims(map[string]any{"iss": issuerName, "sub": "secret-subject"}))
	h.ServeHTTP(httptest.NewRecorder(), authorized(clusterPath, token))
	bad := ec("?").Sign(claims(map[string]any{"iss": "evil\n" + strings.Repeat("x", 4000)}))
	h.ServeHTTP(httptest.NewRecorder(), authorized(clusterPath, bad))
	g.Expect(logged.String()).To(ContainSubstring(string(UnknownKey)))
	g.Expect(logged.String()).To(ContainSubstring("ClusterTrustedIssuer main"))
	g.Expect(logged.String()).To(ContainSubstring(string(IssuerMismatch)))
	for _, secret := range append(strings.Split(token, "."), "secret-subject", strings.Repeat("x", 200), "evil\nx") {
		g.Expect(logged.String()).NotTo(ContainSubstring(secret))
	}
}

func authorized(path, token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestForwardAuthCounts(t *testing.T) {
	g := NewWithT(t)
	h := newForwardAuth(ordersStore(t), logr.Discard())
	for token, want := range map[string]Verdict{
		ec("a").Sign(claims(nil)): {Outcome: Accept, Reason: Accepted},
		"x.y.z":                   {Outcome: Refuse, Reason: MalformedToken},
		ec("?").Sign(claims(nil)): {Outcome: CannotDecide, Reason: UnknownKey},
	} {
		before := counted(protocolForwardAuth, want.Outcome, want.Reason)
		h.ServeHTTP(httptest.NewRecorder(), authorized(clusterPath, token))
		g.Expect(counted(protocolForwardAuth, want.Outcome, want.Reason)).To(Equal(before+1), string(want.Reason))
	}
}
