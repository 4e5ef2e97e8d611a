// verify.go checks signatures. The library's verifiers are used where they are
// exact, and the standard library where they are not.

package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// verifier checks one algorithm with one key.
type verifier func(signingInput, signature []byte) bool

// newVerifier prepares the check for an algorithm that fits the key.
func newVerifier(a Algorithm, public crypto.PublicKey) (verifier, error) {
	if hash, isPSS := pssHashes[a]; isPSS {
		return pssVerifier(public, hash)
	}
	if hash, isECDSA := ecdsaHashes[a]; isECDSA {
		return ecdsaVerifier(public, hash)
	}
	v, err := jws.NewVerifier(jwa.SignatureAlgorithm(a))
	if err != nil {
		return nil, refuse(UnsupportedAlgorithm, "the library does not know the algorithm")
	}
	return func(input, signature []byte) bool { return v.Verify(input, signature, public) == nil }, nil
}

var pssHashes = map[Algorithm]crypto.Hash{PS256: crypto.SHA256, PS384: crypto.SHA384, PS512: crypto.SHA512}

// pssVerifier insists on a salt of the hash's length (RFC 7518 section 3.5);
// the library's verifier takes any.
func pssVerifier(public crypto.PublicKey, hash crypto.Hash) (verifier, error) {
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, refuse(AlgorithmMismatch, "the algorithm needs an RSA key")
	}
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	return func(input, signature []byte) bool {
		h := hash.New()
		h.Write(input)
		return rsa.VerifyPSS(key, hash, h.Sum(nil), signature, options) == nil
	}, nil
}

var ecdsaHashes = map[Algorithm]crypto.Hash{ES256: crypto.SHA256, ES384: crypto.SHA384, ES512: crypto.SHA512}

// ecdsaVerifier insists on r and s of the coordinates' length (RFC 7518 section
// 3.4); the library's verifier takes longer ones, and two big numbers on the way.
func ecdsaVerifier(public crypto.PublicKey, hash crypto.Hash) (verifier, error) {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, refuse(AlgorithmMismatch, "the algorithm needs an EC key")
	}
	size := coordinateSize(key.Curve)
	return func(input, signature []byte) bool {
		if len(signature) != 2*size {
			return false
		}
		h := hash.New()
		h.Write(input)
		return ecdsa.VerifyASN1(key, h.Sum(nil), derSignature(signature[:size], signature[size:]))
	}, nil
}

// derSignature is Ecdsa-Sig-Value (RFC 3279 section 2.2.3) in DER, the form that
// the standard library takes.
func derSignature(r, s []byte) []byte {
	const integer, sequence, oneByteFollows = 0x02, 0x30, 0x81
	body := make([]byte, 0, len(r)+len(s)+8)
	for _, number := range [2][]byte{r, s} {
		number = bytes.TrimLeft(number, "\x00")
		if len(number) == 0 || number[0] >= 0x80 { // the first bit is a sign
			body = append(body, integer, derLength(len(number)+1), 0)
		} else {
			body = append(body, integer, derLength(len(number)))
		}
		body = append(body, number...)
	}
	der := append(make([]byte, 0, len(body)+3), sequence)
	if len(body) >= 0x80 {
		der = append(der, oneByteFollows)
	}
	return append(append(der, derLength(len(body))), body...)
}

// derLength is a length in one byte. That of P-521's signatures, the longest, is
// 139.
func derLength(n int) byte { return byte(n & 0xff) }

// Cost is what one verification with the key costs, in those with a 2048-bit RSA
// key, rounded up: what somebody can make the server do by sending tokens.
func (k *Key) Cost() int { return k.cost }

// cost was measured: RSA's larger sizes, P-384 and P-521 have no fast code in the
// library.
func cost(public crypto.PublicKey) int {
	switch p := public.(type) {
	case *rsa.PublicKey:
		switch bits := p.N.BitLen(); {
		case bits <= 2048:
			return 1
		case bits <= 3072:
			return 6
		case bits <= 4096:
			return 12
		}
		return 40
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return 3
		case elliptic.P384():
			return 20
		}
		return 52
	}
	return 2
}

// Verify checks that this key made the token's signature, with an algorithm
// that the key may serve. Its errors are *Error: AlgorithmNotAllowed or
// SignatureInvalid.
func (k *Key) Verify(t *Token) error {
	return k.VerifyBytes(t.Algorithm, t.signingInput, t.signature)
}

// VerifyBytes is Verify for a signature that is not that of a Token.
func (k *Key) VerifyBytes(a Algorithm, signingInput, signature []byte) error {
	i := slices.Index(k.algorithms, a)
	if i < 0 {
		return refuse(AlgorithmNotAllowed, "the key does not serve the token's alg")
	}
	if !k.verifiers[i](signingInput, signature) {
		return refuse(SignatureInvalid, "the signature was not made by the key")
	}
	return nil
}
