// Package servingcert gives the verifier a certificate where nobody else does: an
// authority of its own, a certificate from it, and the authority's certificate in
// a ConfigMap for clients to trust. A Secret that somebody else keeps
// (cert-manager, an administrator) is left alone.
package servingcert

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
	"slices"
	"time"
)

const (
	// authorityLife is how long an authority is good for, and authorityRenewal how
	// long before its end another one takes over.
	authorityLife, authorityRenewal = 10 * 365 * 24 * time.Hour, 365 * 24 * time.Hour
	// certificateLife and certificateRenewal are the same for the certificate.
	certificateLife, certificateRenewal = 90 * 24 * time.Hour, 30 * 24 * time.Hour
	// announcement is how long a new authority is known before it signs.
	announcement = 30 * 24 * time.Hour
	// backdated lets clients whose clocks are behind trust a new certificate.
	backdated = time.Hour
)

// pair is a certificate with its key, in PEM.
type pair struct {
	certificate, key []byte
	parsed           *x509.Certificate
	signer           *ecdsa.PrivateKey
}

// parsePair reads a pair that was stored.
func parsePair(certificate, key []byte) (*pair, error) {
	block, _ := pem.Decode(certificate)
	keyBlock, _ := pem.Decode(key)
	if block == nil || keyBlock == nil {
		return nil, errors.New("no PEM certificate and key")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	private, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	signer, ok := private.(*ecdsa.PrivateKey)
	if public, isECDSA := parsed.PublicKey.(*ecdsa.PublicKey); !ok || !isECDSA || !signer.PublicKey.Equal(public) {
		return nil, errors.New("the key is not that of the certificate")
	}
	return &pair{certificate, key, parsed, signer}, nil
}

// newAuthority makes an authority that signs certificates for TLS servers alone.
func newAuthority(now time.Time) (*pair, error) {
	return issue(&x509.Certificate{
		Subject:   pkix.Name{CommonName: "jwks-trust-manager", SerialNumber: now.UTC().Format("20060102")},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
}

// newServing makes a certificate for the names.
func newServing(authority *pair, names []string, now time.Time) (*pair, error) {
	return issue(&x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0]},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(certificateLife),
		DNSNames: names, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority)
}

// issue makes a key and a certificate for it; without an authority it signs itself.
func issue(template *x509.Certificate, authority *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	parent, signer := template, key
	if authority != nil {
		parent, signer = authority.parsed, authority.signer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return parsePair(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	)
}

// renewal reports whether a pair has come so near to its end that another one is
// due; also where the clock says that it is not valid yet.
func (p *pair) renewal(before time.Duration, now time.Time) bool {
	return now.Before(p.parsed.NotBefore) || now.After(p.parsed.NotAfter.Add(-before))
}

// serves reports whether a certificate is for exactly these names.
func (p *pair) serves(names []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(p.parsed.DNSNames)), slices.Sorted(slices.Values(names)))
}
