// fuzz_test.go asks another library for its opinion: what is accepted here, it
// has to accept as well, and to read in the same way.
package conformance

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// fuzzAlgorithms are those that sign in the fuzz test; their names, in lower case,
// are the kids.
var fuzzAlgorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}

// In the form of a token these stand for its parts, which the test puts in: the
// keys are new in each process, so that no token can be in a corpus.
const (
	headerPart, payloadPart, signaturePart = "\x01", "\x02", "\x03"

	usualForm = headerPart + "." + payloadPart + "." + signaturePart
)

func FuzzAcceptedByUsIsAcceptedByGoJose(f *testing.F) {
	signers, set := fuzzIssuer(f)
	for i, alg := range fuzzAlgorithms {
		kid := strings.ToLower(alg)
		header := `{"alg":"` + alg + `","kid":"` + kid + `","typ":"JWT"}`
		f.Add(uint8(i), header, `{"iss":"https://a","aud":["b"],"exp":1767312000}`, usualForm, []byte{})
		f.Add(uint8(i), header, `{}`, usualForm, []byte{0, 3, 1})
		f.Add(uint8(i), header, `{}`, usualForm, []byte{0xff, 0xff, 4})
		f.Add(uint8(i), `{ "alg" : "`+alg+`" }`, "{\r\n\"a\":\t[1e400,\"\\ud83d\\ude00\",null]}", usualForm, []byte{})
		f.Add(uint8(i), `{"alg":"`+alg+`","kid":"\u0065s256","x5t":"a","jku":"https://b"}`, `{"a":{"a":{}}}`, usualForm, []byte{})
		f.Add(uint8(i), header, `{}{}`, usualForm, []byte{})
		f.Add(uint8(i), header, `{"a":1,"a":2}`, headerPart+"."+payloadPart+"."+signaturePart+".", []byte{})
	}
	f.Add(uint8(0), `{"alg":"none"}`, `{}`, headerPart+"."+payloadPart+".", []byte{})
	f.Add(uint8(0), `{"alg":"HS256"}`, `{}`, usualForm, []byte{})
	f.Add(uint8(1), `{"alg":"RS256","kid":"ps256"}`, `{}`, usualForm, []byte{})
	f.Add(uint8(2), `{"alg":"ES256","crit":["b64"],"b64":false}`, `{}`, usualForm, []byte{})
	f.Add(uint8(2), `{"alg":"ES256","jwk":{"kty":"EC"},"x5c":["AA"],"nonce":1}`, `{}`, usualForm, []byte{})
	f.Add(uint8(3), `{"alg":"Ed25519"}`, `{}`, usualForm, []byte{})
	f.Add(uint8(3), `{"alg":"EdDSA"}`, `{}`, headerPart+"\n."+payloadPart+"=."+signaturePart, []byte{})
	f.Fuzz(func(t *testing.T, by uint8, header, payload, form string, edits []byte) {
		if len(header)+len(payload) > 2*jose.MaxTokenSize || len(form) > 64 {
			t.Skip("larger than what is needed to be too large")
		}
		s := signers[int(by)%len(signers)]
		text := fill(t, s, header, payload, form, edits)
		token, key := accepted(t, set, text)
		if token != nil {
			compare(t, text, token, key)
		}
	})
}

// fuzzIssuer has a key for each algorithm.
func fuzzIssuer(t testing.TB) ([]signer, *keyset.Set) {
	t.Helper()
	var signers []signer
	var keys []any
	for _, alg := range fuzzAlgorithms {
		s := newSigner(t, alg)
		signers = append(signers, s)
		keys = append(keys, with(s.jwk(t, strings.ToLower(alg)), map[string]any{"alg": alg}))
	}
	parsed, err := keyset.Parse(document(t, keys...), keyset.Policy{})
	if err != nil || len(parsed.Set.Keys()) != len(keys) {
		t.Fatalf("%v, %v", parsed.Skipped, err)
	}
	return signers, parsed.Set
}

// fill signs header and payload, puts the parts into the form, and then changes
// single bytes: an edit is a place, in two bytes, and what is flipped there.
func fill(t testing.TB, s signer, header, payload, form string, edits []byte) string {
	t.Helper()
	h, p := b64([]byte(header)), b64([]byte(payload))
	signature := b64(s.sign(t, h+"."+p))
	text := []byte(strings.NewReplacer(headerPart, h, payloadPart, p, signaturePart, signature).Replace(form))
	for edit := range slices.Chunk(edits, 3) {
		if len(edit) == 3 && len(text) > 0 {
			text[(int(edit[0])<<8|int(edit[1]))%len(text)] ^= edit[2]
		}
	}
	return string(text)
}

// accepted is the token, and the key that made it; nil where it is refused.
func accepted(t testing.TB, set *keyset.Set, text string) (*jose.Token, *jose.Key) {
	t.Helper()
	token, err := jose.ParseToken(text)
	if err != nil {
		if len(text) > jose.MaxTokenSize && reasonOf(err) != string(jose.TokenTooLarge) {
			t.Fatalf("%d bytes: %v", len(text), err)
		}
		return nil, nil
	}
	if len(text) > jose.MaxTokenSize {
		t.Fatalf("%d bytes are read", len(text))
	}
	key, err := set.Select(token.KeyID, token.HasKeyID, token.Algorithm)
	if err != nil {
		return nil, nil
	}
	if err := key.Verify(token); err != nil {
		if reasonOf(err) != string(jose.SignatureInvalid) {
			t.Fatal(err)
		}
		return nil, nil
	}
	return token, key
}

// compare has the other library verify a token that was accepted.
func compare(t testing.TB, text string, token *jose.Token, key *jose.Key) {
	t.Helper()
	public := theirKey(t, key.MarshalJWK())
	members, err := jose.Members(unb64(t, text[:strings.IndexByte(text, '.')]))
	if err != nil {
		t.Fatalf("%q: the header: %v", text, err)
	}
	if !theyRead(members) {
		compareSignature(t, text, token, public)
		return
	}
	parsed, err := gojose.ParseSignedCompact(text, []gojose.SignatureAlgorithm{gojose.SignatureAlgorithm(key.Algorithm())})
	if err != nil {
		t.Fatalf("%q is accepted; go-jose does not parse it: %v", text, err)
	}
	payload, err := parsed.Verify(public)
	if err != nil {
		t.Fatalf("%q is accepted; go-jose does not: %v", text, err)
	}
	if !bytes.Equal(payload, token.Payload) {
		t.Fatalf("the payload is %q, to go-jose %q", token.Payload, payload)
	}
	header := parsed.Signatures[0].Protected
	if header.KeyID != token.KeyID || header.Algorithm != string(token.Algorithm) {
		t.Fatalf("the header says %q and %q, to go-jose %q and %q", token.KeyID, token.Algorithm, header.KeyID, header.Algorithm)
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(payload, &claims); err != nil || claims == nil {
		t.Fatalf("the payload is %q: %v", payload, err)
	}
}

// theyRead reports whether the other library reads a header at all. It does not
// know RFC 9864's name of EdDSA, and judges members that have no effect here.
func theyRead(header map[string]json.RawMessage) bool {
	for _, name := range []string{"jwk", "x5c", "nonce"} {
		if _, has := header[name]; has {
			return false
		}
	}
	return string(header["alg"]) != `"Ed25519"`
}

// compareSignature verifies what was signed without reading the header.
func compareSignature(t testing.TB, text string, token *jose.Token, public *gojose.JSONWebKey) {
	t.Helper()
	parts := strings.Split(text, ".")
	if len(parts) != 3 || !bytes.Equal(unb64(t, parts[1]), token.Payload) {
		t.Fatalf("%q is accepted", text)
	}
	if key, ok := public.Key.(ed25519.PublicKey); ok && !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), unb64(t, parts[2])) {
		t.Fatalf("%q is accepted; its signature is wrong", text)
	}
}

// FuzzKeySets: whatever an issuer publishes, what is admitted of it is the same
// key to the other library.
func FuzzKeySets(f *testing.F) {
	var all []any
	for _, alg := range fuzzAlgorithms {
		s := newSigner(f, alg)
		jwk := s.jwk(f, strings.ToLower(alg))
		all = append(all, with(jwk, map[string]any{"alg": alg, "use": "sig"}))
		f.Add(document(f, with(jwk, map[string]any{"kid": nil})))
		f.Add(document(f, jwk, with(jwk, map[string]any{"kid": "other", "key_ops": []string{"verify"}})))
		f.Add(document(f, with(jwk, map[string]any{"d": "AQAB"}), jwk))
		f.Add(document(f, with(jwk, map[string]any{"x": "AA=="}), with(jwk, map[string]any{"use": "enc"})))
	}
	f.Add(document(f, all...))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}`))
	f.Add([]byte(`{"keys":[],"keys":[]}`))
	f.Add([]byte(`{"spiffe_refresh_hint":300,"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","use":"jwt-svid","kid":"a"}]}`))
	f.Add([]byte(`{"keys":[` + exampleES256Key + `,` + exampleEdDSAKey + `]}`))
	f.Add([]byte(`{"a":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := keyset.Parse(text, keyset.Policy{})
		if err != nil {
			if parsed.Set != nil {
				t.Fatalf("a set beside the error %v", err)
			}
			return
		}
		again, err := keyset.Decode(parsed.Set.JSON())
		if err != nil || again.Digest() != parsed.Set.Digest() {
			t.Fatalf("%s does not read back: %v", parsed.Set.JSON(), err)
		}
		if slices.ContainsFunc(parsed.Set.Keys(), func(k *jose.Key) bool { return k.Bits() > maxTheirBits }) {
			t.Skip("go-jose does not read so large a key")
		}
		var theirs gojose.JSONWebKeySet
		if err := json.Unmarshal(parsed.Set.JSON(), &theirs); err != nil || len(theirs.Keys) != len(parsed.Set.Keys()) {
			t.Fatalf("go-jose reads %d keys of %s: %v", len(theirs.Keys), parsed.Set.JSON(), err)
		}
		for i, key := range parsed.Set.Keys() {
			sameKey(t, key, &theirs.Keys[i])
		}
		compareEntries(t, text)
	})
}

// sameKey compares a key with how the other library reads it.
func sameKey(t testing.TB, key *jose.Key, theirs *gojose.JSONWebKey) {
	t.Helper()
	sum, err := theirs.Thumbprint(crypto.SHA256)
	if err != nil || b64(sum) != key.Thumbprint() {
		t.Fatalf("%s: the thumbprint is %s, to go-jose %s: %v", key.MarshalJWK(), key.Thumbprint(), b64(sum), err)
	}
	if theirs.KeyID != key.KeyID() || !theirs.Valid() || !theirs.IsPublic() {
		t.Fatalf("%s: go-jose reads %+v", key.MarshalJWK(), theirs)
	}
}

// compareEntries compares each key as it stands in the document. What the other
// library does not read there is not compared: base64 may be padded here.
func compareEntries(t testing.TB, text []byte) {
	t.Helper()
	var list struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &list) != nil {
		return
	}
	for _, raw := range list.Keys {
		key, err := jose.ParseKey(raw)
		if err != nil {
			continue
		}
		theirs := &gojose.JSONWebKey{}
		if theirs.UnmarshalJSON(raw) == nil {
			sameKey(t, key, theirs)
		}
	}
}

// The fuzz test begins with tokens that are accepted.
func TestFuzzFormsGoodTokens(t *testing.T) {
	signers, set := fuzzIssuer(t)
	for _, s := range signers {
		for _, kid := range []string{`,"kid":"` + strings.ToLower(s.alg) + `"`, ""} {
			text := fill(t, s, `{"alg":"`+s.alg+`"`+kid+`}`, `{"iss":"https://a"}`, usualForm, nil)
			token, key := accepted(t, set, text)
			if token == nil {
				t.Fatalf("%s is refused", text)
			}
			compare(t, text, token, key)
			if token, _ = accepted(t, set, fill(t, s, `{"alg":"`+s.alg+`"`+kid+`}`, `{}`, usualForm, []byte{0, 20, 1})); token != nil {
				t.Errorf("%s: an edit makes no difference", s.alg)
			}
		}
	}
}
