// forwardauth.go answers reverse proxies (nginx auth_request, Caddy and Traefik
// forward auth) that ask whether a request may pass:
//
//	/forward-auth/ns/{namespace}/{name}   a TrustedIssuer
//	/forward-auth/cluster/{name}          a ClusterTrustedIssuer
//
//	200  the token is good; X-Auth-Subject, X-Auth-Issuer and the headers of
//	     spec.verification.responseHeaders say whose it is
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

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
)

// forwardAuthPrefix is where the paths begin.
const forwardAuthPrefix = "/forward-auth/"

// forwardAuth is the handler.
type forwardAuth struct {
	issuers issuers
	lookup  *lookup
	now     func() time.Time
	gate    *gate
	cache   *tokenCache
	tracer  *requestTracer
	log     logr.Logger
}

func (h *forwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	object, ok := objectFromPath(r.URL.EscapedPath())
	if !ok {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	ctx, span := h.tracer.start(r.Context(), protocolForwardAuth, r.Header)
	if !h.gate.enter() {
		v := Verdict{Outcome: CannotDecide, Reason: Overloaded}
		count(protocolForwardAuth, v)
		span.end(v, "")
		writeForwardAuth(w, v)
		return
	}
	defer h.gate.leave()
	v := contained(h.log, func() Verdict { return h.judge(ctx, r.Header, object) })
	count(protocolForwardAuth, v)
	h.tell(span, v, object)
	writeForwardAuth(w, v)
}

// tell tells the log and the span of a verdict, where somebody wants to know: to name
// the object costs something.
func (h *forwardAuth) tell(s requestSpan, v Verdict, object Object) {
	if h.tracer != nil || h.log.V(1).Enabled() {
		name := object.String()
		logVerdict(h.log, v, name)
		s.end(v, name)
	}
}

// judge judges the token of a proxy's request.
func (h *forwardAuth) judge(ctx context.Context, header http.Header, object Object) Verdict {
	issuer, known := h.issuers.ForObject(object)
	token, refused := tokenFrom(header, issuer)
	switch {
	case refused != "":
		return Verdict{Outcome: Refuse, Reason: refused}
	case !known && !h.issuers.Ready():
		return Verdict{Outcome: CannotDecide, Reason: NotReady}
	case !known:
		return Verdict{Outcome: CannotDecide, Reason: UnknownIssuer}
	}
	v, issuer := h.verify(ctx, token, issuer)
	v = v.forProxy()
	issuer.used(v, h.now())
	return v
}

// verify judges a token, unless it was accepted before.
func (h *forwardAuth) verify(ctx context.Context, token string, issuer *Issuer) (Verdict, *Issuer) {
	var name tokenName
	if h.cache != nil && len(token) <= jose.MaxTokenSize {
		name = nameOf(token)
		if v, ok := h.cache.get(name).again(issuer, h.now()); ok {
			return v, issuer
		}
	}
	c, malformed := decode(token)
	if malformed != nil {
		return *malformed, issuer
	}
	c.gate = h.gate
	v, issuer := h.lookup.judge(ctx, c, issuer, h.now())
	if v.Outcome != Accept {
		return v, issuer
	}
	if v.accepted.makeHeaders(); v.accepted.noHeaders == nil || v.accepted.noHeaders.Reason != policy.Busy {
		h.cache.put(name, v)
	}
	return v, issuer
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
	kind, rest, _ := strings.Cut(path, "/")
	switch kind {
	case "ns":
		namespace, name, _ := strings.Cut(rest, "/")
		return Object{Kind: api.TrustedIssuerKind, Namespace: namespace, Name: name}, isName(namespace, maxLabel) && isName(name, maxSubdomain)
	case "cluster":
		return Object{Kind: api.ClusterTrustedIssuerKind, Name: rest}, isName(rest, maxSubdomain)
	}
	return Object{}, false
}

// The longest names: of namespaces, which are labels, and of objects, which are
// subdomains (RFC 1123).
const maxLabel, maxSubdomain = 63, 253

// isName reports whether an object can have that name, as far as matters here: it
// is of letters, digits, hyphens and, in a subdomain, dots, which do not stand at
// its ends. What no object is called in fact is not found anyway.
func isName(s string, longest int) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		case c == '.' && longest == maxSubdomain:
		default:
			return false
		}
	}
	return s != "" && len(s) <= longest && strings.Trim(s, "-.") == s
}

// noStore is the header's value. It must not be changed.
var noStore = []string{"no-store"}

func writeForwardAuth(w http.ResponseWriter, v Verdict) {
	header := w.Header()
	header["Cache-Control"] = noStore
	if v.Outcome == Accept {
		for _, h := range v.accepted.proxied {
			header[h.name] = h.value
		}
		w.WriteHeader(http.StatusOK)
		return
	}
	header.Set(HeaderReason, string(v.Reason))
	if status := proxyStatus(v); status != http.StatusUnauthorized {
		w.WriteHeader(status)
		return
	}
	header.Set("WWW-Authenticate", challenge(v.Reason))
	w.WriteHeader(http.StatusUnauthorized)
}
