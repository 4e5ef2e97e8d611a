// rfc8037_test.go holds the examples of RFC 8037, appendix A. Their payload is no
// JSON object, so that no token is made of them, and the parts are put together
// here.
package jose

import (
	"encoding/base64"
	"errors"
	"testing"
)

const rfc8037JWK = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`

func TestRFC8037Examples(t *testing.T) {
	key, err := ParseKey([]byte(rfc8037JWK))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.Thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; got != want {
		t.Errorf("A.3: the thumbprint is %s, want %s", got, want)
	}
	signature, err := base64.RawURLEncoding.DecodeString("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
	if err != nil {
		t.Fatal(err)
	}
	token := &Token{
		Algorithm:    EdDSA,
		signingInput: []byte("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"),
		signature:    signature,
	}
	if err := key.Verify(token); err != nil {
		t.Errorf("A.5: %v", err)
	}
	_, err = ParseToken(string(token.signingInput) + "." + base64.RawURLEncoding.EncodeToString(signature))
	var refused *Error
	if !errors.As(err, &refused) || refused.Reason != MalformedToken {
		t.Errorf("A.4: as a token, got %v", err)
	}
}

// The private key of appendix A.1 belongs to the public one of A.2.
func TestRFC8037PrivateKeyIsRecognised(t *testing.T) {
	_, err := ParseKey([]byte(`{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`))
	var exposed *ExposedKeyError
	if !errors.As(err, &exposed) || exposed.Thumbprint != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("got %v", err)
	}
}
