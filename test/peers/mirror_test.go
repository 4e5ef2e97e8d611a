package peers

import (
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// mirrorURL is where the server has the keys of auth0.
func (s *server) mirrorURL() string {
	return "https://" + s.address + "/mirror/" + trusted + "/jwks.json"
}

// mirrorClient is a library that fetches keys. It verifies a token, or says why not.
type mirrorClient func(token string) error

// testMirrorClient takes a client through the life of a key.
func testMirrorClient(t *testing.T, start func(*testing.T, *server) mirrorClient) {
	first, second := testissuer.NewKey("k1", "RS256"), testissuer.NewKey("k2", "RS256")
	s := startServer(t, first)
	verify := start(t, s)
	check := func(what, token string, accept bool) {
		t.Helper()
		if err := verify(token); (err == nil) != accept {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("a good token", first.Sign(claims(nil)), true)
	check("a tampered token", tampered(first), false)
	check("another audience", first.Sign(claims(map[string]any{"aud": "https://elsewhere.example.com"})), false)
	check("an expired token", first.Sign(claims(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), false)
	check("another's key of the same name", testissuer.NewKey("k1", "RS256").Sign(claims(nil)), false)

	s.publish(t, second)
	// A client may take a set over just after it has verified with it: until then it goes
	// by the set before the last one.
	await := func(key *testissuer.Key, accept bool) {
		for deadline := time.Now().Add(10 * time.Second); (verify(key.Sign(claims(nil))) == nil) != accept && time.Now().Before(deadline); {
			runtime.Gosched()
		}
	}
	await(second, true)
	check("the new key after a rotation", second.Sign(claims(nil)), true)
	await(first, false)
	check("the old key after a rotation", first.Sign(claims(nil)), false)

	s.publish(t)
	check("a known key while the mirror has none", second.Sign(claims(nil)), true)
}

func TestGoOIDC(t *testing.T) {
	testMirrorClient(t, func(t *testing.T, s *server) mirrorClient {
		ctx := oidc.ClientContext(t.Context(), s.client(t))
		keys := oidc.NewRemoteKeySet(ctx, s.mirrorURL())
		verifier := oidc.NewVerifier(issuerURL, keys, &oidc.Config{ClientID: audience})
		return func(token string) error {
			_, err := verifier.Verify(ctx, token)
			return err
		}
	})
}

func TestKeyfunc(t *testing.T) {
	testMirrorClient(t, func(t *testing.T, s *server) mirrorClient {
		keys, err := keyfunc.NewDefaultOverrideCtx(t.Context(), []string{s.mirrorURL()}, keyfunc.Override{Client: s.client(t)})
		must(t, err)
		parser := jwt.NewParser(jwt.WithIssuer(issuerURL), jwt.WithAudience(audience), jwt.WithValidMethods([]string{"RS256"}))
		return func(token string) error {
			_, err := parser.Parse(token, keys.Keyfunc)
			return err
		}
	})
}

// A client without the authority of our certificate gets no keys.
func TestMirrorNeedsTheAuthority(t *testing.T) {
	key := testissuer.NewKey("k1", "RS256")
	s, other := startServer(t, key), startServer(t, key)
	ctx := oidc.ClientContext(t.Context(), other.client(t))
	_, err := oidc.NewRemoteKeySet(ctx, s.mirrorURL()).VerifySignature(ctx, key.Sign(claims(nil)))
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
}

// What caches go by.
func TestMirrorOverHTTP(t *testing.T) {
	s := startServer(t, testissuer.NewKey("k1", "RS256"))
	get := func(method, path, condition string) (*http.Response, string) {
		t.Helper()
		r := request{method: method, path: path, header: http.Header{}}
		if condition != "" {
			r.header.Set("If-None-Match", condition)
		}
		return send(t, s.client(t), "https://"+s.address, r)
	}
	path := "/mirror/" + trusted + "/jwks.json"
	resp, body := get(http.MethodGet, path, "")
	etag := resp.Header.Get("ETag")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"k1"`) || !regexp.MustCompile(`^"[^"]+"$`).MatchString(etag) {
		t.Fatalf("%s, ETag %s: %s", resp.Status, etag, body)
	}
	wantHeader(t, resp, "Content-Type", "application/jwk-set+json")
	wantHeader(t, resp, "Cache-Control", "public, max-age=60")
	for _, c := range []struct {
		name, method, path, condition string
		status                        int
		empty                         bool
	}{
		{"unchanged", http.MethodGet, path, etag, http.StatusNotModified, true},
		{"unchanged, weakly", http.MethodGet, path, "W/" + etag, http.StatusNotModified, true},
		{"one of several", http.MethodGet, path, `"x", ` + etag, http.StatusNotModified, true},
		{"changed", http.MethodGet, path, `"x"`, http.StatusOK, false},
		{"HEAD", http.MethodHead, path, "", http.StatusOK, true},
		{"POST", http.MethodPost, path, "", http.StatusMethodNotAllowed, false},
		{"no keys", http.MethodGet, "/mirror/" + keyless + "/jwks.json", "", http.StatusServiceUnavailable, false},
		{"no issuer", http.MethodGet, "/mirror/ns/orders/unheard-of/jwks.json", "", http.StatusNotFound, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := get(c.method, c.path, c.condition)
			if resp.StatusCode != c.status || (body == "") != c.empty {
				t.Errorf("%s: %q", resp.Status, body)
			}
			if c.status < 400 {
				wantHeader(t, resp, "ETag", etag)
			} else {
				wantHeader(t, resp, "Cache-Control", "no-store")
			}
		})
	}
	s.publish(t, testissuer.NewKey("k2", "RS256"))
	if resp, body := get(http.MethodGet, path, etag); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"k2"`) || resp.Header.Get("ETag") == etag {
		t.Errorf("after a rotation: %s, ETag %s: %s", resp.Status, resp.Header.Get("ETag"), body)
	}
}

func wantHeader(t *testing.T, resp *http.Response, name, value string) {
	t.Helper()
	if got := resp.Header.Get(name); got != value {
		t.Errorf("%s is %q, not %q", name, got, value)
	}
}
