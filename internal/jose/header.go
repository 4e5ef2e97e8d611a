// header.go reads the header of a token (RFC 7515 section 4).

package jose

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// header is what counts of a token's header.
type header struct {
	algorithm Algorithm
	keyID     string
	hasKeyID  bool
	typ       string
}

// forbidden are header members that ask for something that is never done:
// critical extensions and unencoded payloads (RFC 7515 section 4.1.11, RFC
// 7797), compression and encryption (RFC 7516), password-based keys (RFC 7518
// section 4.8).
var forbidden = []string{"crit", "b64", "zip", "enc", "epk", "apu", "apv", "p2s", "p2c", "iv", "tag"}

// parseHeader reads what counts in a header, and refuses what must not be there.
func parseHeader(text []byte) (*header, error) {
	members, err := bareObject(text)
	if err != nil {
		return nil, refuse(MalformedToken, "the header: %v", err)
	}
	h := &header{}
	alg, _, ok := members.text("alg")
	var known bool
	if h.algorithm, known = parseAlgorithm(alg); !ok || !known {
		return nil, refuse(AlgorithmNotAllowed, "the header's alg is not an allowed signature algorithm")
	}
	for _, name := range forbidden {
		if members.Member(name) != nil {
			return nil, refuse(HeaderNotAllowed, "the header has %q", name)
		}
	}
	if h.keyID, h.hasKeyID, ok = members.text("kid"); !ok {
		return nil, refuse(MalformedToken, "the header's kid is not a string")
	}
	if len(h.keyID) > MaxKeyID {
		return nil, refuse(MalformedToken, "the header's kid is over %d bytes", MaxKeyID)
	}
	if h.typ, _, ok = members.text("typ"); !ok {
		return nil, refuse(MalformedToken, "the header's typ is not a string")
	}
	cty, _, ok := members.text("cty")
	if !ok {
		return nil, refuse(MalformedToken, "the header's cty is not a string")
	}
	// RFC 7519 section 5.2: a nested token.
	if strings.EqualFold(cty, "JWT") || strings.EqualFold(cty, "application/jwt") {
		return nil, refuse(HeaderNotAllowed, "the token is nested")
	}
	return h, nil
}

// An issuer's tokens have the same header, to the byte, for as long as a key
// signs. Reading it is a fifth of what is not cryptography, so good ones are kept:
// few, short, and each in one place that its hash names, so that a flood of
// others costs no more than reading them.
const (
	keptHeaders = 256
	maxKept     = 512
)

var (
	kept     [keptHeaders]atomic.Pointer[keptHeader]
	keptSeed = maphash.MakeSeed()
)

// keptHeader is a good header and how it is spelled in a token.
type keptHeader struct {
	spelled string
	header  *header
}

// readHeader reads the header of a token, given as it is spelled there.
func readHeader(spelled string) (*header, error) {
	place := &kept[maphash.String(keptSeed, spelled)%keptHeaders]
	if k := place.Load(); k != nil && k.spelled == spelled {
		return k.header, nil
	}
	text, err := decodePart(nil, []byte(spelled), "header")
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(text)
	if err == nil && len(spelled) <= maxKept {
		place.Store(&keptHeader{strings.Clone(spelled), h}) // not the token with it
	}
	return h, err
}
