// Package testissuer is a scriptable issuer of tokens: an HTTPS server with a
// key set, and a signer. It is for tests, the demo and benchmarks only, and uses
// nothing but the standard library, so that what it signs is independent of the
// code under test.
package testissuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"time"
)

// Key is a signing key with a kid and an algorithm.
type Key struct {
	ID, Algorithm string
	private       crypto.Signer
}

// NewKey makes a key for a JWS algorithm: RS256 to RS512, PS256 to PS512 (2048
// bits), ES256 to ES512, EdDSA or its RFC 9864 name Ed25519. It panics for
// another.
func NewKey(kid, alg string) *Key {
	var private crypto.Signer
	var err error
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA", "Ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		panic("testissuer: no such algorithm: " + alg)
	}
	if err != nil {
		panic(err) // the system has no randomness
	}
	return &Key{ID: kid, Algorithm: alg, private: private}
}

// Public is the public key.
func (k *Key) Public() crypto.PublicKey { return k.private.Public() }

var b64 = base64.RawURLEncoding.EncodeToString

// JWK is the public key as a JSON Web Key (RFC 7517).
func (k *Key) JWK() map[string]any {
	jwk := map[string]any{"alg": k.Algorithm, "use": "sig"}
	if k.ID != "" {
		jwk["kid"] = k.ID
	}
	switch p := k.private.Public().(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			panic(err) // the key was generated on this curve
		}
		half := (len(point) - 1) / 2
		jwk["kty"], jwk["crv"] = "EC", p.Curve.Params().Name
		jwk["x"], jwk["y"] = b64(point[1:1+half]), b64(point[1+half:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", b64(p)
	}
	return jwk
}

// PrivateJWK is the key with its private part, as no issuer should publish it.
func (k *Key) PrivateJWK() map[string]any {
	jwk := maps.Clone(k.JWK())
	switch p := k.private.(type) {
	case *rsa.PrivateKey: // RFC 7518 section 6.3.2
		jwk["d"] = b64(p.D.Bytes())
		jwk["p"], jwk["q"] = b64(p.Primes[0].Bytes()), b64(p.Primes[1].Bytes())
		jwk["dp"], jwk["dq"] = b64(p.Precomputed.Dp.Bytes()), b64(p.Precomputed.Dq.Bytes())
		jwk["qi"] = b64(p.Precomputed.Qinv.Bytes())
	case *ecdsa.PrivateKey:
		d, err := p.Bytes()
		if err != nil {
			panic(err) // the key was generated on this curve
		}
		jwk["d"] = b64(d)
	case ed25519.PrivateKey:
		jwk["d"] = b64(p.Seed())
	}
	return jwk
}

// SignOption changes the header of a token.
type SignOption func(header map[string]any)

// WithHeader sets a header member.
func WithHeader(name string, value any) SignOption {
	return func(h map[string]any) { h[name] = value }
}

// WithoutHeader leaves out a header member.
func WithoutHeader(name string) SignOption {
	return func(h map[string]any) { delete(h, name) }
}

// Sign makes a token in compact serialization (RFC 7515 section 7.1).
func (k *Key) Sign(claims map[string]any, options ...SignOption) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // a test with claims that JSON cannot express
	}
	return k.SignRaw(payload, options...)
}

// SignRaw makes a token around any payload.
func (k *Key) SignRaw(payload []byte, options ...SignOption) string {
	header := map[string]any{"alg": k.Algorithm, "typ": "JWT"}
	if k.ID != "" {
		header["kid"] = k.ID
	}
	for _, o := range options {
		o(header)
	}
	head, err := json.Marshal(header)
	if err != nil {
		panic(err) // a test with a header that JSON cannot express
	}
	input := b64(head) + "." + b64(payload)
	return input + "." + b64(k.signature([]byte(input)))
}

// signature signs with the key's own algorithm, whatever a header says.
func (k *Key) signature(input []byte) []byte {
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[k.Algorithm[2:]]
	digest, options := input, crypto.SignerOpts(hash)
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		if err != nil {
			panic(err) // the system has no randomness
		}
		size := (private.Params().BitSize + 7) / 8
		out := make([]byte, 2*size)
		r.FillBytes(out[:size])
		s.FillBytes(out[size:])
		return out
	case *rsa.PrivateKey:
		if k.Algorithm[0] == 'P' {
			options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
	}
	out, err := k.private.Sign(rand.Reader, digest, options)
	if err != nil {
		panic(fmt.Sprintf("testissuer: signing with %s: %v", k.Algorithm, err))
	}
	return out
}

// Claims are those of a token that is valid from now on for its lifetime.
func Claims(iss, sub string, aud any, now time.Time, lifetime time.Duration) map[string]any {
	return map[string]any{
		"iss": iss, "sub": sub, "aud": aud,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
	}
}
