// key_test.go: which keys of an issuer are admitted, as what, and which are not.
package jose_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// roca is a modulus whose primes were made like those of CVE-2017-15361, and
// closeTogether one of primes that differ in their lower half only.
const (
	roca          = "a9e3f1f21431b413306085f1e099ed4bfbe3f0671ff6fe81b75fd54542bd48a3ded2f37f061cfa81c5321566df7c94a08f89763b7b60c2a105d8a77724f8f465e87ad531effc867a7d30f8b8dd8b8418b8dc18546a8dd9269cb18a60813765c82162373322c0aa1a773f75dd2fc1d85a332b5ba465d2a426ce6bab727846b8547acc12b7ddbd4be09d53f89bf5ff2793dfc9bb7407bdabf14e94253857ebe5fcfd0ee1d3405d726f8de43b9d627f6d45fcceace94bad70d6211734a66bfaed34233fb473c85de6d6f8b0d84f9aa7c0412ef4684c0f7880a5e2ced0168bbe6610fe6b151117bb25ab714e4266d593a75e40025c3836d37ac3823b42a9bf2bc27b"
	closeTogether = "ff2de59927eb93530592718b5ba3a1dd6929c0f1f2a6182ac6ce2865090b84d8db17f4540497e463044ece33d52d5385816c4b3f3cd196384492ae1d64ae10ffc2fb08b03c9e17cdf4f2c5f70c35a4348b9ef4f6eae1747a99d45253d3544b816e46fb254957d8ca37c0fef0c76e639de75bd9de32201e9e49059f393b59c5b57c850242f4a9f76797821cb64f702756d9df6053fd9e5a45ea8ac10f1316b1f9fe444e17baaddf752a80e80585cb94ddb91a0817b74ff1e9712049da968b6f9c8ff363528085a965e67e0050b1aec7db5be4b58e69e34d027c5c257176e290eab3029e6f3b24a310d46843689b48169127fc04452eff2eef43584e0cda24f841"
)

func fromHex(t testing.TB, text string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(text, 16)
	if !ok {
		t.Fatal("not a hexadecimal number")
	}
	return n
}

// The example of RFC 7638 section 3.1.
func TestThumbprintOfRFC7638(t *testing.T) {
	key, err := jose.ParseKey([]byte(`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.Thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseKeyReads(t *testing.T) {
	rsaAlgorithms := jose.Algorithms()[:6]
	for name, test := range map[string]struct {
		signs      jose.Algorithm
		declared   any
		kty, curve string
		bits       int
		bound      jose.Algorithm
		serves     []jose.Algorithm
	}{
		"RSA":                             {jose.RS256, "RS512", "RSA", "", 2048, jose.RS512, []jose.Algorithm{jose.RS512}},
		"THREATS 23: RSA without alg":     {jose.RS256, nil, "RSA", "", 2048, "", rsaAlgorithms},
		"THREATS 23: RSA with empty alg":  {jose.RS256, "", "RSA", "", 2048, "", rsaAlgorithms},
		"THREATS 23: P-256 without alg":   {jose.ES256, nil, "EC", "P-256", 0, jose.ES256, []jose.Algorithm{jose.ES256}},
		"THREATS 23: P-384 without alg":   {jose.ES384, nil, "EC", "P-384", 0, jose.ES384, []jose.Algorithm{jose.ES384}},
		"THREATS 23: P-521 without alg":   {jose.ES512, nil, "EC", "P-521", 0, jose.ES512, []jose.Algorithm{jose.ES512}},
		"P-521":                           {jose.ES512, "ES512", "EC", "P-521", 0, jose.ES512, []jose.Algorithm{jose.ES512}},
		"THREATS 23: Ed25519 without alg": {jose.EdDSA, nil, "OKP", "Ed25519", 0, jose.EdDSA, []jose.Algorithm{jose.EdDSA}},
		"Ed25519 by its RFC 9864 name":    {jose.EdDSA, "Ed25519", "OKP", "Ed25519", 0, jose.EdDSA, []jose.Algorithm{jose.EdDSA}},
	} {
		t.Run(name, func(t *testing.T) {
			key := admit(t, with(newSigner(t, test.signs).jwk(), map[string]any{"alg": test.declared, "use": "sig"}))
			if key.KeyID() != "k1" || key.Use() != "sig" || key.KeyType() != test.kty || key.Curve() != test.curve || key.Bits() != test.bits {
				t.Errorf("read as kid %q, use %q, kty %q, crv %q, %d bits", key.KeyID(), key.Use(), key.KeyType(), key.Curve(), key.Bits())
			}
			if key.Algorithm() != test.bound || !slices.Equal(key.Algorithms(), test.serves) {
				t.Errorf("bound to %q, serves %v", key.Algorithm(), key.Algorithms())
			}
			for _, a := range jose.Algorithms() {
				if key.Fits(a) != slices.Contains(test.serves, a) {
					t.Errorf("Fits(%s) is %t", a, key.Fits(a))
				}
			}
		})
	}
}

// What callers get cannot be used to change the key.
func TestKeyIsImmutable(t *testing.T) {
	key := admit(t, newSigner(t, jose.RS256).jwk())
	key.Algorithms()[0] = "none"
	jose.Algorithms()[0] = "none"
	key.MarshalJWK()[0] = 'x'
	if key.Algorithms()[0] != jose.RS256 || jose.Algorithms()[0] != jose.RS256 || key.MarshalJWK()[0] != '{' {
		t.Error("changed")
	}
}

func TestParseKeyRefuses(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	n, one := private.N, big.NewInt(1)
	bits := func(size uint) *big.Int { return new(big.Int).Sub(new(big.Int).Lsh(one, size), big.NewInt(159)) }
	multiple := func(p int64) *big.Int { // of p, odd, as long as n
		m := new(big.Int).Sub(n, new(big.Int).Mod(n, big.NewInt(p)))
		if m.Bit(0) == 0 && p != 2 {
			m.Add(m, big.NewInt(p))
		}
		return m
	}
	ownRSA, ownEC, ownEd := newSigner(t, jose.RS256).jwk(), newSigner(t, jose.ES256).jwk(), newSigner(t, jose.EdDSA).jwk()
	otherEC := newSigner(t, jose.ES256).jwk()
	changedRSA := func(n, e *big.Int) map[string]any {
		return with(ownRSA, map[string]any{"n": b64(n.Bytes()), "e": b64(e.Bytes())})
	}
	e := big.NewInt(65537)
	for name, test := range map[string]struct {
		jwk  map[string]any
		want jose.Reason
	}{
		"THREATS 18: oct":                     {map[string]any{"kty": "oct", "k": "c2VjcmV0"}, jose.SymmetricKey},
		"THREATS 18: oct without k":           {map[string]any{"kty": "oct"}, jose.SymmetricKey},
		"THREATS 18: oct for HS256":           {map[string]any{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, jose.SymmetricKey},
		"THREATS 19: RSA of 512 bits":         {changedRSA(bits(512), e), jose.WeakKey},
		"THREATS 19: RSA of 1024 bits":        {changedRSA(bits(1024), e), jose.WeakKey},
		"THREATS 19: RSA of 2047 bits":        {changedRSA(bits(2047), e), jose.WeakKey},
		"THREATS 19: RSA of 8193 bits":        {changedRSA(bits(8193), e), jose.KeyTooLarge},
		"THREATS 19: RSA of 100000 bits":      {changedRSA(bits(100_000), e), jose.KeyTooLarge},
		"THREATS 19: zeros before 1024 bits":  {with(ownRSA, map[string]any{"n": b64(append(make([]byte, 200), bits(1024).Bytes()...))}), jose.WeakKey},
		"THREATS 19: modulus 0":               {with(ownRSA, map[string]any{"n": "AA"}), jose.WeakKey},
		"THREATS 19: e = 0":                   {with(ownRSA, map[string]any{"e": "AA"}), jose.BadExponent},
		"THREATS 19: e = 1":                   {changedRSA(n, one), jose.BadExponent},
		"THREATS 19: e = 2":                   {changedRSA(n, big.NewInt(2)), jose.BadExponent},
		"THREATS 19: e even":                  {changedRSA(n, big.NewInt(65536)), jose.BadExponent},
		"THREATS 19: e = 2^31+1":              {changedRSA(n, big.NewInt(1<<31+1)), jose.BadExponent},
		"THREATS 19: e = 2^32+65537":          {changedRSA(n, big.NewInt(1<<32+65537)), jose.BadExponent},
		"THREATS 19: e = 2^64+65537":          {changedRSA(n, new(big.Int).Add(new(big.Int).Lsh(one, 64), e)), jose.BadExponent},
		"THREATS 19: e of 100000 bits":        {changedRSA(n, bits(100_000)), jose.BadExponent},
		"THREATS 19: modulus even":            {changedRSA(multiple(2), e), jose.WeakModulus},
		"THREATS 19: modulus of 3":            {changedRSA(multiple(3), e), jose.WeakModulus},
		"THREATS 19: modulus of 997":          {changedRSA(multiple(997), e), jose.WeakModulus},
		"THREATS 19: modulus a square":        {changedRSA(new(big.Int).Mul(private.Primes[0], private.Primes[0]), e), jose.WeakModulus},
		"THREATS 19: modulus of ROCA":         {changedRSA(fromHex(t, roca), e), jose.WeakModulus},
		"THREATS 19: modulus of close primes": {changedRSA(fromHex(t, closeTogether), e), jose.WeakModulus},
		"THREATS 20: off the curve":           {with(ownEC, map[string]any{"y": otherEC["y"]}), jose.PointNotOnCurve},
		"THREATS 20: the origin":              {with(ownEC, map[string]any{"x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}), jose.PointNotOnCurve},
		"THREATS 20: over the field":          {with(ownEC, map[string]any{"x": b64(bytes.Repeat([]byte{255}, 32))}), jose.PointNotOnCurve},
		"THREATS 20: another curve's point":   {with(newSigner(t, jose.ES384).jwk(), map[string]any{"crv": "P-256"}), jose.MalformedKey},
		"THREATS 20: x too short":             {with(ownEC, map[string]any{"x": b64(make([]byte, 31))}), jose.MalformedKey},
		"THREATS 20: x too long":              {with(ownEC, map[string]any{"x": b64(make([]byte, 33))}), jose.MalformedKey},
		"THREATS 20: no y":                    {with(ownEC, map[string]any{"y": nil}), jose.MalformedKey},
		"THREATS 20: no crv":                  {with(ownEC, map[string]any{"crv": nil}), jose.UnsupportedCurve},
		"THREATS 20: crv a number":            {with(ownEC, map[string]any{"crv": 256}), jose.MalformedKey},
		"THREATS 20: P-224":                   {with(ownEC, map[string]any{"crv": "P-224"}), jose.UnsupportedCurve},
		"THREATS 20: secp256k1":               {with(ownEC, map[string]any{"crv": "secp256k1"}), jose.UnsupportedCurve},
		"THREATS 20: crv in another case":     {with(ownEC, map[string]any{"crv": "p-256"}), jose.UnsupportedCurve},
		"THREATS 20: Ed25519 as EC":           {with(ownEC, map[string]any{"crv": "Ed25519"}), jose.UnsupportedCurve},
		"THREATS 20: P-256 as OKP":            {with(ownEd, map[string]any{"crv": "P-256"}), jose.UnsupportedCurve},
		"THREATS 20: X25519":                  {with(ownEd, map[string]any{"crv": "X25519"}), jose.UnsupportedCurve},
		"THREATS 20: Ed448":                   {with(ownEd, map[string]any{"crv": "Ed448"}), jose.UnsupportedCurve},
		"THREATS 20: OKP, crv a number":       {with(ownEd, map[string]any{"crv": 25519}), jose.MalformedKey},
		"THREATS 20: Ed25519, 31 bytes":       {with(ownEd, map[string]any{"x": b64(make([]byte, 31))}), jose.MalformedKey},
		"THREATS 20: Ed25519, 33 bytes":       {with(ownEd, map[string]any{"x": b64(make([]byte, 33))}), jose.MalformedKey},
		"THREATS 20: Ed25519, no x":           {with(ownEd, map[string]any{"x": nil}), jose.MalformedKey},
		"THREATS 20: Ed25519, small order":    {with(ownEd, map[string]any{"x": b64(make([]byte, 32))}), jose.SmallOrderPoint},
		"THREATS 20: Ed25519, no point":       {with(ownEd, map[string]any{"x": b64(append([]byte{2}, make([]byte, 31)...))}), jose.PointNotOnCurve},
		"THREATS 20: ES384 on P-256":          {with(ownEC, map[string]any{"alg": "ES384"}), jose.AlgorithmMismatch},
		"THREATS 20: RS256 on P-256":          {with(ownEC, map[string]any{"alg": "RS256"}), jose.AlgorithmMismatch},
		"THREATS 20: ES256 on RSA":            {with(ownRSA, map[string]any{"alg": "ES256"}), jose.AlgorithmMismatch},
		"THREATS 20: EdDSA on RSA":            {with(ownRSA, map[string]any{"alg": "EdDSA"}), jose.AlgorithmMismatch},
		"THREATS 20: ES256 on Ed25519":        {with(ownEd, map[string]any{"alg": "ES256"}), jose.AlgorithmMismatch},
		"THREATS 21: key_ops sign":            {with(ownRSA, map[string]any{"key_ops": []string{"sign"}}), jose.KeyOperations},
		"THREATS 21: key_ops encrypt":         {with(ownRSA, map[string]any{"key_ops": []string{"encrypt", "wrapKey"}}), jose.KeyOperations},
		"THREATS 21: key_ops empty":           {with(ownRSA, map[string]any{"key_ops": []string{}}), jose.KeyOperations},
		"THREATS 21: key_ops Verify":          {with(ownRSA, map[string]any{"key_ops": []string{"Verify"}}), jose.KeyOperations},
		"THREATS 21: key_ops a string":        {with(ownRSA, map[string]any{"key_ops": "verify"}), jose.MalformedKey},
		"THREATS 21: use a number":            {with(ownRSA, map[string]any{"use": 1}), jose.MalformedKey},
		"THREATS 24: RSA-OAEP":                {with(ownRSA, map[string]any{"alg": "RSA-OAEP"}), jose.UnsupportedAlgorithm},
		"THREATS 24: RSA-OAEP-256":            {with(ownRSA, map[string]any{"alg": "RSA-OAEP-256"}), jose.UnsupportedAlgorithm},
		"THREATS 24: ECDH-ES":                 {with(ownEC, map[string]any{"alg": "ECDH-ES"}), jose.UnsupportedAlgorithm},
		"THREATS 1: alg none":                 {with(ownRSA, map[string]any{"alg": "none"}), jose.UnsupportedAlgorithm},
		"THREATS 2: alg HS256 on RSA":         {with(ownRSA, map[string]any{"alg": "HS256"}), jose.UnsupportedAlgorithm},
		"alg in another case":                 {with(ownRSA, map[string]any{"alg": "rs256"}), jose.UnsupportedAlgorithm},
		"alg a number":                        {with(ownRSA, map[string]any{"alg": 256}), jose.MalformedKey},
		"kid of 129 bytes":                    {with(ownRSA, map[string]any{"kid": strings.Repeat("k", 129)}), jose.KeyIDTooLong},
		"kid a number":                        {with(ownRSA, map[string]any{"kid": 7}), jose.MalformedKey},
		"no kty":                              {with(ownRSA, map[string]any{"kty": nil}), jose.MalformedKey},
		"kty empty":                           {with(ownRSA, map[string]any{"kty": ""}), jose.MalformedKey},
		"kty a number":                        {with(ownRSA, map[string]any{"kty": 1}), jose.MalformedKey},
		"kty in another case":                 {with(ownRSA, map[string]any{"kty": "rsa"}), jose.UnsupportedKeyType},
		"kty AKP":                             {map[string]any{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}, jose.UnsupportedKeyType},
		"no n":                                {with(ownRSA, map[string]any{"n": nil}), jose.MalformedKey},
		"no e":                                {with(ownRSA, map[string]any{"e": nil}), jose.MalformedKey},
		"n empty":                             {with(ownRSA, map[string]any{"n": ""}), jose.MalformedKey},
		"e a number":                          {with(ownRSA, map[string]any{"e": 65537}), jose.MalformedKey},
		"n with a space":                      {with(ownRSA, map[string]any{"n": " " + b64(n.Bytes())}), jose.MalformedKey},
		"n with a line break":                 {with(ownRSA, map[string]any{"n": b64(n.Bytes()) + "\n"}), jose.MalformedKey},
		"n with padding inside":               {with(ownRSA, map[string]any{"n": "AA==" + b64(n.Bytes())}), jose.MalformedKey},
		"n of other characters":               {with(ownRSA, map[string]any{"n": "!" + b64(n.Bytes())}), jose.MalformedKey},
		"members in another case":             {map[string]any{"KTY": "RSA", "N": ownRSA["n"], "E": "AQAB"}, jose.MalformedKey},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := jose.ParseKey(encode(t, test.jwk))
			if got := reasonOf(t, err); got != test.want || key != nil {
				t.Errorf("got %q, want %q: %v", got, test.want, err)
			}
		})
	}
}

func TestParseKeyRefusesTexts(t *testing.T) {
	good := string(encode(t, newSigner(t, jose.ES256).jwk()))
	if _, err := jose.ParseKey([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":               "",
		"null":                  "null",
		"a string":              `"key"`,
		"an array":              "[" + good + "]",
		"bytes after it":        good + "x",
		"a second key":          good + good,
		"a member twice":        `{"kty":"EC",` + good[1:],
		"twice, deep inside":    `{"a":{"b":1,"b":2},` + good[1:],
		"nesting of 33":         `{"a":` + nested(32) + `,` + good[1:],
		"invalid UTF-8":         "{\"a\":\"\xff\"," + good[1:],
		"half a surrogate pair": strings.Replace(good, `"k1"`, `"\ud800"`, 1),
	} {
		_, err := jose.ParseKey([]byte(text))
		if got := reasonOf(t, err); got != jose.MalformedKey {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// Issuers publish base64 in all its forms; what we write has one.
func TestParseKeyToleratesForms(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	jwk := signer{private: private}.jwk()
	want := admit(t, jwk)
	stray := b64(private.N.Bytes()) // 256 bytes: the last character has four bits to spare
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", stray[len(stray)-1])
	stray = stray[:len(stray)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last|1])
	for name, changes := range map[string]map[string]any{
		"padding":                    {"n": base64.URLEncoding.EncodeToString(private.N.Bytes())},
		"the standard alphabet":      {"n": base64.RawStdEncoding.EncodeToString(private.N.Bytes())},
		"standard and padded":        {"n": base64.StdEncoding.EncodeToString(private.N.Bytes())},
		"stray low bits":             {"n": stray},
		"a zero before the modulus":  {"n": b64(append([]byte{0}, private.N.Bytes()...))},
		"zeros before the exponent":  {"e": "AAABAAE"},
		"THREATS 22: x5c and others": {"x5c": []string{"not a certificate"}, "x5t": "AAAA", "x5t#S256": 1, "x5u": "https://attacker.example/"},
		"an x5c that is no array":    {"x5c": map[string]any{"a": 1}},
		"members of other kinds":     {"k": "c2VjcmV0", "crv": "P-256", "x": "AA", "y": "AA", "iat": 1700000000, "issuer": "https://login.example/v2.0", "ext": true},
		"key_ops with verify":        {"key_ops": []string{"sign", "verify"}},
		"a use":                      {"use": "sig"},
	} {
		t.Run(name, func(t *testing.T) {
			key := admit(t, with(jwk, changes))
			if !bytes.Equal(key.MarshalJWK(), want.MarshalJWK()) || key.Thumbprint() != want.Thumbprint() {
				t.Errorf("got %s, want %s", key.MarshalJWK(), want.MarshalJWK())
			}
		})
	}
}

func TestParseKeyAdmitsTheBounds(t *testing.T) {
	wide := new(big.Int).Lsh(big.NewInt(1), 8191)
	wide.Add(wide, big.NewInt(1))
	for {
		_, err := jose.ParseKey([]byte(rsaJWK(wide, big.NewInt(65537))))
		if err == nil {
			break
		}
		if got := reasonOf(t, err); got != jose.WeakModulus { // a small factor by chance
			t.Fatalf("8192 bits: got %q", got)
		}
		wide.Add(wide, big.NewInt(2))
	}
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []int64{3, 17, 65537, 1<<31 - 1} {
		if _, err := jose.ParseKey([]byte(rsaJWK(private.N, big.NewInt(e)))); err != nil {
			t.Errorf("e = %d: %v", e, err)
		}
	}
	kid := strings.Repeat("k", jose.MaxKeyID)
	if key := admit(t, with(newSigner(t, jose.ES256).jwk(), map[string]any{"kid": kid})); key.KeyID() != kid {
		t.Errorf("a kid of %d bytes: got %q", len(kid), key.KeyID())
	}
}

func TestMarshalJWKIsCanonical(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	n := b64(private.N.Bytes())
	rsaKey := signer{private: private}.jwk()
	ec, ed := newSigner(t, jose.ES384).jwk(), newSigner(t, jose.EdDSA).jwk()
	text := func(jwk map[string]any, name string) string {
		s, ok := jwk[name].(string)
		if !ok {
			t.Fatalf("%s is no string", name)
		}
		return s
	}
	for want, jwk := range map[string]map[string]any{
		`{"alg":"PS384","e":"AQAB","kid":"k1","kty":"RSA","n":"` + n + `","use":"sig"}`:                                           with(rsaKey, map[string]any{"alg": "PS384"}),
		`{"e":"AQAB","kid":"k1","kty":"RSA","n":"` + n + `","use":"sig"}`:                                                         with(rsaKey, map[string]any{"use": "jwt-svid", "x5c": []string{"AA"}}),
		`{"e":"AQAB","kty":"RSA","n":"` + n + `","use":"sig"}`:                                                                    with(rsaKey, map[string]any{"kid": ""}),
		`{"alg":"ES384","crv":"P-384","kid":"k1","kty":"EC","use":"sig","x":"` + text(ec, "x") + `","y":"` + text(ec, "y") + `"}`: ec,
		`{"alg":"EdDSA","crv":"Ed25519","kty":"OKP","use":"sig","x":"` + text(ed, "x") + `"}`:                                     with(ed, map[string]any{"kid": nil}),
	} {
		if got := string(admit(t, jwk).MarshalJWK()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// Whatever the kid is, what we write reads back as it, and others read it too.
func TestMarshalJWKReadsBack(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		for _, kid := range []string{"", "k1", `"}],"keys":[{"`, "<&>\u2028\n\x7f\x00", "😀", `\`} {
			s := newSigner(t, alg)
			key := admit(t, with(s.jwk(), map[string]any{"kid": kid, "alg": string(alg)}))
			again, err := jose.ParseKey(key.MarshalJWK())
			if err != nil {
				t.Fatalf("%s, %q: %v", alg, kid, err)
			}
			if again.KeyID() != kid || again.Thumbprint() != key.Thumbprint() || !bytes.Equal(again.MarshalJWK(), key.MarshalJWK()) {
				t.Errorf("%s, %q: read back as %s", alg, kid, again.MarshalJWK())
			}
			other, err := jwk.ParseKey(key.MarshalJWK())
			if err != nil {
				t.Fatalf("%s, %q: another library: %v", alg, kid, err)
			}
			sum, err := other.Thumbprint(crypto.SHA256)
			if err != nil || b64(sum) != key.Thumbprint() || other.KeyID() != kid || other.Algorithm().String() != string(alg) {
				t.Errorf("%s, %q: another library reads %v, thumbprint %s, %v", alg, kid, other, b64(sum), err)
			}
		}
	}
}

// exposure is the outcome for a key with private members: the thumbprint of a
// genuine one, or a reason.
func exposure(t *testing.T, err error) (thumbprint string, reason jose.Reason) {
	t.Helper()
	var exposed *jose.ExposedKeyError
	if errors.As(err, &exposed) {
		return exposed.Thumbprint, ""
	}
	return "", reasonOf(t, err)
}

func TestTHREATS17PrivateMembers(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, other := signer{private: private}.jwk(), newForeignSigner(t, jose.RS256)
	thumbprint := admit(t, rsaKey).Thumbprint()
	d, p, q := b64(private.D.Bytes()), b64(private.Primes[0].Bytes()), b64(private.Primes[1].Bytes())
	foreign, ok := other.private.(*rsa.PrivateKey)
	if !ok {
		t.Fatal("the key is no RSA key")
	}
	// Larger by a multiple of (p-1)(q-1), it would still undo the public exponent.
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(private.Primes[0], one), new(big.Int).Sub(private.Primes[1], one))
	long := new(big.Int).Add(private.D, new(big.Int).Lsh(phi, 100))
	for name, test := range map[string]struct {
		changes map[string]any
		genuine bool
	}{
		"d over the modulus":  {map[string]any{"d": b64(long.Bytes())}, false},
		"d":                   {map[string]any{"d": d}, true},
		"d, padded":           {map[string]any{"d": base64.StdEncoding.EncodeToString(private.D.Bytes())}, true},
		"all of them":         {map[string]any{"d": d, "p": p, "q": q, "dp": "AA", "dq": "AA", "qi": "AA"}, true},
		"p alone":             {map[string]any{"p": p}, true},
		"q alone":             {map[string]any{"q": q}, true},
		"d, for encryption":   {map[string]any{"d": d, "use": "enc", "alg": "RSA-OAEP"}, true},
		"d, and a long kid":   {map[string]any{"d": d, "kid": strings.Repeat("k", 200)}, true},
		"d, and a bad kid":    {map[string]any{"d": d, "kid": 1}, true},
		"d, and no verify":    {map[string]any{"d": d, "key_ops": []string{"sign"}}, true},
		"another key's d":     {map[string]any{"d": b64(foreign.D.Bytes())}, false},
		"another key's p":     {map[string]any{"p": b64(foreign.Primes[0].Bytes())}, false},
		"d zero":              {map[string]any{"d": "AA"}, false},
		"d one":               {map[string]any{"d": "AQ"}, false},
		"d empty":             {map[string]any{"d": ""}, false},
		"d null":              {map[string]any{"d": json.RawMessage("null")}, false},
		"d a number":          {map[string]any{"d": 1}, false},
		"d no base64":         {map[string]any{"d": "!"}, false},
		"d huge":              {map[string]any{"d": b64(bytes.Repeat([]byte{255}, 60_000))}, false},
		"p one":               {map[string]any{"p": "AQ"}, false},
		"p the modulus":       {map[string]any{"p": b64(private.N.Bytes())}, false},
		"dp alone":            {map[string]any{"dp": "AQ"}, false},
		"dq alone":            {map[string]any{"dq": "AQ"}, false},
		"qi alone":            {map[string]any{"qi": "AQ"}, false},
		"oth alone":           {map[string]any{"oth": []any{}}, false},
		"d of a weak key":     {map[string]any{"d": d, "n": "AQAB"}, false},
		"d of an unknown kty": {map[string]any{"d": d, "kty": "AKP"}, false},
	} {
		t.Run("THREATS 17: RSA, "+name, func(t *testing.T) {
			key, err := jose.ParseKey(encode(t, with(rsaKey, test.changes)))
			got, reason := exposure(t, err)
			if key != nil || err == nil || strings.Contains(err.Error(), d) {
				t.Errorf("got %v, %v", key, err)
			}
			if test.genuine && got != thumbprint || !test.genuine && reason != jose.PrivateKeyExposed {
				t.Errorf("got thumbprint %q, reason %q", got, reason)
			}
		})
	}
}

func TestTHREATS17PrivateCurveKeys(t *testing.T) {
	for _, alg := range []jose.Algorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA} {
		s, other := newSigner(t, alg), newSigner(t, alg)
		thumbprint := admit(t, s.jwk()).Thumbprint()
		for name, test := range map[string]struct {
			d       any
			genuine bool
		}{
			"its own":     {b64(secret(t, s)), true},
			"another's":   {b64(secret(t, other)), false},
			"zero":        {b64(make([]byte, len(secret(t, s)))), false},
			"too large":   {b64(bytes.Repeat([]byte{255}, 100)), false},
			"null":        {json.RawMessage("null"), false},
			"a short one": {"AQ", false},
		} {
			key, err := jose.ParseKey(encode(t, with(s.jwk(), map[string]any{"d": test.d})))
			got, reason := exposure(t, err)
			if key != nil || test.genuine && got != thumbprint || !test.genuine && reason != jose.PrivateKeyExposed {
				t.Errorf("THREATS 17: %s, %s: got thumbprint %q, reason %q", alg, name, got, reason)
			}
		}
	}
}

// secret is the "d" of a key.
func secret(t *testing.T, s signer) []byte {
	t.Helper()
	if key, ok := s.private.(*ecdsa.PrivateKey); ok {
		d, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	seed, ok := s.private.(interface{ Seed() []byte })
	if !ok {
		t.Fatal("the key has no seed")
	}
	return seed.Seed()
}

// Some issuers strip the leading zeros of an EC private key, or add one.
func TestTHREATS17CurveKeysWithOtherLengths(t *testing.T) {
	d := big.NewInt(0x1234567)
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := signer{alg: jose.ES256, private: private}
	for _, size := range []int{4, 32, 33} {
		_, err := jose.ParseKey(encode(t, with(s.jwk(), map[string]any{"d": b64(d.FillBytes(make([]byte, size)))})))
		if thumbprint, _ := exposure(t, err); thumbprint != admit(t, s.jwk()).Thumbprint() {
			t.Errorf("THREATS 17: %d bytes: got %v", size, err)
		}
	}
}

// Proving that a private part is genuine costs much more than reading a key: a
// document can have only so many of them judged.
func TestTHREATS17ProofsAreBounded(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	s := signer{private: private}
	genuine := encode(t, with(s.jwk(), map[string]any{"d": b64(private.D.Bytes())}))
	n := new(big.Int).Lsh(private.N, 6144)
	n.Add(n, new(big.Int).Lsh(big.NewInt(1), 64)).Add(n, private.N) // 8192 bits
	for {
		if _, err := jose.ParseKey([]byte(rsaJWK(n, big.NewInt(65537)))); err == nil {
			break
		}
		n.Add(n, big.NewInt(1))
	}
	expensive := []byte(strings.TrimSuffix(rsaJWK(n, big.NewInt(65537)), "}") + `,"d":"` + b64(private.D.Bytes()) + `"}`)

	var hundred jose.Parser
	for i := range 100 {
		if _, err := hundred.ParseKey(genuine); !isExposed(err) {
			t.Fatalf("THREATS 17: key %d of 100: got %v", i, err)
		}
	}
	var hostile jose.Parser
	for range 3 {
		if _, err := hostile.ParseKey(expensive); reasonOf(t, err) != jose.PrivateKeyExposed {
			t.Fatalf("THREATS 17: got %v", err)
		}
	}
	if _, err := hostile.ParseKey(genuine); isExposed(err) || reasonOf(t, err) != jose.PrivateKeyExposed {
		t.Errorf("THREATS 17: with nothing left to spend, got %v", err)
	}
	factors := encode(t, with(s.jwk(), map[string]any{"p": b64(private.Primes[0].Bytes())}))
	if _, err := hostile.ParseKey(factors); !isExposed(err) {
		t.Errorf("THREATS 17: a factor costs nothing to check, got %v", err)
	}
}

func isExposed(err error) bool {
	var exposed *jose.ExposedKeyError
	return errors.As(err, &exposed)
}

// certificate makes a self-signed certificate in PEM.
func certificate(t testing.TB, private crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestKeyFromCertificate(t *testing.T) {
	for _, alg := range []jose.Algorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512} {
		s := newSigner(t, alg)
		key, err := jose.KeyFromCertificate("k1", certificate(t, s.private))
		if err != nil {
			t.Fatal(err)
		}
		if want := admit(t, with(s.jwk(), map[string]any{"alg": string(alg)})); !bytes.Equal(key.MarshalJWK(), want.MarshalJWK()) {
			t.Errorf("%s: got %s, want %s", alg, key.MarshalJWK(), want.MarshalJWK())
		}
		if err := key.Verify(parse(t, s.token(t, typicalHeader(alg), `{}`))); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestKeyFromCertificateRefuses(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := certificate(t, private)
	for name, test := range map[string]struct {
		kid  string
		text []byte
		want jose.Reason
	}{
		"nothing":                      {"k1", nil, jose.MalformedKey},
		"no PEM":                       {"k1", []byte("certificate"), jose.MalformedKey},
		"no certificate":               {"k1", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), jose.MalformedKey},
		"a private key":                {"k1", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}), jose.MalformedKey},
		"two certificates":             {"k1", slices.Concat(good, good), jose.MalformedKey},
		"text after it":                {"k1", append(slices.Clone(good), 'x'), jose.MalformedKey},
		"an Ed25519 key":               {"k1", certificate(t, newSigner(t, jose.EdDSA).private), jose.UnsupportedKeyType},
		"THREATS 19: RSA of 1024 bits": {"k1", certificate(t, weak), jose.WeakKey},
		"a P-224 key":                  {"k1", certificate(t, small), jose.UnsupportedCurve},
		"a kid of 129 bytes":           {strings.Repeat("k", 129), good, jose.KeyIDTooLong},
	} {
		key, err := jose.KeyFromCertificate(test.kid, test.text)
		if got := reasonOf(t, err); got != test.want || key != nil {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
