package consumers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// keyID is the name of the key that signed a token.
func keyID(t *testing.T, token string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	must(t, err)
	var header struct{ Kid string }
	must(t, json.Unmarshal(text, &header))
	return header.Kid
}

const callback = "https://app.example.com/callback"

// form sends a form, or gets where there is none, and returns where it is sent on to.
func form(t *testing.T, client *http.Client, to string, values url.Values) (next, body string) {
	t.Helper()
	method := http.MethodPost
	if values == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(values.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, body := send(t, client, req)
	where, err := resp.Location()
	if err != nil {
		return "", body
	}
	return where.String(), body
}

// exchange asks the token endpoint, as the client of that algorithm.
func (i *realIssuer) exchange(t *testing.T, algorithm string, values url.Values) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.url+"/token", strings.NewReader(values.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(algorithm, "secret")
	resp, body := send(t, world.http, req)
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", algorithm, resp.Status, body)
	}
	return answer
}

// accessToken is one for a resource (RFC 8707), of type at+jwt.
func (i *realIssuer) accessToken(t *testing.T, algorithm, resource string) string {
	t.Helper()
	answer := i.exchange(t, algorithm, url.Values{"grant_type": {"client_credentials"}, "scope": {"orders"}, "resource": {resource}})
	return answer["access_token"].(string)
}

// idToken is what alice gets who signs in, and agrees, in a browser.
func (i *realIssuer) idToken(t *testing.T, algorithm string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{
		Transport: world.http.Transport, Timeout: patience, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	at := i.url + "/auth?" + url.Values{
		"client_id": {algorithm}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {callback},
	}.Encode()
	for range 12 {
		next, page := form(t, browser, at, nil)
		for _, prompt := range []string{"login", "consent"} {
			if next == "" && strings.Contains(page, fmt.Sprintf("value=%q", prompt)) {
				next, page = form(t, browser, at, url.Values{"prompt": {prompt}, "login": {"alice"}, "password": {"any"}})
			}
		}
		if next == "" {
			t.Fatalf("at %s: %s", at, page)
		}
		at = next
		if strings.HasPrefix(at, callback) {
			break
		}
	}
	back, err := url.Parse(at)
	must(t, err)
	answer := i.exchange(t, algorithm, url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback},
	})
	return answer["id_token"].(string)
}

// The keys of oidc-provider, a certified OpenID provider, are found by discovery; its
// tokens are accepted for what they are, access tokens or id tokens, and through a
// rotation and an outage.
func TestOIDCProvider(t *testing.T) {
	t.Parallel()
	algorithms := []string{"RS256", "ES256", "Ed25519"}
	i := startIssuer(t, "oidc-provider.mjs")
	discovered := func(name string, audiences ...string) *api.TrustedIssuer {
		t.Helper()
		return trust(t, name, api.IssuerSpec{Issuer: i.url, Audiences: audiences, CABundle: string(world.authority.PEM())})
	}
	access, id := discovered("access-tokens", audience), discovered("id-tokens", algorithms...)
	if want := i.url + "/jwks"; access.Status.JWKSURI != want {
		t.Errorf("the keys were looked for at %s, not %s", access.Status.JWKSURI, want)
	}
	edit(t, access, func() { access.Spec.Verification = &api.VerificationSpec{TokenTypes: []string{"at+jwt"}} })
	// An audience for both, so that their type alone tells them apart.
	either := discovered("access-tokens-for-clients", algorithms...)
	edit(t, either, func() { either.Spec.Verification = &api.VerificationSpec{TokenTypes: []string{"at+jwt"}} })
	wants := func(what string, ti *api.TrustedIssuer, token, want string) {
		t.Helper()
		within(t, what, func() error {
			if got := forwardAuth(t, ti, token); got != want {
				return fmt.Errorf("forward-auth said %q, not %q", got, want)
			}
			return nil
		})
	}
	tokens := map[string][2]string{}
	for _, algorithm := range algorithms {
		accessToken, idToken := i.accessToken(t, algorithm, audience), i.idToken(t, algorithm)
		tokens[algorithm] = [2]string{accessToken, idToken}
		wants(algorithm+": an access token", access, accessToken, algorithm)
		wants(algorithm+": an id token", id, idToken, "alice")
		wants(algorithm+": an id token for an access token", either, idToken, "401 TokenTypeNotAllowed")
		wants(algorithm+": an access token for another", access, i.accessToken(t, algorithm, "https://elsewhere.example.com"), "401 AudienceMismatch")
		wants(algorithm+": a tampered token", access, tampered(accessToken, idToken), "401 AudienceMismatch")
		wants(algorithm+": another's key of that name", access,
			testissuer.NewKey(algorithm+"-1", strings.Replace(algorithm, "Ed25519", "EdDSA", 1)).
				Sign(claimsOf(i.url, nil), testissuer.WithHeader("typ", "at+jwt")), "401 SignatureInvalid")
	}

	i.obeys(t, "rotate", nil)
	refresh(t, access)
	for _, algorithm := range algorithms {
		token := i.accessToken(t, algorithm, audience)
		if got, want := keyID(t, token), algorithm+"-2"; got != want {
			t.Errorf("the key %s signed, not %s", got, want)
		}
		wants(algorithm+": the new key after a rotation", access, token, algorithm)
		wants(algorithm+": the key of before", access, tokens[algorithm][0], algorithm)
		tokens[algorithm] = [2]string{token, i.idToken(t, algorithm)}
	}
	i.obeys(t, "down", nil)
	for _, algorithm := range algorithms {
		wants(algorithm+": an access token in the outage", access, tokens[algorithm][0], algorithm)
		// The object has the same source, so it has the new keys too.
		wants(algorithm+": an id token in the outage", id, tokens[algorithm][1], "alice")
	}
}
