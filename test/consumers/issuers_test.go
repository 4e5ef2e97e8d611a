package consumers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// realIssuer is one that others wrote, run by a script in node/.
type realIssuer struct {
	*process

	url string
}

func startIssuer(t *testing.T, script string) *realIssuer {
	t.Helper()
	node := program(t, "NODE", "node")
	hasModules(t, "node")
	address, err := harness.FreeAddress()
	must(t, err)
	i := &realIssuer{url: "https://" + address}
	i.process = startProcess(t, script, "node", []string{"BETTER_AUTH_TELEMETRY=0", "NO_COLOR=1"},
		node, script, world.certificateFile, world.keyFile, address, audience)
	i.obeys(t, "up", nil)
	return i
}

// obeys has the script do something, and returns what it says.
func (i *realIssuer) obeys(t *testing.T, command string, parameters map[string]any) string {
	t.Helper()
	all := map[string]any{"command": command}
	maps.Copy(all, parameters)
	line, err := json.Marshal(all)
	must(t, err)
	return i.ask(t, string(line))
}

// betterAuth is Better Auth with a user that has signed in.
type betterAuth struct {
	*realIssuer

	user string
	http *http.Client
}

func startBetterAuth(t *testing.T) *betterAuth {
	t.Helper()
	b := &betterAuth{realIssuer: startIssuer(t, "better-auth.mjs")}
	jar, err := cookiejar.New(nil)
	must(t, err)
	b.http = &http.Client{Transport: world.http.Transport, Timeout: patience, Jar: jar}
	resp, body := post(t, b.http, b.url+"/api/auth/sign-up/email", b.url, nil,
		map[string]any{"email": "alice@example.com", "name": "Alice", "password": "correct horse battery"})
	var answer struct{ User struct{ ID string } }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.User.ID == "" {
		t.Fatalf("signing up: %s %s", resp.Status, body)
	}
	b.user = answer.User.ID
	return b
}

// token is a token as the user gets it from /api/auth/token.
func (b *betterAuth) token(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/api/auth/token", nil)
	must(t, err)
	resp, body := send(t, b.http, req)
	var answer struct{ Token string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Token == "" {
		t.Fatalf("%s %s", resp.Status, body)
	}
	return answer.Token
}

// sign is a token with changed claims; nil leaves one to Better Auth.
func (b *betterAuth) sign(t *testing.T, changes map[string]any) string {
	t.Helper()
	payload := map[string]any{"sub": b.user, "email": "alice@example.com"}
	maps.Copy(payload, changes)
	return b.obeys(t, "sign", map[string]any{"payload": payload})
}

// published are the names of the keys at /api/auth/jwks.
func (b *betterAuth) published(t *testing.T) []string {
	t.Helper()
	_, body := get(t, b.url+"/api/auth/jwks", nil)
	var set struct{ Keys []struct{ Kid string } }
	must(t, json.Unmarshal([]byte(body), &set))
	var names []string
	for _, k := range set.Keys {
		names = append(names, k.Kid)
	}
	return names
}

// trustIt makes the issuer object that docs/better-auth.md shows, for this server.
func (b *betterAuth) trustIt(t *testing.T, name string) *api.TrustedIssuer {
	t.Helper()
	shown, _ := documented(t)
	spec := shown.Spec.IssuerSpec
	spec.JWKSURI = strings.Replace(spec.JWKSURI, spec.Issuer, b.url, 1)
	spec.Issuer, spec.CABundle = b.url, string(world.authority.PEM())
	return trust(t, name, spec)
}

// badTokens are those that must give nobody, whatever the key in use is.
func (b *betterAuth) badTokens(t *testing.T) map[string]string {
	t.Helper()
	good := b.token(t)
	kid := b.published(t)[0]
	forged := claimsOf(b.url, map[string]any{"sub": b.user, "email": "alice@example.com"})
	return map[string]string{
		"expired":          b.sign(t, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"another audience": b.sign(t, map[string]any{"aud": "https://elsewhere.example.com"}),
		"another issuer":   b.sign(t, map[string]any{"iss": "https://elsewhere.example.com"}),
		"forged":           testissuer.NewKey(kid, "EdDSA").Sign(forged),
		"unsigned":         unsigned(forged),
		"tampered":         tampered(good, b.sign(t, map[string]any{"sub": "mallory"})),
		"no token at all":  "secret",
	}
}

// rotate makes the next token be signed with a new key, which it returns. Until then
// nobody can know the key: that is how Better Auth does it.
func (b *betterAuth) rotate(t *testing.T) string {
	t.Helper()
	before := b.published(t)
	b.obeys(t, "rotate", nil)
	if now := b.published(t); len(now) != len(before) {
		t.Fatalf("%v are published before any token is signed, and %v were", now, before)
	}
	token := b.token(t)
	if now := b.published(t); len(now) != len(before)+1 {
		t.Fatalf("%v are published after a token was signed, and %v were", now, before)
	}
	return token
}

func post(t *testing.T, client *http.Client, url, origin string, header http.Header, body map[string]any) (resp *http.Response, text string) {
	t.Helper()
	content, err := json.Marshal(body)
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(content))
	must(t, err)
	maps.Copy(req.Header, header)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", origin)
	return send(t, client, req)
}

// Better Auth signs, the operator fetches, and panva/jose verifies: through a rotation
// and an outage.
func TestBetterAuth(t *testing.T) {
	t.Parallel()
	b := startBetterAuth(t)
	ti := b.trustIt(t, "better-auth")
	jose := verifyingExample{
		dir: example("node"), command: []string{program(t, "NODE", "node"), "verify.mjs"},
		env: []string{"NODE_EXTRA_CA_CERTS=" + world.authorityFile},
	}
	hasModules(t, jose.dir)
	sources := map[string]string{"mounted": mountSnapshot(t, ti), "mirror": mirrorURL(ti)}
	running := map[string]*process{}
	first := b.token(t)
	bad := b.badTokens(t)
	judges := func(situation string, good ...string) {
		t.Helper()
		for _, p := range running {
			for _, token := range good {
				p.wants(t, "a good token "+situation, token, b.user)
			}
			for what, token := range bad {
				p.wants(t, what+" "+situation, token, refused)
			}
		}
		for _, token := range good {
			if got := forwardAuth(t, ti, token); got != b.user {
				t.Errorf("a good token %s: forward-auth said %q", situation, got)
			}
		}
	}
	for kind, source := range sources {
		running[kind] = jose.start(t, "jose, "+kind, source, b.url)
		running[kind].comesToWant(t, "the first token", first, b.user)
	}
	judges("at first", first)

	second := b.rotate(t)
	// The verifier asks for unknown keys, at the latest 30 s after the last fetch. Files
	// and mirror have what it has found.
	within(t, "forward-auth finds the new key", func() error {
		if got := forwardAuth(t, ti, second); got != b.user {
			return fmt.Errorf("it said %q", got)
		}
		return nil
	})
	for _, p := range running {
		p.comesToWant(t, "the new key", second, b.user)
	}
	judges("after the rotation", first, second)

	b.obeys(t, "down", nil)
	for kind, source := range sources {
		p := jose.start(t, "jose, "+kind+", begun in the outage", source, b.url)
		p.comesToWant(t, "the first token", second, b.user)
		running[kind+", begun in the outage"] = p
	}
	judges("in the outage", first, second)

	b.obeys(t, "up", nil)
	third := b.rotate(t)
	refresh(t, ti)
	for _, p := range running {
		p.comesToWant(t, "another new key after the outage", third, b.user)
	}
	judges("after the outage", first, second, third)
}
