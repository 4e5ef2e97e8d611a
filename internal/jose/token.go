// token.go is the strict preflight of tokens.

package jose

import (
	"bytes"
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
	// Payload is the decoded payload, and Claims the JSON object that it is.
	Payload []byte
	Claims  Object

	signingInput []byte
	signature    []byte
}

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
	h, err := readHeader(parts[0])
	if err != nil {
		return nil, err
	}
	payload, raw := len(parts[0])+1, []byte(compact)
	signature := payload + len(parts[1]) + 1
	memory := make([]byte, 0, strict.DecodedLen(len(raw)-payload))
	if memory, err = decodePart(memory, raw[payload:signature-1], "payload"); err != nil {
		return nil, err
	}
	t := &Token{
		Algorithm: h.algorithm, KeyID: h.keyID, HasKeyID: h.hasKeyID, Type: h.typ,
		Payload: memory[:len(memory):len(memory)], signingInput: raw[:signature-1],
	}
	if t.signature, err = decodePart(memory[len(memory):], raw[signature:], "signature"); err != nil {
		return nil, err
	}
	if t.Claims, err = bareObject(t.Payload); err != nil {
		return nil, refuse(MalformedToken, "the payload: %v", err)
	}
	return t, nil
}

// decodePart appends a decoded part of a token.
func decodePart(to, part []byte, name string) ([]byte, error) {
	// The decoder skips line breaks, which RFC 7515 section 2 forbids.
	if bytes.IndexByte(part, '\r') >= 0 || bytes.IndexByte(part, '\n') >= 0 {
		return nil, refuse(MalformedToken, "the %s has a line break", name)
	}
	decoded, err := strict.AppendDecode(to, part)
	if err != nil {
		return nil, refuse(MalformedToken, "the %s is not base64url without padding", name)
	}
	return decoded, nil
}

// bareObject reads a JSON object that passes CheckJSON and has nothing around it,
// not even white space: what follows the object is nobody's business to ignore.
func bareObject(text []byte) (Object, error) {
	if len(text) == 0 || text[0] != '{' || text[len(text)-1] != '}' {
		return Object{}, errNotObject
	}
	return ReadObject(text, maxDepth)
}
