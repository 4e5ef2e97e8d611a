// verifier_test.go sends good tokens to two replicas of the verifier while
// everything around them breaks. Each of them is accepted.

package faults

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// service is a controller and replicas of the verifier, apart from each other.
type service struct {
	*WithT
	w          *world
	via        *rest.Config // what controller and replicas use
	issuer     *testissuer.Issuer
	object     *api.TrustedIssuer
	controller *instance
	replicas   []*instance
	addresses  []string
	authority  *harness.Authority
	cert, key  string // files
	asked      int
	// away are the addresses of replicas that a Service would have taken out.
	away sync.Map
}

// path is where forward-auth judges tokens of the service's issuer.
const path = "/forward-auth/ns/default/auth"

func newService(t *testing.T, w *world, via *rest.Config, replicas int) *service {
	t.Helper()
	g := NewWithT(t)
	s := &service{WithT: g, w: w, via: via, issuer: newIssuer(g, key1())}
	t.Cleanup(s.issuer.Close)
	var err error
	s.authority, err = harness.NewAuthority("test")
	g.Expect(err).NotTo(HaveOccurred())
	dir := t.TempDir()
	s.cert, s.key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	s.certify()
	s.controller = w.launch(g, via, "controller", "--components=controller")
	t.Cleanup(func() { s.controller.end() })
	s.controller.ready(g)
	for range replicas {
		s.replica(t).ready(g)
	}
	s.object = &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "auth"}}
	s.object.Spec.IssuerSpec = specFor(s.issuer)
	g.Expect(w.api.Create(context.Background(), s.object)).To(Succeed())
	for _, a := range s.addresses {
		s.accepts(a)
	}
	return s
}

// replica starts one more verifier, and does not wait.
func (s *service) replica(t *testing.T) *instance {
	address, err := harness.FreeAddress()
	s.Expect(err).NotTo(HaveOccurred())
	r := s.w.launch(s, s.via, "verifier", "--components=verifier", "--verifier-bind-address", address,
		"--tls-cert-file", s.cert, "--tls-private-key-file", s.key)
	t.Cleanup(func() { r.end() })
	s.replicas, s.addresses = append(s.replicas, r), append(s.addresses, address)
	return r
}

// certify gives the replicas a new certificate, and returns its serial number.
func (s *service) certify() {
	cert, key, err := s.authority.Issue("verifier")
	s.Expect(err).NotTo(HaveOccurred())
	s.write(s.cert, cert)
	s.write(s.key, key)
}

func (s *service) write(file string, content []byte) {
	s.Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
}

func (s *service) client(keepAlive bool) *http.Client {
	return httpsClient(&tls.Config{RootCAs: s.authority.Pool(), MinVersion: tls.VersionTLS12}, keepAlive)
}

// answer is what a replica says to a good token on a new connection.
func (s *service) answer(address string) (int, error) {
	return ask(s.client(false), address, path, tokens(s.issuer, key1())(0))
}

func (s *service) accepts(address string) {
	s.Eventually(func() (int, error) { return s.answer(address) }).WithTimeout(mended).WithPolling(20 * time.Millisecond).Should(Equal(http.StatusOK))
}

// tried waits for a fetch that ends like this.
func (s *service) tried(reason string) {
	s.asked++
	request := fmt.Sprint(s.asked)
	fresh := &api.TrustedIssuer{}
	s.Expect(s.w.api.Get(context.Background(), client.ObjectKeyFromObject(s.object), fresh)).To(Succeed())
	base := fresh.DeepCopy()
	metav1.SetMetaDataAnnotation(&fresh.ObjectMeta, api.AnnotationRefresh, request)
	s.Expect(s.w.api.Patch(context.Background(), fresh, client.MergeFrom(base))).To(Succeed())
	s.Eventually(func() *api.HandledRefresh {
		s.Expect(s.w.api.Get(context.Background(), client.ObjectKeyFromObject(s.object), fresh)).To(Succeed())
		return fresh.Status.HandledRefresh
	}).WithTimeout(mended).Should(HaveValue(And(HaveField("Request", request), HaveField("Outcome", reason))))
}

// steadily runs something under load: every token is accepted, before, during and
// after.
func (s *service) steadily(fault string, do func(*load)) {
	out := func(address string) bool { _, away := s.away.Load(address); return away }
	l := (&load{client: s.client(true), addresses: s.addresses, out: out, path: path, token: tokens(s.issuer, key1())}).start(4)
	fresh := (&load{client: s.client(false), addresses: s.addresses, out: out, path: path, token: tokens(s.issuer, key1())}).start(1)
	defer l.stop()
	defer fresh.stop()
	l.goesOn(s, enough)
	do(l)
	l.goesOn(s, enough)
	kept, anew := l.end(), fresh.end()
	s.Expect(kept).To(HaveLen(1), "%s: %v", fault, kept)
	s.Expect(anew).To(HaveLen(1), "%s: %v", fault, anew)
	s.Expect(kept).To(HaveKey("200"))
	s.Expect(anew).To(HaveKey("200"))
	figures.add(fault, "good tokens are accepted", "%d of %d, and %d of %d on new connections", kept["200"], l.sent.Load(), anew["200"], fresh.sent.Load())
}

// enough tokens to say that they are accepted.
const enough = 100

func TestVerifierUnderFault(t *testing.T) {
	needsControlPlane(t)
	w := ownWorld(t, nil)
	s := newService(t, w, w.config, 2)
	part := func(name string, do func()) {
		t.Run(name, func(t *testing.T) {
			s.WithT = NewWithT(t) // so that a failure ends this part, and the test cleans up
			do()
		})
	}

	part("issuer down", func() {
		s.steadily("issuer down", func(l *load) {
			s.issuer.Stop()
			s.tried(api.ReasonConnectionFailed)
			l.goesOn(s, enough)
			s.Expect(s.issuer.Restart()).To(Succeed())
			s.tried(api.ReasonSucceeded)
		})
	})
	part("controller killed", func() {
		s.steadily("controller killed", func(l *load) {
			s.controller.Kill()
			l.goesOn(s, 3*enough)
			s.controller.start(s)
			s.controller.ready(s)
			s.tried(api.ReasonSucceeded)
		})
	})
	part("API server and etcd killed", func() {
		var late *instance
		s.steadily("API server and etcd killed", func(l *load) {
			server := s.w.killed(s, "kube-apiserver")
			etcd := s.w.killed(s, "etcd")
			l.goesOn(s, enough)
			late = s.lateReplica(t)
			l.goesOn(s, enough)
			etcd(s)
			server(s)
			s.Eventually(s.w.healthy).WithTimeout(time.Minute).WithPolling(200 * time.Millisecond).Should(Succeed())
		})
		late.ready(s)
		s.accepts(s.addresses[len(s.addresses)-1])
		s.tried(api.ReasonSucceeded)
	})
	part("rolling restart", func() {
		s.steadily("rolling restart (SIGTERM under load)", func(l *load) {
			for i, r := range s.replicas {
				s.away.Store(s.addresses[i], true) // the Service lets it go as it is told to end, and takes it back once it is ready
				s.Expect(r.Terminate()).To(Succeed())
				s.Eventually(r.Exited()).WithTimeout(mended).Should(BeClosed())
				r.start(s)
				r.ready(s)
				s.away.Delete(s.addresses[i])
				s.accepts(s.addresses[i])
				l.goesOn(s, enough)
			}
		})
	})
	part("certificate half-written, then rotated", func() {
		s.steadily("certificate half-written, then rotated", s.rotateCertificate)
	})
	part("certificate replaced by an expired one", func() {
		s.steadily("certificate replaced by an expired one, then by a good one", s.expireCertificate)
	})
	part("an hour of outage", func() {
		s.steadily("an hour without the issuer (the clock set forward)", func(l *load) {
			s.issuer.Stop()
			s.clockJumped(l, time.Hour)
			s.tried(api.ReasonConnectionFailed)
			l.goesOn(s, enough)
			s.Expect(s.issuer.Restart()).To(Succeed())
			s.tried(api.ReasonSucceeded)
		})
	})
	part("the clock set back", func() {
		s.steadily("the clock set back an hour", func(l *load) {
			s.clockJumped(l, -time.Hour)
			s.Eventually(func() time.Time { return s.w.read(s, s.object).Status.Snapshot.LastSuccessTime.Time }).
				WithTimeout(mended).Should(BeTemporally("~", time.Now(), mended), "it has asked again, and what was ahead is brought back")
			l.goesOn(s, enough)
		})
	})
	part("hung requests and a flood of bad tokens", func() {
		s.steadily("60 hung requests and a flood of bad tokens", s.flood)
	})
}

// lateReplica starts a replica while the API server is down: it is not ready, and to
// good tokens it says that it cannot decide, never that they are bad.
func (s *service) lateReplica(t *testing.T) *instance {
	late, addresses := s.replica(t), s.addresses
	s.addresses = addresses[:len(addresses)-1]
	defer func() { s.addresses = addresses }()
	said := map[int]int{}
	s.Eventually(func() map[int]int {
		s.Expect(late.Ended()).To(BeFalse(), "it waits for the API server")
		s.Expect(late.Ready()).To(BeFalse())
		if status, err := s.answer(addresses[len(addresses)-1]); err == nil {
			said[status]++
		}
		return said
	}).WithTimeout(mended).Should(HaveKeyWithValue(http.StatusServiceUnavailable, BeNumerically(">=", 10)))
	s.Expect(said).To(HaveLen(1), "503, and nothing else: %v", said)
	figures.add("replica started while the API server is down", "503, not ready; never 401", "503 to %d of %d", said[http.StatusServiceUnavailable], said[http.StatusServiceUnavailable])
	return late
}

// rotateCertificate writes the new pair as badly as it can be done.
func (s *service) rotateCertificate(l *load) {
	cert, key, err := s.authority.Issue("verifier-2")
	s.Expect(err).NotTo(HaveOccurred())
	s.write(s.cert, cert[:len(cert)/2])
	l.goesOn(s, enough)
	s.write(s.cert, cert) // the old key does not fit
	l.goesOn(s, enough)
	s.write(s.key, nil)
	l.goesOn(s, enough)
	s.write(s.key, key)
	for _, address := range s.addresses {
		s.Eventually(func() (string, error) { return served(address, s.authority) }).WithTimeout(mended).Should(Equal("verifier-2"))
	}
}

// expireCertificate writes a pair that no client would take.
func (s *service) expireCertificate(l *load) {
	cert, key, err := s.authority.Issue("verifier-expired", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	s.Expect(err).NotTo(HaveOccurred())
	s.write(s.key, key)
	s.write(s.cert, cert)
	for _, r := range s.replicas {
		s.Eventually(func() (string, error) {
			log, err := os.ReadFile(r.LogPath)
			return string(log), err
		}).WithTimeout(mended).Should(ContainSubstring("The serving certificate is not good at this time"), "it has been read")
	}
	l.goesOn(s, enough)
	cert, key, err = s.authority.Issue("verifier-3")
	s.Expect(err).NotTo(HaveOccurred())
	s.write(s.key, key)
	s.write(s.cert, cert)
	for _, address := range s.addresses {
		s.Eventually(func() (string, error) { return served(address, s.authority) }).WithTimeout(mended).Should(Equal("verifier-3"))
	}
}

// clockJumped has the manager start on a clock that was put forward, or back where the
// time is negative: it finds in status times that are as much further away. The clock
// of this machine stays as it is.
func (s *service) clockJumped(l *load, by time.Duration) {
	s.controller.Kill()
	s.w.read(s, s.object)
	base, status := s.object.DeepCopy(), &s.object.Status
	for _, t := range []*metav1.Time{status.Snapshot.LastSuccessTime, status.NextRefreshTime, status.Snapshot.FreshUntil, status.Snapshot.ExpiresAt, &status.LastAttempt.Time} {
		if t != nil {
			t.Time = t.Add(-by)
		}
	}
	if h := status.HandledRefresh; h != nil {
		h.StartTime.Time = h.StartTime.Add(-by)
	}
	for i := range status.Keys {
		k := &status.Keys[i]
		k.FirstSeenTime.Time, k.LastSeenTime.Time = k.FirstSeenTime.Add(-by), k.LastSeenTime.Add(-by)
	}
	s.Expect(s.w.api.Status().Patch(context.Background(), s.object, client.MergeFrom(base))).To(Succeed())
	l.goesOn(s, enough)
	s.controller.start(s)
	s.controller.ready(s)
	l.goesOn(s, enough)
}

// served is the name in the certificate that a server shows.
func served(address string, ca *harness.Authority) (string, error) {
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12})
	if err != nil {
		return "", err
	}
	name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	return name, conn.Close()
}

// flood leaves requests half-sent, and sends tokens of every bad kind.
func (s *service) flood(l *load) {
	before := l.median()
	for i := range 60 {
		conn, err := tls.Dial("tcp", s.addresses[i%len(s.addresses)], &tls.Config{RootCAs: s.authority.Pool(), MinVersion: tls.VersionTLS12})
		s.Expect(err).NotTo(HaveOccurred())
		defer func(c net.Conn) { _ = c.Close() }(conn)
		_, err = conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: verifier\r\nAuthorization: Bearer "))
		s.Expect(err).NotTo(HaveOccurred())
	}
	bad := (&load{client: s.client(true), addresses: s.addresses, path: path, token: s.badToken}).start(16)
	l.goesOn(s, 5*enough)
	refused := bad.end()
	s.Expect(refused).To(HaveLen(1), "%v", refused)
	s.Expect(refused).To(HaveKey("401"))
	during := l.median()
	figures.add("60 hung requests and a flood of bad tokens", "bad tokens are refused; good ones go on (latency for reading)",
		"%d refused; median %s, before %s", refused["401"], during.Round(10*time.Microsecond), before.Round(10*time.Microsecond))
}

// badToken is one that nobody signed, in several ways.
func (s *service) badToken(n int64) string {
	good := tokens(s.issuer, key1())(n)
	switch n % 4 {
	case 0: // another's signature
		return tokens(s.issuer, testissuer.NewKey("k1", "ES256"))(n)
	case 1: // a kid that nobody has
		return tokens(s.issuer, testissuer.NewKey(fmt.Sprintf("none-%d", n), "ES256"))(n)
	case 2: // no signature
		return good[:strings.LastIndexByte(good, '.')+1]
	default:
		return base64.RawURLEncoding.EncodeToString([]byte(good))
	}
}
