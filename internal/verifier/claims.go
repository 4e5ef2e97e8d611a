// claims.go reads the registered claims of a token (RFC 7519 section 4.1) with
// their exact types. Other claims are not looked at.

package verifier

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// maxNumericDate is the last second of the year 9999: what comes later is a
// mistake (milliseconds, mostly), and no RFC 3339 time.
const maxNumericDate = 253402300799

// Claims are the registered claims that the verifier judges or passes on.
type Claims struct {
	// Issuer is "iss"; empty when absent.
	Issuer string
	// Subject is "sub"; empty when absent.
	Subject string
	// Audiences are the values of "aud".
	Audiences []string
	// ExpiresAt, NotBefore and IssuedAt are "exp", "nbf" and "iat"; zero when
	// absent.
	ExpiresAt, NotBefore, IssuedAt time.Time

	size int // of the payload
}

// decodeClaims reads the registered claims. problem is empty when all is well and
// names the claim otherwise, without its value.
func decodeClaims(members jose.Object) (c Claims, problem string) {
	ok := true
	read := func(name string, decode func(json.RawMessage) bool) {
		if raw := members.Member(name); ok && raw != nil && !decode(raw) {
			ok, problem = false, `"`+name+`" has the wrong type or is out of range`
		}
	}
	read("iss", func(raw json.RawMessage) bool { return decodeString(raw, &c.Issuer) })
	read("sub", func(raw json.RawMessage) bool { return decodeString(raw, &c.Subject) })
	read("aud", func(raw json.RawMessage) bool { return decodeStrings(raw, &c.Audiences) })
	read("exp", func(raw json.RawMessage) bool { return decodeNumericDate(raw, &c.ExpiresAt) })
	read("nbf", func(raw json.RawMessage) bool { return decodeNumericDate(raw, &c.NotBefore) })
	read("iat", func(raw json.RawMessage) bool { return decodeNumericDate(raw, &c.IssuedAt) })
	if !ok {
		return Claims{}, problem
	}
	return c, ""
}

// decodeString accepts a JSON string. A string with U+FFFD is refused: it may
// stand for half of a surrogate pair, and then two different strings would look
// the same.
func decodeString(raw json.RawMessage, to *string) (ok bool) {
	*to, ok = jose.Text(raw)
	return ok && !strings.ContainsRune(*to, utf8.RuneError)
}

// decodeStrings accepts a JSON string, or an array of them.
func decodeStrings(raw json.RawMessage, to *[]string) (ok bool) {
	if len(raw) > 0 && raw[0] == '[' {
		*to, ok = jose.Texts(raw)
	} else {
		*to = make([]string, 1)
		(*to)[0], ok = jose.Text(raw)
	}
	return ok && !slices.ContainsFunc(*to, func(s string) bool { return strings.ContainsRune(s, utf8.RuneError) })
}

// decodeNumericDate accepts a finite JSON number from 0 to the end of the year
// 9999 (RFC 7519 section 2, NumericDate). Fractions of a second count.
func decodeNumericDate(raw json.RawMessage, to *time.Time) bool {
	if len(raw) == 0 || raw[0] < '0' || raw[0] > '9' {
		return false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f > maxNumericDate {
		return false
	}
	seconds, fraction := math.Modf(f)
	*to = time.Unix(int64(seconds), int64(fraction*1e9))
	return true
}
