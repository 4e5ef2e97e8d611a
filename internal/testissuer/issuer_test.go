package testissuer

import (
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, options ...Option) *Issuer {
	t.Helper()
	i, err := Start(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// client trusts the issuer's CA alone, and follows no redirect.
func client(t *testing.T, i *Issuer) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(i.CABundle())) {
		t.Fatal("CABundle has no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get asks for a URL, with pairs of header names and values.
func get(t *testing.T, i *Issuer, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(headers); n += 2 {
		req.Header.Add(headers[n], headers[n+1])
	}
	resp, err := client(t, i).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestItPublishes(t *testing.T) {
	g := NewWithT(t)
	i := start(t)
	_, body := get(t, i, i.JWKSURI())
	g.Expect(body).To(MatchJSON(`{"keys":[]}`))

	first, second := NewKey("k1", "ES256"), NewKey("k2", "EdDSA")
	i.Publish(first, second)
	resp, body := get(t, i, i.JWKSURI())
	want, err := json.Marshal(map[string]any{"keys": []any{first.JWK(), second.JWK()}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(body).To(MatchJSON(want))
	g.Expect(body).NotTo(ContainSubstring(`"d"`))
	g.Expect(resp.Header.Get("Content-Type")).To(Equal("application/jwk-set+json"))

	i.Publish(second)
	other, body := get(t, i, i.JWKSURI())
	g.Expect(body).NotTo(ContainSubstring(`"k1"`))
	g.Expect(other.Header.Get("ETag")).NotTo(Equal(resp.Header.Get("ETag")))
	g.Expect(i.Requests()).To(Equal(3))

	_, body = get(t, i, i.URL()+"/.well-known/openid-configuration")
	g.Expect(body).To(MatchJSON(`{"issuer":"` + i.URL() + `","jwks_uri":"` + i.JWKSURI() + `"}`))
	g.Expect(i.Requests()).To(Equal(3), "discovery is not counted")
}

func TestConditionalRequests(t *testing.T) {
	g := NewWithT(t)
	i := start(t)
	i.Publish(NewKey("k1", "ES256"))
	resp, _ := get(t, i, i.JWKSURI())
	etag := resp.Header.Get("ETag")
	g.Expect(etag).To(MatchRegexp(`^"[0-9a-f]+"$`), "strong")
	for condition, want := range map[string]int{
		etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, "": 200,
	} {
		resp, body := get(t, i, i.JWKSURI(), "If-None-Match", condition)
		g.Expect(resp.StatusCode).To(Equal(want), condition)
		if want == http.StatusNotModified {
			g.Expect(body).To(BeEmpty())
		}
	}

	i.Header("ETag", `"lie"`)
	i.Header("Cache-Control", "max-age=5")
	resp, _ = get(t, i, i.JWKSURI(), "If-None-Match", `"lie"`)
	g.Expect(resp.StatusCode).To(Equal(304))
	g.Expect(resp.Header.Get("Cache-Control")).To(Equal("max-age=5"))
	i.Header("ETag", "")
	resp, _ = get(t, i, i.JWKSURI())
	g.Expect(resp.Header.Get("ETag")).To(Equal(etag))
}

func TestScripts(t *testing.T) {
	g := NewWithT(t)
	i := start(t)
	i.Respond(Status(http.StatusTeapot))
	resp, _ := get(t, i, i.JWKSURI())
	g.Expect(resp.StatusCode).To(Equal(http.StatusTeapot))

	i.Respond(HTML())
	resp, body := get(t, i, i.JWKSURI())
	g.Expect(resp.StatusCode).To(Equal(http.StatusOK))
	g.Expect(body).To(ContainSubstring("<!doctype html>"))

	i.Respond(Redirect("/other"))
	resp, _ = get(t, i, i.JWKSURI())
	g.Expect(resp.StatusCode).To(Equal(http.StatusFound))
	g.Expect(resp.Header.Get("Location")).To(Equal("/other"))

	i.Respond(GzipBomb())
	resp, body = get(t, i, i.JWKSURI())
	g.Expect(resp.Header.Get("Content-Encoding")).To(Equal("gzip"))
	z, err := gzip.NewReader(strings.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	size, err := io.Copy(io.Discard, z)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(size).To(BeNumerically(">", 100*len(body)))

	i.Respond(nil)
	_, body = get(t, i, i.JWKSURI())
	g.Expect(body).To(MatchJSON(`{"keys":[]}`))
	g.Expect(i.Requests()).To(Equal(5))
}

func TestDripNeverEnds(t *testing.T) {
	g := NewWithT(t)
	i := start(t)
	i.Respond(Drip(time.Millisecond))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.JWKSURI(), http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	resp, err := client(t, i).Do(req)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = resp.Body.Close() }()
	_, err = io.ReadFull(resp.Body, make([]byte, 5))
	g.Expect(err).NotTo(HaveOccurred(), "byte after byte")
	i.Stop()
	_, err = io.ReadAll(resp.Body)
	g.Expect(err).To(HaveOccurred(), "until it is cut off")
}

func TestStopAndRestart(t *testing.T) {
	g := NewWithT(t)
	i := start(t)
	url := i.URL()
	g.Expect(i.Restart()).NotTo(Succeed(), "it runs")
	i.Stop()
	i.Stop()
	_, err := net.Dial("tcp", strings.TrimPrefix(url, "https://"))
	g.Expect(err).To(HaveOccurred(), "connections are refused")
	g.Expect(i.Restart()).To(Succeed())
	g.Expect(i.URL()).To(Equal(url))
	_, body := get(t, i, i.JWKSURI())
	g.Expect(body).To(MatchJSON(`{"keys":[]}`))
}

func TestItsNames(t *testing.T) {
	g := NewWithT(t)
	i := start(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(i.URL(), "https://"))
	g.Expect(err).NotTo(HaveOccurred())
	resp, _ := get(t, i, "https://localhost:"+port+"/jwks.json")
	g.Expect(resp.StatusCode).To(Equal(http.StatusOK))
	for _, name := range []string{"127.0.0.1", "::1", "localhost"} {
		g.Expect(resp.TLS.PeerCertificates[0].VerifyHostname(name)).To(Succeed())
	}

	i.Stop()
	again := start(t, WithAddress("127.0.0.1:"+port))
	g.Expect(again.URL()).To(Equal(i.URL()))
	g.Expect(again.CABundle()).NotTo(Equal(i.CABundle()), "a CA of its own")
	busy, err := Start(WithAddress("127.0.0.1:" + port))
	g.Expect(err).To(HaveOccurred())
	g.Expect(busy).To(BeNil())
}
