package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log" //nolint:depguard // the type of http.Server.ErrorLog
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
)

// environmentsProxy asks nobody: nothing listens there.
const environmentsProxy = "http://127.0.0.1:1"

// TestMain sets a proxy for all tests, not in the one about it: net/http reads
// the environment once in a process.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		if err := os.Setenv(name, environmentsProxy); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

var loopback = Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}

// host is a server on loopback that answers with handler, and the roots to
// trust it by.
func host(t *testing.T, handler http.HandlerFunc, configure ...func(*httptest.Server)) (target string, roots []byte) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // what goes wrong here is on purpose
	s.EnableHTTP2 = true
	for _, c := range configure {
		c(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func newFetcher(t *testing.T, o Options) *Fetcher {
	t.Helper()
	if o.Egress.Allow == nil {
		o.Egress = loopback
	}
	f := New(o)
	t.Cleanup(f.Close)
	return f
}

// fetch makes one request with the usual options.
func fetch(t *testing.T, r Request) (*Document, error) {
	t.Helper()
	return newFetcher(t, Options{}).Fetch(context.Background(), r)
}

// failure is the error's reason and message.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is no *Error", err, err)
	}
	return e
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

func TestFetch(t *testing.T) {
	g := NewWithT(t)
	var seen *http.Request
	target, roots := host(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT")
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("Age", "60")
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		answer(`{"keys":[]}`)(w, r)
	})
	f := newFetcher(t, Options{UserAgent: "test/1"})
	doc, err := f.Fetch(context.Background(), Request{URL: target + "/jwks?p=b2c", CABundle: roots, NoCache: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(doc).To(Equal(&Document{
		Body: []byte(`{"keys":[]}`), ETag: `"1"`, LastModified: "Mon, 23 Nov 2026 12:00:00 GMT",
		Lifetime: 4 * time.Minute, HasLifetime: true, FinalURL: target + "/jwks?p=b2c",
	}))
	g.Expect(seen.Header.Get("Cache-Control")).To(Equal("no-cache"))
	g.Expect(seen.Header.Get("User-Agent")).To(Equal("test/1"))
	g.Expect(seen.Header).NotTo(HaveKey("Authorization"))

	doc, err = f.Fetch(context.Background(), Request{URL: target, CABundle: roots, ETag: doc.ETag, LastModified: doc.LastModified})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(doc.NotModified).To(BeTrue())
	g.Expect(doc.Body).To(BeEmpty())
	g.Expect(doc.ETag).To(Equal(`"1"`))
	g.Expect(seen.Header).NotTo(HaveKey("Cache-Control"))
}

func TestFetchDecompresses(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte("keys"))
		_ = z.Close()
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes())
	})
	doc, err := fetch(t, Request{URL: target, CABundle: roots})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(doc.Body)).To(Equal("keys"))
}

func gzipBomb() http.HandlerFunc {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 16 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes())
	}
}

func TestAnswersThatAreNoSuccess(t *testing.T) {
	big := strings.Repeat("x", MaxBody)
	bomb := gzipBomb() // made beforehand: with -race that alone can take longer than a fetch may
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		request Request
		reason  Reason
		hint    string
	}{
		"not found":                       {handler: http.NotFound, reason: UnexpectedStatus, hint: "404"},
		"a server error":                  {handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<secret page>", http.StatusBadGateway) }, reason: UnexpectedStatus, hint: "502"},
		"no content":                      {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, reason: UnexpectedStatus, hint: "204"},
		"THREATS 36: a 304 nobody wanted": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, reason: UnexpectedStatus, hint: "304"},
		"THREATS 25: one byte too many":   {handler: answer(big + "x"), reason: TooLarge, hint: "512 KiB"},
		"THREATS 33: a gzip bomb":         {handler: bomb, reason: TooLarge, hint: "512 KiB"},
		"an encoding that nobody asked for": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			answer("x")(w, r)
		}, reason: InvalidResponse, hint: "encoding"},
		"gzip that is none": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answer("this is no gzip stream")(w, r)
		}, reason: InvalidResponse, hint: "gzip"},
		"truncation": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
		}, reason: ConnectionFailed, hint: "broke off"},
		"THREATS 33: a header bomb": {handler: func(w http.ResponseWriter, _ *http.Request) {
			for i := range 300 {
				w.Header().Set("X-Bomb-"+strconv.Itoa(i), strings.Repeat("x", 1000))
			}
		}, reason: InvalidResponse, hint: "header"},
		"THREATS 31: a redirect where none is allowed": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusFound)
		}, reason: RedirectRefused, hint: "spec.maxRedirects"},
		"THREATS 31: a redirect to another host": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://other.example.com/", http.StatusFound)
		}, request: Request{MaxRedirects: 3}, reason: RedirectRefused, hint: "another host"},
		"THREATS 31: a redirect to another port": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		}, request: Request{MaxRedirects: 3}, reason: RedirectRefused, hint: "another host"},
		"THREATS 31: a redirect away from https": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/", http.StatusFound)
		}, request: Request{MaxRedirects: 3}, reason: RedirectRefused, hint: "https"},
		"THREATS 31: redirects in a circle": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, request: Request{MaxRedirects: 3}, reason: RedirectRefused, hint: "spec.maxRedirects (3)"},
		"a redirect to nowhere": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMultipleChoices) }, reason: RedirectRefused, hint: "300"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target, roots := host(t, tc.handler)
			tc.request.URL, tc.request.CABundle = target, roots
			doc, err := fetch(t, tc.request)
			g.Expect(doc).To(BeNil())
			e := failure(t, err)
			g.Expect(e.Reason).To(Equal(tc.reason), e.Message)
			g.Expect(e.Message).To(ContainSubstring(tc.hint))
			g.Expect(e.Message).NotTo(ContainSubstring("secret"), "no byte of a body")
			g.Expect(e.Retry).To(Equal(RetryBackoff))
		})
	}
}

func TestTheLargestDocumentIsTaken(t *testing.T) {
	target, roots := host(t, answer(strings.Repeat("x", MaxBody)))
	doc, err := fetch(t, Request{URL: target, CABundle: roots})
	g := NewWithT(t)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(doc.Body).To(HaveLen(MaxBody))
}

func TestAllowedRedirectsAreFollowed(t *testing.T) {
	g := NewWithT(t)
	var agents []string
	target, roots := host(t, func(w http.ResponseWriter, r *http.Request) {
		agents = append(agents, r.URL.Path)
		if r.URL.Path != "/c" {
			http.Redirect(w, r, map[string]string{"/a": "/b", "/b": "/c"}[r.URL.Path], http.StatusFound)
			return
		}
		answer("keys")(w, r)
	})
	doc, err := fetch(t, Request{URL: target + "/a", CABundle: roots, MaxRedirects: 2})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(doc.FinalURL).To(Equal(target + "/c"))
	_, err = fetch(t, Request{URL: target + "/a", CABundle: roots, MaxRedirects: 1})
	g.Expect(failure(t, err).Reason).To(Equal(RedirectRefused))
}

// certificate makes one that signs itself.
func certificate(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestTLS is THREATS 34.
func TestTLS(t *testing.T) {
	g := NewWithT(t)
	other, roots := host(t, answer("x"))
	_, wrong := certificate(t, func(*x509.Certificate) {})
	serve := func(c tls.Certificate, config ...func(*tls.Config)) string {
		target, _ := host(t, answer("x"), func(s *httptest.Server) {
			s.TLS = &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS10}
			for _, f := range config {
				f(s.TLS)
			}
		})
		return target
	}
	plain := httptest.NewServer(answer("x"))
	defer plain.Close()
	named, namedRoots := certificate(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example.com"} })
	expired, expiredRoots := certificate(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	client, clientRoots := certificate(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	good, goodRoots := certificate(t, func(*x509.Certificate) {})

	for name, tc := range map[string]struct {
		url   string
		roots []byte
		hint  string
	}{
		"the system's roots":            {other, nil, "spec.caBundle"},
		"another authority":             {other, wrong, "spec.caBundle"},
		"another host's certificate":    {serve(named), namedRoots, "not for that name"},
		"an expired certificate":        {serve(expired), expiredRoots, "expired"},
		"a client's certificate":        {serve(client), clientRoots, "not valid for an HTTPS server"},
		"TLS 1.1":                       {serve(good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }), goodRoots, "TLS 1.2"},
		"no TLS":                        {"https://" + strings.TrimPrefix(plain.URL, "http://"), roots, "does not speak TLS"},
		"a client certificate demanded": {serve(good, func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }), goodRoots, "handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fetch(t, Request{URL: tc.url, CABundle: tc.roots})
			e := failure(t, err)
			g := NewWithT(t)
			g.Expect(e.Reason).To(Equal(TLSFailed), e.Message)
			g.Expect(e.Message).To(ContainSubstring(tc.hint))
		})
	}
	_, err := fetch(t, Request{URL: serve(good), CABundle: goodRoots})
	g.Expect(err).NotTo(HaveOccurred(), "the same certificate is good when all else is")
}

func TestRootsNeverMix(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, answer("x"))
	f := newFetcher(t, Options{})
	_, err := f.Fetch(context.Background(), Request{URL: target, CABundle: roots})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = f.Fetch(context.Background(), Request{URL: target})
	g.Expect(failure(t, err).Reason).To(Equal(TLSFailed), "a connection under other roots is not reused")
	_, err = f.Fetch(context.Background(), Request{URL: target, CABundle: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")})
	g.Expect(failure(t, err).Reason).To(Equal(InvalidCABundle), "never quietly the system's roots")
	g.Expect(failure(t, err).Retry).To(Equal(RetryAfterChange))
}

func TestManyRootsKeepFewConnections(t *testing.T) {
	g := NewWithT(t)
	f := newFetcher(t, Options{})
	for i := range 3 * maxTransports {
		_, roots := certificate(t, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i)) })
		_, err := f.transport(roots)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(len(f.transports)).To(BeNumerically("<=", maxTransports))
	}
}

func TestSlowServers(t *testing.T) {
	hung := make(chan struct{})
	slow := map[string]http.HandlerFunc{
		"silence": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"THREATS 33: one byte at a time": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(" ")); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		},
	}
	for name, handler := range slow {
		t.Run(name, func(t *testing.T) {
			target, roots := host(t, handler)
			_, err := newFetcher(t, Options{Timeout: 100 * time.Millisecond}).Fetch(context.Background(), Request{URL: target, CABundle: roots})
			NewWithT(t).Expect(failure(t, err).Reason).To(Equal(Timeout))
		})
	}
	t.Run("a handshake that never comes", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		g := NewWithT(t)
		g.Expect(err).NotTo(HaveOccurred())
		defer func() { _ = l.Close() }()
		go func() {
			if c, err := l.Accept(); err == nil {
				<-hung
				_ = c.Close()
			}
		}()
		_, err = newFetcher(t, Options{Timeout: 100 * time.Millisecond}).Fetch(context.Background(), Request{URL: "https://" + l.Addr().String()})
		g.Expect(failure(t, err).Reason).To(Equal(Timeout))
		close(hung)
	})
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		g := NewWithT(t)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(l.Close()).To(Succeed())
		_, err = fetch(t, Request{URL: "https://" + l.Addr().String()})
		g.Expect(failure(t, err).Reason).To(Equal(ConnectionFailed))
		g.Expect(failure(t, err).Message).To(ContainSubstring("connection refused"))
	})
}

// TestURLs is THREATS 28.
func TestURLs(t *testing.T) {
	for name, tc := range map[string]struct{ url, hint string }{
		"http":             {"http://issuer.example.com/", "https"},
		"no scheme":        {"issuer.example.com/jwks", "https"},
		"a file":           {"file:///etc/passwd", "https"},
		"user information": {"https://me:secret@issuer.example.com/", "user information"},
		"a fragment":       {"https://issuer.example.com/#x", "fragment"},
		"an empty one":     {"https://issuer.example.com/#", "fragment"},
		"no host":          {"https:///jwks", "host"},
		"a zone":           {"https://[fe80::1%25eth0]/", "host"},
		"port 0":           {"https://issuer.example.com:0/", "port"},
		"port 65536":       {"https://issuer.example.com:65536/", "port"},
		"no URL":           {"https://[", "URL"},
		"a number":         {"https://2852039166/", "dotted"}, // 169.254.169.254 to a proxy that is kind
		"hex":              {"https://0xA9FEA9FE/", "dotted"},
		"a short address":  {"https://127.1/", "dotted"},
		"octal":            {"https://0251.0376.0251.0376/", "dotted"},
		"a hex part":       {"https://127.0x1./", "dotted"},
		"wide digits":      {"https://１２７.１/", "dotted"}, // net/http makes those of ASCII of them
		"a wide full stop": {"https://127。1/", "dotted"},
		"a name of none":   {"https://ö_.example/", "name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fetch(t, Request{URL: tc.url})
			e := failure(t, err)
			g := NewWithT(t)
			g.Expect(e.Reason).To(Equal(InvalidURL))
			g.Expect(e.Retry).To(Equal(RetryAfterChange))
			g.Expect(e.Message).To(And(ContainSubstring(tc.hint), ContainSubstring("spec.jwksURI")))
			g.Expect(e.Message).NotTo(ContainSubstring("secret"))
		})
	}
}

// resolver answers each look-up with the next list, and the last one from then
// on.
type resolver struct {
	answers [][]string
	err     error
	asked   int
}

func (r *resolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if r.err != nil {
		return nil, r.err
	}
	list := r.answers[min(r.asked, len(r.answers)-1)]
	r.asked++
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

func TestNames(t *testing.T) {
	target, roots := host(t, answer("keys"))
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *resolver) error {
		// example.com is what httptest's certificate is for.
		_, err := newFetcher(t, Options{Resolver: r}).Fetch(context.Background(), Request{URL: "https://example.com:" + u.Port(), CABundle: roots})
		return err
	}
	g := NewWithT(t)
	g.Expect(ask(&resolver{answers: [][]string{{"127.0.0.1"}}})).To(Succeed())
	g.Expect(ask(&resolver{answers: [][]string{{"::1", "127.0.0.1"}}})).To(Succeed(), "the next address is tried")

	once := &resolver{answers: [][]string{{"127.0.0.1"}, {"169.254.169.254"}}}
	g.Expect(ask(once)).To(Succeed(), "THREATS 30: what was judged is what is dialled; the name is not asked again")
	g.Expect(once.asked).To(Equal(1))

	for _, mixed := range [][]string{{"127.0.0.1", "10.0.0.1"}, {"127.0.0.1", "::ffff:169.254.169.254"}, {"10.0.0.1"}} {
		e := failure(t, ask(&resolver{answers: [][]string{mixed}}))
		g.Expect(e.Reason).To(Equal(EgressBlocked), "THREATS 30: %v", mixed)
		g.Expect(e.Retry).To(Equal(RetryAfterChange))
	}
	g.Expect(failure(t, ask(&resolver{answers: [][]string{{}}})).Reason).To(Equal(DNSLookupFailed))
	e := failure(t, ask(&resolver{err: &net.DNSError{Err: "no such host", Name: "example.com", Server: "10.9.8.7:53", IsNotFound: true}}))
	g.Expect(e.Reason).To(Equal(DNSLookupFailed))
	g.Expect(e.Message).To(ContainSubstring("no such host"))
	g.Expect(e.Message).NotTo(ContainSubstring("10.9.8.7"), "the cluster's inside is nobody's business")
}

// TestNoProxyIsInherited is THREATS 32. The host has a name because a proxy of
// the environment is never asked for loopback addresses.
func TestNoProxyIsInherited(t *testing.T) {
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/", http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	would, err := http.ProxyFromEnvironment(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(would).To(HaveField("String()", environmentsProxy), "the environment does have one")

	target, roots := host(t, answer("keys"))
	u, err := url.Parse(target)
	g.Expect(err).NotTo(HaveOccurred())
	f := newFetcher(t, Options{Resolver: &resolver{answers: [][]string{{"127.0.0.1"}}}})
	_, err = f.Fetch(t.Context(), Request{URL: "https://example.com:" + u.Port(), CABundle: roots})
	g.Expect(err).NotTo(HaveOccurred())
}

func TestTheAdministratorsProxyIsUsed(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, answer("keys"))
	var asked string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.Host
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	g.Expect(err).NotTo(HaveOccurred())
	f := newFetcher(t, Options{Proxy: u})
	_, err = f.Fetch(context.Background(), Request{URL: target, CABundle: roots})
	g.Expect(failure(t, err).Reason).To(Equal(ConnectionFailed))
	g.Expect(failure(t, err).Message).To(And(ContainSubstring("--egress-proxy"), ContainSubstring("403")))
	g.Expect(asked).To(Equal("CONNECT " + strings.TrimPrefix(target, "https://")))

	asked = ""
	_, err = f.Fetch(context.Background(), Request{URL: "https://169.254.169.254/", CABundle: roots})
	g.Expect(failure(t, err).Reason).To(Equal(EgressBlocked), "a proxy is no way around the policy")
	g.Expect(asked).To(BeEmpty())
}
