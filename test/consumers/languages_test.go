package consumers

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// verifyingExample is a program of examples/ that says who sent a token, by keys from a source: a
// mounted file, or the mirror's URL.
type verifyingExample struct {
	dir     string
	command []string
	env     []string
}

func (e verifyingExample) start(t *testing.T, name, source, issuer string) *process {
	t.Helper()
	return startProcess(t, name, e.dir, e.env, append(append([]string{}, e.command...), source, issuer, audience)...)
}

func TestNode(t *testing.T) {
	node := program(t, "NODE", "node")
	hasModules(t, example("node"))
	testExample(t, "node", verifyingExample{
		dir: example("node"), command: []string{node, "verify.mjs"},
		env: []string{"NODE_EXTRA_CA_CERTS=" + world.authorityFile},
	})
}

func TestGo(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "verify")
	build := exec.CommandContext(t.Context(), program(t, "GO", "go"), "build", "-o", binary, ".")
	build.Dir = example("go")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testExample(t, "go", verifyingExample{dir: example("go"), command: []string{binary}, env: []string{"SSL_CERT_FILE=" + world.authorityFile}})
}

func TestPython(t *testing.T) {
	python := program(t, "PYTHON", "/usr/bin/python3")
	testExample(t, "python", verifyingExample{
		dir: example("python"), command: []string{python, "-B", "verify.py"},
		env: []string{"SSL_CERT_FILE=" + world.authorityFile},
	})
}

func TestJava(t *testing.T) {
	const gson = "/usr/share/java/gson.jar"
	dir := t.TempDir()
	store := filepath.Join(dir, "trust.p12")
	for _, command := range [][]string{
		{
			program(t, "KEYTOOL", "keytool"), "-importcert", "-noprompt", "-alias", "jwks-trust",
			"-file", world.authorityFile, "-keystore", store, "-storepass", "changeit",
		},
		{program(t, "JAVAC", "javac"), "-cp", gson, "-d", dir, "Verify.java"},
	} {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = example("java")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command[0], err, out)
		}
	}
	testExample(t, "java", verifyingExample{dir: example("java"), command: []string{
		program(t, "JAVA", "java"), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djavax.net.ssl.trustStore=" + store, "-Djavax.net.ssl.trustStorePassword=changeit",
		"-cp", gson + ":" + dir, "Verify",
	}})
}

// testExample takes an example, once with each source, through the life of a key.
func testExample(t *testing.T, name string, e verifyingExample) {
	t.Parallel()
	issuer, err := testissuer.Start()
	must(t, err)
	t.Cleanup(issuer.Close)
	rsa, ec, ed := testissuer.NewKey("rsa", "RS256"), testissuer.NewKey("ec", "ES256"), testissuer.NewKey("ed", "EdDSA")
	issuer.Publish(rsa, ec, ed)
	ti := trust(t, name, api.IssuerSpec{
		Issuer: issuer.URL(), Audiences: []string{audience}, JWKSURI: issuer.JWKSURI(), CABundle: issuer.CABundle(),
	})
	sources := map[string]string{"mounted": mountSnapshot(t, ti), "mirror": mirrorURL(ti)}
	claims := func(changes map[string]any) map[string]any { return claimsOf(issuer.URL(), changes) }

	running := map[string]*process{}
	for kind, source := range sources {
		p := e.start(t, name+", "+kind, source, issuer.URL())
		running[kind] = p
		p.comesToWant(t, "the first token", rsa.Sign(claims(nil)), "alice") // it may take a moment to connect
		for what, token := range goodTokens(claims, rsa, ec, ed) {
			p.wants(t, what, token, "alice")
		}
		for what, token := range badTokens(claims, rsa, ec, ed) {
			p.wants(t, what, token, refused)
		}
	}

	next := testissuer.NewKey("next", "ES256")
	issuer.Publish(rsa, ec, ed, next)
	refresh(t, ti)
	for _, p := range running {
		p.comesToWant(t, "the new key after a rotation", next.Sign(claims(nil)), "alice")
		p.wants(t, "a key of before", rsa.Sign(claims(nil)), "alice")
	}

	line := newLine(t)
	far := e.start(t, name+", cut off from the mirror", line.to(ti), issuer.URL())
	far.comesToWant(t, "a good token", rsa.Sign(claims(nil)), "alice")
	requests := line.cut()
	within(t, name+" misses the mirror", func() error {
		// An unknown key is what makes it go and look.
		if got := far.ask(t, testissuer.NewKey("unheard-of", "ES256").Sign(claims(nil))); answers(got, "alice") {
			t.Errorf("%s accepted an unknown key", name)
		}
		if line.requests.Load() == requests {
			return errors.New("it did not go and look")
		}
		return nil
	})
	far.wants(t, "a good token without the mirror", rsa.Sign(claims(nil)), "alice")

	issuer.Stop()
	edit(t, ti, func() { ti.Spec.RevokedKeys = []string{"ed"} })
	running["mounted"].comesToWant(t, "a revoked key", ed.Sign(claims(nil)), refused)
	for kind, source := range sources {
		within(t, "the mirror knows of the revocation", func() error { return mirrorLacks(t, ti, `"ed"`) })
		p := e.start(t, name+", "+kind+", begun in the outage", source, issuer.URL())
		p.comesToWant(t, "the first token", next.Sign(claims(nil)), "alice")
		p.wants(t, "a revoked key", ed.Sign(claims(nil)), refused)
		running[kind+", begun in the outage"] = p
	}
	for _, p := range running {
		p.wants(t, "a good token in the outage", next.Sign(claims(nil)), "alice")
		p.wants(t, "a forged token in the outage", testissuer.NewKey("next", "ES256").Sign(claims(nil)), refused)
	}

	edit(t, ti, func() { ti.Spec.RevokedKeys = []string{"ed", "ec", "rsa", "next"} })
	running["mounted"].comesToWant(t, "a good token when no key is trusted any more", next.Sign(claims(nil)), unavailable)
	e.start(t, name+", without a mirror", "https://127.0.0.1:1/jwks.json", issuer.URL()).
		wants(t, "a good token", next.Sign(claims(nil)), unavailable)
}

func claimsOf(issuer string, changes map[string]any) map[string]any {
	c := testissuer.Claims(issuer, "alice", audience, time.Now(), time.Hour)
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func goodTokens(claims func(map[string]any) map[string]any, keys ...*testissuer.Key) map[string]string {
	all := map[string]string{"several audiences": keys[0].Sign(claims(map[string]any{"aud": []string{"else", audience}}))}
	for _, k := range keys {
		all[k.Algorithm] = k.Sign(claims(nil))
	}
	return all
}

// badTokens are refused by whoever verifies at all.
func badTokens(claims func(map[string]any) map[string]any, rsa, ec, ed *testissuer.Key) map[string]string {
	good := rsa.Sign(claims(nil))
	parts := strings.Split(good, ".")
	all := map[string]string{
		"nothing": "", "no token": "secret", "two parts": parts[0] + "." + parts[1], "dots": "..", "many dots": strings.Repeat(".", 1000),
		"no JSON":                 "bm8.bm8.bm8",
		"no signature":            parts[0] + "." + parts[1] + ".",
		"tampered":                tampered(good, rsa.Sign(claims(map[string]any{"sub": "mallory"}))),
		"algorithm none":          unsigned(claims(nil)),
		"HS256 with a public key": hmacSigned(rsa, claims(nil)),
		"another's key":           testissuer.NewKey("rsa", "RS256").Sign(claims(nil)),
		"unknown key":             testissuer.NewKey("unheard-of", "ES256").Sign(claims(nil)),
		"key of another name":     ec.Sign(claims(nil), testissuer.WithHeader("kid", "rsa")),
		"another algorithm":       ed.Sign(claims(nil), testissuer.WithHeader("alg", "ES256")),
		"critical extension":      rsa.Sign(claims(nil), testissuer.WithHeader("crit", []string{"x"}), testissuer.WithHeader("x", 1)),
		"payload is no object":    rsa.SignRaw([]byte(`["alice"]`)),
		"payload is no JSON":      rsa.SignRaw([]byte(`alice`)),
	}
	for what, changes := range map[string]map[string]any{
		"expired":                  {"exp": time.Now().Add(-time.Hour).Unix()},
		"no expiry":                {"exp": nil},
		"expiry is a string":       {"exp": "tomorrow"},
		"not yet valid":            {"nbf": time.Now().Add(time.Hour).Unix()},
		"another audience":         {"aud": "https://elsewhere.example.com"},
		"audience of similar name": {"aud": audience + "/"},
		"no audience":              {"aud": nil},
		"another issuer":           {"iss": "https://elsewhere.example.com"},
		"no issuer":                {"iss": nil},
		"no subject":               {"sub": nil},
	} {
		all[what] = ed.Sign(claims(changes))
	}
	return all
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func unsigned(claims map[string]any) string {
	return encode(map[string]string{"alg": "none", "typ": "JWT", "kid": "rsa"}) + "." + encode(claims) + "."
}

// hmacSigned is signed with the text of the public key, which is no secret.
func hmacSigned(key *testissuer.Key, claims map[string]any) string {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err) // a key that we made
	}
	input := encode(map[string]string{"alg": "HS256", "typ": "JWT", "kid": key.ID}) + "." + encode(claims)
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
