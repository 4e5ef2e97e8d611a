// Package fetch gets documents from issuers over HTTPS: bounded in time, in
// size and in where it connects to. It knows nothing about keys.
package fetch

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/net/idna"
)

// MaxBody is the largest document, after decompression, in bytes.
const MaxBody = 512 << 10

const (
	maxHeaders = 64 << 10
	// maxTransports bounds how many sets of roots keep idle connections.
	maxTransports = 64
)

// Request says what to fetch. Two requests are the same only if all of it is.
type Request struct {
	// URL is an https URL without user information and fragment.
	URL string
	// CABundle are the roots as PEM; nil for the system's. Empty but not nil is
	// an error: text that is missing must not widen trust.
	CABundle []byte
	// MaxRedirects is how many redirects are followed, to https on the same
	// host and port.
	MaxRedirects int
	// ETag and LastModified make the request conditional (RFC 9110 section 13).
	ETag, LastModified string
	// NoCache asks caches on the way for a fresh copy (RFC 9111 section 5.2.1.4).
	NoCache bool
}

// Document is what the server answered.
type Document struct {
	// NotModified: the document that the validators speak of is still current.
	NotModified bool
	// Body is empty when NotModified.
	Body []byte
	// ETag and LastModified are the validators for the next request.
	ETag, LastModified string
	// Lifetime is how long the server says that the document is fresh (RFC 9111
	// section 4.2), never negative; HasLifetime tells zero from not saying.
	Lifetime    time.Duration
	HasLifetime bool
	// FinalURL is where the document was, after redirects.
	FinalURL string
}

// Options configure a Fetcher. The zero value is usable.
type Options struct {
	// Egress is the administrator's policy.
	Egress Egress
	// Proxy, if set, is asked to connect (ParseProxy). The policy is then applied
	// to what the host's name means here; the proxy may resolve it differently.
	// Proxy variables of the environment are never read.
	Proxy *url.URL
	// UserAgent is sent with each request.
	UserAgent string
	// Resolver finds addresses; nil for the system's.
	Resolver Resolver
	// Now tells the time, for dates in headers; nil for the clock.
	Now func() time.Time
	// ConnectTimeout bounds resolving and connecting (default 3 s),
	// HandshakeTimeout the same together with the TLS handshake (default 5 s),
	// and Timeout a fetch as a whole, body and redirects included (default 10 s).
	ConnectTimeout, HandshakeTimeout, Timeout time.Duration
}

// Fetcher fetches. It is safe for concurrent use.
type Fetcher struct {
	options Options

	// connect dials an address; tests put another one here.
	connect func(ctx context.Context, network, address string) (net.Conn, error)

	mu         sync.Mutex
	uses       uint64
	transports map[[sha256.Size]byte]*pooled
}

// pooled is a transport with when it was last used, as a count of uses.
type pooled struct {
	*http.Transport

	lastUse uint64
}

// New makes a Fetcher.
func New(o Options) *Fetcher {
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 3 * time.Second
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return &Fetcher{options: o, connect: new(net.Dialer).DialContext, transports: map[[sha256.Size]byte]*pooled{}}
}

// Close ends idle connections.
func (f *Fetcher) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.transports {
		t.CloseIdleConnections()
		delete(f.transports, id)
	}
}

func (f *Fetcher) fetch(ctx context.Context, r Request) (*Document, error) {
	target, err := checkURL(r.URL)
	if err != nil {
		return nil, err
	}
	transport, err := f.transport(r.CABundle)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	client := &http.Client{Transport: transport, CheckRedirect: follow(target, r.MaxRedirects)}
	resp, err := client.Do(f.request(ctx, r, target))
	if err != nil {
		return nil, f.translate(target.Host, err)
	}
	defer func() { _ = resp.Body.Close() }() // what counts has been read
	return f.read(resp, r, target.Host)
}

// checkURL refuses what must not be asked for.
func checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fail(InvalidURL, "spec.jwksURI is not a URL; give an absolute https URL.")
	}
	name, ok := asciiName(u)
	switch {
	case !ok:
		return nil, fail(InvalidURL, "spec.jwksURI has a host that cannot be a name in the DNS; correct it.")
	case u.Scheme != "https":
		return nil, fail(InvalidURL, "spec.jwksURI must be an https URL: keys that travel without TLS cannot be trusted.")
	case u.User != nil:
		return nil, fail(InvalidURL, "spec.jwksURI must not carry user information; remove what stands before the @.")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, fail(InvalidURL, "spec.jwksURI must not have a fragment; remove the # and what follows.")
	case name == "" || strings.Contains(name, "%"):
		return nil, fail(InvalidURL, "spec.jwksURI must name a host; put it after https://.")
	case endsInNumber(name) && !isAddress(name):
		return nil, fail(InvalidURL, "spec.jwksURI has a host that is a number; give a name, or an IPv4 address as four dotted decimal numbers.")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, fail(InvalidURL, "spec.jwksURI has a port that does not exist; give one from 1 to 65535, or none.")
		}
	}
	if name != u.Hostname() { // which has no brackets then
		u.Host = name + strings.TrimPrefix(u.Host, u.Hostname())
	}
	return u, nil
}

// asciiName is the host of a URL as it is looked up (RFC 5891): what is judged and counted
// must be what net/http makes of it, and that makes digits of wide digits, and full
// stops of wide ones. ok is false for what can be no name.
func asciiName(u *url.URL) (name string, ok bool) {
	name = u.Hostname()
	if !strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		return name, true
	}
	name, err := idna.Lookup.ToASCII(name)
	return name, err == nil
}

// endsInNumber reports a host that can be no name, only an IPv4 address in one of its
// old forms, such as 127.1 or 0x7f000001 (URL Standard, section 3.5). Here it means
// nothing, but a proxy may read it as an address that the policy refuses.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndex(host, ".")+1:]
	if digits, isHex := strings.CutPrefix(strings.ToLower(last), "0x"); isHex {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func (f *Fetcher) request(ctx context.Context, r Request, target *url.URL) *http.Request {
	header := http.Header{
		"Accept":          {"application/jwk-set+json, application/json"},
		"Accept-Encoding": {"gzip"},
	}
	if f.options.UserAgent != "" {
		header.Set("User-Agent", f.options.UserAgent)
	}
	if r.NoCache {
		header.Set("Cache-Control", "no-cache")
	}
	if etag := validator(r.ETag); etag != "" {
		header.Set("If-None-Match", etag)
	}
	if modified := validator(r.LastModified); modified != "" {
		header.Set("If-Modified-Since", modified)
	}
	req := &http.Request{Method: http.MethodGet, URL: target, Header: header, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return req.WithContext(ctx)
}

// follow allows at most n redirects, to https on the same host and port.
func follow(from *url.URL, n int) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		switch {
		case n == 0:
			return fail(RedirectRefused, "%s redirects; name the final URL in spec.jwksURI, or allow redirects with spec.maxRedirects.", from.Host)
		case len(via) > n:
			return fail(RedirectRefused, "%s redirects more than spec.maxRedirects (%d) times; name the final URL in spec.jwksURI.", from.Host, n)
		case req.URL.Scheme != "https" || !sameHost(from, req.URL) || req.URL.User != nil:
			return fail(RedirectRefused, "%s redirects to another host or away from https, which is never followed; name the final URL in spec.jwksURI.", from.Host)
		}
		return nil
	}
}

func sameHost(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return "443"
	}
	from, ok := asciiName(a)
	to, fine := asciiName(b)
	return ok && fine && strings.EqualFold(from, to) && port(a) == port(b)
}

// transport is the one for these roots: connections made under some roots are
// never used under others.
func (f *Fetcher) transport(caBundle []byte) (*http.Transport, error) {
	id := sha256.Sum256(caBundle)
	if caBundle != nil && len(caBundle) == 0 {
		return nil, noCertificate()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.transports[id]
	if t == nil {
		var roots *x509.CertPool
		if caBundle != nil {
			roots = x509.NewCertPool()
			if !roots.AppendCertsFromPEM(caBundle) {
				return nil, noCertificate()
			}
		}
		if len(f.transports) >= maxTransports {
			f.evict()
		}
		t = &pooled{Transport: f.newTransport(roots)}
		f.transports[id] = t
	}
	f.uses++
	t.lastUse = f.uses
	return t.Transport, nil
}

func noCertificate() *Error {
	return fail(InvalidCABundle, "spec.caBundle (or what spec.caBundleRef names) holds no certificate that can be parsed; put the CA's PEM certificate there.")
}

// evict drops the transport that was not used for longest. Requests that it is
// busy with end as they would.
func (f *Fetcher) evict() {
	var oldest [sha256.Size]byte
	last := uint64(math.MaxUint64)
	for id, t := range f.transports {
		if t.lastUse < last {
			oldest, last = id, t.lastUse
		}
	}
	f.transports[oldest].CloseIdleConnections()
	delete(f.transports, oldest)
}

func (f *Fetcher) newTransport(roots *x509.CertPool) *http.Transport {
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	return &http.Transport{
		Proxy:                  nil, // dialTLS goes through the administrator's; the environment's is never asked
		DialContext:            f.dial,
		DialTLSContext:         f.dialTLS(config),
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // decompressed here, under the size limit
		MaxResponseHeaderBytes: maxHeaders,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        30 * time.Second,
		// A connection of HTTP/2 whose other end has gone without a word would otherwise
		// take request after request with it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: f.options.Timeout / 4, PingTimeout: f.options.Timeout / 4},
	}
}

// read judges the response and reads its body.
func (f *Fetcher) read(resp *http.Response, r Request, host string) (*Document, error) {
	doc := &Document{
		ETag: validator(resp.Header.Get("ETag")), LastModified: validator(resp.Header.Get("Last-Modified")),
		FinalURL: resp.Request.URL.Redacted(),
	}
	doc.Lifetime, doc.HasLifetime = lifetime(resp.Header, f.options.Now())
	switch {
	case resp.StatusCode == http.StatusNotModified && (r.ETag != "" || r.LastModified != ""):
		doc.NotModified = true
		if r.ETag != "" { // it is that document that was not modified, whatever the answer calls it
			doc.ETag = r.ETag
		}
		if r.LastModified != "" {
			doc.LastModified = r.LastModified
		}
		return doc, nil
	case resp.StatusCode != http.StatusOK:
		return nil, f.unexpected(resp, host)
	}
	body, err := f.body(resp, host)
	if err != nil {
		return nil, err
	}
	doc.Body = body
	return doc, nil
}

// unexpected names a status that is not a success.
func (f *Fetcher) unexpected(resp *http.Response, host string) *Error {
	code := resp.StatusCode
	after := retryAfter(resp.Header, f.options.Now())
	e := fail(UnexpectedStatus, "%s answered spec.jwksURI with HTTP status %d %s; check the path, or ask the issuer.", host, code, http.StatusText(code))
	switch {
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable && after > 0:
		e = fail(TooManyRequests, "%s asks for fewer requests (HTTP status %d); its Retry-After is honoured.", host, code)
		e.RetryAfter = after
	case code >= 300 && code < 400 && code != http.StatusNotModified:
		e = fail(RedirectRefused, "%s redirects (HTTP status %d) without saying where to; name the final URL in spec.jwksURI.", host, code)
	}
	e.Status = code
	return e
}

// body reads at most MaxBody bytes, decompressed. The limit holds before
// decompressing too: few bytes can become many, and many none.
func (f *Fetcher) body(resp *http.Response, host string) ([]byte, error) {
	if resp.ContentLength > MaxBody {
		return nil, f.broken(host, errTooLarge)
	}
	raw := &capped{from: resp.Body, left: MaxBody}
	reader, err := decoded(raw, resp.Header.Values("Content-Encoding"), host)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(reader)
	}
	switch {
	case err == nil:
		return bytes.Clone(body), nil // kept until the next answer: without ReadAll's spare room
	case raw.ended && errors.Is(err, io.ErrUnexpectedEOF): // all of it came; it is the encoding that breaks off
		err = gzip.ErrHeader
	}
	return nil, f.broken(host, err)
}

// decoded is a body without its content encoding.
func decoded(raw io.Reader, encodings []string, host string) (io.Reader, error) {
	switch strings.ToLower(strings.TrimSpace(strings.Join(encodings, ","))) {
	case "", "identity":
		return raw, nil
	case "gzip", "x-gzip": // RFC 9110 section 8.4.1.3
		z, err := gzip.NewReader(raw)
		return &capped{from: z, left: MaxBody}, err
	}
	return nil, fail(InvalidResponse, "%s answered spec.jwksURI in a content encoding that was not asked for; have the server mended.", host)
}

var errTooLarge = errors.New("over the limit")

// capped reads at most left bytes, and fails with errTooLarge where there are
// more. (io.LimitReader would make it look like the end.)
type capped struct {
	from  io.Reader
	left  int64
	ended bool
}

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.from.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errTooLarge
	}
	c.ended = errors.Is(err, io.EOF)
	return n, err
}

// broken names an error of a body.
func (f *Fetcher) broken(host string, err error) *Error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, errTooLarge):
		return fail(TooLarge, "The document at spec.jwksURI is over %d KiB; check that the URL is that of the keys.", MaxBody>>10)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return fail(InvalidResponse, "%s answered spec.jwksURI with a damaged gzip encoding; have the server mended.", host)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail(ConnectionFailed, "%s broke off its answer to spec.jwksURI; check that it is well, and what stands between it and the manager.", host)
	}
	return f.translate(host, err)
}
