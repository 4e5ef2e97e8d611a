// private.go judges keys that were published with private members.

package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"slices"
)

// ExposedKeyError means that a key was published with its private part, and
// that this part is genuine: whoever has read the document can sign.
type ExposedKeyError struct {
	// KeyID is the key's kid as published, of any length; "" for none.
	KeyID string
	// Thumbprint is that of the public part (RFC 7638).
	Thumbprint string
}

// Error implements error.
func (e *ExposedKeyError) Error() string {
	return string(PrivateKeyExposed) + ": the key with thumbprint " + e.Thumbprint + " was published with its private part"
}

// privateMembers hold private key material (RFC 7518 sections 6.2.2 and 6.3.2,
// RFC 8037 section 2).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth"}

// hasPrivate reports whether a private member is there, with whatever value.
func hasPrivate(members map[string]json.RawMessage) bool {
	return slices.ContainsFunc(privateMembers, func(name string) bool {
		_, has := members[name]
		return has
	})
}

// exposed judges a key with private members; public is nil where its public
// part would not be admitted either. Only a private part that belongs to the
// public one makes the key compromised: otherwise whoever can change an issuer's
// document once could have the issuer's real keys revoked for good.
func (p *Parser) exposed(public crypto.PublicKey, members map[string]json.RawMessage) error {
	if public == nil || !p.belongs(public, members) {
		return refuse(PrivateKeyExposed, "the key has private members")
	}
	kid, _ := text(members, "kid")
	own, err := required(public)
	if err != nil {
		return err
	}
	return &ExposedKeyError{KeyID: kid, Thumbprint: own.thumbprint()}
}

// belongs reports whether the private members are those of the public key.
func (p *Parser) belongs(public crypto.PublicKey, members map[string]json.RawMessage) bool {
	d, _ := octets(members, "d") // empty where there is none
	switch public := public.(type) {
	case *rsa.PublicKey:
		return divides(public.N, members, "p") || divides(public.N, members, "q") || p.isExponent(public, d)
	case *ecdsa.PublicKey:
		return isScalar(public, d)
	case ed25519.PublicKey:
		return len(d) == ed25519.SeedSize && public.Equal(ed25519.NewKeyFromSeed(d).Public())
	}
	return false
}

// divides reports whether a member is a factor of an RSA modulus: with one, the
// private exponent is a matter of arithmetic.
func divides(n *big.Int, members map[string]json.RawMessage, name string) bool {
	b, err := octets(members, name)
	if err != nil {
		return false
	}
	factor := new(big.Int).SetBytes(b)
	if factor.Cmp(big.NewInt(1)) <= 0 || factor.Cmp(n) >= 0 {
		return false
	}
	return new(big.Int).Rem(n, factor).Sign() == 0
}

// maxWork bounds Parser.work. It is enough for a hundred keys of 2048 bits, and
// bounds what a hostile document can cost to about a second.
const maxWork = 128

// isExponent reports whether d is the private exponent of the RSA key: it undoes
// the public one.
func (p *Parser) isExponent(public *rsa.PublicKey, d []byte) bool {
	exponent := new(big.Int).SetBytes(d)
	if exponent.Sign() == 0 || exponent.Cmp(public.N) >= 0 {
		return false
	}
	// An exponentiation takes time with the third power of the size.
	size := (public.N.BitLen() + MinRSABits - 1) / MinRSABits
	if p.work += size * size * size; p.work > maxWork {
		return false
	}
	two := big.NewInt(2)
	c := new(big.Int).Exp(two, big.NewInt(int64(public.E)), public.N)
	return c.Exp(c, exponent, public.N).Cmp(two) == 0
}

// isScalar reports whether d is the private key of the point. Leading zeros may
// be missing or too many.
func isScalar(public *ecdsa.PublicKey, d []byte) bool {
	scalar := new(big.Int).SetBytes(d)
	if scalar.Sign() == 0 || scalar.Cmp(public.Curve.Params().N) >= 0 {
		return false
	}
	private, err := ecdsa.ParseRawPrivateKey(public.Curve, scalar.FillBytes(make([]byte, coordinateSize(public.Curve))))
	return err == nil && private.PublicKey.Equal(public)
}
