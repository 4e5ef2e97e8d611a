package fetch

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// tarpit takes one connection and never says a word. gone is closed when the
// client has closed it.
func tarpit(t *testing.T) (address string, gone <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	return l.Addr().String(), closed
}

// http.Transport goes on with a dial whose request has given up, without any
// deadline. Each attempt at such a server left a connection behind for ever.
func TestAnUnfinishedHandshakeIsGivenUp(t *testing.T) {
	address, gone := tarpit(t)
	f := newFetcher(t, Options{Timeout: 20 * time.Millisecond, HandshakeTimeout: 500 * time.Millisecond})
	_, err := f.Fetch(context.Background(), Request{URL: "https://" + address})
	g := NewWithT(t)
	g.Expect(failure(t, err).Reason).To(Equal(Timeout), "THREATS 33")
	g.Eventually(gone).WithTimeout(10*time.Second).Should(BeClosed(), "although the Fetcher was not closed")
}

func TestTimeoutsSayWhichStepTookTooLong(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	silent, _ := tarpit(t)
	drip, roots := host(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	short := 50 * time.Millisecond
	for name, tc := range map[string]struct {
		url     string
		options Options
		connect func(context.Context, string, string) (net.Conn, error)
		hint    string
	}{
		"connecting":    {"https://127.0.0.1", Options{ConnectTimeout: short}, hang, "NetworkPolicy"},
		"the handshake": {"https://" + silent, Options{HandshakeTimeout: 10 * short}, nil, "TLS handshake within 500ms"},
		"the body":      {drip, Options{Timeout: short}, nil, "completely within 50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t, tc.options)
			if tc.connect != nil {
				f.connect = tc.connect
			}
			_, err := f.Fetch(context.Background(), Request{URL: tc.url, CABundle: roots})
			e := failure(t, err)
			g := NewWithT(t)
			g.Expect(e.Reason).To(Equal(Timeout), e.Message)
			g.Expect(e.Message).To(And(ContainSubstring("spec.jwksURI"), ContainSubstring(tc.hint)))
		})
	}
}

type slowResolver struct{}

func (slowResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestASilentDNSServerIsNamed(t *testing.T) {
	f := newFetcher(t, Options{Resolver: slowResolver{}, ConnectTimeout: 20 * time.Millisecond})
	_, err := f.Fetch(context.Background(), Request{URL: "https://issuer.example.com/"})
	e := failure(t, err)
	g := NewWithT(t)
	g.Expect(e.Reason).To(Equal(DNSLookupFailed))
	g.Expect(e.Message).To(ContainSubstring("did not answer in time"))
}

// A host with IPv6 set up by half could never be fetched from: the first
// address used up all the time.
func TestAnAddressThatSwallowsPacketsDoesNotHideTheNext(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, answer("keys"))
	_, port, err := net.SplitHostPort(strings.TrimPrefix(target, "https://"))
	g.Expect(err).NotTo(HaveOccurred())
	f := newFetcher(t, Options{Resolver: &resolver{answers: [][]string{{"::1", "127.0.0.1"}}}, ConnectTimeout: time.Minute, HandshakeTimeout: time.Hour, Timeout: time.Hour})
	dial, share := f.connect, make(chan time.Duration, 1)
	f.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		if !strings.HasPrefix(address, "[::1]") {
			return dial(ctx, network, address)
		}
		until, _ := ctx.Deadline()
		share <- time.Until(until)
		return nil, context.DeadlineExceeded // as if it had passed
	}
	doc, err := f.Fetch(context.Background(), Request{URL: "https://example.com:" + port, CABundle: roots})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(doc.Body)).To(Equal("keys"))
	g.Expect(share).To(Receive(And(BeNumerically(">", 0), BeNumerically("<=", 30*time.Second))), "half of the time for the first of two")
}

func TestTries(t *testing.T) {
	for name, tc := range map[string]struct{ from, want []string }{
		"one":            {[]string{"192.0.2.1"}, []string{"192.0.2.1"}},
		"one family":     {[]string{"2001:db8::1", "2001:db8::2"}, []string{"2001:db8::1", "2001:db8::2"}},
		"turns":          {[]string{"2001:db8::1", "2001:db8::2", "192.0.2.1"}, []string{"2001:db8::1", "192.0.2.1", "2001:db8::2"}},
		"IPv4 first":     {[]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, []string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}},
		"mapped is IPv4": {[]string{"::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1"}, []string{"::ffff:192.0.2.1", "2001:db8::1", "192.0.2.2"}},
		"many": {
			[]string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
			[]string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"},
		},
	} {
		parse := func(list []string) (out []netip.Addr) {
			for _, a := range list {
				out = append(out, netip.MustParseAddr(a))
			}
			return out
		}
		NewWithT(t).Expect(tries(parse(tc.from))).To(Equal(parse(tc.want)), name)
	}
}

// One forbidden address is enough, and then nobody is connected to, the allowed
// ones neither.
func TestABlockedLookupConnectsToNobody(t *testing.T) {
	g := NewWithT(t)
	f := newFetcher(t, Options{Resolver: &resolver{answers: [][]string{{"127.0.0.1", "::1", "10.0.0.1"}}}})
	f.connect = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("THREATS 30: dialled %s", address)
		return nil, io.EOF
	}
	_, err := f.Fetch(context.Background(), Request{URL: "https://issuer.example.com"})
	g.Expect(failure(t, err).Reason).To(Equal(EgressBlocked))
	g.Expect(failure(t, err).Message).To(And(ContainSubstring("10.0.0.1"), ContainSubstring("--egress-allow-cidr")))
}

// A name may mean another address by the time of the second request.
func TestARedirectIsJudgedAgain(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		http.Redirect(w, r, "/next", http.StatusFound)
	}, func(s *httptest.Server) { s.EnableHTTP2 = false })
	_, port, err := net.SplitHostPort(strings.TrimPrefix(target, "https://"))
	g.Expect(err).NotTo(HaveOccurred())
	names := &resolver{answers: [][]string{{"127.0.0.1"}, {"169.254.169.254"}}}
	f := newFetcher(t, Options{Resolver: names})
	_, err = f.Fetch(context.Background(), Request{URL: "https://example.com:" + port, CABundle: roots, MaxRedirects: 3})
	g.Expect(failure(t, err).Reason).To(Equal(EgressBlocked), "THREATS 31: a redirect to a blocked address")
	g.Expect(names.asked).To(Equal(2))
}

func TestATrailingDotIsNoPartOfTheServersName(t *testing.T) {
	g := NewWithT(t)
	var name string
	target, roots := host(t, answer("keys"), func(s *httptest.Server) {
		s.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { name = h.ServerName; return nil, nil }}
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(target, "https://"))
	g.Expect(err).NotTo(HaveOccurred())
	f := newFetcher(t, Options{Resolver: &resolver{answers: [][]string{{"127.0.0.1"}}}})
	_, err = f.Fetch(context.Background(), Request{URL: "https://example.com.:" + port, CABundle: roots})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(name).To(Equal("example.com"))
}

func TestBothVersionsOfHTTPAreSpoken(t *testing.T) {
	for version, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		var spoken string
		target, roots := host(t, func(w http.ResponseWriter, r *http.Request) { spoken = r.Proto; answer("x")(w, r) },
			func(s *httptest.Server) { s.EnableHTTP2 = h2 })
		_, err := fetch(t, Request{URL: target, CABundle: roots})
		g := NewWithT(t)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(spoken).To(Equal(version))
	}
}

func TestAConnectionThatEndsInTheHandshake(t *testing.T) {
	g := NewWithT(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = l.Close() }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.Close()
		}
	}()
	_, err = fetch(t, Request{URL: "https://" + l.Addr().String()})
	g.Expect(failure(t, err).Reason).To(Equal(TLSFailed))
	g.Expect(failure(t, err).Message).To(ContainSubstring("broke off the TLS handshake"))
}

// silent is a connection whose other end can go without a word.
type silent struct {
	net.Conn

	gone *atomic.Bool
}

func (c *silent) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for c.gone.Load() && err == nil {
		n, err = c.Conn.Read(p) // it never arrived
	}
	return n, err
}

// TestAConnectionThatIsDeadIsNotUsedForEver: HTTP/2 took it for the next request, and for
// the one after.
func TestAConnectionThatIsDeadIsNotUsedForEver(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, answer("keys"))
	f := newFetcher(t, Options{Egress: loopback, Timeout: 2 * time.Second})
	dial, dialled, gone := f.connect, 0, &atomic.Bool{}
	f.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if dialled++; dialled == 1 && err == nil {
			c = &silent{c, gone}
		}
		return c, err
	}
	r := Request{URL: target, CABundle: roots}
	_, err := f.Fetch(context.Background(), r)
	g.Expect(err).NotTo(HaveOccurred())
	gone.Store(true)
	_, _ = f.Fetch(context.Background(), r) // whether this one is saved depends on when the end is noticed
	_, err = f.Fetch(context.Background(), r)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(dialled).To(BeNumerically(">", 1))
}
