// parse_test.go: what issuers publish, by mistake or malice, and what becomes of
// it. Rows refer to the project's list of threats.
package keyset_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// One bad key costs itself only: the good one beside it stays.
func TestParseDropsBadKeysOnly(t *testing.T) {
	good, bad := newKey("good"), newKey("bad")
	small := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1))
	rsa, ed := with(rsaKey().JWK(), map[string]any{"kid": "bad"}), testissuer.NewKey("bad", "EdDSA").JWK()
	for name, test := range map[string]struct {
		bad  any
		want string
	}{
		"THREATS 17: private members":    {bad.PrivateJWK(), "PrivateKeyExposed"},
		"THREATS 17: a bogus d":          {with(bad.JWK(), map[string]any{"d": "AQ"}), "PrivateKeyExposed"},
		"THREATS 18: oct":                {map[string]any{"kty": "oct", "kid": "bad", "k": "c2VjcmV0"}, "SymmetricKey"},
		"THREATS 19: 1024 bits":          {with(rsa, map[string]any{"n": b64(small.Bytes())}), "WeakKey"},
		"THREATS 19: 8200 bits":          {with(rsa, map[string]any{"n": b64(slices.Repeat([]byte{255}, 1025))}), "KeyTooLarge"},
		"THREATS 19: e = 1":              {with(rsa, map[string]any{"e": "AQ"}), "BadExponent"},
		"THREATS 19: an even modulus":    {with(rsa, map[string]any{"n": b64(append(slices.Repeat([]byte{255}, 255), 254))}), "WeakModulus"},
		"THREATS 20: off the curve":      {with(bad.JWK(), map[string]any{"y": good.JWK()["y"]}), "PointNotOnCurve"},
		"THREATS 20: crv against alg":    {with(bad.JWK(), map[string]any{"alg": "ES384"}), "AlgorithmMismatch"},
		"THREATS 20: a small order":      {with(ed, map[string]any{"x": b64(make([]byte, 32))}), "SmallOrderPoint"},
		"THREATS 20: an unknown curve":   {with(bad.JWK(), map[string]any{"crv": "secp256k1"}), "UnsupportedCurve"},
		"THREATS 21: use enc":            {with(bad.JWK(), map[string]any{"use": "enc"}), "UseNotAllowed"},
		"THREATS 21: use SIG":            {with(bad.JWK(), map[string]any{"use": "SIG"}), "UseNotAllowed"},
		"THREATS 21: key_ops":            {with(bad.JWK(), map[string]any{"key_ops": []string{"sign"}}), "KeyOperations"},
		"THREATS 24: RSA-OAEP":           {with(rsa, map[string]any{"alg": "RSA-OAEP", "use": "enc"}), "UnsupportedAlgorithm"},
		"an unknown kty":                 {map[string]any{"kty": "AKP", "kid": "bad"}, "UnsupportedKeyType"},
		"kty missing":                    {map[string]any{"kid": "bad"}, "MalformedKey"},
		"a member twice":                 {json.RawMessage(`{"kid":"bad","kty":"EC","kty":"EC"}`), "MalformedKey"},
		"deep nesting":                   {json.RawMessage(`{"kid":"bad","x5c":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`), "MalformedKey"},
		"SPIFFE's use without opting in": {with(bad.JWK(), map[string]any{"use": "jwt-svid"}), "UseNotAllowed"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, keys := range [][]any{{good.JWK(), test.bad}, {test.bad, good.JWK()}} {
				parsed := admit(t, document(t, keys...), keyset.Policy{})
				if kids(parsed.Set) != "good" || len(parsed.Skipped) != 1 {
					t.Fatalf("admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
				}
				skipped := parsed.Skipped[0]
				if skipped.Reason != test.want || skipped.KeyID != "bad" || skipped.Index != slices.IndexFunc(keys, func(k any) bool { return !isGood(k) }) {
					t.Errorf("skipped %+v, want %s", skipped, test.want)
				}
			}
		})
	}
}

func isGood(key any) bool {
	jwk, ok := key.(map[string]any)
	return ok && jwk["kid"] == "good"
}

func TestParseSkipsElementsThatAreNoObjects(t *testing.T) {
	good := newKey("good")
	parsed := admit(t, document(t, nil, 1, "a", []any{good.JWK()}, true, good.JWK()), keyset.Policy{})
	if kids(parsed.Set) != "good" || len(parsed.Skipped) != 5 {
		t.Fatalf("admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
	}
	for i, s := range parsed.Skipped {
		if s != (keyset.Skipped{Index: i, Reason: "MalformedKey"}) {
			t.Errorf("skipped %+v", s)
		}
	}
}

// A document that is not a key set yields none, and says what it seems to be.
func TestParseRefusesOtherDocuments(t *testing.T) {
	key := string(document(t, newKey("k1").JWK()))
	bare := strings.TrimSuffix(strings.TrimPrefix(key, `{"keys":[`), `]}`)
	for name, test := range map[string]struct{ text, says string }{
		"THREATS 26: duplicate keys":          {key[:len(key)-1] + `,` + key[1:], "two members"},
		"THREATS 26: duplicate keys, escaped": {key[:len(key)-1] + `,"k\u0065ys":[]}`, "two members"},
		"THREATS 26: a bare JWK":              {bare, "single key"},
		"THREATS 26: HTML":                    {"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"},
		"THREATS 26: a JSON array":            {`[` + bare + `]`, "not a JSON object"},
		"THREATS 26: an empty object":         {`{}`, `no member "keys"`},
		"THREATS 26: an empty array":          {`[]`, "not a JSON object"},
		"THREATS 26: null":                    {`null`, "not a JSON object"},
		"THREATS 26: nothing":                 {``, "is empty"},
		"THREATS 26: white space":             {" \n", "is empty"},
		"THREATS 26: half a document":         {key[:len(key)-1], "one JSON value"},
		"THREATS 26: bytes after it":          {key + "x", "one JSON value"},
		"THREATS 26: two documents":           {key + key, "one JSON value"},
		"THREATS 26: invalid UTF-8":           {"{\"a\":\"\xff\"," + key[1:], "UTF-8"},
		"THREATS 26: deep nesting":            {`{"keys":` + strings.Repeat("[", 200_000), "nested too deeply"},
		"THREATS 26: Keys in another case":    {`{"Keys":[` + bare + `]}`, `no member "keys"`},
		"THREATS 26: keys null":               {`{"keys":null}`, "not an array"},
		"THREATS 26: keys an object":          {`{"keys":` + bare + `}`, "not an array"},
		"THREATS 26: keys a string":           {`{"keys":"[]"}`, "not an array"},
		"THREATS 26: a discovery document":    {`{"issuer":"https://a","jwks_uri":"https://a/jwks"}`, "discovery document"},
		"THREATS 26: an error":                {`{"error":"not found"}`, `no member "keys"`},
		"a map of strings":                    {`{"k1":"a"}`, `no member "keys"`},
		"a map of public keys":                {`{"k1":"-----BEGIN PUBLIC KEY-----\n"}`, `no member "keys"`},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := refused(t, []byte(test.text), keyset.Policy{})
			if err.Reason != keyset.ReasonNotAKeySet || !strings.Contains(err.Message, test.says) || !strings.Contains(err.Message, "spec.jwksURI") {
				t.Errorf("got %v", err)
			}
			if len(parsed.Skipped)+len(parsed.Compromised) > 0 {
				t.Errorf("skipped %v, compromised %v", parsed.Skipped, parsed.Compromised)
			}
		})
	}
}

func TestParseReadsWhatIsAroundTheKeys(t *testing.T) {
	key := string(document(t, newKey("k1").JWK()))
	for name, text := range map[string]string{
		"white space":         "\r\n\t " + key + "\n",
		"other members":       `{"a":{"b":1,"b":2},"KEYS":1,` + key[1:],
		"duplicates in other": `{"spiffe_sequence":1,"spiffe_refresh_hint":300,` + key[1:],
	} {
		if parsed := admit(t, []byte(text), keyset.Policy{}); kids(parsed.Set) != "k1" {
			t.Errorf("%s: admitted %q", name, kids(parsed.Set))
		}
	}
}

func TestParseCountsKeys(t *testing.T) {
	many := func(n int) []byte {
		one := newKey("").JWK()
		var keys []any
		for i := range n {
			keys = append(keys, with(one, map[string]any{"kid": fmt.Sprintf("k%03d", i)}))
		}
		return document(t, keys...)
	}
	if parsed := admit(t, many(keyset.MaxKeys), keyset.Policy{}); parsed.Set.Len() != keyset.MaxKeys {
		t.Errorf("THREATS 25: %d keys, %d skipped", parsed.Set.Len(), len(parsed.Skipped))
	}
	_, err := refused(t, many(keyset.MaxKeys+1), keyset.Policy{})
	if err.Reason != keyset.ReasonTooManyKeys || !strings.Contains(err.Message, "101") || !strings.Contains(err.Message, "100") {
		t.Errorf("THREATS 25: got %v", err)
	}
	_, err = refused(t, document(t), keyset.Policy{})
	if err.Reason != keyset.ReasonEmptyKeySet {
		t.Errorf("an empty set: got %v", err)
	}
}

func TestParseSaysWhyNoKeyIsLeft(t *testing.T) {
	enc := with(newKey("enc").JWK(), map[string]any{"use": "enc"})
	oct := map[string]any{"kty": "oct", "k": "c2VjcmV0"}
	parsed, err := refused(t, document(t, oct, enc, oct), keyset.Policy{})
	if err.Reason != keyset.ReasonNoUsableKeys || !strings.Contains(err.Message, "SymmetricKey (2), UseNotAllowed (1)") {
		t.Errorf("got %v", err)
	}
	if len(parsed.Skipped) != 3 {
		t.Errorf("skipped %v", parsed.Skipped)
	}
	for _, message := range []string{err.Error(), err.Message} {
		if strings.Contains(message, "c2VjcmV0") {
			t.Errorf("the message holds a secret: %s", message)
		}
	}
}

// THREATS 17: such a key is compromised; it is dropped, and so is every other
// copy of it, and nothing of the private part comes out anywhere.
func TestTHREATS17PrivateKeys(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		t.Run("THREATS 17: "+string(alg), func(t *testing.T) {
			good, leaked := newKey("good"), testissuer.NewKey("leaked", string(alg))
			clean := with(leaked.JWK(), map[string]any{"kid": "alias"})
			parsed := admit(t, document(t, leaked.JWK(), clean, leaked.PrivateJWK(), good.JWK(), leaked.PrivateJWK()), keyset.Policy{})
			if kids(parsed.Set) != "good" {
				t.Errorf("admitted %q", kids(parsed.Set))
			}
			if want := []keyset.Compromised{{KeyID: "leaked", Thumbprint: thumbprint(t, leaked)}}; !slices.Equal(parsed.Compromised, want) {
				t.Errorf("compromised %v, want %v", parsed.Compromised, want)
			}
			if got := reasons(parsed)["alias"]; got != keyset.SkippedRevoked {
				t.Errorf("the copy was skipped for %q", got)
			}
			d, ok := leaked.PrivateJWK()["d"].(string)
			if !ok || strings.Contains(fmt.Sprintf("%s %+v", parsed.Set.JSON(), parsed), d) {
				t.Error("the private part comes out")
			}
		})
	}
}

func TestTHREATS17OnlyPrivateKeys(t *testing.T) {
	leaked := newKey("leaked")
	parsed, err := refused(t, document(t, leaked.PrivateJWK(), map[string]any{"kty": "oct"}), keyset.Policy{})
	if err.Reason != keyset.ReasonPrivateKeyExposed || !strings.Contains(err.Message, "PrivateKeyExposed (1), SymmetricKey (1)") {
		t.Errorf("THREATS 17: got %v", err)
	}
	if len(parsed.Compromised) != 1 || parsed.Compromised[0].Thumbprint != thumbprint(t, leaked) {
		t.Errorf("THREATS 17: compromised %v", parsed.Compromised)
	}
	// Somebody else's public key with an invented private part revokes nothing.
	parsed, err = refused(t, document(t, with(leaked.JWK(), map[string]any{"d": "AQ"})), keyset.Policy{})
	if err.Reason != keyset.ReasonPrivateKeyExposed || len(parsed.Compromised) != 0 {
		t.Errorf("THREATS 17: an invented private part: got %v, compromised %v", err, parsed.Compromised)
	}
}

// THREATS 17: what was once compromised stays out.
func TestTHREATS17RevokedKeysStayOut(t *testing.T) {
	revoked, good := newKey("revoked"), newKey("good")
	p := keyset.Policy{Revoked: map[string]struct{}{thumbprint(t, revoked): {}}}
	parsed := admit(t, document(t, revoked.JWK(), with(revoked.JWK(), map[string]any{"kid": "again"}), good.JWK()), p)
	if kids(parsed.Set) != "good" || reasons(parsed)["revoked"] != "Revoked" || reasons(parsed)["again"] != "Revoked" {
		t.Errorf("THREATS 17: admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
	}
	_, err := refused(t, document(t, revoked.JWK()), p)
	if err.Reason != keyset.ReasonNoUsableKeys || !strings.Contains(err.Message, "Revoked (1)") {
		t.Errorf("THREATS 17: got %v", err)
	}
}

// Keys are revoked by kid as well; a key without one has none to be revoked by.
func TestKeysAreRevokedByKeyID(t *testing.T) {
	revoked, good := newKey("revoked"), newKey("good")
	nameless := testissuer.NewKey("", "EdDSA").JWK()
	p := keyset.Policy{Revoked: map[string]struct{}{"revoked": {}, "": {}, "Good": {}}}
	parsed := admit(t, document(t, revoked.JWK(), good.JWK(), nameless), p)
	if kids(parsed.Set) != " good" || reasons(parsed)["revoked"] != keyset.SkippedRevoked || len(parsed.Skipped) != 1 {
		t.Errorf("admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
	}
}

// THREATS 22: certificates in keys are not looked at, and not passed on.
func TestTHREATS22CertificatesAreIgnored(t *testing.T) {
	key := newKey("k1")
	plain := admit(t, document(t, key.JWK()), keyset.Policy{})
	decorated := admit(t, document(t, with(key.JWK(), map[string]any{
		"x5c": []string{"MIIB"}, "x5t": "AAAA", "x5t#S256": "AAAA", "x5u": "https://attacker.example/", "issuer": "https://a", "nbf": 1,
	})), keyset.Policy{})
	if plain.Set.Digest() != decorated.Set.Digest() || strings.Contains(string(decorated.Set.JSON()), "x5") {
		t.Errorf("THREATS 22: got %s", decorated.Set.JSON())
	}
}

// THREATS 23: Entra ID publishes no alg. Curves say it by themselves; for RSA,
// the policy does.
func TestTHREATS23KeysWithoutAlg(t *testing.T) {
	entra := with(rsaKey().JWK(), map[string]any{"alg": nil, "x5t": "AAAA", "x5c": []string{"MIIB"}})
	curve := with(newKey("ec").JWK(), map[string]any{"alg": nil})
	doc := document(t, entra, curve)
	if parsed := admit(t, doc, keyset.Policy{}); kids(parsed.Set) != "ec rsa" || parsed.Set.Keys()[0].Algorithm() != jose.ES256 || parsed.Set.Keys()[1].Algorithm() != "" {
		t.Errorf("THREATS 23: got %s", parsed.Set.JSON())
	}
	if parsed := admit(t, doc, algorithms(jose.PS256)); kids(parsed.Set) != "rsa" || reasons(parsed)["ec"] != keyset.SkippedAlgorithm {
		t.Errorf("THREATS 23: with PS256 only: admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
	}
	if parsed := admit(t, doc, algorithms(jose.ES256)); kids(parsed.Set) != "ec" || reasons(parsed)["rsa"] != keyset.SkippedAlgorithm {
		t.Errorf("THREATS 23: with ES256 only: admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
	}
}

// THREATS 24: Keycloak publishes an encryption key beside those for signatures.
func TestTHREATS24Keycloak(t *testing.T) {
	enc := with(rsaKey().JWK(), map[string]any{"kid": "enc", "alg": "RSA-OAEP", "use": "enc"})
	parsed := admit(t, document(t, enc, rsaKey().JWK()), keyset.Policy{})
	if kids(parsed.Set) != "rsa" || reasons(parsed)["enc"] != "UnsupportedAlgorithm" {
		t.Errorf("THREATS 24: admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
	}
}

func TestUses(t *testing.T) {
	svid, sig := with(newKey("svid").JWK(), map[string]any{"use": "jwt-svid"}), newKey("sig").JWK()
	none, x509 := with(newKey("none").JWK(), map[string]any{"use": nil}), with(newKey("x509").JWK(), map[string]any{"use": "x509-svid"})
	for want, uses := range map[string][]string{
		"none sig":      nil,
		"none svid":     {"jwt-svid"},
		"none sig svid": {"jwt-svid", "sig"},
	} {
		parsed := admit(t, document(t, svid, sig, none, x509), keyset.Policy{Uses: uses})
		if kids(parsed.Set) != want {
			t.Errorf("%v: admitted %q, want %q", uses, kids(parsed.Set), want)
		}
		if n := strings.Count(string(parsed.Set.JSON()), `"use":"sig"`); n != parsed.Set.Len() {
			t.Errorf("%v: %d of the keys are published for signatures: %s", uses, n, parsed.Set.JSON())
		}
	}
}

func TestTHREATS5DuplicateKeyIDs(t *testing.T) {
	a, b, other := newKey("same"), newKey("same"), newKey("other")
	for name, test := range map[string]struct {
		keys []any
		want string
		skip int
	}{
		"THREATS 5: differing keys":           {[]any{a.JWK(), other.JWK(), b.JWK()}, "other", 2},
		"THREATS 5: three, two of them equal": {[]any{a.JWK(), other.JWK(), b.JWK(), a.JWK()}, "other", 3},
		"THREATS 5: differing types":          {[]any{with(rsaKey().JWK(), map[string]any{"kid": "same"}), a.JWK(), other.JWK()}, "other", 2},
		"THREATS 5: one key, two algorithms":  {[]any{with(rsaKey().JWK(), map[string]any{"alg": "RS256"}), with(rsaKey().JWK(), map[string]any{"alg": "RS512"}), other.JWK()}, "other", 2},
		"the same key twice":                  {[]any{a.JWK(), a.JWK(), other.JWK()}, "other same", 0},
		"the same key in other words":         {[]any{a.JWK(), with(a.JWK(), map[string]any{"alg": nil, "use": nil, "x5t": "AA"}), other.JWK()}, "other same", 0},
		"one of them not for us":              {[]any{a.JWK(), with(b.JWK(), map[string]any{"use": "enc"}), other.JWK()}, "other same", 1},
		"one key under two kids":              {[]any{a.JWK(), with(a.JWK(), map[string]any{"kid": "alias"}), other.JWK()}, "alias other same", 0},
		"kids that differ in case":            {[]any{a.JWK(), with(b.JWK(), map[string]any{"kid": "SAME"}), other.JWK()}, "SAME other same", 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, keys := range [][]any{test.keys, reversed(test.keys)} {
				parsed := admit(t, document(t, keys...), keyset.Policy{})
				if kids(parsed.Set) != test.want || len(parsed.Skipped) != test.skip {
					t.Errorf("admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
				}
				if test.want == "other" && reasons(parsed)["same"] != keyset.SkippedDuplicate && reasons(parsed)["rsa"] != keyset.SkippedDuplicate {
					t.Errorf("skipped %v", parsed.Skipped)
				}
			}
		})
	}
}

func TestTHREATS4KeysWithoutKeyID(t *testing.T) {
	nameless := func(k *testissuer.Key) map[string]any { return with(k.JWK(), map[string]any{"kid": nil}) }
	ec1, ec2, ed := newKey("1"), newKey("2"), testissuer.NewKey("3", "EdDSA")
	for name, test := range map[string]struct {
		keys []any
		want string
		skip int
	}{
		"alone":                      {[]any{nameless(ec1)}, "", 0},
		"with an empty kid":          {[]any{with(ec1.JWK(), map[string]any{"kid": ""})}, "", 0},
		"twice the same":             {[]any{nameless(ec1), nameless(ec1)}, "", 0},
		"of different algorithms":    {[]any{nameless(ec1), nameless(ed)}, " ", 0},
		"THREATS 4: two that fit":    {[]any{nameless(ec1), nameless(ec2), ed.JWK()}, "3", 2},
		"THREATS 4: beside a named":  {[]any{nameless(ec1), ec2.JWK()}, "2", 1},
		"THREATS 4: RSA beside RSA":  {[]any{with(nameless(rsaKey()), map[string]any{"alg": nil}), rsaKey().JWK()}, "rsa", 1},
		"one key for two algorithms": {[]any{with(nameless(rsaKey()), map[string]any{"alg": "RS256"}), with(nameless(rsaKey()), map[string]any{"alg": "PS256"})}, " ", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var digests []string
			for _, keys := range [][]any{test.keys, reversed(test.keys)} {
				parsed := admit(t, document(t, keys...), keyset.Policy{})
				if kids(parsed.Set) != test.want || len(parsed.Skipped) != test.skip {
					t.Errorf("admitted %q, skipped %v", kids(parsed.Set), parsed.Skipped)
				}
				for _, s := range parsed.Skipped {
					if s.Reason != keyset.SkippedNoKeyID {
						t.Errorf("skipped %+v", s)
					}
				}
				digests = append(digests, parsed.Set.Digest())
			}
			if digests[0] != digests[1] {
				t.Error("the order of keys matters")
			}
		})
	}
	_, err := refused(t, document(t, nameless(ec1), nameless(ec2)), keyset.Policy{})
	if err.Reason != keyset.ReasonNoUsableKeys || !strings.Contains(err.Message, "MissingKeyID (2)") {
		t.Errorf("THREATS 4: got %v", err)
	}
}

// Kids are shown to people: whatever they are, they are short and printable.
func TestSkippedKeyIDsAreShowable(t *testing.T) {
	for kid, want := range map[string]string{
		"plain":                        "plain",
		"a\nb\x1b[31m\u202ec\u0000":    "a?b?[31m?c?",
		strings.Repeat("k", 500):       strings.Repeat("k", 128),
		strings.Repeat("ü", 500):       strings.Repeat("ü", 64),
		"k" + strings.Repeat("ü", 500): "k" + strings.Repeat("ü", 63) + "?",
		"\ufffd":                       "?",
	} {
		leaked := newKey(kid)
		for _, key := range []map[string]any{leaked.PrivateJWK(), with(leaked.JWK(), map[string]any{"use": "enc"})} {
			parsed, _ := refused(t, document(t, key), keyset.Policy{})
			if got := parsed.Skipped[0].KeyID; got != want {
				t.Errorf("%q: shown as %q, want %q", kid, got, want)
			}
			for _, c := range parsed.Compromised {
				if c.KeyID != want {
					t.Errorf("%q: compromised, shown as %q, want %q", kid, c.KeyID, want)
				}
			}
		}
	}
}

// Firebase publishes a map from kid to certificate.
func TestParseReadsAMapOfCertificates(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]string{
		"b": certificate(t, ec), "c": certificate(t, weak),
		"a": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	parsed := admit(t, raw, keyset.Policy{})
	if kids(parsed.Set) != "b" || parsed.Set.Keys()[0].Algorithm() != jose.ES256 {
		t.Errorf("admitted %s", parsed.Set.JSON())
	}
	want := []keyset.Skipped{{Index: 0, KeyID: "a", Reason: "MalformedKey"}, {Index: 2, KeyID: "c", Reason: "UnsupportedCurve"}}
	if !slices.Equal(parsed.Skipped, want) {
		t.Errorf("skipped %v, want %v", parsed.Skipped, want)
	}
	if _, err := refused(t, []byte(`{"a":"-----BEGIN CERTIFICATE-----"}`), keyset.Policy{}); err.Reason != keyset.ReasonNoUsableKeys {
		t.Errorf("a broken certificate alone: got %v", err)
	}
}

// certificate makes a self-signed certificate in PEM.
func certificate(t testing.TB, private crypto.Signer) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestRefreshHint(t *testing.T) {
	key := document(t, newKey("a").JWK())
	for text, want := range map[string]int64{
		"300": 300, "0": 0, "-1": 0, `"300"`: 0, "1.5": 0, "1e999": 0, "[1]": 0, "null": 0,
		"9223372036854775807": 604800,
	} {
		parsed, err := keyset.Parse([]byte(`{"spiffe_refresh_hint":`+text+`,`+string(key)[1:]), keyset.Policy{})
		if err != nil || parsed.RefreshHint != want {
			t.Errorf("%s: got %v, %v", text, parsed.RefreshHint, err)
		}
	}
}
