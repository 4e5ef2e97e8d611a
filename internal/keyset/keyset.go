// Package keyset turns the document of an issuer into a canonical set of
// admitted keys, and compares two sets. It is pure: no clock, no network.
package keyset

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// Those who work with sets need these two, and nothing else of jose.
type (
	// Algorithm is a JWS "alg".
	Algorithm = jose.Algorithm
	// Key is an admitted public key.
	Key = jose.Key
)

// Algorithms lists the supported algorithms in a stable order.
func Algorithms() []Algorithm { return jose.Algorithms() }

// Set is an immutable set of keys, sorted by kid, then by thumbprint.
type Set struct {
	keys   []*Key
	json   []byte
	digest string
}

// newSet sorts the keys and encodes them.
func newSet(keys []*Key) *Set {
	slices.SortFunc(keys, func(a, b *Key) int {
		return cmp.Or(
			cmp.Compare(a.KeyID(), b.KeyID()),
			cmp.Compare(a.Thumbprint(), b.Thumbprint()),
			cmp.Compare(a.Algorithm(), b.Algorithm()), // one key for two algorithms
		)
	})
	encoded := make([][]byte, 0, len(keys))
	for _, k := range keys {
		encoded = append(encoded, k.MarshalJWK())
	}
	text := slices.Concat([]byte(`{"keys":[`), bytes.Join(encoded, []byte(",")), []byte(`]}`))
	return &Set{keys: keys, json: text, digest: Digest(text)}
}

// setOf is the set of the candidates' keys.
func setOf(candidates []candidate) *Set {
	keys := make([]*Key, 0, len(candidates))
	for _, c := range candidates {
		keys = append(keys, c.key)
	}
	return newSet(keys)
}

// JSON is the set in its one canonical form (RFC 7517 section 5). Callers must
// not change it.
func (s *Set) JSON() []byte { return s.json }

// Digest is "sha256:" and the hex SHA-256 of JSON.
func (s *Set) Digest() string { return s.digest }

// Keys are the keys in order. Callers must not change the slice.
func (s *Set) Keys() []*Key { return s.keys }

// Len is how many keys there are.
func (s *Set) Len() int { return len(s.keys) }

// Filter is the set of those keys that keep says yes to. It may be empty.
func (s *Set) Filter(keep func(*Key) bool) *Set {
	kept := make([]*Key, 0, len(s.keys))
	for _, k := range s.keys {
		if keep(k) {
			kept = append(kept, k)
		}
	}
	if len(kept) == len(s.keys) {
		return s // sets do not change, and this one is encoded
	}
	return newSet(kept)
}

// With is the set with more keys. The caller sees to it that no two keys share a
// kid, and that every one has a kid where there are several: Decode would refuse
// another set.
func (s *Set) With(more []*Key) *Set {
	if len(more) == 0 {
		return s
	}
	return newSet(slices.Concat(s.keys, more))
}

// Digest is that of a set's exact bytes.
func Digest(jwksJSON []byte) string {
	sum := sha256.Sum256(jwksJSON)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Errors of Select.
var (
	// ErrUnknownKey: no key has that kid.
	ErrUnknownKey = errors.New("no key of the set has the token's kid")
	// ErrAmbiguousKey: the token names no key, and several fit.
	ErrAmbiguousKey = errors.New("the token has no kid, and several keys fit")
	// ErrAlgorithmMismatch: the key does not serve the token's algorithm.
	ErrAlgorithmMismatch = errors.New("the key with the token's kid does not serve its alg")
)

// Select finds the key that must have made a token with this header. A token
// without a kid is matched only where exactly one key fits its algorithm.
func (s *Set) Select(kid string, hasKid bool, alg Algorithm) (*Key, error) {
	if !hasKid {
		return s.only(alg)
	}
	for _, k := range s.keys {
		if k.KeyID() != kid || kid == "" {
			continue
		}
		if !k.Fits(alg) {
			return nil, ErrAlgorithmMismatch
		}
		return k, nil
	}
	return nil, ErrUnknownKey
}

func (s *Set) only(alg Algorithm) (*Key, error) {
	var found *Key
	for _, k := range s.keys {
		if !k.Fits(alg) {
			continue
		}
		if found != nil {
			return nil, ErrAmbiguousKey
		}
		found = k
	}
	if found == nil {
		return nil, ErrUnknownKey
	}
	return found, nil
}

// Decode reads back what JSON wrote. Anything that would not be written the
// same way, to the byte, is an error, and so are keys that Parse would not have
// put into one set.
func Decode(jwksJSON []byte) (*Set, error) {
	members, err := jose.Members(jwksJSON)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(members["keys"], &list); err != nil {
		return nil, errNotCanonical
	}
	var parser jose.Parser
	candidates := make([]candidate, 0, len(list))
	for i, raw := range list {
		k, err := parser.ParseKey(raw)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, candidate{i, k})
	}
	var dropped Parsed
	set := setOf(dropped.dropNameless(dropped.dropDuplicates(candidates)))
	if !bytes.Equal(set.json, jwksJSON) {
		return nil, errNotCanonical
	}
	return set, nil
}

var errNotCanonical = errors.New("the key set is not in its canonical form")
