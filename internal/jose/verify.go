// verify.go checks signatures. The library's verifiers are used where they are
// exact, and the standard library where they are not.

package jose

import (
	"crypto"
	"crypto/ecdsa"
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
	v, err := jws.NewVerifier(jwa.SignatureAlgorithm(a))
	if err != nil {
		return nil, refuse(UnsupportedAlgorithm, "the library does not know the algorithm")
	}
	if key, ok := public.(*ecdsa.PublicKey); ok {
		// RFC 7518 section 3.4: r and s, each of the coordinates' length.
		want := 2 * coordinateSize(key.Curve)
		return func(input, signature []byte) bool {
			return len(signature) == want && v.Verify(input, signature, public) == nil
		}, nil
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

// Verify checks that this key made the token's signature, with an algorithm
// that the key may serve. Its errors are *Error: AlgorithmNotAllowed or
// SignatureInvalid.
func (k *Key) Verify(t *Token) error {
	i := slices.Index(k.algorithms, t.Algorithm)
	if i < 0 {
		return refuse(AlgorithmNotAllowed, "the key does not serve the token's alg")
	}
	if !k.verifiers[i](t.signingInput, t.signature) {
		return refuse(SignatureInvalid, "the signature was not made by the key")
	}
	return nil
}
