package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func zipped(parts ...string) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(p))
		_ = z.Close()
	}
	return b.Bytes()
}

// What no HTTP library would send.
func TestAnswersThatAreNoHTTP(t *testing.T) {
	certificate, roots := certificate(t, func(*x509.Certificate) {})
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	const ok = "HTTP/1.1 200 OK\r\n"
	damaged := zipped("keys")
	damaged[len(damaged)-6] ^= 1
	for name, tc := range map[string]struct {
		text   string
		reason Reason
	}{
		"nothing":                       {"", ConnectionFailed},
		"something else":                {"220 mail.example.com ESMTP\r\n", InvalidResponse},
		"half a header":                 {ok + "ETag: x\r\n", ConnectionFailed},
		"a header that is none":         {ok + "no colon\r\n\r\n", InvalidResponse},
		"two lengths":                   {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", InvalidResponse},
		"a control character":           {ok + "ETag: \x07\r\n\r\n", InvalidResponse},
		"THREATS 33: a header bomb":     {ok + strings.Repeat("X-Bomb: "+strings.Repeat("x", 1000)+"\r\n", 100) + "\r\n", InvalidResponse},
		"THREATS 33: one header":        {ok + "X-Bomb: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", InvalidResponse},
		"a body cut short":              {ok + "Content-Length: 9\r\n\r\nkeys", ConnectionFailed},
		"a chunk cut short":             {ok + "Transfer-Encoding: chunked\r\n\r\nff\r\nkeys", ConnectionFailed},
		"a damaged gzip stream":         {ok + "Content-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(len(damaged)) + "\r\n\r\n" + string(damaged), InvalidResponse},
		"too long by its own account":   {ok + "Content-Length: 524289\r\n\r\n", TooLarge},
		"a redirect to no URL":          {"HTTP/1.1 302 Found\r\nLocation: https://[\r\nContent-Length: 0\r\n\r\n", InvalidResponse},
		"a redirect to user and secret": {"HTTP/1.1 302 Found\r\nLocation: https://me:secret@127.0.0.1/\r\nContent-Length: 0\r\n\r\n", RedirectRefused},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := fetch(t, Request{URL: "https://" + rawServer(t, config, tc.text), CABundle: roots, MaxRedirects: 3})
			e := failure(t, err)
			g.Expect(e.Reason).To(Equal(tc.reason), e.Message)
			g.Expect(e.Message).To(ContainSubstring("spec.jwksURI"))
			g.Expect(e.Message).NotTo(Or(ContainSubstring("ESMTP"), ContainSubstring("secret"), ContainSubstring("no colon")), "no byte of an answer")
		})
	}
}

func TestBodies(t *testing.T) {
	big := strings.Repeat("x", MaxBody)
	for name, tc := range map[string]struct {
		encoding []string
		body     []byte
		reason   Reason // empty for success
	}{
		"plain":                                  {nil, []byte("keys"), ""},
		"identity":                               {[]string{"identity"}, []byte("keys"), ""},
		"gzip":                                   {[]string{"gzip"}, zipped("keys"), ""},
		"gzip in capitals":                       {[]string{" GZIP "}, zipped("keys"), ""},
		"gzip by its old name":                   {[]string{"x-gzip"}, zipped("keys"), ""},
		"gzip of the largest document":           {[]string{"gzip"}, zipped(big), ""},
		"gzip in members":                        {[]string{"gzip"}, zipped("ke", "ys"), ""},
		"gzip twice":                             {[]string{"gzip", "gzip"}, zipped("keys"), InvalidResponse},
		"gzip and another":                       {[]string{"gzip, br"}, zipped("keys"), InvalidResponse},
		"gzip with something behind":             {[]string{"gzip"}, append(zipped("keys"), "and more"...), InvalidResponse},
		"THREATS 33: 1 MiB":                      {nil, []byte(big + big), TooLarge},
		"THREATS 33: one byte too many, gzipped": {[]string{"gzip"}, zipped(big + "x"), TooLarge},
		"THREATS 33: gzip bomb in members":       {[]string{"gzip"}, zipped(big, "x"), TooLarge},
		"THREATS 33: gzip that yields nothing":   {[]string{"gzip"}, bytes.Repeat(zipped(""), 1<<20/len(zipped(""))), TooLarge},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " over HTTP/2"}[h2], func(t *testing.T) {
				g := NewWithT(t)
				target, roots := host(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Content-Encoding"] = tc.encoding
					w.Header().Set("Content-Type", "application/json")
					_ = http.NewResponseController(w).Flush() // so that no length is told
					_, _ = w.Write(tc.body)
				}, func(s *httptest.Server) { s.EnableHTTP2 = h2 })
				doc, err := fetch(t, Request{URL: target, CABundle: roots})
				if tc.reason != "" {
					g.Expect(failure(t, err).Reason).To(Equal(tc.reason), failure(t, err).Message)
					return
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(string(doc.Body)).To(Or(Equal("keys"), Equal(big)))
			})
		}
	}
}

// An endless stream of empty gzip members kept the manager decompressing until
// the time was up.
func TestGzipThatYieldsNothingEndsAtTheLimit(t *testing.T) {
	members := bytes.Repeat(zipped(""), 1000)
	target, roots := host(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		for {
			if _, err := w.Write(members); err != nil {
				return
			}
		}
	})
	_, err := newFetcher(t, Options{Timeout: time.Minute}).Fetch(context.Background(), Request{URL: target, CABundle: roots})
	NewWithT(t).Expect(failure(t, err).Reason).To(Equal(TooLarge), "THREATS 33")
}

func TestValidatorsThatCannotBeSentBackAreForgotten(t *testing.T) {
	g := NewWithT(t)
	etag := "\"caf\xe9\"" // RFC 9110 section 8.8.3 allows it, but it is no UTF-8
	target, roots := host(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Last-Modified", strings.Repeat("x", maxValidator+1))
		answer(r.Header.Get("If-None-Match"))(w, r)
	})
	doc, err := fetch(t, Request{URL: target, CABundle: roots, ETag: "\"a\r\nX: y\""})
	g.Expect(err).NotTo(HaveOccurred(), "a fetch does not fail for a bad validator of ours")
	g.Expect(doc.Body).To(BeEmpty(), "which is not sent")
	g.Expect(doc.ETag).To(BeEmpty())
	g.Expect(doc.LastModified).To(BeEmpty())
}

// TestA304ThatRenamesTheDocument is THREATS 36: what was confirmed is the
// document that was asked about.
func TestA304ThatRenamesTheDocument(t *testing.T) {
	g := NewWithT(t)
	target, roots := host(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"another"`)
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT")
		w.WriteHeader(http.StatusNotModified)
	})
	doc, err := fetch(t, Request{URL: target, CABundle: roots, ETag: `"mine"`})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(doc.ETag).To(Equal(`"mine"`))
	doc, err = fetch(t, Request{URL: target, CABundle: roots, LastModified: "Sun, 22 Nov 2026 12:00:00 GMT"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(doc.LastModified).To(Equal("Sun, 22 Nov 2026 12:00:00 GMT"))
}

func TestRootsThatAreMissingDoNotWidenTrust(t *testing.T) {
	f := newFetcher(t, Options{})
	target, _ := host(t, answer("x"))
	_, err := f.Fetch(context.Background(), Request{URL: target})
	NewWithT(t).Expect(failure(t, err).Reason).To(Equal(TLSFailed), "the system's roots are in use")
	for _, roots := range []string{"", " \n", "no PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		_, err := f.Fetch(context.Background(), Request{URL: target, CABundle: []byte(roots)})
		NewWithT(t).Expect(failure(t, err).Reason).To(Equal(InvalidCABundle), "%q", roots)
	}
}

func TestTheRootsUsedLeastRecentlyAreDropped(t *testing.T) {
	g := NewWithT(t)
	f := newFetcher(t, Options{})
	_, busy := certificate(t, func(*x509.Certificate) {})
	first, err := f.transport(busy)
	g.Expect(err).NotTo(HaveOccurred())
	for range 2 * maxTransports {
		_, roots := certificate(t, func(*x509.Certificate) {})
		_, err := f.transport(roots)
		g.Expect(err).NotTo(HaveOccurred())
		again, err := f.transport(busy)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(again).To(BeIdenticalTo(first))
	}
}
