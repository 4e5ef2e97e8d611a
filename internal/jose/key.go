// key.go is an admitted public key: what it is, and its one canonical form.

package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strconv"
)

const (
	// MinRSABits is the smallest RSA modulus, in bits.
	MinRSABits = 2048
	// MaxRSABits is the largest RSA modulus, in bits.
	MaxRSABits = 8192
	// maxExponent bounds RSA exponents: what crypto/rsa computes with.
	maxExponent = 1<<31 - 1
)

// Values of "kty" (RFC 7518 section 6.1, RFC 8037 section 2).
const (
	typeRSA = "RSA"
	typeEC  = "EC"
	typeOKP = "OKP"
	typeOct = "oct"
)

// Key is an admitted public key, with its verifiers prepared. It is immutable.
type Key struct {
	id, use    string
	kty, crv   string
	thumbprint string
	public     crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithms []Algorithm
	verifiers  []verifier // of algorithms, in the same order
	cost       int
}

// newKey checks what the key is for, and prepares its verifiers. The public key
// itself has been checked.
func newKey(public crypto.PublicKey, kid, use, declared string) (*Key, error) {
	if len(kid) > MaxKeyID {
		return nil, refuse(KeyIDTooLong, "the kid is over %d bytes", MaxKeyID)
	}
	algorithms, err := bind(public, declared)
	if err != nil {
		return nil, err
	}
	members, err := required(public)
	if err != nil {
		return nil, err
	}
	k := &Key{
		id: kid, use: use, kty: members.KeyType, crv: members.Curve, thumbprint: members.thumbprint(),
		public: public, algorithms: algorithms, verifiers: make([]verifier, 0, len(algorithms)), cost: cost(public),
	}
	for _, a := range algorithms {
		v, err := newVerifier(a, public)
		if err != nil {
			return nil, err
		}
		k.verifiers = append(k.verifiers, v)
	}
	return k, nil
}

// bind is the algorithms that a key serves: the declared one, if any, which has
// to fit, else those that its type and curve allow.
func bind(public crypto.PublicKey, declared string) ([]Algorithm, error) {
	possible := possibleAlgorithms(public)
	if len(possible) == 0 {
		return nil, refuse(UnsupportedCurve, "the curve is not supported")
	}
	if declared == "" {
		return possible, nil
	}
	alg, known := parseAlgorithm(declared)
	if !known {
		return nil, refuse(UnsupportedAlgorithm, "the key's alg is not a supported signature algorithm")
	}
	if !slices.Contains(possible, alg) {
		return nil, refuse(AlgorithmMismatch, "the key's alg does not fit its type")
	}
	return []Algorithm{alg}, nil
}

// possibleAlgorithms are those that the key's type and curve allow.
func possibleAlgorithms(public crypto.PublicKey) []Algorithm {
	switch p := public.(type) {
	case *rsa.PublicKey:
		return rsaAlgorithms
	case ed25519.PublicKey:
		return []Algorithm{EdDSA}
	case *ecdsa.PublicKey:
		switch p.Curve { // RFC 7518 section 3.4: one curve for each
		case elliptic.P256():
			return []Algorithm{ES256}
		case elliptic.P384():
			return []Algorithm{ES384}
		case elliptic.P521():
			return []Algorithm{ES512}
		}
	}
	return nil
}

// KeyID is the key's "kid" (RFC 7517 section 4.5); "" for none.
func (k *Key) KeyID() string { return k.id }

// Use is the declared "use" (RFC 7517 section 4.2); "" for none.
func (k *Key) Use() string { return k.use }

// Thumbprint is the SHA-256 thumbprint (RFC 7638), base64url: 43 characters.
func (k *Key) Thumbprint() string { return k.thumbprint }

// Algorithm is the one that the key is bound to, declared or inferred from its
// curve; "" for an RSA key without "alg".
func (k *Key) Algorithm() Algorithm {
	if len(k.algorithms) == 1 {
		return k.algorithms[0]
	}
	return ""
}

// Algorithms are those that the key can verify.
func (k *Key) Algorithms() []Algorithm { return slices.Clone(k.algorithms) }

// Fits reports whether the key can verify the algorithm.
func (k *Key) Fits(a Algorithm) bool { return slices.Contains(k.algorithms, a) }

// KeyType is the key's "kty": RSA, EC or OKP.
func (k *Key) KeyType() string { return k.kty }

// Curve is the key's "crv"; "" for RSA.
func (k *Key) Curve() string { return k.crv }

// Bits is the size of an RSA key's modulus; 0 for others.
func (k *Key) Bits() int {
	if p, ok := k.public.(*rsa.PublicKey); ok {
		return p.N.BitLen()
	}
	return 0
}

// MarshalJWK is the key as every stock library accepts it: public members only,
// in alphabetical order and without white space, "use" always "sig".
func (k *Key) MarshalJWK() []byte {
	m, _ := required(k.public) // newKey has seen to that
	m.Algorithm, m.KeyID, m.Use = k.Algorithm(), k.id, "sig"
	return m.marshal()
}

// publicMembers are those of a JWK, in alphabetical order.
type publicMembers struct {
	Algorithm Algorithm `json:"alg,omitempty"`
	Curve     string    `json:"crv,omitempty"`
	Exponent  string    `json:"e,omitempty"`
	KeyID     string    `json:"kid,omitempty"`
	KeyType   string    `json:"kty"`
	Modulus   string    `json:"n,omitempty"`
	Use       string    `json:"use,omitempty"`
	X         string    `json:"x,omitempty"`
	Y         string    `json:"y,omitempty"`
}

// required are the members that make up the key itself.
func required(public crypto.PublicKey) (publicMembers, error) {
	encode := base64.RawURLEncoding.EncodeToString
	switch p := public.(type) {
	case *rsa.PublicKey:
		e := big.NewInt(int64(p.E))
		return publicMembers{KeyType: typeRSA, Modulus: encode(p.N.Bytes()), Exponent: encode(e.Bytes())}, nil
	case *ecdsa.PublicKey:
		point, err := p.Bytes() // the uncompressed form: 4, x, y
		if err != nil {
			return publicMembers{}, refuse(PointNotOnCurve, "x and y are not a point of the curve")
		}
		x, y := point[1:1+coordinateSize(p.Curve)], point[1+coordinateSize(p.Curve):]
		return publicMembers{KeyType: typeEC, Curve: p.Curve.Params().Name, X: encode(x), Y: encode(y)}, nil
	case ed25519.PublicKey:
		return publicMembers{KeyType: typeOKP, Curve: ed25519Name, X: encode(p)}, nil
	}
	return publicMembers{}, refuse(UnsupportedKeyType, "the key is not RSA, EC or Ed25519")
}

// thumbprint is the SHA-256 thumbprint of required members: of their canonical
// JSON, which has them in alphabetical order and nothing else (RFC 7638 section
// 3).
func (m publicMembers) thumbprint() string {
	sum := sha256.Sum256(m.marshal())
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (m publicMembers) marshal() []byte {
	text, _ := json.Marshal(m) // strings always encode
	return text
}

// PEM is the key as a PEM block "PUBLIC KEY" (RFC 7468 section 13), after a line
// that names its kid.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	name := "# kid " + strconv.QuoteToASCII(k.id) + "\n"
	return append([]byte(name), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...), nil
}
