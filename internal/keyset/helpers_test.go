// helpers_test.go writes documents as issuers do.
package keyset_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// b64 is base64url without padding.
func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// rsaKey is made once: that takes time.
var rsaKey = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("rsa", "RS256") })

// newKey makes a key that is quick to make.
func newKey(kid string) *testissuer.Key { return testissuer.NewKey(kid, "ES256") }

// with is a copy of a key with other members; nil takes one away.
func with(jwk, changes map[string]any) map[string]any {
	out := maps.Clone(jwk)
	for name, value := range changes {
		if out[name] = value; value == nil {
			delete(out, name)
		}
	}
	return out
}

// document is a key set, as an issuer publishes it.
func document(t testing.TB, keys ...any) []byte {
	t.Helper()
	if keys == nil {
		keys = []any{}
	}
	raw, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// admit parses a document that has to yield a set.
func admit(t testing.TB, document []byte, p keyset.Policy) keyset.Parsed {
	t.Helper()
	parsed, err := keyset.Parse(document, p)
	if err != nil {
		t.Fatalf("the document was refused: %v", err)
	}
	return parsed
}

// setOf is the set of some keys.
func setOf(t testing.TB, keys ...*testissuer.Key) *keyset.Set {
	t.Helper()
	jwks := make([]any, 0, len(keys))
	for _, k := range keys {
		jwks = append(jwks, k.JWK())
	}
	return admit(t, document(t, jwks...), keyset.Policy{}).Set
}

// refused parses a document that must not yield a set.
func refused(t testing.TB, document []byte, p keyset.Policy) (keyset.Parsed, *keyset.Error) {
	t.Helper()
	parsed, err := keyset.Parse(document, p)
	var e *keyset.Error
	if !errors.As(err, &e) || parsed.Set != nil {
		t.Fatalf("got %v and %v, want a *keyset.Error", parsed.Set, err)
	}
	return parsed, e
}

// kids are those of a set, in order.
func kids(s *keyset.Set) string {
	var all []string
	for _, k := range s.Keys() {
		all = append(all, k.KeyID())
	}
	return strings.Join(all, " ")
}

// reasons are those of the skipped keys, by kid.
func reasons(p keyset.Parsed) map[string]string {
	all := map[string]string{}
	for _, s := range p.Skipped {
		all[s.KeyID] = s.Reason
	}
	return all
}

// thumbprint is that of a key's public part.
func thumbprint(t testing.TB, k *testissuer.Key) string {
	t.Helper()
	return setOf(t, k).Keys()[0].Thumbprint()
}

// algorithms is a policy that allows these only.
func algorithms(allowed ...jose.Algorithm) keyset.Policy { return keyset.Policy{Algorithms: allowed} }

// reversed is the same with the last first.
func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
