// proxy.go is what all protocols of reverse proxies have in common: where the token
// is, which headers tell the application about it, and which status a verdict is.

package verifier

import (
	"net/http"
	"strings"

	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
)

// Headers of the answers to a proxy.
const (
	// HeaderSubject is the "sub" of an accepted token; empty when it has none.
	HeaderSubject = "X-Auth-Subject"
	// HeaderIssuer is the "iss" of an accepted token.
	HeaderIssuer = "X-Auth-Issuer"
	// HeaderReason is the Reason of an answer other than 200.
	HeaderReason = "X-Jwks-Trust-Reason"
)

// realm is the protection space in the challenges (RFC 9110 section 11.5).
const realm = "jwks-trust"

// tokenFrom is the token of a request: that of its Authorization header or, where
// the issuer's spec names one, of its cookie. As long as nothing is known of the issuer
// (it is nil then), any cookie may be the token: that is no reason to refuse.
func tokenFrom(header http.Header, issuer *Issuer) (token string, refused Reason) {
	token, refused = bearerToken(header)
	switch {
	case refused != TokenMissing:
		return token, refused
	case issuer == nil && header.Get("Cookie") != "":
		return "", ""
	case issuer == nil || issuer.verification == nil || issuer.verification.Cookie == "":
		return "", TokenMissing
	}
	name := issuer.verification.Cookie
	if cookiesSent(header, name) > 1 {
		return "", AmbiguousCredentials
	}
	request := http.Request{Header: header}
	cookies := request.CookiesNamed(name)
	if len(cookies) != 1 || cookies[0].Value == "" {
		return "", TokenMissing
	}
	return cookies[0].Value, ""
}

// cookiesSent is how many cookies of the name there are. Package http leaves out those
// whose value it does not like, and the application may like just that one.
func cookiesSent(header http.Header, name string) (n int) {
	for _, line := range header.Values("Cookie") {
		for cookie := range strings.SplitSeq(line, ";") {
			if sent, _, _ := strings.Cut(cookie, "="); strings.TrimSpace(sent) == name {
				n++
			}
		}
	}
	return n
}

// bearerToken is the token of the one Authorization header (RFC 6750 section
// 2.1). Other ways to send a token are not read; another scheme is no token.
func bearerToken(header http.Header) (token string, refused Reason) {
	values := header.Values("Authorization")
	switch len(values) {
	case 0:
		return "", TokenMissing
	case 1:
	default:
		return "", AmbiguousCredentials
	}
	scheme, credentials, _ := strings.Cut(values[0], " ")
	credentials = strings.TrimLeft(credentials, " ")
	if !strings.EqualFold(scheme, "Bearer") || credentials == "" {
		return "", TokenMissing
	}
	return credentials, ""
}

// forProxy is the verdict once it is known that what an application has to be told
// can be told.
func (v Verdict) forProxy() Verdict {
	switch {
	case v.Outcome != Accept:
		return v
	case v.accepted.noHeaders != nil:
		return v.refusedBy(v.accepted.noHeaders)
	case v.accepted.proxied == nil: // without them those of a client would stand
		return Verdict{Outcome: CannotDecide, Reason: InternalError, Detail: "no headers have been made"}
	}
	return v
}

// proxyHeader is a header for the application behind the proxy: its name, in the
// form that package http has it, and its one value.
type proxyHeader struct {
	name  string
	value []string
}

// makeHeaders makes the headers for the application. Each one is always there, so that
// a proxy replaces what a client has sent under its name.
func (a *accepted) makeHeaders() {
	if !headerSafe(a.claims.Subject) || !headerSafe(a.claims.Issuer) {
		a.noHeaders = &policy.Refusal{Reason: policy.NotHeaderSafe, Detail: `"sub" or "iss"`}
		return
	}
	values, refusal := a.evaluation.HeaderValues()
	if refusal != nil {
		a.noHeaders = refusal
		return
	}
	headers := []proxyHeader{{HeaderSubject, []string{a.claims.Subject}}, {HeaderIssuer, []string{a.claims.Issuer}}}
	for i, value := range values {
		headers = append(headers, proxyHeader{http.CanonicalHeaderKey(a.policy.Headers[i]), []string{value}})
	}
	a.proxied = headers
}

// headerSafe reports whether a value arrives in a header as it was sent: printable
// ASCII without spaces at its ends, which HTTP would cut off (RFC 9110 section
// 5.5). Anything else is refused rather than encoded: an upstream that compares
// names must never see one that the issuer did not write.
func headerSafe(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return value == strings.Trim(value, " ")
}

// proxyStatus is the HTTP status of a verdict other than Accept. A key that is not
// known is the client's affair: it may have to sign in again.
func proxyStatus(v Verdict) int {
	if v.Outcome == Refuse || v.Reason == UnknownKey {
		return http.StatusUnauthorized
	}
	return http.StatusServiceUnavailable
}

// challenge is the WWW-Authenticate header of a 401. A request without a token
// learns nothing but that it needs one (RFC 6750 section 3.1).
func challenge(reason Reason) string {
	c := `Bearer realm="` + realm + `"`
	switch reason {
	case TokenMissing:
		return c
	case AmbiguousCredentials:
		return c + `, error="invalid_request", error_description="` + reason.Text() + `"`
	default:
		return c + `, error="invalid_token", error_description="` + reason.Text() + `"`
	}
}
