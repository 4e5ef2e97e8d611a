package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// nextApplication is examples/nextjs-better-auth, built and started.
type nextApplication struct {
	name, url string
}

// nextEnvironment is what the application is told.
func nextEnvironment(url, issuer, source string) []string {
	return append(os.Environ(), "NEXT_TELEMETRY_DISABLED=1", "BETTER_AUTH_TELEMETRY=0", "NEXT_IGNORE_INCORRECT_LOCKFILE=1",
		"NODE_EXTRA_CA_CERTS="+world.authorityFile, "BETTER_AUTH_SECRET=for-tests-alone-for-tests-alone-for", "BETTER_AUTH_URL="+url,
		"TOKEN_ISSUER="+issuer, "TOKEN_AUDIENCE="+audience, "JWKS_SOURCE="+source)
}

func next(t *testing.T) string {
	t.Helper()
	hasModules(t, example("nextjs-better-auth"))
	return filepath.Join(example("nextjs-better-auth"), "node_modules", "next", "dist", "bin", "next")
}

func buildNext(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "NODE", "node"), next(t), "build")
	cmd.Dir, cmd.Env = example("nextjs-better-auth"), nextEnvironment("http://127.0.0.1", "", "")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("next build: %v\n%s", err, out)
	}
}

func startNext(t *testing.T, name, issuer, source string) *nextApplication {
	t.Helper()
	address, err := harness.FreeAddress()
	must(t, err)
	a := &nextApplication{name: name, url: "http://" + address}
	ctx, cancel := context.WithCancel(t.Context())
	host, port, _ := strings.Cut(address, ":")
	cmd := exec.CommandContext(ctx, program(t, "NODE", "node"), next(t), "start", "-H", host, "-p", port)
	cmd.Dir, cmd.Env = example("nextjs-better-auth"), nextEnvironment(a.url, issuer, source)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was ended
		if t.Failed() {
			t.Logf("next start (%s) said:\n%s", name, said.String())
		}
	})
	within(t, "next start ("+name+") listens", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url, nil)
		must(t, err)
		resp, err := world.http.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return a
}

// me is what the API says about a bearer token: the user's email, or the status.
func (a *nextApplication) me(t *testing.T, token string) string {
	t.Helper()
	resp, body := get(t, a.url+"/api/me", http.Header{"Authorization": {"Bearer " + token}})
	return emailOrStatus(resp, body)
}

// signIn has Better Auth make a session of a token, and tells whose the page says it is.
func (a *nextApplication) signIn(t *testing.T, token string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{Timeout: patience, Jar: jar}
	// Better Auth lets one client sign in three times in ten seconds. Each is another one here.
	from := http.Header{"X-Forwarded-For": {fmt.Sprintf("192.0.2.%d", clients.Add(1))}}
	resp, body := post(t, browser, a.url+"/api/auth/sign-in/social", a.url, from,
		map[string]any{"provider": "login", "idToken": map[string]any{"token": token}})
	if resp.StatusCode != http.StatusOK {
		return emailOrStatus(resp, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url, nil)
	must(t, err)
	_, page := send(t, browser, req)
	if !strings.Contains(page, "Signed in as alice@example.com") {
		return "a session, but the page does not know it"
	}
	return "alice@example.com"
}

var clients atomic.Int32

func emailOrStatus(resp *http.Response, body string) string {
	var user struct{ Email string }
	if err := json.Unmarshal([]byte(body), &user); err == nil && resp.StatusCode == http.StatusOK {
		return user.Email
	}
	return strconv.Itoa(resp.StatusCode)
}

// The application lets in users of Better Auth (another one, which issues tokens): by a
// token with each request, and by a session of its own. A token that is not good is
// nobody's.
func TestNextApplication(t *testing.T) {
	t.Parallel()
	b := startBetterAuth(t)
	ti := b.trustIt(t, "nextjs")
	buildNext(t)
	applications := []*nextApplication{
		startNext(t, "mounted", b.url, mountSnapshot(t, ti)),
		startNext(t, "mirror", b.url, mirrorURL(ti)),
	}
	first, bad := b.token(t), b.badTokens(t)
	bad["without an email address"] = b.sign(t, map[string]any{"email": nil})
	judge := func(situation string, good ...string) {
		t.Helper()
		for _, a := range applications {
			for _, token := range good {
				a.wants(t, "a good token "+situation, token, "alice@example.com")
			}
			for what, token := range bad {
				a.wants(t, what+" "+situation, token, "401")
			}
		}
	}
	for _, a := range applications {
		a.comesToLetIn(t, first)
	}
	judge("at first", first)

	second := b.rotate(t)
	refresh(t, ti)
	for _, a := range applications {
		a.comesToLetIn(t, second)
	}
	judge("after the rotation", first, second)

	b.obeys(t, "down", nil)
	judge("in the outage", first, second)
	late := startNext(t, "begun in the outage", b.url, mirrorURL(ti))
	late.comesToLetIn(t, second)
	late.wants(t, "a good token", second, "alice@example.com")

	// Without keys nobody can tell: the API says so, and no session begins.
	blind := startNext(t, "without keys", b.url, filepath.Join(t.TempDir(), "jwks.json"))
	if got := blind.me(t, second); got != "503" {
		t.Errorf("without keys the API said %q", got)
	}
	if got := blind.signIn(t, second); got != "401" {
		t.Errorf("without keys signing in gave %q", got)
	}
}

// comesToLetIn waits until the API takes a token.
func (a *nextApplication) comesToLetIn(t *testing.T, token string) {
	t.Helper()
	within(t, "the API ("+a.name+") takes a good token", func() error {
		if got := a.me(t, token); got != "alice@example.com" {
			return fmt.Errorf("it said %q", got)
		}
		return nil
	})
}

func (a *nextApplication) wants(t *testing.T, what, token, want string) {
	t.Helper()
	if got := a.me(t, token); got != want {
		t.Errorf("%s: the API (%s) said %q, not %q", what, a.name, got, want)
	}
	if got := a.signIn(t, token); got != want {
		t.Errorf("%s: signing in (%s) gave %q, not %q", what, a.name, got, want)
	}
}

// Two examples share a file, each being whole in itself.
func TestExamplesShareTheirKeys(t *testing.T) {
	var texts [2][]byte
	for i, name := range []string{"node/keys.mjs", "nextjs-better-auth/lib/keys.mjs"} {
		var err error
		texts[i], err = os.ReadFile(example(name))
		must(t, err)
	}
	if !bytes.Equal(texts[0], texts[1]) {
		t.Error("examples/node/keys.mjs and examples/nextjs-better-auth/lib/keys.mjs differ")
	}
}
