// tls.go is the TLS side of the verifier's server: the serving certificate and
// the authority of the client certificates, both replaced while it runs.

package verifier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// clientCAInterval is how often the file with the client authority is looked at,
// as often as the certificate watcher looks at its files.
const clientCAInterval = 10 * time.Second

// certificates picks the certificate to show: the newest that was read, or, where no
// client would take that one at this time, the last one that they take.
type certificates struct {
	newest func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	log    logr.Logger

	good, bad atomic.Pointer[tls.Certificate]
}

// newCertificates takes note of the certificate that there is now.
func newCertificates(newest func(*tls.ClientHelloInfo) (*tls.Certificate, error), log logr.Logger) *certificates {
	c := &certificates{newest: newest, log: log}
	_, _ = c.pick(nil) // a handshake will say what is wrong
	return c
}

// pick is a tls.Config's GetCertificate.
func (c *certificates) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	newest, err := c.newest(hello)
	if err != nil || newest == nil {
		return newest, err
	}
	now := time.Now()
	if goodAt(newest, now) {
		c.good.Store(newest)
		return newest, nil
	}
	if c.bad.Swap(newest) != newest {
		c.log.Error(nil, "The serving certificate is not good at this time; the last good one goes on, while it is",
			"notBefore", newest.Leaf.NotBefore, "notAfter", newest.Leaf.NotAfter)
	}
	if last := c.good.Load(); last != nil && goodAt(last, now) {
		return last, nil
	}
	return newest, nil
}

func goodAt(c *tls.Certificate, now time.Time) bool {
	return !now.Before(c.Leaf.NotBefore) && !now.After(c.Leaf.NotAfter)
}

// shown are the certificates of the server that runs in this process; nil for none.
var shown atomic.Pointer[certificates]

var (
	certificateExpiry = prometheus.NewDesc("jwks_trust_serving_certificate_expiry_timestamp_seconds",
		"When the certificate that the verifier shows expires, in Unix time. Absent without HTTPS.", nil, nil)
	certificateStart = prometheus.NewDesc("jwks_trust_serving_certificate_not_before_timestamp_seconds",
		"When the certificate that the verifier shows became valid, in Unix time. Absent without HTTPS.", nil, nil)
)

// certificateCollector looks, when metrics are asked for, at the certificate that the
// next client would be shown.
type certificateCollector struct{}

// Describe implements prometheus.Collector.
func (certificateCollector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- certificateExpiry
	descriptions <- certificateStart
}

// Collect implements prometheus.Collector.
func (certificateCollector) Collect(to chan<- prometheus.Metric) {
	c := shown.Load()
	if c == nil {
		return
	}
	certificate, err := c.pick(nil)
	if err != nil || certificate == nil || certificate.Leaf == nil {
		return
	}
	to <- prometheus.MustNewConstMetric(certificateExpiry, prometheus.GaugeValue, float64(certificate.Leaf.NotAfter.Unix()))
	to <- prometheus.MustNewConstMetric(certificateStart, prometheus.GaugeValue, float64(certificate.Leaf.NotBefore.Unix()))
}

func init() { metrics.Registry.MustRegister(certificateCollector{}) }

// tlsConfig is the configuration for the next handshake.
type tlsConfig struct {
	certificate  func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	clientCAFile string
	interval     time.Duration
	log          logr.Logger

	read    []byte // what clientCAFile held when it was last good
	current atomic.Pointer[tls.Config]
}

// newTLSConfig reads the client authority, if there is to be one.
func newTLSConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), clientCAFile string, log logr.Logger) (*tlsConfig, error) {
	c := &tlsConfig{certificate: certificate, clientCAFile: clientCAFile, interval: clientCAInterval, log: log}
	c.current.Store(c.with(nil))
	if clientCAFile == "" {
		return c, nil
	}
	if _, err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// with is the configuration for an authority; nil for none. A client without a
// certificate is let in: forward-auth needs none, and TokenReview looks itself.
// No session is resumed, because a resumed one would carry along what an
// authority that is gone has vouched for.
func (c *tlsConfig) with(authority *x509.CertPool) *tls.Config {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		GetCertificate:         c.certificate,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
	if authority != nil {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, authority
	}
	return config
}

// listener is what a TLS listener is made with: it asks for the current
// configuration at each handshake.
func (c *tlsConfig) listener() *tls.Config {
	config := c.with(nil)
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil }
	return config
}

// grpcListener is the same for gRPC, which needs HTTP/2. No client shows a
// certificate there.
func (c *tlsConfig) grpcListener() *tls.Config {
	config := c.with(nil)
	config.NextProtos = []string{"h2"}
	return config
}

// watch reads the client authority again whenever its file has changed. A file
// that cannot be used leaves the last good authority in place.
func (c *tlsConfig) watch(ctx context.Context) error {
	if c.clientCAFile == "" {
		return nil
	}
	ticker := time.NewTicker(c.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			switch changed, err := c.reload(); {
			case err != nil:
				c.log.Error(err, "The client CA file cannot be used; the last good one goes on")
			case changed:
				c.log.Info("The client CA file has been read again")
			}
		}
	}
}

// reload reads the file and reports whether it was put to use.
func (c *tlsConfig) reload() (changed bool, err error) {
	content, err := os.ReadFile(c.clientCAFile)
	if err != nil {
		return false, fmt.Errorf("reading the client CA file: %w", err)
	}
	if c.read != nil && bytes.Equal(content, c.read) {
		return false, nil
	}
	pool, err := parseAuthority(content)
	if err != nil {
		return false, fmt.Errorf("reading the client CA file: %w", err)
	}
	c.read = content
	c.current.Store(c.with(pool))
	return true, nil
}

// parseAuthority reads PEM certificates. Anything that hints at a half-written
// file is an error: a block that does not end, or is no certificate.
func parseAuthority(content []byte) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds a PEM block of type %q", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("it holds a certificate that cannot be read: %w", err)
		}
		pool.AddCert(certificate)
		content, found = rest, true
	}
	switch {
	case bytes.Contains(content, []byte("-----BEGIN")):
		return nil, errors.New("it ends within a certificate")
	case !found:
		return nil, errors.New("it holds no certificate")
	}
	return pool, nil
}
