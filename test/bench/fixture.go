// Package bench compares the verifier with the bare signature check and with
// other libraries, in the same process and in turns, so that a noisy machine
// slows all of them alike. Only ratios count. How to run it is in cmd/ratios.
package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

const (
	issuerURL = "https://issuer.example.com/"
	audience  = "https://orders.example.com"
	subject   = "auth0|5f7c8ec7c33c6c004bbafe82"
	lifetime  = 10 * time.Hour // longer than any run
	// tokenSize is what tokens are filled up to, whatever the signature takes of
	// it: each algorithm's contenders read as much.
	tokenSize = 900
	// signerIndex is the place of the key that signs among the four.
	signerIndex = 2
)

// algorithms are those that are compared.
var algorithms = []string{"RS256", "ES256", "EdDSA"}

// fixture is an issuer with four keys of one algorithm, one of which signs.
type fixture struct {
	algorithm string
	keys      []*testissuer.Key
	start     time.Time
	scope     string
}

func newFixture(algorithm string) *fixture {
	f := &fixture{algorithm: algorithm, start: time.Now(), scope: "openid"}
	for _, kid := range []string{"2026-11-a", "2026-11-b", "2026-11-c", "2026-11-d"} {
		f.keys = append(f.keys, testissuer.NewKey(kid, algorithm))
	}
	if missing := tokenSize - len(f.token(0)); missing > 0 {
		f.scope += strings.Repeat(" orders:read", missing)[:missing*3/4]
	}
	return f
}

func (f *fixture) signer() *testissuer.Key { return f.keys[signerIndex] }

// token is a good token. Another number makes another token of the same size.
func (f *fixture) token(number int) string { return f.signer().Sign(f.claims(number, nil)) }

// claims are the twelve of a good token, with some of them changed; nil leaves
// one out.
func (f *fixture) claims(number int, changes map[string]any) map[string]any {
	c := testissuer.Claims(issuerURL, subject, []string{audience}, f.start, lifetime)
	c["jti"] = fmt.Sprintf("7b0c1d52-0f3e-4c55-9a51-%012x", number)
	c["azp"] = "3f2c9d0e81b7"
	c["email"], c["email_verified"] = "alice@example.com", true
	c["groups"] = []string{"developers", "on-call"}
	c["scope"] = f.scope
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// jwks is the published key set.
func (f *fixture) jwks() ([]byte, error) {
	keys := make([]map[string]any, 0, len(f.keys))
	for _, k := range f.keys {
		keys = append(keys, k.JWK())
	}
	return json.Marshal(map[string]any{"keys": keys})
}
