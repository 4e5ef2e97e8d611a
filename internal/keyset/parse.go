// parse.go admits the keys of a document, one by one: a bad key costs only
// itself.
package keyset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

const (
	// MaxKeys is the most keys that a document may have.
	MaxKeys = 100
	// maxDepth bounds the nesting of a document.
	maxDepth = 32
)

// Reasons of Error.
const (
	ReasonNotAKeySet        = "NotAKeySet"
	ReasonEmptyKeySet       = "EmptyKeySet"
	ReasonNoUsableKeys      = "NoUsableKeys"
	ReasonTooManyKeys       = "TooManyKeys"
	ReasonPrivateKeyExposed = "PrivateKeyExposed"
)

// Reasons for leaving out a key, besides those of jose.
const (
	// SkippedUse: the key's "use" is not one of the policy's.
	SkippedUse = "UseNotAllowed"
	// SkippedAlgorithm: the key serves none of the policy's algorithms.
	SkippedAlgorithm = "AlgorithmNotAllowed"
	// SkippedDuplicate: another key has the same kid; which one a token means
	// cannot be told, so both are left out.
	SkippedDuplicate = "DuplicateKeyID"
	// SkippedNoKeyID: the key has no kid, and tokens could mean another one.
	SkippedNoKeyID = "MissingKeyID"
	// SkippedRevoked: the key's thumbprint is revoked.
	SkippedRevoked = "Revoked"
)

// Policy says which keys are admitted.
type Policy struct {
	// Algorithms are those of which a key must serve one; all when empty.
	Algorithms []Algorithm
	// Uses are the admitted values of "use", besides none; "sig" when empty.
	Uses []string
	// Revoked are thumbprints that are never admitted.
	Revoked map[string]struct{}
}

// Skipped is a key that was left out.
type Skipped struct {
	// Index is its place in the document, from 0; -1 where places mean nothing.
	Index int
	// KeyID is its kid, shortened and made printable.
	KeyID  string
	Reason string
}

// Compromised is a key that was published with its private part.
type Compromised struct{ KeyID, Thumbprint string }

// Parsed is what became of a document.
type Parsed struct {
	// Set is nil when Parse returns an error; the other two always count.
	Set         *Set
	Skipped     []Skipped
	Compromised []Compromised
}

// Error says why a document yields no set.
type Error struct {
	Reason string
	// Message is for people, and holds no byte of the document.
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// candidate is a key of the document on its way to be admitted.
type candidate struct {
	index int
	key   *Key
}

// Parse admits the keys of a JSON Web Key Set (RFC 7517 section 5), or of
// Firebase's map from kid to PEM certificate. Its errors are *Error.
func Parse(document []byte, p Policy) (Parsed, error) {
	entries, err := split(document)
	if err != nil {
		return Parsed{}, err
	}
	switch n := len(entries); {
	case n == 0:
		return Parsed{}, &Error{ReasonEmptyKeySet, "The key set has no keys; have the issuer publish at least one."}
	case n > MaxKeys:
		return Parsed{}, &Error{ReasonTooManyKeys, fmt.Sprintf("The key set has %d keys, over the limit of %d; have the issuer drop old ones.", n, MaxKeys)}
	}
	var out Parsed
	admitted := out.admit(entries, p)
	admitted = out.dropRevoked(admitted, p)
	admitted = out.dropDuplicates(admitted)
	admitted = out.dropNameless(admitted)
	if len(admitted) == 0 {
		return out, out.nothingLeft()
	}
	keys := make([]*Key, 0, len(admitted))
	for _, c := range admitted {
		keys = append(keys, c.key)
	}
	out.Set = newSet(keys)
	return out, nil
}

// entry is a key as the document has it: a JWK, or a certificate with its kid.
type entry struct {
	index       int
	kid         string
	raw         json.RawMessage
	certificate []byte
}

func (e entry) parse() (*Key, error) {
	if e.certificate != nil {
		return jose.KeyFromCertificate(e.kid, e.certificate)
	}
	return jose.ParseKey(e.raw)
}

// split takes the document apart without judging its keys.
func split(document []byte) ([]entry, error) {
	wrong := func(what string) error {
		return &Error{ReasonNotAKeySet, "The document at spec.jwksURI (or in spec.jwks) is not a JSON Web Key Set: " + what + ". Check that the URL is that of the keys."}
	}
	if err := jose.CheckJSON(document, maxDepth); err != nil {
		return nil, wrong(err.Error())
	}
	if trimmed := bytes.TrimSpace(document); trimmed[0] != '{' {
		return nil, wrong("it is not a JSON object")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(document, &members); err != nil {
		return nil, wrong("it is not a JSON object")
	}
	raw, has := members["keys"]
	if !has {
		if certificates := certificateMap(members); certificates != nil {
			return certificates, nil
		}
		return nil, wrong(`it has no member "keys"`)
	}
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, wrong(`its member "keys" is not an array`)
	}
	entries := make([]entry, 0, len(list))
	for i, k := range list {
		entries = append(entries, entry{index: i, kid: kidOf(k), raw: k})
	}
	return entries, nil
}

// certificateMap reads a map from kid to PEM certificate; nil if it is none.
func certificateMap(members map[string]json.RawMessage) []entry {
	entries := make([]entry, 0, len(members))
	for kid, raw := range members {
		var text string
		if json.Unmarshal(raw, &text) != nil || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
			return nil
		}
		entries = append(entries, entry{index: -1, kid: kid, certificate: []byte(text)})
	}
	if len(entries) == 0 {
		return nil
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.kid, b.kid) })
	return entries
}

// kidOf is the kid of a key that may be anything.
func kidOf(raw json.RawMessage) string {
	var members map[string]json.RawMessage
	var kid string
	if json.Unmarshal(raw, &members) != nil || json.Unmarshal(members["kid"], &kid) != nil {
		return ""
	}
	return kid
}

// admit parses each key and applies the policy.
func (out *Parsed) admit(entries []entry, p Policy) []candidate {
	uses := p.Uses
	if len(uses) == 0 {
		uses = []string{"sig"}
	}
	var admitted []candidate
	for _, e := range entries {
		key, err := e.parse()
		var exposed *jose.ExposedKeyError
		var refused *jose.Error
		switch {
		case errors.As(err, &exposed):
			out.Compromised = append(out.Compromised, Compromised{printable(exposed.KeyID), exposed.Thumbprint})
			out.skip(e.index, e.kid, string(jose.PrivateKeyExposed))
		case errors.As(err, &refused):
			out.skip(e.index, e.kid, string(refused.Reason))
		case err != nil:
			out.skip(e.index, e.kid, string(jose.MalformedKey))
		case key.Use() != "" && !slices.Contains(uses, key.Use()):
			out.skip(e.index, e.kid, SkippedUse)
		case len(p.Algorithms) > 0 && !slices.ContainsFunc(p.Algorithms, key.Fits):
			out.skip(e.index, e.kid, SkippedAlgorithm)
		default:
			admitted = append(admitted, candidate{e.index, key})
		}
	}
	return admitted
}

// dropRevoked leaves out revoked keys, those that are compromised in this very
// document included: a set may hold the same key with and without its private
// part.
func (out *Parsed) dropRevoked(in []candidate, p Policy) []candidate {
	return slices.DeleteFunc(in, func(c candidate) bool {
		_, revoked := p.Revoked[c.key.Thumbprint()]
		revoked = revoked || slices.ContainsFunc(out.Compromised, func(x Compromised) bool { return x.Thumbprint == c.key.Thumbprint() })
		if revoked {
			out.skip(c.index, c.key.KeyID(), SkippedRevoked)
		}
		return revoked
	})
}

// dropDuplicates keeps one of several equal keys, and none of those that share
// a kid and differ.
func (out *Parsed) dropDuplicates(in []candidate) []candidate {
	first := map[string]string{} // kid to canonical key
	differing := map[string]bool{}
	for _, c := range in {
		kid, key := c.key.KeyID(), string(c.key.MarshalJWK())
		if before, seen := first[kid]; seen && before != key && kid != "" {
			differing[kid] = true
		}
		first[kid] = key
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(in, func(c candidate) bool {
		if differing[c.key.KeyID()] {
			out.skip(c.index, c.key.KeyID(), SkippedDuplicate)
			return true
		}
		key := string(c.key.MarshalJWK())
		again := seen[key]
		seen[key] = true
		return again
	})
}

// dropNameless leaves out keys without a kid where another key could serve the
// same tokens.
func (out *Parsed) dropNameless(in []candidate) []candidate {
	rivals := func(c candidate) bool {
		return slices.ContainsFunc(in, func(o candidate) bool {
			return o.key != c.key && slices.ContainsFunc(o.key.Algorithms(), c.key.Fits)
		})
	}
	var kept []candidate
	for _, c := range in {
		if c.key.KeyID() == "" && rivals(c) {
			out.skip(c.index, "", SkippedNoKeyID)
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

func (out *Parsed) skip(index int, kid, reason string) {
	out.Skipped = append(out.Skipped, Skipped{Index: index, KeyID: printable(kid), Reason: reason})
}

// nothingLeft says why no key was admitted.
func (out *Parsed) nothingLeft() error {
	counts := map[string]int{}
	for _, s := range out.Skipped {
		counts[s.Reason]++
	}
	parts := make([]string, 0, len(counts))
	for reason, n := range counts {
		parts = append(parts, fmt.Sprintf("%s (%d)", reason, n))
	}
	slices.Sort(parts)
	why := strings.Join(parts, ", ")
	if len(out.Compromised) > 0 {
		return &Error{ReasonPrivateKeyExposed, "The key set holds the private part of its keys, so that anybody can sign: " + why + ". Have the issuer replace these keys at once, and publish public ones."}
	}
	return &Error{ReasonNoUsableKeys, "No key of the set was admitted: " + why + ". Have the issuer publish a usable key, or widen spec.allowedAlgorithms or spec.keyUses."}
}

// printable shortens a kid, and makes it safe to show.
func printable(kid string) string {
	kid = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, kid)
	for len(kid) > jose.MaxKeyID {
		kid = kid[:len(kid)-1]
	}
	return strings.ToValidUTF8(kid, "")
}
