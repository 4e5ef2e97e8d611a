// token.go is the strict preflight of tokens.

package jose

import (
	"encoding/base64"
	"strings"
)

const (
	// MaxTokenSize is the largest token that is looked at, in bytes.
	MaxTokenSize = 16 << 10
	// MaxKeyID is the longest kid, in bytes.
	MaxKeyID = 128
	// maxDepth bounds the nesting of header and payload.
	maxDepth = 32
)

// Token is a parsed token. Nothing in it is verified: only Key.Verify says who
// made it.
type Token struct {
	// Algorithm is the header's "alg".
	Algorithm Algorithm
	// KeyID is the header's "kid"; HasKeyID tells an empty one from none.
	KeyID    string
	HasKeyID bool
	// Type is the header's "typ".
	Type string
	// Payload is the decoded payload: a JSON object without duplicate members.
	Payload []byte

	signingInput []byte
	signature    []byte
}

// forbidden are header members that ask for something that is never done:
// critical extensions and unencoded payloads (RFC 7515 section 4.1.11, RFC
// 7797), compression and encryption (RFC 7516), password-based keys (RFC 7518
// section 4.8).
var forbidden = []string{"crit", "b64", "zip", "enc", "epk", "apu", "apv", "p2s", "p2c", "iv", "tag"}

// strict is base64url without padding (RFC 7515 section 2) that refuses stray
// bits, so that a token has one spelling.
var strict = base64.RawURLEncoding.Strict()

// ParseToken reads a JWS in compact serialization (RFC 7515 section 7.1) whose
// payload is a JSON object. The header members that name keys (jwk, jku, x5u,
// x5c) have no effect. Its errors are *Error.
func ParseToken(compact string) (*Token, error) {
	if len(compact) > MaxTokenSize {
		return nil, refuse(TokenTooLarge, "the token is over %d KiB", MaxTokenSize>>10)
	}
	// One cut more than there may be parts: the rest is not even looked at.
	parts := strings.SplitN(compact, ".", 4)
	if len(parts) != 3 {
		return nil, refuse(MalformedToken, "the token does not have three parts")
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		var err error
		// The decoder skips line breaks, which RFC 7515 section 2 forbids.
		if strings.ContainsAny(parts[i], "\r\n") {
			return nil, refuse(MalformedToken, "the %s has a line break", name)
		}
		if decoded[i], err = strict.DecodeString(parts[i]); err != nil {
			return nil, refuse(MalformedToken, "the %s is not base64url without padding", name)
		}
	}
	t := &Token{
		Payload:      decoded[1],
		signingInput: []byte(compact[:len(parts[0])+1+len(parts[1])]),
		signature:    decoded[2],
	}
	if err := t.readHeader(decoded[0]); err != nil {
		return nil, err
	}
	if err := bareObject(t.Payload); err != nil {
		return nil, refuse(MalformedToken, "the payload: %v", err)
	}
	return t, nil
}

// bareObject checks that the text is a JSON object that passes CheckJSON and has
// nothing around it, not even white space: what follows the object is nobody's
// business to ignore.
func bareObject(text []byte) error {
	if len(text) == 0 || text[0] != '{' || text[len(text)-1] != '}' {
		return errNotObject
	}
	return CheckJSON(text, maxDepth)
}

// readHeader reads what counts in the header, and refuses what must not be
// there.
func (t *Token) readHeader(header []byte) error {
	if err := bareObject(header); err != nil {
		return refuse(MalformedToken, "the header: %v", err)
	}
	members, err := Members(header)
	if err != nil {
		return refuse(MalformedToken, "the header: %v", err)
	}
	alg, _, ok := text(members, "alg")
	var known bool
	if t.Algorithm, known = parseAlgorithm(alg); !ok || !known {
		return refuse(AlgorithmNotAllowed, "the header's alg is not an allowed signature algorithm")
	}
	for _, name := range forbidden {
		if _, has := members[name]; has {
			return refuse(HeaderNotAllowed, "the header has %q", name)
		}
	}
	if t.KeyID, t.HasKeyID, ok = text(members, "kid"); !ok {
		return refuse(MalformedToken, "the header's kid is not a string")
	}
	if len(t.KeyID) > MaxKeyID {
		return refuse(MalformedToken, "the header's kid is over %d bytes", MaxKeyID)
	}
	if t.Type, _, ok = text(members, "typ"); !ok {
		return refuse(MalformedToken, "the header's typ is not a string")
	}
	cty, _, ok := text(members, "cty")
	if !ok {
		return refuse(MalformedToken, "the header's cty is not a string")
	}
	// RFC 7519 section 5.2: a nested token.
	if strings.EqualFold(cty, "JWT") || strings.EqualFold(cty, "application/jwt") {
		return refuse(HeaderNotAllowed, "the token is nested")
	}
	return nil
}
