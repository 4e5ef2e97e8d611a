// Package harness starts the real parts that tests and the demo run on: etcd
// and kube-apiserver, from the binaries that `make controlplane` builds.
package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// OperatorNamespace is where config/ installs the operator.
const OperatorNamespace = "jwks-trust-system"

// Root is the top folder of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Assets is the folder with etcd, kube-apiserver, kubectl and, for some tests, kube-controller-manager.
func Assets() string {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir
	}
	return filepath.Join(Root(), "bin", "controlplane")
}

// ErrNoAssets means that the control plane has not been built.
var ErrNoAssets = errors.New("no control plane to run on: build it with `make controlplane`, or set KUBEBUILDER_ASSETS")

// NewControlPlane is an environment with these API server flags, not yet
// started. crds says whether to install ours.
func NewControlPlane(crds bool, flags map[string]string) (*envtest.Environment, error) {
	if _, err := os.Stat(filepath.Join(Assets(), "kube-apiserver")); err != nil {
		return nil, ErrNoAssets
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory:    Assets(),
		ControlPlaneStartTimeout: time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	if crds {
		env.CRDDirectoryPaths = []string{filepath.Join(Root(), "config", "crd", "bases")}
		env.ErrorIfCRDPathMissing = true
	}
	args := env.ControlPlane.GetAPIServer().Configure()
	for name, value := range flags {
		args.Set(name, value)
	}
	return env, nil
}

// The ports that FreeAddress gives are below the range that the kernel hands out to
// outgoing connections.
const firstPort, ports = 20000, 10000

// lastPort counts those that FreeAddress has looked at. It begins anywhere, because
// tests of several packages run at the same time.
var lastPort = func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(mathrand.Int64N(ports)) //nolint:gosec // keeps tests apart, guards nothing
	return &n
}()

// FreeAddress is a loopback address with a port that nothing listens on. It gives
// another one each time.
func FreeAddress() (string, error) {
	for range ports {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+lastPort.Add(1)%ports)
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("no free port between %d and %d", firstPort, firstPort+ports)
}

// Authority is a certificate authority for tests.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert: cert, key: key}, err
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool holds the authority's certificate alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue makes a certificate for a server or client of that name on loopback,
// and its key, both as PEM. The changes are made to it before it is signed.
func (a *Authority) Issue(name string, changes ...func(*x509.Certificate)) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := certificate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, change := range changes {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

func certificate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // crypto/rand never fails
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
	}
}
