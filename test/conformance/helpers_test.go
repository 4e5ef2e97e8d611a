// Package conformance holds the product against what others have published: test
// vectors, the examples of the RFCs, and another library's opinion.
//
// helpers_test.go signs tokens and writes keys with the standard library alone,
// so that what the tests feed in does not come from the code under test.
package conformance

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
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// b64 is base64url without padding.
func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func unb64(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encode(t testing.TB, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// signer makes tokens with one private key.
type signer struct {
	alg     string
	private crypto.Signer
}

// rsaKey is made once: that takes time.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// newSigner has a new key, but for RSA, where it is always the same.
func newSigner(t testing.TB, alg string) signer {
	t.Helper()
	var private crypto.Signer
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsaKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg, private}
}

// hashes are those of the algorithms by the last three letters of their names.
var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func (s signer) hash() crypto.Hash { return hashes[s.alg[len(s.alg)-3:]] }

// digest is what the algorithm signs.
func (s signer) digest(input string) []byte {
	if s.hash() == 0 {
		return []byte(input)
	}
	h := s.hash().New()
	h.Write([]byte(input))
	return h.Sum(nil)
}

// sign makes a signature as RFC 7518 and RFC 8037 want it.
func (s signer) sign(t testing.TB, input string) []byte {
	t.Helper()
	if key, ok := s.private.(*ecdsa.PrivateKey); ok {
		r, v, err := ecdsa.Sign(rand.Reader, key, s.digest(input))
		if err != nil {
			t.Fatal(err)
		}
		return join(key.Curve, r, v)
	}
	options := crypto.SignerOpts(s.hash())
	if strings.HasPrefix(s.alg, "PS") {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash()}
	}
	signature, err := s.private.Sign(rand.Reader, s.digest(input), options)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// join puts r and s side by side (RFC 7518 section 3.4).
func join(curve elliptic.Curve, r, s *big.Int) []byte {
	size := (curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out
}

// token signs a header and a payload as they stand.
func (s signer) token(t testing.TB, header, payload string) string {
	t.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	return input + "." + b64(s.sign(t, input))
}

// jwk is the public key, without "alg".
func (s signer) jwk(t testing.TB, kid string) map[string]any {
	t.Helper()
	switch p := s.private.Public().(type) {
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "kid": kid, "n": b64(p.N.Bytes()), "e": b64(big.NewInt(int64(p.E)).Bytes())}
	case *ecdsa.PublicKey:
		size := (p.Curve.Params().BitSize + 7) / 8
		point, err := p.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return map[string]any{"kty": "EC", "kid": kid, "crv": p.Curve.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])}
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": b64(p)}
	}
	t.Fatal("no such key")
	return nil
}

// with is a copy of a map with other members; nil takes one away.
func with(in, changes map[string]any) map[string]any {
	out := maps.Clone(in)
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

// document is a JSON Web Key Set.
func document(t testing.TB, keys ...any) []byte {
	t.Helper()
	return encode(t, map[string]any{"keys": keys})
}

// admit is a key that has to be admitted.
func admit(t testing.TB, jwk string) *jose.Key {
	t.Helper()
	key, err := jose.ParseKey([]byte(jwk))
	if err != nil {
		t.Fatalf("the key was refused: %v", err)
	}
	return key
}

// reasonOf is the reason of an error of package jose: "" for none.
func reasonOf(err error) string {
	var refused *jose.Error
	var exposed *jose.ExposedKeyError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refused):
		return string(refused.Reason)
	case errors.As(err, &exposed):
		return string(jose.PrivateKeyExposed)
	}
	return fmt.Sprintf("another error: %v", err)
}

// payloadIsNoObject is how a token is refused whose payload alone is wrong.
const payloadIsNoObject = "MalformedToken: the payload: the text is not a JSON object"

// withPayload is a token with another payload, and the same signature.
func withPayload(t testing.TB, token, payload string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	return parts[0] + "." + b64([]byte(payload)) + "." + parts[2]
}

// theirKey is a key as the other library reads it.
func theirKey(t testing.TB, jwk []byte) *gojose.JSONWebKey {
	t.Helper()
	key := &gojose.JSONWebKey{}
	if err := key.UnmarshalJSON(jwk); err != nil {
		t.Fatalf("go-jose cannot read the key: %v", err)
	}
	return key
}
