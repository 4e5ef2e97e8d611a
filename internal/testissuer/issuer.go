// issuer.go is the server.

package testissuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Issuer is an HTTPS server on loopback with a CA of its own. It is safe for
// concurrent use.
type Issuer struct {
	address     string // does not change once started
	names       []string
	certificate tls.Certificate
	ca          string

	mu       sync.Mutex
	server   *http.Server  // nil while stopped
	served   chan struct{} // closed when server has ended
	keys     []map[string]any
	headers  http.Header
	respond  http.HandlerFunc
	requests int
	path     string
	metadata http.HandlerFunc
	asked    int
}

// Option changes how an issuer starts.
type Option func(*Issuer)

// WithAddress makes it listen on an address of this machine's other than a free
// port of 127.0.0.1; its certificate is good for that one too.
func WithAddress(address string) Option {
	return func(i *Issuer) { i.address = address }
}

// WithNames makes the certificate good for these names too.
func WithNames(names ...string) Option {
	return func(i *Issuer) { i.names = names }
}

// Start starts an issuer that publishes no key yet.
func Start(options ...Option) (*Issuer, error) {
	i := &Issuer{address: "127.0.0.1:0", headers: http.Header{}, path: "/jwks.json"}
	for _, o := range options {
		o(i)
	}
	var err error
	if i.certificate, i.ca, err = newCertificate(i.address, i.names); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", i.address)
	if err != nil {
		return nil, err
	}
	i.address = l.Addr().String()
	i.listen(l)
	return i, nil
}

// Restart makes a stopped issuer listen again, on the same port. It is an error
// when the issuer was not stopped, or when another program has taken the port.
func (i *Issuer) Restart() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.server != nil {
		return fmt.Errorf("the issuer at %s was not stopped", i.address)
	}
	l, err := net.Listen("tcp", i.address)
	if err != nil {
		return err
	}
	i.listen(l)
	return nil
}

// listen starts a server. The caller holds mu, or is alone.
func (i *Issuer) listen(l net.Listener) {
	server := &http.Server{
		Handler:           http.HandlerFunc(i.serve),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{i.certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // handshakes that fail are part of tests
	}
	served := make(chan struct{})
	i.server, i.served = server, served
	go func() {
		defer close(served)
		_ = server.ServeTLS(l, "", "") // ends with Stop
	}()
}

// Stop makes the issuer refuse connections, and breaks those that are open. It
// may be called again.
func (i *Issuer) Stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.server == nil {
		return
	}
	_ = i.server.Close() // open connections break, as they would
	<-i.served
	i.server = nil
}

// Close ends the issuer.
func (i *Issuer) Close() { i.Stop() }

// URL is the issuer identifier.
func (i *Issuer) URL() string { return "https://" + i.address }

// JWKSURI is where the keys are.
func (i *Issuer) JWKSURI() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.URL() + i.path
}

// MoveKeys puts the keys at another path, which the metadata then name; nothing
// is left at the old one.
func (i *Issuer) MoveKeys(path string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.path = path
}

// RespondDiscovery scripts the answer to requests for the metadata; nil ends
// that.
func (i *Issuer) RespondDiscovery(h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.metadata = h
}

// DiscoveryRequests is how often the metadata were asked for.
func (i *Issuer) DiscoveryRequests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// CABundle is the PEM certificate of the issuer's CA.
func (i *Issuer) CABundle() string { return i.ca }

// Publish replaces the published keys.
func (i *Issuer) Publish(keys ...*Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = nil
	for _, k := range keys {
		i.keys = append(i.keys, k.JWK())
	}
}

// Respond scripts the answer to requests for the keys; nil ends that.
func (i *Issuer) Respond(h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.respond = h
}

// Header sets a header of normal answers; an empty value takes it back. An ETag
// given here stands in for the right one.
func (i *Issuer) Header(name, value string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if value == "" {
		i.headers.Del(name)
		return
	}
	i.headers.Set(name, value)
}

// Requests is how often the keys were asked for.
func (i *Issuer) Requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	keys := i.path
	i.mu.Unlock()
	switch r.URL.Path {
	case keys:
		i.serveKeys(w, r)
	case "/.well-known/openid-configuration":
		i.serveDiscovery(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.requests++
	respond, headers := i.respond, i.headers.Clone()
	body, err := json.Marshal(map[string]any{"keys": append([]map[string]any{}, i.keys...)})
	i.mu.Unlock()
	if respond != nil {
		respond(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(body)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	for name := range headers {
		w.Header().Set(name, headers.Get(name))
	}
	if matches(r.Header.Values("If-None-Match"), w.Header().Get("ETag")) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_, _ = w.Write(body) // a client that hung up is its own problem
}

// matches is the weak comparison with any of a list (RFC 9110 sections 8.8.3.2
// and 13.1.2).
func matches(lists []string, etag string) bool {
	for _, list := range lists {
		for _, one := range strings.Split(list, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
	}
	return false
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.asked++
	metadata := i.metadata
	i.mu.Unlock()
	if metadata != nil {
		metadata(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL(), "jwks_uri": i.JWKSURI()}) // likewise
}

// newCertificate makes a CA and a certificate for loopback, the address and the names.
func newCertificate(address string, names []string) (tls.Certificate, string, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test issuer CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test issuer"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: append([]string{"localhost"}, names...), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	bundle := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, bundle, nil
}
