// Package jose reads tokens and keys strictly and verifies signatures. It is
// the one door to the JOSE library: nothing else imports that.
//
// The library is lax at its defaults, so everything that an attacker writes
// passes a strict check here first, and the algorithm that verifies a signature
// always comes from an admitted key, never from the token.
package jose

import (
	"fmt"
	"slices"
)

// Algorithm is a JWS "alg" (RFC 7518 section 3.1, RFC 8037 section 3.1).
type Algorithm string

// The supported algorithms. Symmetric ones and "none" do not exist here.
const (
	RS256 Algorithm = "RS256"
	RS384 Algorithm = "RS384"
	RS512 Algorithm = "RS512"
	PS256 Algorithm = "PS256"
	PS384 Algorithm = "PS384"
	PS512 Algorithm = "PS512"
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
	// EdDSA is Ed25519 alone. Its fully specified name (RFC 9864) is read as it.
	EdDSA Algorithm = "EdDSA"
)

// ed25519Name is the fully specified name of EdDSA with Ed25519 (RFC 9864
// section 2.2).
const ed25519Name = "Ed25519"

var (
	rsaAlgorithms = []Algorithm{RS256, RS384, RS512, PS256, PS384, PS512}
	allAlgorithms = append(slices.Clone(rsaAlgorithms), ES256, ES384, ES512, EdDSA)
)

// Algorithms lists the supported algorithms in a stable order.
func Algorithms() []Algorithm { return slices.Clone(allAlgorithms) }

// parseAlgorithm reads an "alg". Case matters (RFC 7515 section 4.1.1).
func parseAlgorithm(name string) (Algorithm, bool) {
	if name == ed25519Name {
		return EdDSA, true
	}
	a := Algorithm(name)
	return a, slices.Contains(allAlgorithms, a)
}

// Reason is a stable code for what is wrong with a token or a key.
type Reason string

// Reasons for tokens.
const (
	// TokenTooLarge: over MaxTokenSize.
	TokenTooLarge Reason = "TokenTooLarge"
	// MalformedToken: not a JWS in compact serialization (RFC 7515 section 7.1)
	// with a JSON object as header and payload.
	MalformedToken Reason = "MalformedToken"
	// AlgorithmNotAllowed: the "alg" is not one of ours, or not one that the key
	// may serve.
	AlgorithmNotAllowed Reason = "AlgorithmNotAllowed"
	// HeaderNotAllowed: the header asks for something that is never done, such
	// as a critical extension, an unencoded payload or encryption.
	HeaderNotAllowed Reason = "HeaderNotAllowed"
	// SignatureInvalid: the key did not make the signature.
	SignatureInvalid Reason = "SignatureInvalid"
)

// Reasons for keys.
const (
	// MalformedKey: not a JSON Web Key (RFC 7517 section 4).
	MalformedKey Reason = "MalformedKey"
	// SymmetricKey: kty "oct" has no place in a public set.
	SymmetricKey Reason = "SymmetricKey"
	// UnsupportedKeyType: a kty other than RSA, EC and OKP.
	UnsupportedKeyType Reason = "UnsupportedKeyType"
	// UnsupportedCurve: a crv other than P-256, P-384, P-521 and Ed25519.
	UnsupportedCurve Reason = "UnsupportedCurve"
	// UnsupportedAlgorithm: an "alg" that is not for signatures, or not ours.
	UnsupportedAlgorithm Reason = "UnsupportedAlgorithm"
	// AlgorithmMismatch: the "alg" contradicts kty or crv.
	AlgorithmMismatch Reason = "AlgorithmMismatch"
	// WeakKey: an RSA modulus under MinRSABits.
	WeakKey Reason = "WeakKey"
	// KeyTooLarge: an RSA modulus over MaxRSABits, which costs too much to use.
	KeyTooLarge Reason = "KeyTooLarge"
	// BadExponent: an RSA exponent that is 1, even, or over 2^31-1.
	BadExponent Reason = "BadExponent"
	// WeakModulus: an RSA modulus that is known to be easy to factor.
	WeakModulus Reason = "WeakModulus"
	// PointNotOnCurve: the coordinates are not those of a point of the curve.
	PointNotOnCurve Reason = "PointNotOnCurve"
	// SmallOrderPoint: an Ed25519 key for which anybody can forge signatures.
	SmallOrderPoint Reason = "SmallOrderPoint"
	// KeyOperations: "key_ops" without "verify" (RFC 7517 section 4.3).
	KeyOperations Reason = "KeyOperations"
	// KeyIDTooLong: a kid over MaxKeyID bytes.
	KeyIDTooLong Reason = "KeyIDTooLong"
	// PrivateKeyExposed: the key has private members.
	PrivateKeyExposed Reason = "PrivateKeyExposed"
)

// Error says why a token or a key was refused.
type Error struct {
	Reason Reason
	// Detail is for people. It never holds bytes of a token or key.
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

func refuse(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Detail: fmt.Sprintf(format, args...)}
}
