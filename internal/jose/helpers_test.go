// helpers_test.go signs tokens and writes keys with the standard library alone,
// so that what the tests feed in does not come from the code under test.

package jose_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// typicalPayload is about that of an access token.
const typicalPayload = `{"iss":"https://tenant.eu.auth0.com/","sub":"auth0|5f7c8ec7c33c6c004bbafe82",` +
	`"aud":["https://orders.example.com","https://tenant.eu.auth0.com/userinfo"],"iat":1767225600,"nbf":1767225600,` +
	`"exp":1767312000,"azp":"my-client-id","scope":"openid profile read:orders","jti":"0b9e2f5a","gty":"password",` +
	`"permissions":["read:orders","write:orders"],"https://example.com/roles":["admin","staff"]}`

func typicalHeader(alg jose.Algorithm) string {
	return fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":"k1"}`, alg)
}

// b64 is base64url without padding.
func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// rsaTestKey is made once: that takes time.
var rsaTestKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// signer makes tokens with one private key.
type signer struct {
	alg     jose.Algorithm
	private crypto.Signer
}

func newSigner(t testing.TB, alg jose.Algorithm) signer {
	t.Helper()
	var private crypto.Signer
	var err error
	switch alg {
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsaTestKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg: alg, private: private}
}

// hash is the hash function of the algorithm; 0 for EdDSA.
func (s signer) hash() crypto.Hash {
	switch {
	case strings.HasSuffix(string(s.alg), "256"):
		return crypto.SHA256
	case strings.HasSuffix(string(s.alg), "384"):
		return crypto.SHA384
	case strings.HasSuffix(string(s.alg), "512"):
		return crypto.SHA512
	}
	return 0
}

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
	if strings.HasPrefix(string(s.alg), "PS") {
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
func (s signer) jwk() map[string]any {
	switch p := s.private.Public().(type) {
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "kid": "k1", "n": b64(p.N.Bytes()), "e": b64(big.NewInt(int64(p.E)).Bytes())}
	case *ecdsa.PublicKey:
		size := (p.Curve.Params().BitSize + 7) / 8
		point, err := p.Bytes()
		if err != nil {
			panic(err) // the key was generated on this curve
		}
		return map[string]any{"kty": "EC", "kid": "k1", "crv": p.Curve.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])}
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "kid": "k1", "crv": "Ed25519", "x": b64(p)}
	}
	return nil
}

// with is a copy of a key with other members; nil takes one away.
func with(jwk map[string]any, changes map[string]any) map[string]any {
	out := map[string]any{}
	for _, m := range []map[string]any{jwk, changes} {
		for name, value := range m {
			if out[name] = value; value == nil {
				delete(out, name)
			}
		}
	}
	return out
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// admit parses a key that has to be admitted.
func admit(t testing.TB, jwk map[string]any) *jose.Key {
	t.Helper()
	key, err := jose.ParseKey(encode(t, jwk))
	if err != nil {
		t.Fatalf("the key was refused: %v", err)
	}
	return key
}

// reasonOf is the reason of a *jose.Error; "" for no error.
func reasonOf(t testing.TB, err error) jose.Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	var refused *jose.Error
	if !errors.As(err, &refused) {
		t.Fatalf("got a %T, want a *jose.Error: %v", err, err)
	}
	return refused.Reason
}
