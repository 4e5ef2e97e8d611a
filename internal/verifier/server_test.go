// server_test.go runs the server with real listeners, certificates and clients.

package verifier

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{}
	a.certificate, a.key = signed(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	return a
}

// signed makes a key and a certificate for it; without an authority it signs
// itself.
func signed(t testing.TB, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	g.Expect(err).NotTo(HaveOccurred())
	certificate, err := x509.ParseCertificate(der)
	g.Expect(err).NotTo(HaveOccurred())
	return certificate, key
}

// serving is a certificate for 127.0.0.1.
func (a *authority) serving(t testing.TB) tls.Certificate { return a.issue(t, servingTemplate()) }

func servingTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "verifier"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// client is a certificate of a client.
func (a *authority) client(t testing.TB) tls.Certificate {
	return a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	certificate, key := signed(t, template, a)
	return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate}
}

func (a *authority) pem() []byte { return certificatePEM(a.certificate.Raw) }

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(t testing.TB, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func write(t testing.TB, file string, content []byte) {
	t.Helper()
	NewWithT(t).Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
}

// running is a started server with its files.
type running struct {
	*Server
	options  ServerOptions
	servers  *authority
	clients  *authority
	stop     func()
	finished <-chan error
}

// filesIn writes a certificate, its key and a client authority.
func filesIn(t testing.TB, directory string) (o ServerOptions, servers, clients *authority) {
	t.Helper()
	servers, clients = newAuthority(t, "servers"), newAuthority(t, "clients")
	o = ServerOptions{
		Address: "127.0.0.1:0", HTTPAddress: "127.0.0.1:0",
		CertFile: filepath.Join(directory, "tls.crt"), KeyFile: filepath.Join(directory, "tls.key"), ClientCAFile: filepath.Join(directory, "ca.crt"),
	}
	certificate := servers.serving(t)
	write(t, o.CertFile, certificatePEM(certificate.Certificate[0]))
	write(t, o.KeyFile, keyPEM(t, certificate))
	write(t, o.ClientCAFile, clients.pem())
	return o, servers, clients
}

// run starts a server on free ports.
func run(t *testing.T, store *Store, change ...func(*Server)) *running {
	t.Helper()
	g := NewWithT(t)
	o, servers, clients := filesIn(t, t.TempDir())
	server, err := NewServer(o, store, logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	server.drain = 10 * time.Millisecond // who is still there, is the test itself
	for _, c := range change {
		c(server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		finished <- server.Start(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	g.Eventually(server.Addr, 10*time.Second).ShouldNot(BeEmpty())
	g.Eventually(server.HTTPAddr, 10*time.Second).ShouldNot(BeEmpty())
	return &running{Server: server, options: o, servers: servers, clients: clients, stop: cancel, finished: finished}
}

func (r *running) clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(r.servers.certificate)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// client trusts the server's authority; certificates are those of the client.
func (r *running) client(certificates ...tls.Certificate) *http.Client {
	config := r.clientTLS()
	config.Certificates, config.ClientSessionCache = certificates, tls.NewLRUClientSessionCache(8)
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// reviewStatus asks for a review and returns the HTTP status.
func (r *running) reviewStatus(client *http.Client) (int, error) {
	response, err := client.Post("https://"+r.Addr()+tokenReviewPath, "application/json", bytes.NewReader(reviewBody(v1, ec("a").Sign(claims(nil)))))
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
	return response.StatusCode, response.Body.Close()
}

func TestServerOverTLS(t *testing.T) {
	r := run(t, ordersStore(t))
	good := r.clients.client(t)
	foreign := newAuthority(t, "foreign").client(t)
	notForClients := r.clients.serving(t)

	t.Run("TokenReview needs the API server's certificate", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(r.reviewStatus(r.client(good))).To(Equal(http.StatusOK))
		g.Expect(r.reviewStatus(r.client())).To(Equal(http.StatusForbidden))
		for _, bad := range []tls.Certificate{foreign, notForClients} {
			client := r.client()
			transport, ok := client.Transport.(*http.Transport)
			g.Expect(ok).To(BeTrue())
			transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &bad, nil }
			_, err := r.reviewStatus(client)
			g.Expect(err).To(HaveOccurred(), "the handshake fails")
		}
	})
	t.Run("forward-auth needs none", func(t *testing.T) {
		g := NewWithT(t)
		request := authorized("https://"+r.Addr()+clusterPath, ec("a").Sign(claims(nil)))
		request.RequestURI = ""
		response, err := r.client().Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(response.Body.Close()).To(Succeed())
		g.Expect(response.StatusCode).To(Equal(http.StatusOK))
		g.Expect(response.ProtoMajor).To(Equal(1), "HTTP/2 costs twice the CPU")
	})
	t.Run("not below TLS 1.2", func(t *testing.T) {
		_, err := tls.Dial("tcp", r.Addr(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		NewWithT(t).Expect(err).To(HaveOccurred())
	})
	t.Run("no session is resumed", func(t *testing.T) {
		g := NewWithT(t)
		client := r.client(good)
		for range 2 {
			response, err := client.Get("https://" + r.Addr() + clusterPath)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(response.Body.Close()).To(Succeed())
			g.Expect(response.TLS.DidResume).To(BeFalse())
		}
	})
}

func TestServerPlainHTTPHasForwardAuthAlone(t *testing.T) {
	g := NewWithT(t)
	r := run(t, ordersStore(t))
	g.Expect(ask(t, "GET", "http://"+r.HTTPAddr()+clusterPath, "Bearer "+ec("a").Sign(claims(nil))).StatusCode).To(Equal(http.StatusOK))
	response, _ := post(t, "http://"+r.HTTPAddr()+tokenReviewPath, "application/json", bytes.NewReader(reviewBody(v1, "x")))
	g.Expect(response.StatusCode).To(Equal(http.StatusNotFound))
}

func TestServerWithoutClientCAHasNoTokenReview(t *testing.T) {
	g := NewWithT(t)
	o, _, _ := filesIn(t, t.TempDir())
	o.ClientCAFile = ""
	server, err := NewServer(o, ordersStore(t), logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	w := httptest.NewRecorder()
	verified(server.Handler()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, tokenReviewPath, strings.NewReader("{}")))
	g.Expect(w.Code).To(Equal(http.StatusNotFound))
	g.Expect(server.tls.current.Load().ClientAuth).To(Equal(tls.NoClientCert), "and asks no client for a certificate")
}

func TestServerOptions(t *testing.T) {
	directory := t.TempDir()
	good, _, _ := filesIn(t, directory)
	empty := filepath.Join(directory, "empty")
	write(t, empty, nil)
	for name, change := range map[string]func(*ServerOptions){
		"a certificate without its key":        func(o *ServerOptions) { o.KeyFile = "" },
		"a key without its certificate":        func(o *ServerOptions) { o.CertFile = "" },
		"TokenReview without HTTPS":            func(o *ServerOptions) { o.CertFile, o.KeyFile = "", "" },
		"a certificate that is not there":      func(o *ServerOptions) { o.CertFile = filepath.Join(directory, "none") },
		"a certificate that is none":           func(o *ServerOptions) { o.CertFile = empty },
		"a client authority that is not there": func(o *ServerOptions) { o.ClientCAFile = filepath.Join(directory, "none") },
		"a client authority that is none":      func(o *ServerOptions) { o.ClientCAFile = empty },
		"a negative limit":                     func(o *ServerOptions) { o.MaxInFlight = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			_, err := NewServer(o, newStore(), logr.Discard())
			NewWithT(t).Expect(err).To(HaveOccurred())
		})
	}
}

func TestServerAddressInUse(t *testing.T) {
	g := NewWithT(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = taken.Close() }()
	o, _, _ := filesIn(t, t.TempDir())
	o.HTTPAddress = taken.Addr().String()
	server, err := NewServer(o, newStore(), logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(server.Start(t.Context())).To(MatchError(ContainSubstring("opening the verifier's listener")))
	_, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Addr())
	g.Expect(err).To(HaveOccurred(), "the other listener has been closed again")
}

// peer is the serial number of the certificate that the server shows.
func (r *running) peer() (string, error) {
	connection, err := tls.Dial("tcp", r.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

func TestServerReadsItsCertificateAgain(t *testing.T) {
	g := NewWithT(t)
	r := run(t, newStore())
	before, err := r.peer()
	g.Expect(err).NotTo(HaveOccurred())

	next := r.servers.serving(t)
	write(t, r.options.CertFile, certificatePEM(next.Certificate[0]))
	g.Expect(r.certificate.ReadCertificate()).NotTo(Succeed(), "the new certificate with the old key is no pair")
	g.Expect(r.peer()).To(Equal(before), "the last good pair goes on")
	write(t, r.options.KeyFile, keyPEM(t, next)[:40])
	g.Expect(r.certificate.ReadCertificate()).NotTo(Succeed(), "half of the key has been written")
	g.Expect(r.peer()).To(Equal(before))
	write(t, r.options.KeyFile, keyPEM(t, next))
	g.Eventually(r.peer, 15*time.Second).Should(Equal(next.Leaf.SerialNumber.String()))
}

// Issue by mistake, a restored backup, a clock: a pair that no client would take does
// not replace one that they do.
func TestServerKeepsAGoodCertificateWhenTheNextHasExpired(t *testing.T) {
	g := NewWithT(t)
	r := run(t, newStore())
	before, err := r.peer()
	g.Expect(err).NotTo(HaveOccurred())
	replace := func(from, to time.Duration) string {
		template := servingTemplate()
		template.NotBefore, template.NotAfter = time.Now().Add(from), time.Now().Add(to)
		next := r.servers.issue(t, template)
		write(t, r.options.KeyFile, keyPEM(t, next))
		write(t, r.options.CertFile, certificatePEM(next.Certificate[0]))
		g.Expect(r.certificate.ReadCertificate()).To(Succeed())
		return next.Leaf.SerialNumber.String()
	}
	replace(-2*time.Hour, -time.Hour)
	g.Expect(r.peer()).To(Equal(before), "the next one has expired")
	replace(time.Hour, 2*time.Hour)
	g.Expect(r.peer()).To(Equal(before), "the next one is not good yet")
	good := replace(-time.Minute, time.Hour)
	g.Expect(r.peer()).To(Equal(good))
	replace(-2*time.Hour, -time.Hour)
	g.Expect(r.peer()).To(Equal(good), "the last good one, not the first")
}

// TestTheCertificateIsMeasured: it is that which clients are shown, and it follows.
func TestTheCertificateIsMeasured(t *testing.T) {
	g := NewWithT(t)
	directory := t.TempDir()
	options, servers, _ := filesIn(t, directory)
	server, err := NewServer(options, newStore(), logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(testutil.CollectAndCount(certificateCollector{})).To(BeZero(), "nobody is shown one")

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Start(ctx) }()
	g.Eventually(server.Addr).ShouldNot(BeEmpty())
	measures := func(c *x509.Certificate) {
		t.Helper()
		g.Expect(testutil.CollectAndCompare(certificateCollector{}, strings.NewReader(fmt.Sprintf(`
# HELP jwks_trust_serving_certificate_expiry_timestamp_seconds When the certificate that the verifier shows expires, in Unix time. Absent without HTTPS.
# TYPE jwks_trust_serving_certificate_expiry_timestamp_seconds gauge
jwks_trust_serving_certificate_expiry_timestamp_seconds %d
# HELP jwks_trust_serving_certificate_not_before_timestamp_seconds When the certificate that the verifier shows became valid, in Unix time. Absent without HTTPS.
# TYPE jwks_trust_serving_certificate_not_before_timestamp_seconds gauge
jwks_trust_serving_certificate_not_before_timestamp_seconds %d
`, c.NotAfter.Unix(), c.NotBefore.Unix())))).To(Succeed())
	}
	first, err := server.certificate.GetCertificate(nil)
	g.Expect(err).NotTo(HaveOccurred())
	measures(first.Leaf)

	template := servingTemplate()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(24*time.Hour)
	next := servers.issue(t, template)
	write(t, options.CertFile, certificatePEM(next.Certificate[0]))
	write(t, options.KeyFile, keyPEM(t, next))
	g.Expect(server.certificate.ReadCertificate()).To(Succeed())
	measures(next.Leaf)

	cancel()
	g.Eventually(ended).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
	g.Eventually(func() int { return testutil.CollectAndCount(certificateCollector{}) }).Should(BeZero())
}

func TestServerReadsTheClientAuthorityAgain(t *testing.T) {
	g := NewWithT(t)
	r := run(t, ordersStore(t), func(s *Server) { s.tls.interval = 10 * time.Millisecond })
	old, renewed := r.clients, newAuthority(t, "renewed clients")
	g.Expect(r.reviewStatus(r.client(old.client(t)))).To(Equal(http.StatusOK))
	client := r.client(renewed.client(t))
	write(t, r.options.ClientCAFile, renewed.pem())
	g.Eventually(func() (int, error) { return r.reviewStatus(client) }, 10*time.Second).Should(Equal(http.StatusOK))
	status, err := r.reviewStatus(r.client(old.client(t)))
	if err == nil {
		g.Expect(status).To(Equal(http.StatusForbidden), "the old authority no longer counts")
	}
}

func TestClientAuthorityKeepsTheLastGoodOne(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	both := append(one.pem(), two.pem()...)
	write(t, file, one.pem())
	c, err := newTLSConfig(nil, file, logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	good := c.current.Load()

	broken := certificatePEM([]byte("not DER"))
	for name, content := range map[string][]byte{
		"empty":             nil,
		"no PEM":            []byte("hello"),
		"cut in the first":  one.pem()[:100],
		"cut in the second": both[:len(both)-50],
		"a broken one":      append(one.pem(), broken...),
		"a key":             append(one.pem(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})...),
	} {
		write(t, file, content)
		_, err := c.reload()
		g.Expect(err).To(HaveOccurred(), name)
		g.Expect(err.Error()).NotTo(ContainSubstring("BEGIN"), name)
		g.Expect(c.current.Load()).To(BeIdenticalTo(good), name)
	}
	g.Expect(os.Remove(file)).To(Succeed())
	_, err = c.reload()
	g.Expect(err).To(HaveOccurred())

	write(t, file, one.pem())
	g.Expect(c.reload()).To(BeFalse(), "nothing has changed")
	g.Expect(c.current.Load()).To(BeIdenticalTo(good))
	write(t, file, both)
	g.Expect(c.reload()).To(BeTrue())
	g.Expect(c.current.Load()).NotTo(BeIdenticalTo(good))
}

// TestAReplicaThatEndsTakesNewConnectionsForAsLongAsItSaid: it closed its listener as soon
// as no connection was open, and reset the one that came in that moment.
func TestAReplicaThatEndsTakesNewConnectionsForAsLongAsItSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const grace = 3 * time.Second
		begun, over := time.Now(), make(chan time.Duration, 1)
		go func() {
			new(drain).wait(grace)
			over <- time.Since(begun)
		}()
		synctest.Wait()
		if got := <-over; got != grace {
			t.Errorf("the listener is closed after %s, though nobody is known to have gone", got)
		}
	})
}

func TestServerShutsDownGracefully(t *testing.T) {
	g := NewWithT(t)
	entered, finish := make(chan struct{}), make(chan struct{})
	r := run(t, newStore(), func(s *Server) {
		s.drain = 50 * time.Millisecond
		s.forwardAuth.issuers = fakeIssuers{true, func() (*Issuer, bool) {
			close(entered)
			<-finish
			return nil, false
		}}
	})
	type outcome struct {
		status int
		err    error
	}
	answered := make(chan outcome, 1)
	go func() {
		request := authorized("https://"+r.Addr()+clusterPath, "x")
		request.RequestURI = ""
		response, err := r.client().Do(request)
		if err != nil {
			answered <- outcome{0, err}
			return
		}
		answered <- outcome{response.StatusCode, response.Body.Close()}
	}()
	<-entered
	r.stop()
	g.Eventually(func() error {
		connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addr())
		if err == nil {
			_ = connection.Close()
		}
		return err
	}, 10*time.Second).Should(HaveOccurred(), "no new connections")
	g.Expect(r.finished).NotTo(Receive(), "it waits for the request that is running")
	close(finish)
	g.Expect(<-answered).To(Equal(outcome{status: http.StatusServiceUnavailable}), "THREATS 64: no request is dropped")
	g.Eventually(r.finished, 10*time.Second).Should(Receive(BeNil()))
}

func TestServerLimits(t *testing.T) {
	g := NewWithT(t)
	r := run(t, ordersStore(t))
	h := r.httpServer(nil)
	for name, limit := range map[string]time.Duration{
		"ReadHeaderTimeout": h.ReadHeaderTimeout, "ReadTimeout": h.ReadTimeout, "WriteTimeout": h.WriteTimeout, "IdleTimeout": h.IdleTimeout,
	} {
		g.Expect(limit).To(BeNumerically(">", 0), name)
	}
	g.Expect(h.WriteTimeout).To(BeNumerically(">", tokenReviewDeadline), "an answer at the deadline can still be written")

	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.HTTPAddr())
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = connection.Close() }()
	go func() {
		_, _ = fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", clusterPath, strings.Repeat("x", 64<<10))
	}()
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(response.StatusCode).To(Equal(http.StatusRequestHeaderFieldsTooLarge))

	largest := ec("a").Sign(claims(map[string]any{"pad": strings.Repeat("x", 11<<10)}))
	g.Expect(len(largest)).To(BeNumerically(">", 14<<10))
	g.Expect(ask(t, "GET", "http://"+r.HTTPAddr()+clusterPath, "Bearer "+largest).StatusCode).To(Equal(http.StatusOK), "a large token fits")
}

// A panic outside of a verification is contained as well, and a body that never
// arrives holds its place only for as long as the deadline.
func TestServerContainsPanicsOfHandlers(t *testing.T) {
	g := NewWithT(t)
	server, err := NewServer(ServerOptions{}, newStore(), logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	url := serve(t, server.safely(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(errors.New("x")) })))
	r := ask(t, "GET", url)
	g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable), "THREATS 60")
}

func TestTokenReviewBodyThatNeverArrives(t *testing.T) {
	g := NewWithT(t)
	h := newTokenReview(ordersStore(t))
	url := asAPIServer(t, h)
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(strings.TrimSuffix(url, tokenReviewPath), "http://"))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = connection.Close() }()
	began := time.Now()
	_, err = io.WriteString(connection, "POST "+tokenReviewPath+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
	g.Expect(err).NotTo(HaveOccurred())
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(response.StatusCode).To(Equal(http.StatusBadRequest))
	g.Expect(time.Since(began)).To(BeNumerically("<", 8*time.Second), "THREATS 61: the deadline covers the reading")
	g.Eventually(func() int64 { return h.gate.used.Load() }, 5*time.Second).Should(BeZero())
}

func TestQuotedValuesForTheLog(t *testing.T) {
	g := NewWithT(t)
	g.Expect(quoted("a\n\u202eb")).To(Equal(`"a\n\u202eb"`))
	g.Expect(quoted(strings.Repeat("x", 1000))).To(Equal(`"` + strings.Repeat("x", maxLogged) + `"`))
}

// errGone is what a client gets that looks for the server when its address is no longer
// given out.
var errGone = errors.New("the server is no longer to be found")

// THREATS 64: clients with connections that stay open go on asking while the server
// ends. Whoever has sent a question gets an answer; the next one goes elsewhere.
func TestServerDropsNothingUnderLoad(t *testing.T) {
	g := NewWithT(t)
	r := run(t, ordersStore(t), withExtAuthz, func(s *Server) { s.drain = drainTimeout })
	var gone atomic.Bool
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		if gone.Load() {
			return nil, errGone
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	certificate := r.clients.client(t)
	var answered [3]atomic.Int64
	var clients errgroup.Group
	for i := range 18 {
		ask := []func() error{r.reviewer(dial, certificate), r.forwarder(dial), r.checker(t, dial)}[i%3]
		clients.Go(func() error {
			for n := 0; ; n++ {
				switch err := ask(); {
				case err != nil && strings.Contains(err.Error(), errGone.Error()): // gRPC makes a text of it
					return nil
				case err != nil:
					return fmt.Errorf("after %d requests: %w", n, err)
				}
				answered[i%3].Add(1)
			}
		})
	}
	for i := range answered {
		g.Eventually(answered[i].Load, 20*time.Second).Should(BeNumerically(">", 200))
	}
	gone.Store(true)
	r.stop()
	g.Expect(clients.Wait()).To(Succeed())
	g.Eventually(r.finished, 10*time.Second).Should(Receive(BeNil()))
}

type dialer func(ctx context.Context, address string) (net.Conn, error)

// keeping is a client that keeps its connection open.
func (r *running) keeping(dial dialer, certificates ...tls.Certificate) *http.Client {
	config := r.clientTLS()
	config.Certificates = certificates
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: config,
		DialContext:     func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
	}}
}

// reviewer asks for reviews, as the API server does.
func (r *running) reviewer(dial dialer, certificate tls.Certificate) func() error {
	client := r.keeping(dial, certificate)
	return func() error {
		status, err := r.reviewStatus(client)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("a review was answered with %d", status)
		}
		return err
	}
}

// forwarder asks as a proxy does.
func (r *running) forwarder(dial dialer) func() error {
	client := r.keeping(dial)
	return func() error {
		request := authorized("https://"+r.Addr()+clusterPath, ec("a").Sign(claims(nil)))
		request.RequestURI = ""
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("a proxy was answered with %d", response.StatusCode)
		}
		return response.Body.Close()
	}
}

// checker asks as Envoy does.
func (r *running) checker(t *testing.T, dial dialer) func() error {
	client := authv3.NewAuthorizationClient(r.dialGRPC(t, grpc.WithContextDialer(dial)))
	return func() error {
		request := checkRequest("cluster/main", map[string]string{"authorization": "Bearer " + ec("a").Sign(claims(nil))})
		answer, err := client.Check(context.Background(), request)
		if err == nil && answer.GetOkResponse() == nil {
			err = fmt.Errorf("Envoy was answered with %v", answer)
		}
		return err
	}
}
