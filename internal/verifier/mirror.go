// mirror.go serves the trusted keys at a stable URL, to clients that fetch a key
// set themselves: they change one URL, and have the outage window.
//
//	/mirror/ns/{namespace}/{name}/jwks.json                          a TrustedIssuer's
//	/mirror/cluster/{name}/jwks.json                                 a ClusterTrustedIssuer's
//	/mirror/…/.well-known/openid-configuration                       metadata that name it
//
//	200  the keys that the verifier itself would use, revoked ones left out
//	304  the client has them
//	404  no such issuer object
//	503  there are no keys, or they have expired
//
// It is public, as the keys are.

package verifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

const (
	mirrorPrefix    = "/mirror/"
	mirrorKeys      = "/jwks.json"
	mirrorDiscovery = "/.well-known/openid-configuration"
	// mirrorMaxAge is how long a client may use the keys without asking again: a
	// revoked key lasts that much longer with it.
	mirrorMaxAge = time.Minute
	// mirrorStaleAge is the same while the keys are stale: news may come any time.
	mirrorStaleAge = 10 * time.Second
)

// mirror is the handler.
type mirror struct {
	issuers issuers
	now     func() time.Time
	// url is that of the server as clients reach it, without a slash at the end;
	// empty: there are no metadata, which need an absolute URL of the keys.
	url string
}

// checkMirrorURL reports what is wrong with the URL of the mirror.
func checkMirrorURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(raw, "/") {
		return fmt.Errorf("the mirror's URL %q must be an absolute https URL without user information, query, fragment and a slash at its end, such as https://jwks-trust-manager.jwks-trust-system.svc", raw)
	}
	return nil
}

func (h *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		h.fail(w, http.StatusMethodNotAllowed, "only GET and HEAD")
		return
	}
	path := r.URL.EscapedPath()
	object, what, ok := mirrorObject(path)
	if !ok || what == mirrorDiscovery && h.url == "" {
		h.fail(w, http.StatusNotFound, "not found")
		return
	}
	issuer, ok := h.issuers.ForObject(object)
	switch {
	case !ok && !h.issuers.Ready():
		h.fail(w, http.StatusServiceUnavailable, "not ready")
	case !ok:
		h.fail(w, http.StatusNotFound, "no such issuer")
	case what == mirrorDiscovery:
		metadata := h.metadata(issuer, strings.TrimSuffix(path, mirrorDiscovery))
		h.serve(w, r, "application/json", metadata, snapshot.DigestOf(metadata), mirrorMaxAge)
	default:
		h.keys(w, r, issuer)
	}
}

// mirrorObject reads the issuer object, and what of it is asked for, from a path.
func mirrorObject(path string) (object Object, what string, ok bool) {
	rest, ok := strings.CutPrefix(path, mirrorPrefix)
	if !ok {
		return Object{}, "", false
	}
	for _, what := range []string{mirrorKeys, mirrorDiscovery} {
		if name, ok := strings.CutSuffix(rest, what); ok {
			object, ok := objectNamed(name)
			return object, what, ok
		}
	}
	return Object{}, "", false
}

// keys serves the key set.
func (h *mirror) keys(w http.ResponseWriter, r *http.Request, issuer *Issuer) {
	now := h.now()
	state := issuer.window.State(now)
	if issuer.mirrored == nil || state != snapshot.Fresh && state != snapshot.Stale {
		h.fail(w, http.StatusServiceUnavailable, "there are no keys that are trusted now")
		return
	}
	h.serve(w, r, "application/jwk-set+json", issuer.mirrored.JSON(), issuer.mirrored.Digest(), issuer.maxAge(now))
}

// maxAge is how long a client may use the keys without asking again. It never
// reaches beyond their freshness, or their expiry.
func (i *Issuer) maxAge(now time.Time) time.Duration {
	limit, until := mirrorMaxAge, i.window.FreshUntil()
	if i.window.State(now) == snapshot.Stale {
		limit, until = mirrorStaleAge, i.window.ExpiresAt()
	}
	if until.IsZero() { // static keys
		return limit
	}
	return min(limit, until.Sub(now))
}

// serve answers with content, or with 304 where the client has it.
func (h *mirror) serve(w http.ResponseWriter, r *http.Request, contentType string, content []byte, digest string, maxAge time.Duration) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(maxAge.Seconds())))
	header.Set("ETag", `"`+digest+`"`)
	mirrored.WithLabelValues("served").Inc()
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func (h *mirror) fail(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Cache-Control", "no-store")
	result := "not_found"
	if code == http.StatusServiceUnavailable {
		result = "unavailable"
	}
	mirrored.WithLabelValues(result).Inc()
	http.Error(w, why, code)
}

// metadata are those of OpenID Connect Discovery 1.0 section 3 that a verifier
// needs: the issuer's name, and the mirror's keys.
func (h *mirror) metadata(issuer *Issuer, path string) []byte {
	document := struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{issuer.Issuer, h.url + path + mirrorKeys, []string{"id_token"}, []string{"public"}, issuer.supported()}
	text, _ := json.Marshal(document) // strings always encode
	return text
}

// supported are the algorithms that a token of the issuer may have now.
func (i *Issuer) supported() []string {
	out := []string{}
	for _, a := range jose.Algorithms() {
		fits := i.mirrored != nil && slices.ContainsFunc(i.mirrored.Keys(), func(k *jose.Key) bool { return k.Fits(a) })
		if fits && i.allows(a) {
			out = append(out, string(a))
		}
	}
	return out
}
