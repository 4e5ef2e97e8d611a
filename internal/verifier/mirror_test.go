package verifier

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const mirrorURL = "https://jwks-trust-manager.jwks-trust-system.svc"

// askMirror asks a mirror of the store at a time after the keys were confirmed.
func askMirror(s *Store, after time.Duration, method, path string, header http.Header) *http.Response {
	h := &mirror{issuers: s, now: func() time.Time { return start.Add(after) }, url: mirrorURL}
	r := httptest.NewRequest(method, "https://x"+path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	var b []byte
	buffer := make([]byte, 1<<16)
	for {
		n, err := r.Body.Read(buffer)
		b = append(b, buffer[:n]...)
		if err != nil {
			return string(b)
		}
	}
}

const keysPath = "/mirror/cluster/main/jwks.json"

func TestTheMirrorServesTheTrustedBytes(t *testing.T) {
	g := NewWithT(t)
	s := NewStore(func() time.Time { return start })
	s.ready.Store(true)
	set := keySet(t, ec("a"), ec("b"))
	s.put(t, cluster(publishes(set, start)), set)

	r := askMirror(s, time.Minute, http.MethodGet, keysPath, nil)
	g.Expect(r.StatusCode).To(Equal(http.StatusOK))
	g.Expect(bodyOf(t, r)).To(Equal(content(t, set)["jwks.json"]), "the very bytes that the digest is of")
	g.Expect(r.Header.Get("Content-Type")).To(Equal("application/jwk-set+json"))
	g.Expect(r.Header.Get("ETag")).To(Equal(`"` + set.Digest() + `"`))
	etag := r.Header.Get("ETag")

	r = askMirror(s, time.Minute, http.MethodGet, keysPath, http.Header{"If-None-Match": {etag}})
	g.Expect(r.StatusCode).To(Equal(http.StatusNotModified))
	g.Expect(r.Header.Get("Cache-Control")).To(Equal("public, max-age=60"))
	g.Expect(bodyOf(t, r)).To(BeEmpty())
	r = askMirror(s, time.Minute, http.MethodHead, keysPath, nil)
	g.Expect(r.StatusCode).To(Equal(http.StatusOK))
	g.Expect(bodyOf(t, r)).To(BeEmpty())

	s.put(t, cluster(publishes(set, start), compromised(set, "b")), set)
	r = askMirror(s, time.Minute, http.MethodGet, keysPath, http.Header{"If-None-Match": {etag}})
	g.Expect(bodyOf(t, r)).To(Equal(string(keySet(t, ec("a")).JSON())), "revoked at once, whatever the ConfigMap still holds")
}

// A key whose tokens the verifier refuses, because spec lets none of its algorithms pass
// any more, goes from the mirror at once: the issuer may be down.
func TestTheMirrorHasNoKeyForAnAlgorithmThatIsNotAllowed(t *testing.T) {
	g := NewWithT(t)
	s := NewStore(func() time.Time { return start })
	set := keySet(t, ec("a"), key("ed", "EdDSA"))
	s.put(t, cluster(publishes(set, start), algorithms("ES256", "RS256")), set)
	r := askMirror(s, time.Minute, http.MethodGet, keysPath, nil)
	g.Expect(bodyOf(t, r)).To(Equal(string(keySet(t, ec("a")).JSON())))
	s.put(t, cluster(publishes(set, start), algorithms("RS256")), set)
	r = askMirror(s, time.Minute, http.MethodGet, keysPath, nil)
	g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable))
}

func TestHowLongAClientMayUseMirroredKeys(t *testing.T) {
	set := keySet(t, ec("a"))
	for name, tc := range map[string]struct {
		after  time.Duration
		edits  []edit
		status int
		cache  string
	}{
		"fresh":                         {after: time.Minute, status: 200, cache: "public, max-age=60"},
		"never beyond freshness":        {after: 9*time.Minute + 30*time.Second, status: 200, cache: "public, max-age=30"},
		"stale: news may come any time": {after: 30 * time.Minute, status: 200, cache: "public, max-age=10"},
		"never beyond expiry":           {after: 59*time.Minute + 57*time.Second, status: 200, cache: "public, max-age=3"},
		"expired: no keys at all":       {after: time.Hour, status: 503, cache: "no-store"},
		"static": {after: 1000 * time.Hour, status: 200, cache: "public, max-age=60", edits: []edit{func(c *api.ClusterTrustedIssuer) {
			c.Spec.JWKSURI, c.Spec.JWKS, c.Status.Snapshot.ExpiresAt = "", "{}", nil
		}}},
		"every key revoked": {after: time.Minute, status: 503, cache: "no-store", edits: []edit{func(c *api.ClusterTrustedIssuer) {
			c.Spec.RevokedKeys = []string{"a"}
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := NewStore(func() time.Time { return start })
			s.put(t, cluster(append([]edit{publishes(set, start)}, tc.edits...)...), set)
			r := askMirror(s, tc.after, http.MethodGet, keysPath, nil)
			g.Expect(r.StatusCode).To(Equal(tc.status))
			g.Expect(r.Header.Get("Cache-Control")).To(Equal(tc.cache))
			if tc.status != http.StatusOK {
				g.Expect(bodyOf(t, r)).NotTo(ContainSubstring("keys\":"))
			}
		})
	}
}

func TestTheMirrorsMetadata(t *testing.T) {
	g := NewWithT(t)
	s := NewStore(func() time.Time { return start })
	set := keySet(t, ec("a"), key("ed", "EdDSA"))
	s.put(t, cluster(publishes(set, start), algorithms("ES256", "RS256")), set)
	r := askMirror(s, 0, http.MethodGet, "/mirror/cluster/main/.well-known/openid-configuration", http.Header{"Host": {"evil.example.com"}})
	var document map[string]any
	g.Expect(json.Unmarshal([]byte(bodyOf(t, r)), &document)).To(Succeed())
	g.Expect(document).To(Equal(map[string]any{
		"issuer": issuerName, "jwks_uri": mirrorURL + keysPath,
		"response_types_supported": []any{"id_token"}, "subject_types_supported": []any{"public"},
		"id_token_signing_alg_values_supported": []any{"ES256"},
	}))

	h := &mirror{issuers: s, now: func() time.Time { return start }}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/mirror/cluster/main/.well-known/openid-configuration", nil))
	g.Expect(w.Code).To(Equal(http.StatusNotFound), "the request's Host is not to be believed")
}

func TestTheMirrorKnowsItsPaths(t *testing.T) {
	set := keySet(t, ec("a"))
	s := NewStore(func() time.Time { return start })
	s.put(t, cluster(publishes(set, start)), set)
	namespaced := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: "auth", UID: "u2"}}
	namespaced.Spec.IssuerSpec = cluster().Spec.IssuerSpec
	s.setIssuer(namespaced)
	for path, code := range map[string]int{
		keysPath:                                    200,
		"/mirror/ns/orders/auth/jwks.json":          503, // no keys yet
		"/mirror/ns/other/auth/jwks.json":           503, // not ready: it may be there
		"/mirror/ns/orders/main/jwks.json":          503,
		"/mirror/cluster/main":                      404,
		"/mirror/cluster/main/":                     404,
		"/mirror/cluster/main/jwks.json/":           404,
		"/mirror/cluster/%6dain/jwks.json":          404,
		"/mirror/cluster/../cluster/main/jwks.json": 404,
		"/mirror/jwks.json":                         404,
		"/mirror/":                                  404,
	} {
		if r := askMirror(s, 0, http.MethodGet, path, nil); r.StatusCode != code {
			t.Errorf("%s: got %d, want %d", path, r.StatusCode, code)
		}
	}
	s.ready.Store(true)
	if r := askMirror(s, 0, http.MethodGet, "/mirror/ns/other/auth/jwks.json", nil); r.StatusCode != 404 {
		t.Errorf("an issuer that does not exist: got %d", r.StatusCode)
	}
	if r := askMirror(s, 0, http.MethodPost, keysPath, nil); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %d", r.StatusCode)
	}
}

func TestTheMirrorsURL(t *testing.T) {
	for raw, good := range map[string]bool{
		mirrorURL: true, "https://a.example.com:8443/jwks": true,
		"http://a.example.com": false, "https://a.example.com/": false, "https://u@a.example.com": false,
		"https://a.example.com?x": false, "https://a.example.com#x": false, "https://": false, "a.example.com": false, "": false,
	} {
		if err := checkMirrorURL(raw); (err == nil) != good {
			t.Errorf("%q: got %v", raw, err)
		}
	}
}
