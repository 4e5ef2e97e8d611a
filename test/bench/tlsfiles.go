package bench

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// certificates are what all servers and clients use.
type certificates struct {
	certFile, keyFile, clientCAFile string

	server, client     tls.Certificate
	servers, clientCAs *x509.CertPool
}

// newCertificates makes them, and the files that our server reads.
func newCertificates(directory string) (*certificates, error) {
	servers, err1 := harness.NewAuthority("servers")
	clients, err2 := harness.NewAuthority("clients")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	serverCert, serverKey, err1 := servers.Issue("verifier")
	clientCert, clientKey, err2 := clients.Issue("kube-apiserver")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	c := &certificates{
		certFile: filepath.Join(directory, "tls.crt"), keyFile: filepath.Join(directory, "tls.key"),
		clientCAFile: filepath.Join(directory, "ca.crt"),
		servers:      servers.Pool(), clientCAs: clients.Pool(),
	}
	c.server, err1 = tls.X509KeyPair(serverCert, serverKey)
	c.client, err2 = tls.X509KeyPair(clientCert, clientKey)
	return c, errors.Join(err1, err2,
		os.WriteFile(c.certFile, serverCert, 0o600),
		os.WriteFile(c.keyFile, serverKey, 0o600),
		os.WriteFile(c.clientCAFile, clients.PEM(), 0o600))
}

// forServer asks for the client's certificate, as our server does: what TLS costs
// is the same for all.
func (c *certificates) forServer() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.server}, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: c.clientCAs,
	}
}

func (c *certificates) forClient() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: c.servers, ServerName: "localhost",
		Certificates: []tls.Certificate{c.client}, NextProtos: []string{"http/1.1"},
	}
}
