package testissuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func number(t *testing.T, jwk map[string]any, member string) *big.Int {
	t.Helper()
	return new(big.Int).SetBytes(octets(t, jwk, member))
}

func octets(t *testing.T, jwk map[string]any, member string) []byte {
	t.Helper()
	text, ok := jwk[member].(string)
	if !ok {
		t.Fatalf("no member %s", member)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// valid checks a token by nothing but its JWK, with the standard library.
func valid(t *testing.T, jwk map[string]any, alg, token string) bool {
	t.Helper()
	parts := strings.Split(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	input := []byte(parts[0] + "." + parts[1])
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	digest := input
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	switch alg[:2] {
	case "RS", "PS":
		public := &rsa.PublicKey{N: number(t, jwk, "n"), E: int(number(t, jwk, "e").Int64())}
		if alg[0] == 'P' {
			return rsa.VerifyPSS(public, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, hash, digest, signature) == nil
	case "ES":
		curve := map[any]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[jwk["crv"]]
		public, err := ecdsa.ParseUncompressedPublicKey(curve, append([]byte{4}, append(octets(t, jwk, "x"), octets(t, jwk, "y")...)...))
		if err != nil {
			t.Fatal(err)
		}
		half := len(signature) / 2
		return ecdsa.Verify(public, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	}
	return ed25519.Verify(octets(t, jwk, "x"), input, signature)
}

func TestEachAlgorithmSigns(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"} {
		t.Run(alg, func(t *testing.T) {
			g := NewWithT(t)
			k := NewKey("k1", alg)
			jwk := k.JWK()
			g.Expect(jwk).To(And(HaveKeyWithValue("kid", "k1"), HaveKeyWithValue("alg", alg), HaveKeyWithValue("use", "sig"), Not(HaveKey("d"))))
			token := k.Sign(Claims("https://issuer.example.com", "alice", "orders", now, time.Hour))
			g.Expect(valid(t, jwk, alg, token)).To(BeTrue())
			g.Expect(valid(t, jwk, alg, strings.Replace(token, ".", ".eyJ", 1))).To(BeFalse(), "another payload")
			g.Expect(valid(t, NewKey("k1", alg).JWK(), alg, token)).To(BeFalse(), "another key under the same kid")
		})
	}
	g := NewWithT(t)
	g.Expect(func() { NewKey("k1", "HS256") }).To(Panic())
}

func TestCoordinatesKeepTheirZeros(t *testing.T) {
	g := NewWithT(t)
	for alg, size := range map[string]int{"ES256": 32, "ES384": 48, "ES512": 66} {
		jwk := NewKey("", alg).PrivateJWK()
		for _, member := range []string{"x", "y", "d"} {
			g.Expect(octets(t, jwk, member)).To(HaveLen(size), "RFC 7518 section 6.2.1.2")
		}
		g.Expect(jwk).NotTo(HaveKey("kid"))
	}
}

func TestThePrivatePartIsTheRealOne(t *testing.T) {
	g := NewWithT(t)
	k := NewKey("k1", "RS256")
	jwk := k.PrivateJWK()
	n, e, d := number(t, jwk, "n"), number(t, jwk, "e"), number(t, jwk, "d")
	p, q := number(t, jwk, "p"), number(t, jwk, "q")
	g.Expect(new(big.Int).Mul(p, q)).To(Equal(n))
	two := big.NewInt(2)
	g.Expect(new(big.Int).Exp(new(big.Int).Exp(two, e, n), d, n)).To(Equal(two))
	one := big.NewInt(1)
	g.Expect(number(t, jwk, "dp")).To(Equal(new(big.Int).Mod(d, new(big.Int).Sub(p, one))))
	g.Expect(number(t, jwk, "dq")).To(Equal(new(big.Int).Mod(d, new(big.Int).Sub(q, one))))
	g.Expect(number(t, jwk, "qi")).To(Equal(new(big.Int).ModInverse(q, p)))
	g.Expect(k.JWK()).NotTo(HaveKey("d"), "asking for it does not publish it")

	okp := NewKey("k2", "EdDSA")
	seed := ed25519.NewKeyFromSeed(octets(t, okp.PrivateJWK(), "d"))
	g.Expect(okp.Public()).To(Equal(seed.Public()))
}

func TestHeaders(t *testing.T) {
	g := NewWithT(t)
	k := NewKey("k1", "ES256")
	header := func(options ...SignOption) (h map[string]any) {
		raw, err := base64.RawURLEncoding.DecodeString(strings.Split(k.Sign(nil, options...), ".")[0])
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(json.Unmarshal(raw, &h)).To(Succeed())
		return h
	}
	g.Expect(header()).To(Equal(map[string]any{"alg": "ES256", "typ": "JWT", "kid": "k1"}))
	g.Expect(header(WithHeader("typ", "at+jwt"), WithoutHeader("kid"))).To(Equal(map[string]any{"alg": "ES256", "typ": "at+jwt"}))
	g.Expect(header(WithHeader("alg", "none"))).To(HaveKeyWithValue("alg", "none"))
}

func TestClaims(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	NewWithT(t).Expect(Claims("iss", "sub", []string{"a", "b"}, now, time.Minute)).To(Equal(map[string]any{
		"iss": "iss", "sub": "sub", "aud": []string{"a", "b"},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Unix() + 60,
	}))
}
