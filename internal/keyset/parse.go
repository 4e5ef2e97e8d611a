// parse.go admits the keys of a document, one by one: a bad key costs only
// itself.

package keyset

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// MaxKeys is the most keys that a document may have.
const MaxKeys = 100

// Reasons of Error. They are those of the API's conditions.
const (
	// ReasonNotAKeySet: neither a JSON Web Key Set nor a map of certificates.
	ReasonNotAKeySet = "NotAKeySet"
	// ReasonEmptyKeySet: "keys" is empty.
	ReasonEmptyKeySet = "EmptyKeySet"
	// ReasonNoUsableKeys: there are keys, but none is admitted.
	ReasonNoUsableKeys = "NoUsableKeys"
	// ReasonTooManyKeys: there are more than MaxKeys.
	ReasonTooManyKeys = "TooManyKeys"
	// ReasonPrivateKeyExposed: none is admitted, and there are private members.
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
	// Revoked are the thumbprints, or kids, of keys that are never admitted.
	Revoked map[string]struct{}
}

// Skipped is a key that was left out.
type Skipped struct {
	// Index is its place in the document, from 0; in a map of certificates, its
	// place among the sorted kids.
	Index int
	// KeyID is its kid, shortened to 128 bytes and made printable.
	KeyID string
	// Reason is one of jose's reasons for keys, or one of the above.
	Reason string
	// Thumbprint is that of a key which is left out for its use alone.
	Thumbprint string
}

// Compromised is a key that was published with its genuine private part.
type Compromised struct {
	// KeyID is its kid, shortened to 128 bytes and made printable.
	KeyID string
	// Thumbprint is that of its public part (RFC 7638).
	Thumbprint string
}

// Parsed is what became of a document.
type Parsed struct {
	// Set is nil when Parse returns an error; the other two always count.
	Set *Set
	// Skipped are the keys that were left out, in the document's order.
	Skipped []Skipped
	// Compromised are the keys of which the document has the private part, each
	// once.
	Compromised []Compromised
	// RefreshHint is how often the document itself asks to be read again, in
	// seconds, at most a week ("spiffe_refresh_hint", SPIFFE Trust Domain and
	// Bundle section 4.1.2); zero where it does not say.
	RefreshHint int64
}

// Error says why a document yields no set.
type Error struct {
	// Reason is one of the constants Reason….
	Reason string
	// Message is for people: it says what to fix, and holds no byte of the
	// document.
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
	entries, hint, err := split(document)
	if err != nil {
		return Parsed{}, err
	}
	switch n := len(entries); {
	case n == 0:
		return Parsed{}, &Error{ReasonEmptyKeySet, "The key set has no keys; have the issuer publish at least one."}
	case n > MaxKeys:
		return Parsed{}, &Error{ReasonTooManyKeys, fmt.Sprintf("The key set has %d keys, over the limit of %d; have the issuer drop old ones.", n, MaxKeys)}
	}
	out := Parsed{RefreshHint: hint}
	admitted := out.admit(entries, p)
	admitted = out.dropRevoked(admitted, p)
	admitted = out.dropDuplicates(admitted)
	admitted = out.dropNameless(admitted)
	slices.SortStableFunc(out.Skipped, func(a, b Skipped) int { return cmp.Compare(a.Index, b.Index) })
	if len(admitted) == 0 {
		return out, out.nothingLeft()
	}
	out.Set = setOf(admitted)
	return out, nil
}

// entry is a key as the document has it: a JWK, or a certificate with its kid.
type entry struct {
	index       int
	kid         string
	raw         json.RawMessage
	certificate []byte
}

func (e entry) parse(parser *jose.Parser) (*Key, error) {
	if e.certificate != nil {
		return jose.KeyFromCertificate(e.kid, e.certificate)
	}
	return parser.ParseKey(e.raw)
}

// split takes the document apart without judging its keys.
func split(document []byte) (entries []entry, hint int64, err error) {
	members, err := jose.Members(document)
	if err != nil {
		return nil, 0, notAKeySet(notJSON(document, err))
	}
	raw, has := members["keys"]
	if !has {
		if entries := certificates(members); entries != nil {
			return entries, 0, nil
		}
		return nil, 0, notAKeySet(whatElse(members))
	}
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, 0, notAKeySet(`its member "keys" is not an array`)
	}
	entries = make([]entry, 0, len(list))
	for i, k := range list {
		entries = append(entries, entry{index: i, kid: kidOf(k), raw: k})
	}
	return entries, refreshHint(members["spiffe_refresh_hint"]), nil
}

// refreshHint reads a number of seconds. What is none says nothing.
func refreshHint(raw json.RawMessage) int64 {
	const week = 7 * 24 * 3600
	var seconds int64
	if raw == nil || json.Unmarshal(raw, &seconds) != nil || seconds <= 0 {
		return 0
	}
	return min(seconds, week)
}

// certificates reads a map from kid to PEM certificate; nil if it is none.
func certificates(members map[string]json.RawMessage) []entry {
	var entries []entry
	for _, kid := range slices.Sorted(maps.Keys(members)) {
		var text string
		if json.Unmarshal(members[kid], &text) != nil || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
			return nil
		}
		entries = append(entries, entry{index: len(entries), kid: kid, certificate: []byte(text)})
	}
	return entries
}

// notJSON says what a document that is no JSON object seems to be.
func notJSON(document []byte, err error) string {
	switch text := bytes.TrimSpace(document); {
	case len(text) == 0:
		return "it is empty"
	case text[0] == '<':
		return "it seems to be a web page"
	}
	return err.Error()
}

// whatElse says what an object without keys seems to be.
func whatElse(members map[string]json.RawMessage) string {
	if _, has := members["kty"]; has {
		return `it is a single key, which has to stand in the array "keys" of an object`
	}
	if _, has := members["jwks_uri"]; has {
		return `it is the issuer's discovery document, whose "jwks_uri" is the URL of the keys`
	}
	return `it has no member "keys"`
}

func notAKeySet(why string) error {
	return &Error{ReasonNotAKeySet, "The document is not a JSON Web Key Set: " + why +
		". Check that spec.jwksURI is the URL of the keys, or that spec.jwks holds them."}
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
	var parser jose.Parser
	var admitted []candidate
	for _, e := range entries {
		key, err := e.parse(&parser)
		if reason := out.judge(key, err, p); reason != "" {
			out.skip(e.index, e.kid, reason)
			if reason == SkippedUse {
				out.Skipped[len(out.Skipped)-1].Thumbprint = key.Thumbprint()
			}
			continue
		}
		admitted = append(admitted, candidate{e.index, key})
	}
	return admitted
}

// judge is why a key is left out, taken by itself; "" when it is not.
func (out *Parsed) judge(key *Key, err error, p Policy) string {
	var exposed *jose.ExposedKeyError
	var refused *jose.Error
	switch {
	case errors.As(err, &exposed):
		out.expose(exposed)
		return string(jose.PrivateKeyExposed)
	case errors.As(err, &refused):
		return string(refused.Reason)
	case err != nil:
		return string(jose.MalformedKey)
	case !p.admitsUse(key.Use()):
		return SkippedUse
	case len(p.Algorithms) > 0 && !slices.ContainsFunc(p.Algorithms, key.Fits):
		return SkippedAlgorithm
	}
	return ""
}

// admitsUse judges a declared "use"; none is no obstacle.
func (p Policy) admitsUse(use string) bool {
	if len(p.Uses) == 0 {
		return use == "" || use == "sig"
	}
	return use == "" || slices.Contains(p.Uses, use)
}

// expose notes a compromised key, once.
func (out *Parsed) expose(e *jose.ExposedKeyError) {
	if !out.exposes(e.Thumbprint) {
		out.Compromised = append(out.Compromised, Compromised{printable(e.KeyID), e.Thumbprint})
	}
}

// exposes reports whether the document has the private part of a key.
func (out *Parsed) exposes(thumbprint string) bool {
	return slices.ContainsFunc(out.Compromised, func(c Compromised) bool { return c.Thumbprint == thumbprint })
}

// dropRevoked leaves out revoked keys, and those whose private part stands
// elsewhere in this very document.
func (out *Parsed) dropRevoked(in []candidate, p Policy) []candidate {
	return slices.DeleteFunc(in, func(c candidate) bool {
		_, revoked := p.Revoked[c.key.Thumbprint()]
		if _, byID := p.Revoked[c.key.KeyID()]; byID && c.key.KeyID() != "" {
			revoked = true
		}
		if !revoked && !out.exposes(c.key.Thumbprint()) {
			return false
		}
		out.skip(c.index, c.key.KeyID(), SkippedRevoked)
		return true
	})
}

// dropDuplicates keeps one of several equal keys, and none of those that share
// a kid and differ.
func (out *Parsed) dropDuplicates(in []candidate) []candidate {
	last := map[string]string{} // kid to canonical key
	differing := map[string]bool{}
	for _, c := range in {
		kid, key := c.key.KeyID(), string(c.key.MarshalJWK())
		if before, seen := last[kid]; seen && before != key && kid != "" {
			differing[kid] = true
		}
		last[kid] = key
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
	serving := map[Algorithm]int{}
	for _, c := range in {
		for _, a := range c.key.Algorithms() {
			serving[a]++
		}
	}
	return slices.DeleteFunc(in, func(c candidate) bool {
		hasRival := slices.ContainsFunc(c.key.Algorithms(), func(a Algorithm) bool { return serving[a] > 1 })
		if c.key.KeyID() != "" || !hasRival {
			return false
		}
		out.skip(c.index, "", SkippedNoKeyID)
		return true
	})
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
	if counts[string(jose.PrivateKeyExposed)] > 0 {
		return &Error{ReasonPrivateKeyExposed, "No key of the set was admitted, and some have private members, with which anybody can sign: " + why +
			". Have the issuer replace these keys at once, and publish their public members only."}
	}
	return &Error{ReasonNoUsableKeys, "No key of the set was admitted: " + why +
		". Have the issuer publish a usable key, or widen spec.allowedAlgorithms or spec.keyUses."}
}

// printable shortens a kid, and makes it safe to show.
func printable(kid string) string {
	kid = kid[:min(len(kid), jose.MaxKeyID)]
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, kid)
}
