// forwardauth.go answers reverse proxies (nginx auth_request, Caddy and Traefik
// forward auth) that ask whether a request may pass:
//
//	/forward-auth/ns/{namespace}/{name}   a TrustedIssuer
//	/forward-auth/cluster/{name}          a ClusterTrustedIssuer
//
//	200  the token is good; X-Auth-Subject and X-Auth-Issuer say whose it is
//	401  a definite no, or a key that is not known (RFC 6750 section 3)
//	503  cannot decide
//
// Any method will do, and the body is not read: proxies pass on those of the
// request that they ask about.

package verifier

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/validation"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
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

// forwardAuthPrefix is where the paths begin.
const forwardAuthPrefix = "/forward-auth/"

// realm is the protection space in the challenges (RFC 9110 section 11.5).
const realm = "jwks-trust"

// forwardAuth is the handler.
type forwardAuth struct {
	issuers issuers
	lookup  *lookup
	now     func() time.Time
	gate    gate
	log     logr.Logger
}

func (h *forwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	object, ok := objectFromPath(r.URL.EscapedPath())
	if !ok {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	if !h.gate.enter() {
		count(protocolForwardAuth, Verdict{Outcome: CannotDecide, Reason: Overloaded})
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer h.gate.leave()
	v := contained(h.log, func() Verdict { return h.judge(r.Context(), r.Header, object) })
	count(protocolForwardAuth, v)
	logVerdict(h.log, v, object.String())
	writeForwardAuth(w, v)
}

// judge judges the token of a proxy's request.
func (h *forwardAuth) judge(ctx context.Context, header http.Header, object Object) Verdict {
	token, refused := bearerToken(header)
	if refused != "" {
		return Verdict{Outcome: Refuse, Reason: refused}
	}
	issuer, ok := h.issuers.ForObject(object)
	switch {
	case !ok && !h.issuers.Ready():
		return Verdict{Outcome: CannotDecide, Reason: NotReady}
	case !ok:
		return Verdict{Outcome: CannotDecide, Reason: UnknownIssuer}
	}
	c, malformed := decode(token)
	if malformed != nil {
		return *malformed
	}
	v, issuer := h.lookup.judge(ctx, c, issuer, h.now())
	if v.Outcome == Accept && !(headerSafe(v.Claims.Subject) && headerSafe(v.Claims.Issuer)) {
		v.Outcome, v.Reason, v.Claims = Refuse, ClaimNotHeaderSafe, nil
	}
	issuer.used(v, h.now())
	return v
}

// objectFromPath reads the issuer object from a path. Names that no object can
// have are unknown paths, and so are percent-encoded ones: names need no encoding.
func objectFromPath(path string) (Object, bool) {
	rest, ok := strings.CutPrefix(path, forwardAuthPrefix)
	if !ok {
		return Object{}, false
	}
	return objectNamed(rest)
}

// objectNamed reads ns/{namespace}/{name} or cluster/{name}.
func objectNamed(path string) (Object, bool) {
	switch parts := strings.Split(path, "/"); {
	case len(parts) == 3 && parts[0] == "ns":
		valid := len(validation.IsDNS1123Label(parts[1])) == 0 && len(validation.IsDNS1123Subdomain(parts[2])) == 0
		return Object{Kind: api.TrustedIssuerKind, Namespace: parts[1], Name: parts[2]}, valid
	case len(parts) == 2 && parts[0] == "cluster":
		return Object{Kind: api.ClusterTrustedIssuerKind, Name: parts[1]}, len(validation.IsDNS1123Subdomain(parts[1])) == 0
	}
	return Object{}, false
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

func writeForwardAuth(w http.ResponseWriter, v Verdict) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if v.Outcome == Accept {
		header.Set(HeaderSubject, v.Claims.Subject)
		header.Set(HeaderIssuer, v.Claims.Issuer)
		w.WriteHeader(http.StatusOK)
		return
	}
	header.Set(HeaderReason, string(v.Reason))
	if v.Outcome == Refuse || v.Reason == UnknownKey {
		header.Set("WWW-Authenticate", challenge(v.Reason))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
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
