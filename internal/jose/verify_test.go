// verify_test.go: which signatures count, and which do not.
package jose_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// parse reads a token that has to pass preflight.
func parse(t testing.TB, token string) *jose.Token {
	t.Helper()
	parsed, err := jose.ParseToken(token)
	if err != nil {
		t.Fatalf("the token was refused: %v", err)
	}
	return parsed
}

func TestVerifyAcceptsEveryAlgorithm(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			s := newSigner(t, alg)
			token := parse(t, s.token(t, typicalHeader(alg), typicalPayload))
			for _, declared := range []any{nil, string(alg)} {
				key := admit(t, with(s.jwk(), map[string]any{"alg": declared}))
				if err := key.Verify(token); err != nil {
					t.Errorf("with the key's alg %v: %v", declared, err)
				}
			}
			another := admit(t, newForeignSigner(t, alg).jwk())
			if got := reasonOf(t, another.Verify(token)); got != jose.SignatureInvalid {
				t.Errorf("another key: got %q", got)
			}
		})
	}
}

// newForeignSigner has another key than newSigner, for RSA too.
func newForeignSigner(t testing.TB, alg jose.Algorithm) signer {
	t.Helper()
	if alg[0] == 'E' {
		return newSigner(t, alg)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg: alg, private: private}
}

// What another implementation signs counts as well.
func TestVerifyAcceptsAnotherImplementation(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			s := newSigner(t, alg)
			compact, err := jws.Sign([]byte(typicalPayload), jws.WithKey(jwa.SignatureAlgorithm(alg), s.private))
			if err != nil {
				t.Fatal(err)
			}
			if err := admit(t, s.jwk()).Verify(parse(t, string(compact))); err != nil {
				t.Error(err)
			}
		})
	}
}

// Examples of the RFCs, whose payloads are JSON objects. RFC 8037's is not: see
// rfc8037_test.go.
func TestVerifyAcceptsTheExamplesOfRFC7515(t *testing.T) {
	const payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for name, example := range map[string]struct{ jwk, token string }{
		"A.2": {
			`{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
			"eyJhbGciOiJSUzI1NiJ9." + payload + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
		},
		"A.3": {
			`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + payload + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
		},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := jose.ParseKey([]byte(example.jwk))
			if err != nil {
				t.Fatal(err)
			}
			if err := key.Verify(parse(t, example.token)); err != nil {
				t.Error(err)
			}
		})
	}
}

// EdDSA is known by two names, in keys and in tokens (RFC 9864).
func TestEd25519IsEdDSA(t *testing.T) {
	s := newSigner(t, jose.EdDSA)
	for _, keyAlg := range []any{nil, "EdDSA", "Ed25519"} {
		key := admit(t, with(s.jwk(), map[string]any{"alg": keyAlg}))
		if key.Algorithm() != jose.EdDSA || !strings.Contains(string(key.MarshalJWK()), `"alg":"EdDSA"`) {
			t.Errorf("a key with alg %v is bound to %q, written as %s", keyAlg, key.Algorithm(), key.MarshalJWK())
		}
		for _, tokenAlg := range []string{"EdDSA", "Ed25519"} {
			token := parse(t, s.token(t, fmt.Sprintf(`{"alg":%q}`, tokenAlg), `{}`))
			if err := key.Verify(token); err != nil {
				t.Errorf("key %v, token %s: %v", keyAlg, tokenAlg, err)
			}
		}
	}
}

// A change of any byte of what was signed, or of the signature, is noticed.
func TestVerifyNoticesTampering(t *testing.T) {
	for _, alg := range []jose.Algorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA} {
		s := newSigner(t, alg)
		key := admit(t, s.jwk())
		header, payload := fmt.Sprintf(`{"alg":%q,"a":"0"}`, alg), `{"sub":"alice"}`
		parts := strings.Split(s.token(t, header, payload), ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		flipped := func(i int) string {
			changed := slices.Clone(signature)
			changed[i] ^= 1
			return b64(changed)
		}
		for name, token := range map[string]string{
			"the payload":           parts[0] + "." + b64([]byte(`{"sub":"admin"}`)) + "." + parts[2],
			"the header":            b64([]byte(strings.Replace(header, "0", "1", 1))) + "." + parts[1] + "." + parts[2],
			"the signature's start": parts[0] + "." + parts[1] + "." + flipped(0),
			"the signature's end":   parts[0] + "." + parts[1] + "." + flipped(len(signature)-1),
			"its length, shorter":   parts[0] + "." + parts[1] + "." + b64(signature[:len(signature)-1]),
			"its length, longer":    parts[0] + "." + parts[1] + "." + b64(append(slices.Clone(signature), 0)),
			"a zero byte before":    parts[0] + "." + parts[1] + "." + b64(append([]byte{0}, signature...)),
			"no signature":          parts[0] + "." + parts[1] + ".",
		} {
			if got := reasonOf(t, key.Verify(parse(t, token))); got != jose.SignatureInvalid {
				t.Errorf("%s, %s: got %q", alg, name, got)
			}
		}
	}
}

func TestTHREATS15PSSSaltLength(t *testing.T) {
	for _, alg := range []jose.Algorithm{jose.PS256, jose.PS384, jose.PS512} {
		s := newSigner(t, alg)
		key := admit(t, s.jwk())
		private, ok := s.private.(*rsa.PrivateKey)
		if !ok {
			t.Fatal("the key is no RSA key")
		}
		input := b64([]byte(typicalHeader(alg))) + "." + b64([]byte(`{}`))
		for salt, want := range map[int]jose.Reason{
			s.hash().Size():       "",
			s.hash().Size() - 1:   jose.SignatureInvalid,
			s.hash().Size() + 1:   jose.SignatureInvalid,
			20:                    jose.SignatureInvalid,
			1:                     jose.SignatureInvalid,
			rsa.PSSSaltLengthAuto: jose.SignatureInvalid, // as long as fits, when signing
		} {
			signature, err := rsa.SignPSS(rand.Reader, private, s.hash(), s.digest(input), &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				t.Fatal(err)
			}
			token := parse(t, input+"."+b64(signature))
			if got := reasonOf(t, key.Verify(token)); got != want {
				t.Errorf("THREATS 15: %s with a salt of %d: got %q, want %q", alg, salt, got, want)
			}
		}
	}
}

func TestTHREATS15ECDSAForms(t *testing.T) {
	for _, alg := range []jose.Algorithm{jose.ES256, jose.ES384, jose.ES512} {
		s := newSigner(t, alg)
		key := admit(t, s.jwk())
		private, ok := s.private.(*ecdsa.PrivateKey)
		if !ok {
			t.Fatal("the key is no EC key")
		}
		order, zero := private.Params().N, new(big.Int)
		input := b64([]byte(typicalHeader(alg))) + "." + b64([]byte(`{}`))
		r, v, err := ecdsa.Sign(rand.Reader, private, s.digest(input))
		if err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, v})
		if err != nil {
			t.Fatal(err)
		}
		short, long := shortForms(private.Curve, r, v)
		for name, test := range map[string]struct {
			signature []byte
			want      jose.Reason
		}{
			"r and s":        {join(private.Curve, r, v), ""},
			"DER":            {der, jose.SignatureInvalid},
			"r zero":         {join(private.Curve, zero, v), jose.SignatureInvalid},
			"s zero":         {join(private.Curve, r, zero), jose.SignatureInvalid},
			"both zero":      {join(private.Curve, zero, zero), jose.SignatureInvalid},
			"r the order":    {join(private.Curve, order, v), jose.SignatureInvalid},
			"s the order":    {join(private.Curve, r, order), jose.SignatureInvalid},
			"s and r":        {join(private.Curve, v, r), jose.SignatureInvalid},
			"zeros stripped": {short, jose.SignatureInvalid},
			"zeros added":    {long, jose.SignatureInvalid},
			"nothing":        {nil, jose.SignatureInvalid},
		} {
			token := parse(t, input+"."+b64(test.signature))
			if got := reasonOf(t, key.Verify(token)); got != test.want {
				t.Errorf("THREATS 15: %s, %s: got %q, want %q", alg, name, got, test.want)
			}
		}
	}
}

// shortForms are r and s with a byte less and a byte more than the curve's size.
func shortForms(curve elliptic.Curve, r, s *big.Int) (short, long []byte) {
	size := (curve.Params().BitSize + 7) / 8
	whole := join(curve, r, s)
	short = append(slices.Clone(whole[1:size]), whole[size+1:]...)
	long = slices.Concat([]byte{0}, whole[:size], []byte{0}, whole[size:])
	return short, long
}

// Ed25519 signatures have one form: s over the order of the group is refused.
func TestTHREATS15EdDSAMalleability(t *testing.T) {
	s := newSigner(t, jose.EdDSA)
	key := admit(t, s.jwk())
	input := b64([]byte(typicalHeader(jose.EdDSA))) + "." + b64([]byte(`{}`))
	signature := s.sign(t, input)
	order, ok := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	if !ok {
		t.Fatal("not a number")
	}
	scalar := slices.Clone(signature[32:])
	slices.Reverse(scalar)
	moved := new(big.Int).Add(new(big.Int).SetBytes(scalar), order).FillBytes(make([]byte, 32))
	slices.Reverse(moved)
	other := append(slices.Clone(signature[:32]), moved...)
	if err := key.Verify(parse(t, input+"."+b64(signature))); err != nil {
		t.Fatal(err)
	}
	if got := reasonOf(t, key.Verify(parse(t, input+"."+b64(other)))); got != jose.SignatureInvalid {
		t.Errorf("THREATS 15: got %q", got)
	}
}

// THREATS 15: the algorithm comes from the key; a token cannot choose another.
func TestTHREATS15TheTokenChoosesNoAlgorithm(t *testing.T) {
	for _, keyAlg := range jose.Algorithms() {
		s := newSigner(t, keyAlg)
		key := admit(t, with(s.jwk(), map[string]any{"alg": string(keyAlg)}))
		for _, tokenAlg := range jose.Algorithms() {
			token := parse(t, s.token(t, typicalHeader(tokenAlg), `{}`))
			want := jose.AlgorithmNotAllowed
			if tokenAlg == keyAlg {
				want = ""
			}
			if got := reasonOf(t, key.Verify(token)); got != want {
				t.Errorf("THREATS 15: a key for %s, a token that says %s: got %q, want %q", keyAlg, tokenAlg, got, want)
			}
		}
	}
}

// THREATS 15: a key without alg serves RS* and PS*, each with its own scheme.
func TestTHREATS15RSAndPSSwapped(t *testing.T) {
	key := admit(t, newSigner(t, jose.RS256).jwk())
	for _, signed := range jose.Algorithms()[:6] {
		s := newSigner(t, signed)
		for _, said := range jose.Algorithms()[:6] {
			want := jose.SignatureInvalid
			if said == signed {
				want = ""
			}
			if got := reasonOf(t, key.Verify(parse(t, s.token(t, typicalHeader(said), `{}`)))); got != want {
				t.Errorf("THREATS 15: signed with %s, says %s: got %q, want %q", signed, said, got, want)
			}
		}
	}
}

// RSA signatures have one length and are below the modulus.
func TestVerifyRefusesRSASignaturesOutOfRange(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	key := admit(t, signer{private: private}.jwk())
	for _, alg := range []jose.Algorithm{jose.RS256, jose.PS256} {
		s := signer{alg: alg, private: private}
		input := b64([]byte(typicalHeader(alg))) + "." + b64([]byte(`{}`))
		value := new(big.Int).SetBytes(s.sign(t, input))
		for name, signature := range map[string][]byte{
			"zero":             make([]byte, 256),
			"one":              big.NewInt(1).FillBytes(make([]byte, 256)),
			"the modulus":      private.N.Bytes(),
			"plus the modulus": new(big.Int).Add(value, private.N).FillBytes(make([]byte, 257)),
		} {
			if got := reasonOf(t, key.Verify(parse(t, input+"."+b64(signature)))); got != jose.SignatureInvalid {
				t.Errorf("%s, %s: got %q", alg, name, got)
			}
		}
	}
}

// THREATS 15: PKCS #1 signatures whose padding is cut short (Bleichenbacher,
// 2006) pass careless verifiers for keys with exponent 3.
func TestTHREATS15ForgeryWithExponent3(t *testing.T) {
	n := new(big.Int).Lsh(big.NewInt(1), 2047) // the factors do not matter here
	for {
		n.Add(n, big.NewInt(1))
		if _, err := jose.ParseKey([]byte(rsaJWK(n, big.NewInt(3)))); err == nil {
			break
		}
	}
	key, err := jose.ParseKey([]byte(rsaJWK(n, big.NewInt(3))))
	if err != nil {
		t.Fatal(err)
	}
	input := b64([]byte(typicalHeader(jose.RS256))) + "." + b64([]byte(`{}`))
	s := signer{alg: jose.RS256}
	prefix := []byte{0x00, 0x01, 0xff, 0x00, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
	block := slices.Concat(prefix, s.digest(input), make([]byte, 256-len(prefix)-crypto.SHA256.Size()))
	root := cubeRoot(new(big.Int).SetBytes(block))
	cube := new(big.Int).Exp(root, big.NewInt(3), nil).FillBytes(make([]byte, 256))
	if !slices.Equal(cube[:len(prefix)], prefix) {
		t.Fatal("the forgery does not start as it should")
	}
	if got := reasonOf(t, key.Verify(parse(t, input+"."+b64(root.FillBytes(make([]byte, 256)))))); got != jose.SignatureInvalid {
		t.Errorf("THREATS 15: got %q", got)
	}
}

// cubeRoot is the smallest number whose cube is not less than n.
func cubeRoot(n *big.Int) *big.Int {
	low, high := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(n.BitLen()/3+1))
	for low.Cmp(high) < 0 {
		middle := new(big.Int).Rsh(new(big.Int).Add(low, high), 1)
		if new(big.Int).Exp(middle, big.NewInt(3), nil).Cmp(n) < 0 {
			low = middle.Add(middle, big.NewInt(1))
		} else {
			high = middle
		}
	}
	return low
}

func rsaJWK(n, e *big.Int) string {
	return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`, b64(n.Bytes()), b64(e.Bytes()))
}

// The point of refusing points of small order: everybody can sign for them.
func TestSmallOrderPointsSignEverything(t *testing.T) {
	identity := append([]byte{1}, make([]byte, 31)...)
	signature := append(slices.Clone(identity), make([]byte, 32)...)
	if !ed25519.Verify(identity, []byte("whatever"), signature) {
		t.Fatal("the standard library refuses such keys by itself: this check is not needed any more")
	}
	_, err := jose.ParseKey([]byte(`{"kty":"OKP","crv":"Ed25519","x":"` + b64(identity) + `"}`))
	if got := reasonOf(t, err); got != jose.SmallOrderPoint {
		t.Errorf("got %q", got)
	}
}

// Keys and tokens are shared by many requests at once.
func TestVerifyIsSafeForConcurrentUse(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		s := newSigner(t, alg)
		key, token := admit(t, s.jwk()), parse(t, s.token(t, typicalHeader(alg), `{}`))
		errs := make(chan error, 8)
		for range cap(errs) {
			go func() { errs <- key.Verify(token) }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Errorf("%s: %v", alg, err)
			}
		}
	}
}
