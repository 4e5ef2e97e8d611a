// parse.go admits public keys, one at a time, from what an issuer publishes.

package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
)

// Parser admits the keys of one document, and bounds what the document's
// private keys cost to judge. Its zero value is ready. It is not for concurrent
// use.
type Parser struct {
	// work is what proofs have cost so far, in those of a 2048-bit key.
	work int
}

// ParseKey admits one JSON Web Key (RFC 7517 section 4) as a document's only
// one. Its errors are those of Parser.ParseKey.
func ParseKey(raw []byte) (*Key, error) { return new(Parser).ParseKey(raw) }

// ParseKey admits one JSON Web Key (RFC 7517 section 4). Its errors are *Error,
// or *ExposedKeyError for a key with a genuine private part. Base64 may be
// padded or in the standard alphabet, which issuers do publish; certificates
// (x5c, x5t, x5u) are not looked at.
func (p *Parser) ParseKey(raw []byte) (*Key, error) {
	if err := CheckJSON(raw, maxDepth); err != nil {
		return nil, refuse(MalformedKey, "%v", err)
	}
	members, err := Members(raw)
	if err != nil {
		return nil, refuse(MalformedKey, "%v", err)
	}
	public, err := publicKey(members)
	// A private part is judged before anything else that is wrong with the key:
	// whoever has read it can sign, whatever the key was meant for.
	if hasPrivate(members) {
		return nil, p.exposed(public, members)
	}
	if err != nil {
		return nil, err
	}
	return describe(public, members)
}

// describe reads what the key is for.
func describe(public crypto.PublicKey, members map[string]json.RawMessage) (*Key, error) {
	values := [3]string{}
	for i, name := range []string{"kid", "use", "alg"} {
		value, ok := text(members, name)
		if !ok {
			return nil, refuse(MalformedKey, "%q is not a string", name)
		}
		values[i] = value
	}
	if err := checkOperations(members); err != nil {
		return nil, err
	}
	return newKey(public, values[0], values[1], values[2])
}

// checkOperations applies RFC 7517 section 4.3.
func checkOperations(members map[string]json.RawMessage) error {
	raw, has := members["key_ops"]
	if !has {
		return nil
	}
	var operations []string
	if json.Unmarshal(raw, &operations) != nil {
		return refuse(MalformedKey, `"key_ops" is not an array of strings`)
	}
	if !slices.Contains(operations, "verify") {
		return refuse(KeyOperations, "the key is not for verifying")
	}
	return nil
}

// KeyFromCertificate admits the RSA or EC key of a PEM certificate, as Firebase
// publishes them; an RSA key is bound to RS256. The certificate vouches for
// nothing: the document's transport does. Its errors are *Error.
func KeyFromCertificate(kid string, certificate []byte) (*Key, error) {
	block, rest := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, refuse(MalformedKey, "not exactly one PEM certificate")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, refuse(MalformedKey, "the certificate cannot be parsed")
	}
	switch public := parsed.PublicKey.(type) {
	case *rsa.PublicKey:
		if err := checkRSA(public.N, big.NewInt(int64(public.E))); err != nil {
			return nil, err
		}
		return newKey(public, kid, "", string(RS256))
	case *ecdsa.PublicKey:
		return newKey(public, kid, "", "")
	}
	return nil, refuse(UnsupportedKeyType, "the certificate's key is neither RSA nor EC")
}

// publicKey reads and checks the members that make up the key.
func publicKey(members map[string]json.RawMessage) (crypto.PublicKey, error) {
	kty, ok := text(members, "kty")
	if !ok || kty == "" {
		return nil, refuse(MalformedKey, `"kty" is missing or not a string`)
	}
	switch kty {
	case typeRSA:
		return rsaKey(members)
	case typeEC:
		return ecKey(members)
	case typeOKP:
		return edKey(members)
	case typeOct:
		return nil, refuse(SymmetricKey, "a shared secret has no place in a public key set")
	}
	return nil, refuse(UnsupportedKeyType, "the kty is not RSA, EC or OKP")
}

// rsaKey reads RFC 7518 section 6.3.1.
func rsaKey(members map[string]json.RawMessage) (crypto.PublicKey, error) {
	n, err := octets(members, "n")
	if err != nil {
		return nil, err
	}
	e, err := octets(members, "e")
	if err != nil {
		return nil, err
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if err := checkRSA(modulus, exponent); err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// checkRSA bounds modulus and exponent. The exponent is a big integer until it
// has been checked: cut to a machine word, a bad one can look good.
func checkRSA(n, e *big.Int) error {
	switch bits := n.BitLen(); {
	case bits < MinRSABits:
		return refuse(WeakKey, "the RSA modulus has %d bits, under %d", bits, MinRSABits)
	case bits > MaxRSABits:
		return refuse(KeyTooLarge, "the RSA modulus has %d bits, over %d", bits, MaxRSABits)
	case e.Cmp(big.NewInt(3)) < 0 || e.Bit(0) == 0 || e.Cmp(big.NewInt(maxExponent)) > 0:
		return refuse(BadExponent, "the RSA exponent is under 3, even, or over 2^31-1")
	case weakModulus(n):
		return refuse(WeakModulus, "the RSA modulus is easy to factor")
	}
	return nil
}

// curves are the supported ones by "crv" (RFC 7518 section 6.2.1.1).
var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// ecKey reads RFC 7518 section 6.2.1.
func ecKey(members map[string]json.RawMessage) (crypto.PublicKey, error) {
	crv, ok := text(members, "crv")
	if !ok {
		return nil, refuse(MalformedKey, `"crv" is not a string`)
	}
	curve, ok := curves[crv]
	if !ok {
		return nil, refuse(UnsupportedCurve, "the crv is not P-256, P-384 or P-521")
	}
	point := []byte{4} // the uncompressed form (SEC 1 section 2.3.3)
	for _, name := range []string{"x", "y"} {
		c, err := octets(members, name)
		if err != nil {
			return nil, err
		}
		if len(c) != coordinateSize(curve) { // RFC 7518 section 6.2.1.2: always the full size
			return nil, refuse(MalformedKey, "%q does not have the length of the curve's coordinates", name)
		}
		point = append(point, c...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, refuse(PointNotOnCurve, "x and y are not a point of the curve")
	}
	return public, nil
}

// coordinateSize is the length of a coordinate, in bytes.
func coordinateSize(curve elliptic.Curve) int { return (curve.Params().BitSize + 7) / 8 }

// edKey reads RFC 8037 section 2.
func edKey(members map[string]json.RawMessage) (crypto.PublicKey, error) {
	crv, ok := text(members, "crv")
	if !ok {
		return nil, refuse(MalformedKey, `"crv" is not a string`)
	}
	if crv != ed25519Name {
		return nil, refuse(UnsupportedCurve, "the crv is not Ed25519")
	}
	x, err := octets(members, "x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, refuse(MalformedKey, `"x" does not have %d bytes`, ed25519.PublicKeySize)
	}
	if err := checkEdwards(x); err != nil {
		return nil, err
	}
	return ed25519.PublicKey(x), nil
}

// toURLAlphabet maps the standard alphabet of base64 to that of base64url.
var toURLAlphabet = strings.NewReplacer("+", "-", "/", "_")

// octets reads a base64 member: padded or not, in either alphabet.
func octets(members map[string]json.RawMessage, name string) ([]byte, error) {
	value, ok := text(members, name)
	if !ok || value == "" {
		return nil, refuse(MalformedKey, "%q is missing or not a string", name)
	}
	// The decoder would skip line breaks.
	if strings.ContainsAny(value, "\r\n") {
		return nil, refuse(MalformedKey, "%q has a line break", name)
	}
	b, err := base64.RawURLEncoding.DecodeString(toURLAlphabet.Replace(strings.TrimRight(value, "=")))
	if err != nil {
		return nil, refuse(MalformedKey, "%q is not base64", name)
	}
	return b, nil
}
