package fetch

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log" //nolint:depguard // the type of http.Server.ErrorLog
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// forwarder is a proxy that connects to the server at to, whatever it is asked
// for, and remembers what it was asked.
func forwarder(t *testing.T, to string) (proxy *url.URL, asked chan *http.Request) {
	t.Helper()
	asked = make(chan *http.Request, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		out, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, "", http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}))
	t.Cleanup(s.Close)
	proxy, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return proxy, asked
}

func TestAProxyConnects(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, answer("keys"))
	proxy, asked := forwarder(t, strings.TrimPrefix(target, "https://"))
	proxy.User = url.UserPassword("me", "secret")
	missing := &resolver{err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	f := newFetcher(t, Options{Proxy: proxy, Resolver: missing, UserAgent: "test/1"})
	doc, err := f.Fetch(context.Background(), Request{URL: "https://example.com/jwks", CABundle: roots})
	g.Expect(err).NotTo(HaveOccurred(), "a name that only the proxy can resolve is left to it")
	g.Expect(string(doc.Body)).To(Equal("keys"))
	r := <-asked
	g.Expect(r.Method + " " + r.Host).To(Equal("CONNECT example.com:443"))
	g.Expect(r.Header.Get("Proxy-Authorization")).To(Equal("Basic bWU6c2VjcmV0"))
	g.Expect(r.UserAgent()).To(Equal("test/1"))
}

// A proxy is no way around the policy, as far as that can be seen from here.
func TestThePolicyHoldsBeforeAProxy(t *testing.T) {
	proxy, asked := forwarder(t, "127.0.0.1:1")
	for name, tc := range map[string]struct {
		host     string
		resolver Resolver
		reason   Reason
	}{
		"THREATS 29: metadata":              {"169.254.169.254", nil, EgressBlocked},
		"THREATS 30: a name that mixes":     {"issuer.example.com", &resolver{answers: [][]string{{"127.0.0.1", "10.0.0.1"}}}, EgressBlocked},
		"wide digits":                       {"１２７.１", &resolver{err: &net.DNSError{Err: "no such host", IsNotFound: true}}, InvalidURL},
		"a DNS server that is out of order": {"issuer.example.com", &resolver{err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}, DNSLookupFailed},
	} {
		_, err := newFetcher(t, Options{Proxy: proxy, Resolver: tc.resolver}).Fetch(context.Background(), Request{URL: "https://" + tc.host})
		NewWithT(t).Expect(failure(t, err).Reason).To(Equal(tc.reason), name)
	}
	NewWithT(t).Expect(asked).NotTo(Receive())
}

// The roots of an issuer come from a user of a namespace. With them a proxy
// could be vouched for that is not the administrator's, and read its password.
func TestIssuersRootsDoNotVouchForTheProxy(t *testing.T) {
	g := NewWithT(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshake fails on purpose
	s.StartTLS()
	defer s.Close()
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	proxy, err := ParseProxy(s.URL)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = newFetcher(t, Options{Proxy: proxy}).Fetch(context.Background(), Request{URL: "https://127.0.0.1", CABundle: roots})
	g.Expect(failure(t, err).Reason).To(Equal(ConnectionFailed))
	g.Expect(failure(t, err).Message).To(And(ContainSubstring("--egress-proxy"), ContainSubstring("certificate")))
}

func TestProxiesThatFail(t *testing.T) {
	silent, gone := tarpit(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	noise := rawServer(t, nil, "220 mail.example.com ESMTP\r\n")
	talkative := rawServer(t, nil, "HTTP/1.1 200 OK\r\n\r\nand more")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, tc := range map[string]struct {
		proxy  string
		reason Reason
		hint   string
		within time.Duration
	}{
		"refuses":          {"http://" + closed.Addr().String(), ConnectionFailed, "cannot be reached", 0},
		"is silent":        {"http://" + silent, Timeout, "in time", 500 * time.Millisecond},
		"says no":          {plain.URL, ConnectionFailed, "404", 0},
		"is no proxy":      {"http://" + noise, ConnectionFailed, "as an HTTP proxy does", 0},
		"talks in between": {"http://" + talkative, ConnectionFailed, "of its own", 0},
		"is of no kind":    {"socks5://127.0.0.1:1", ConnectionFailed, "http or https", 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			proxy, err := url.Parse(tc.proxy)
			g.Expect(err).NotTo(HaveOccurred())
			f := newFetcher(t, Options{Proxy: proxy, HandshakeTimeout: tc.within})
			_, err = f.Fetch(context.Background(), Request{URL: "https://127.0.0.1/"})
			e := failure(t, err)
			g.Expect(e.Reason).To(Equal(tc.reason), e.Message)
			g.Expect(e.Message).To(And(ContainSubstring("--egress-proxy"), ContainSubstring(tc.hint)))
		})
	}
	NewWithT(t).Eventually(gone).WithTimeout(10 * time.Second).Should(BeClosed())
}

func TestParseProxy(t *testing.T) {
	g := NewWithT(t)
	u, err := ParseProxy("http://me:secret@proxy.example.com:3128")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(u.Port()).To(Equal("3128"))
	for _, bad := range []string{"proxy.example.com:3128", "socks5://me:secret@proxy", "https://", "http://me:secret@[", ""} {
		_, err := ParseProxy(bad)
		g.Expect(err).To(HaveOccurred(), bad)
		g.Expect(err.Error()).NotTo(ContainSubstring("secret"))
	}
}

// rawServer answers each connection with text once it has read something, and
// closes it; over TLS where there is a configuration.
func rawServer(t *testing.T, config *tls.Config, text string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

var _ Resolver = (*net.Resolver)(nil)
