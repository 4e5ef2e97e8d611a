// wycheproof_test.go runs the vectors of Project Wycheproof for JSON Web
// Signatures and Keys.
//
// No payload of theirs is a JSON object, so that ParseToken refuses them all.
// A refusal for that reason would show nothing: the layers are judged one by one,
// as if the payload were right, and what is left to the signature is counted here
// and checked in wycheproof_raw_test.go.
package conformance

import (
	"crypto"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// vectors is a file for JSON Web Signatures or Keys.
type vectors struct {
	NumberOfTests int           `json:"numberOfTests"`
	TestGroups    []vectorGroup `json:"testGroups"`
}

// vectorGroup has a key, or in the file for keys a set of them.
type vectorGroup struct {
	Comment string          `json:"comment"`
	Public  json.RawMessage `json:"public"`
	Private json.RawMessage `json:"private"`
	Tests   []vector        `json:"tests"`
}

type vector struct {
	ID      int    `json:"tcId"`
	Comment string `json:"comment"`
	JWS     string `json:"jws"`
	Result  string `json:"result"`
}

// readVectors reads a file of the module into any type.
func readVectors(t testing.TB, name string, to any) {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, to); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// published is the group's key set as an issuer would publish it. A shared secret
// has no public part: it stands there itself.
func (g vectorGroup) published(t testing.TB) []byte {
	t.Helper()
	key := g.Public
	if key == nil {
		key = g.Private
	}
	if strings.Contains(string(key), `"keys"`) {
		return key
	}
	return document(t, key)
}

// set admits the group's keys; the reason says why there are none.
func (g vectorGroup) set(t testing.TB) (set *keyset.Set, reason string) {
	t.Helper()
	parsed, err := keyset.Parse(g.published(t), keyset.Policy{})
	if err == nil {
		return parsed.Set, ""
	}
	var refused *keyset.Error
	if !errors.As(err, &refused) || len(parsed.Skipped) == 0 {
		t.Fatalf("group %q: %v", g.Comment, err)
	}
	return nil, parsed.Skipped[0].Reason
}

// toSignature means that nothing but the signature is left to judge.
const toSignature = "left to the signature"

// layers judges all but the signature, as if the payload were a JSON object.
func (g vectorGroup) layers(t testing.TB, v vector) (token *jose.Token, key *jose.Key, reason string) {
	t.Helper()
	_, err := jose.ParseToken(v.JWS)
	if err == nil {
		t.Fatalf("vector %d: the payload is no JSON object, and yet the token is read", v.ID)
	}
	set, reason := g.set(t)
	if reason != "" {
		return nil, nil, "key: " + reason
	}
	if err.Error() != payloadIsNoObject {
		return nil, nil, "token: " + reasonOf(err)
	}
	if token, err = jose.ParseToken(withPayload(t, v.JWS, `{}`)); err != nil {
		t.Fatalf("vector %d: the payload was to blame, but without it: %v", v.ID, err)
	}
	if key, err = set.Select(token.KeyID, token.HasKeyID, token.Algorithm); err != nil {
		return nil, nil, "selection: " + err.Error()
	}
	return token, key, toSignature
}

// Reasons of layers that the lists below name.
const (
	sharedSecret   = "key: SymmetricKey"
	noSuchAlg      = "key: UnsupportedAlgorithm"
	keyContradicts = "selection: the key with the token's kid does not serve its alg"
)

// jwsFiles are the files, and what becomes of their vectors. refusedValid has
// each valid vector that is refused here, and why.
var jwsFiles = map[string]struct {
	vectors, valid int
	refusedValid   map[int]string
	// invalidBy is how many invalid vectors each layer refuses.
	invalidBy map[string]int
}{
	"json_web_signature_test.json": {
		vectors: 401, valid: 46,
		refusedValid: map[int]string{
			// HMAC has no place here: whoever can verify could sign.
			1: sharedSecret, 348: sharedSecret, 352: sharedSecret, 357: sharedSecret, 358: sharedSecret,
			359: sharedSecret, 376: sharedSecret, 377: sharedSecret,
			// So has base64 with other characters in it, which these two have besides.
			372: sharedSecret, 373: sharedSecret,
			// RFC 7520's PS384 example, with a key that says PS256.
			346: keyContradicts, 350: keyContradicts,
			// RFC 7520's ES512 example, with a key that says ES521, which is no algorithm.
			347: noSuchAlg, 351: noSuchAlg,
		},
		invalidBy: map[string]int{
			"key: KeyOperations": 2, sharedSecret: 30, "key: UseNotAllowed": 2,
			"token: AlgorithmNotAllowed": 5, "token: MalformedToken": 14,
			"selection: no key of the set has the token's kid": 2, keyContradicts: 5,
			toSignature: 295,
		},
	},
	"json_web_key_test.json": {
		vectors: 26, valid: 5,
		refusedValid: map[int]string{2: sharedSecret, 13: sharedSecret, 14: sharedSecret, 15: sharedSecret},
		invalidBy: map[string]int{
			"key: BadExponent": 1, "key: MalformedKey": 2, "key: PointNotOnCurve": 1, sharedSecret: 10,
			noSuchAlg: 3, "key: UseNotAllowed": 1, "key: WeakKey": 1, "key: WeakModulus": 1,
			"token: AlgorithmNotAllowed": 1,
		},
	},
}

func TestWycheproofJWS(t *testing.T) {
	for name, want := range jwsFiles {
		t.Run(name, func(t *testing.T) {
			var file vectors
			readVectors(t, name, &file)
			total, valid, left := 0, 0, 0
			refusedValid, invalidBy := map[int]string{}, map[string]int{}
			for _, g := range file.TestGroups {
				for _, v := range g.Tests {
					total++
					_, _, reason := g.layers(t, v)
					switch {
					case v.Result == "invalid":
						invalidBy[reason]++
					case v.Result != "valid":
						t.Errorf("vector %d: the result %q is new", v.ID, v.Result)
					case reason == toSignature:
						valid++
						left++
						g.acceptsAnObject(t, v)
					default:
						valid++
						refusedValid[v.ID] = reason
					}
				}
			}
			t.Logf("%d vectors; valid: %d left to the signature, %d refused: %v; invalid: %v", total, left, len(refusedValid), refusedValid, invalidBy)
			if total != want.vectors || total != file.NumberOfTests || valid != want.valid {
				t.Errorf("%d vectors, of which %d are valid; want %d and %d", total, valid, want.vectors, want.valid)
			}
			if !maps.Equal(refusedValid, want.refusedValid) {
				t.Errorf("refused valid vectors: got %v, want %v", refusedValid, want.refusedValid)
			}
			if !maps.Equal(invalidBy, want.invalidBy) {
				t.Errorf("invalid vectors: got %v, want %v", invalidBy, want.invalidBy)
			}
		})
	}
}

// acceptsAnObject signs a JSON object with the vector's own header and private
// key: the whole path accepts that.
func (g vectorGroup) acceptsAnObject(t *testing.T, v vector) {
	t.Helper()
	private := g.Private
	if strings.Contains(string(private), `"keys"`) {
		var keys struct{ Keys []json.RawMessage }
		if err := json.Unmarshal(private, &keys); err != nil || len(keys.Keys) != 1 {
			t.Fatalf("vector %d: %d keys, %v", v.ID, len(keys.Keys), err)
		}
		private = keys.Keys[0]
	}
	signing, ok := theirKey(t, private).Key.(crypto.Signer)
	if !ok {
		t.Fatalf("vector %d: the private key cannot sign", v.ID)
	}
	header := unb64(t, v.JWS[:strings.IndexByte(v.JWS, '.')])
	var alg struct{ Alg string }
	if err := json.Unmarshal(header, &alg); err != nil {
		t.Fatal(err)
	}
	token, err := jose.ParseToken(signer{alg.Alg, signing}.token(t, string(header), `{"iss":"a"}`))
	if err != nil {
		t.Fatalf("vector %d, with a JSON object: %v", v.ID, err)
	}
	set, reason := g.set(t)
	if reason != "" {
		t.Fatalf("vector %d: %s", v.ID, reason)
	}
	key, err := set.Select(token.KeyID, token.HasKeyID, token.Algorithm)
	if err != nil {
		t.Fatalf("vector %d: %v", v.ID, err)
	}
	if err := key.Verify(token); err != nil {
		t.Errorf("vector %d, with a JSON object: %v", v.ID, err)
	}
}

// The keys of what others publish as vectors for bare signatures are admitted,
// and are the same keys to the other library.
func TestWycheproofKeys(t *testing.T) {
	files, groups, compared := 0, 0, 0
	for _, f := range rawFiles {
		var file rawVectors
		readVectors(t, f.name, &file)
		files++
		for i, g := range file.TestGroups {
			if !f.takes(g) {
				continue
			}
			groups++
			key, err := jose.ParseKey(g.jwk(t))
			if err != nil {
				t.Errorf("%s, group %d: %v", f.name, i, err)
				continue
			}
			for _, published := range []json.RawMessage{g.PublicKeyJWK, g.KeyJWK} {
				if published == nil || key.Bits() > maxTheirBits {
					continue
				}
				compared++
				sum, err := theirKey(t, published).Thumbprint(crypto.SHA256)
				if err != nil || b64(sum) != key.Thumbprint() {
					t.Errorf("%s, group %d: the thumbprint is %s, to go-jose %s, %v", f.name, i, key.Thumbprint(), b64(sum), err)
				}
			}
		}
	}
	t.Logf("%d files, %d keys, %d compared", files, groups, compared)
	if want := [...]int{38, 982, 602}; [...]int{files, groups, compared} != want {
		t.Errorf("%d files, %d keys, %d compared; want %v", files, groups, compared, want)
	}
}

// maxTheirBits is the largest RSA modulus, less one, that the other library reads.
const maxTheirBits = 8191

// rawVectors is a file for bare signatures.
type rawVectors struct {
	NumberOfTests int        `json:"numberOfTests"`
	TestGroups    []rawGroup `json:"testGroups"`
}

type rawGroup struct {
	SHA        string `json:"sha"`
	MGFSHA     string `json:"mgfSha"`
	SaltLength int    `json:"sLen"`
	KeySize    int    `json:"keySize"`

	PublicKey    rawKey          `json:"publicKey"`
	PrivateKey   rawKey          `json:"privateKey"`
	PublicKeyJWK json.RawMessage `json:"publicKeyJwk"`
	KeyJWK       json.RawMessage `json:"keyJwk"`

	Tests []rawVector `json:"tests"`
}

// rawKey has its numbers in hexadecimal.
type rawKey struct {
	Curve          string `json:"curve"`
	Uncompressed   string `json:"uncompressed"`
	PK             string `json:"pk"`
	Modulus        string `json:"modulus"`
	PublicExponent string `json:"publicExponent"`
}

type rawVector struct {
	ID      int    `json:"tcId"`
	Comment string `json:"comment"`
	Message string `json:"msg"`
	Sig     string `json:"sig"`
	Result  string `json:"result"`
}
