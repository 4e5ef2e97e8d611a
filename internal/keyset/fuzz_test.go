// fuzz_test.go throws any document at the parser of key sets.
package keyset_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

func FuzzParseKeySet(f *testing.F) {
	ec, ed := newKey("ec"), testissuer.NewKey("ed", "EdDSA")
	f.Add(document(f, ec.JWK(), ed.JWK(), rsaKey().JWK()))
	f.Add(document(f, ec.PrivateJWK(), ec.JWK(), ed.PrivateJWK(), rsaKey().PrivateJWK()))
	f.Add(document(f, with(ec.JWK(), map[string]any{"kid": nil, "alg": nil}), with(ed.JWK(), map[string]any{"use": "enc"})))
	f.Add(document(f, with(ec.JWK(), map[string]any{"kid": "ed"}), ed.JWK(), nil, 1, map[string]any{"kty": "oct", "k": "AA"}))
	f.Add(document(f))
	f.Add([]byte(`{"a":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := keyset.Parse(text, keyset.Policy{})
		if err != nil {
			checkError(t, parsed, err)
			return
		}
		checkSet(t, parsed)
		checkOrder(t, text, parsed.Set)
	})
}

func checkError(t *testing.T, parsed keyset.Parsed, err error) {
	t.Helper()
	known := []string{
		keyset.ReasonNotAKeySet, keyset.ReasonEmptyKeySet, keyset.ReasonNoUsableKeys,
		keyset.ReasonTooManyKeys, keyset.ReasonPrivateKeyExposed,
	}
	var e *keyset.Error
	if parsed.Set != nil || !errors.As(err, &e) || !slices.Contains(known, e.Reason) || e.Message == "" {
		t.Fatalf("got %v and %v", parsed.Set, err)
	}
}

// checkSet lets only what is public and reads back through.
func checkSet(t *testing.T, parsed keyset.Parsed) {
	t.Helper()
	set := parsed.Set
	if n := set.Len(); n == 0 || n > keyset.MaxKeys {
		t.Fatalf("%d keys", n)
	}
	var published struct{ Keys []map[string]string }
	if err := json.Unmarshal(set.JSON(), &published); err != nil {
		t.Fatalf("%s: %v", set.JSON(), err)
	}
	for _, key := range published.Keys {
		for name := range key {
			if !slices.Contains([]string{"alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"}, name) {
				t.Fatalf("a key is published with %q", name)
			}
		}
	}
	for _, c := range parsed.Compromised {
		if strings.Contains(string(set.JSON()), c.Thumbprint) || slices.ContainsFunc(set.Refs(), func(r keyset.Ref) bool { return r.Thumbprint == c.Thumbprint }) {
			t.Fatalf("a compromised key was admitted: %v", c)
		}
	}
	decoded, err := keyset.Decode(set.JSON())
	if err != nil || decoded.Digest() != set.Digest() {
		t.Fatalf("%s does not read back: %v", set.JSON(), err)
	}
	again, err := keyset.Parse(set.JSON(), keyset.Policy{})
	if err != nil || again.Set.Digest() != set.Digest() || len(again.Skipped) > 0 {
		t.Fatalf("%s is not admitted: %v, skipped %v", set.JSON(), err, again.Skipped)
	}
}

// checkOrder parses the same keys in the opposite order.
func checkOrder(t *testing.T, text []byte, want *keyset.Set) {
	t.Helper()
	var members map[string]json.RawMessage
	var keys []json.RawMessage
	if json.Unmarshal(text, &members) != nil || json.Unmarshal(members["keys"], &keys) != nil {
		return // a map of certificates has no order
	}
	opposite, err := json.Marshal(map[string]any{"keys": reversed(keys)})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keyset.Parse(opposite, keyset.Policy{})
	if err != nil || parsed.Set.Digest() != want.Digest() {
		t.Fatalf("in the opposite order: %v", err)
	}
}
