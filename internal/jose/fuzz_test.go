// fuzz_test.go throws anything at the preflight of tokens and at the parser of
// keys.
package jose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// The example of RFC 7515, appendix A.3: only its own signing input verifies.
const (
	exampleKey   = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	exampleInput = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	exampleToken = exampleInput + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)

func FuzzParseToken(f *testing.F) {
	f.Add(exampleToken)
	for _, header := range []string{
		`{"alg":"none"}`, `{"alg":"HS256"}`, `{"alg":"RS256","kid":"k1","typ":"JWT"}`, `{"alg":"ES256","crit":["b64"],"b64":false}`,
		`{"alg":"Ed25519","cty":"JWT"}`, `{"alg":"PS512","alg":"none"}`, `{"alg":"ES512","kid":"\ud800"}`, `{"alg":"RS384","zip":"DEF"}`,
	} {
		f.Add(unsigned(header, `{"iss":"https://a","aud":["b"],"exp":1e10}`))
	}
	f.Add(unsigned(`{"alg":"EdDSA"}`, `{"exp":1e999}`))
	f.Add(strings.Repeat(".", 100))
	key, err := jose.ParseKey([]byte(exampleKey))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := jose.ParseToken(text)
		if err != nil {
			checkTokenError(t, token, err)
			return
		}
		checkToken(t, text, token)
		if err := key.Verify(token); err == nil && !strings.HasPrefix(text, exampleInput+".") {
			t.Fatalf("%q verifies", text)
		}
	})
}

func checkTokenError(t *testing.T, token *jose.Token, err error) {
	t.Helper()
	known := []jose.Reason{jose.TokenTooLarge, jose.MalformedToken, jose.AlgorithmNotAllowed, jose.HeaderNotAllowed}
	var refused *jose.Error
	if token != nil || !errors.As(err, &refused) || !slices.Contains(known, refused.Reason) {
		t.Fatalf("got %v and %v", token, err)
	}
}

func checkToken(t *testing.T, text string, token *jose.Token) {
	t.Helper()
	parts := strings.Split(text, ".")
	if len(text) > jose.MaxTokenSize || len(parts) != 3 {
		t.Fatalf("%d bytes, %d parts", len(text), len(parts))
	}
	if b64(token.Payload) != parts[1] {
		t.Fatalf("the payload has another spelling: %q", parts[1])
	}
	if !slices.Contains(jose.Algorithms(), token.Algorithm) || len(token.KeyID) > jose.MaxKeyID || token.KeyID != "" && !token.HasKeyID {
		t.Fatalf("read %+v", token)
	}
	var claims map[string]json.RawMessage // numbers may be too large for any type
	if err := json.Unmarshal(token.Payload, &claims); err != nil || claims == nil {
		t.Fatalf("the payload is %q: %v", token.Payload, err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(exampleKey))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"Ed25519","kid":"a","use":"sig"}`))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`))
	f.Add([]byte(`{"kty":"oct","k":"AAAA","alg":"HS256"}`))
	private, err := rsaTestKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(rsaJWK(private.N, private.N)))
	f.Add(encode(f, signer{private: private}.jwk()))
	token, err := jose.ParseToken(exampleToken)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, err := jose.ParseKey(raw)
		if err != nil {
			checkKeyError(t, key, err)
			return
		}
		text := key.MarshalJWK()
		again, err := jose.ParseKey(text)
		if err != nil || !bytes.Equal(again.MarshalJWK(), text) || again.Thumbprint() != key.Thumbprint() || len(key.Thumbprint()) != 43 {
			t.Fatalf("%s does not read back: %v", text, err)
		}
		checkPublic(t, text)
		example := strings.Contains(string(text), "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")
		if err := key.Verify(token); err == nil && !example {
			t.Fatalf("%s verifies the example", text)
		}
	})
}

func checkKeyError(t *testing.T, key *jose.Key, err error) {
	t.Helper()
	var refused *jose.Error
	var exposed *jose.ExposedKeyError
	if key != nil || !errors.As(err, &refused) && !errors.As(err, &exposed) {
		t.Fatalf("got %v and %v", key, err)
	}
}

// checkPublic lets public members pass only.
func checkPublic(t *testing.T, text []byte) {
	t.Helper()
	var members map[string]string
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	for name := range members {
		if !slices.Contains([]string{"alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"}, name) {
			t.Fatalf("the key is written with %q", name)
		}
	}
}
