// error.go is how a fetch can fail.

package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Reason is a stable code for why a fetch failed.
type Reason string

// The reasons.
const (
	InvalidURL       Reason = "InvalidURL"
	InvalidCABundle  Reason = "InvalidCABundle"
	EgressBlocked    Reason = "EgressBlocked"
	DNSLookupFailed  Reason = "DNSLookupFailed"
	ConnectionFailed Reason = "ConnectionFailed"
	TLSFailed        Reason = "TLSFailed"
	Timeout          Reason = "Timeout"
	RedirectRefused  Reason = "RedirectRefused"
	UnexpectedStatus Reason = "UnexpectedStatus"
	TooManyRequests  Reason = "TooManyRequests"
	TooLarge         Reason = "TooLarge"
	InvalidResponse  Reason = "InvalidResponse"
	InvalidDiscovery Reason = "InvalidDiscovery"
	IssuerMismatch   Reason = "IssuerMismatch"
)

// Retry says what can make the next attempt succeed.
type Retry int

const (
	// RetryBackoff says: time.
	RetryBackoff Retry = iota
	// RetryAfterChange says: only a change of spec, or of the administrator's policy.
	RetryAfterChange
)

// maxRetryAfter is the longest delay that a server can ask for.
const maxRetryAfter = 15 * time.Minute

// Error is why a fetch failed.
type Error struct {
	Reason Reason
	Retry  Retry
	// Status is the HTTP status of an answer that was no success; 0 for none.
	Status int
	// RetryAfter is the delay that the server asked for, at most 15 minutes; 0
	// for none.
	RetryAfter time.Duration
	// Message names the field of the spec, or the flag, and the fix. It holds
	// no byte of a response's body, and no credentials.
	Message string

	err error
}

// Error implements error.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// Unwrap is the cause, if there is one.
func (e *Error) Unwrap() error { return e.err }

func fail(r Reason, format string, args ...any) *Error {
	e := &Error{Reason: r, Message: clean(fmt.Sprintf(format, args...))}
	switch r {
	case InvalidURL, InvalidCABundle, EgressBlocked:
		e.Retry = RetryAfterChange
	default:
	}
	return e
}

// maxMessage bounds a message, in bytes.
const maxMessage = 1024

// clean makes text that a server had a part in safe to show.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage-len("…")], "") + "…"
	}
	return s
}

// translate names the reason of a transport's error.
func (f *Fetcher) translate(host string, err error) *Error {
	var own *Error
	var blocked *blockedError
	var lookup *lookupError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &blocked):
		return fail(EgressBlocked, "spec.jwksURI: %v.", blocked)
	case errors.As(err, &lookup):
		return fail(DNSLookupFailed, "spec.jwksURI: the name %s does not resolve (%s); correct it, or the cluster's DNS.", host, lookupProblem(lookup))
	case isTimeout(err):
		return f.timeout(host, err)
	}
	if e := translateTLS(host, err); e != nil {
		return e
	}
	e := fail(InvalidResponse, "%s does not answer spec.jwksURI with well-formed HTTP, or with headers over %d KiB; have the server mended.", host, maxHeaders>>10)
	if problem := connectionProblem(err); problem != "" {
		e = fail(ConnectionFailed, "spec.jwksURI: the connection to %s failed: %s; check that it is up, and that no firewall or NetworkPolicy keeps the manager from it.", host, problem)
	}
	e.err = err
	return e
}

// timeout says which step took too long, and what that usually means.
func (f *Fetcher) timeout(host string, err error) *Error {
	var proxy *proxyError
	var connect *connectError
	var handshake *handshakeError
	switch {
	case errors.As(err, &proxy):
		return fail(Timeout, "spec.jwksURI: the proxy of the manager's flag --egress-proxy %s in time.", proxy.problem)
	case errors.As(err, &connect):
		return fail(Timeout, "spec.jwksURI: no connection to %s within %s; check that it is up, and that no firewall or NetworkPolicy keeps the manager from it.", host, f.options.ConnectTimeout)
	case errors.As(err, &handshake):
		return fail(Timeout, "spec.jwksURI: %s did not finish the TLS handshake within %s; check that it serves HTTPS at this port.", host, f.options.HandshakeTimeout)
	}
	return fail(Timeout, "%s did not answer spec.jwksURI completely within %s; check that it is well, and what stands between it and the manager.", host, f.options.Timeout)
}

func isTimeout(err error) bool {
	var n net.Error
	var proxy *proxyError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &proxy) && proxy.timeout || errors.As(err, &n) && n.Timeout()
}

func lookupProblem(e *lookupError) string {
	var d *net.DNSError
	switch {
	case isTimeout(e.err):
		return "the DNS server did not answer in time"
	case errors.As(e.err, &d) && d.IsNotFound:
		return "no such host"
	case errors.As(e.err, &d) && d.IsTemporary:
		return "the DNS server failed for the moment"
	}
	return "the lookup failed"
}

// connectionProblem describes what is wrong with a connection, without ports of
// ours, which would make each occurrence a new one. It is empty when the
// connection is not to blame.
func connectionProblem(err error) string {
	var proxy *proxyError
	if errors.As(err, &proxy) {
		return "the proxy of the manager's flag --egress-proxy " + proxy.problem
	}
	for _, known := range []struct {
		is   error
		text string
	}{
		{syscall.ECONNREFUSED, "connection refused"},
		{syscall.ECONNRESET, "connection reset"},
		{syscall.EHOSTUNREACH, "no route to the host"},
		{syscall.ENETUNREACH, "the network is unreachable"},
		{syscall.EPIPE, "the server closed the connection"},
		{context.Canceled, "the manager is stopping"},
		{io.EOF, "the server closed the connection"},
		{io.ErrUnexpectedEOF, "the server closed the connection"},
	} {
		if errors.Is(err, known.is) {
			return known.text
		}
	}
	var network *net.OpError
	if errors.As(err, &network) {
		return "it broke"
	}
	return ""
}

// translateTLS names what is wrong with the server's side of TLS; nil if it is
// something else.
func translateTLS(host string, err error) *Error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return fail(TLSFailed, "The certificate of %s is signed by an authority that is not trusted; set spec.caBundle (or spec.caBundleRef) to the PEM certificate of the CA that signed it.", host)
	case errors.As(err, &name):
		return fail(TLSFailed, "The certificate of %s is not for that name; correct the host in spec.jwksURI, or have the server present the right certificate.", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fail(TLSFailed, "The certificate of %s has expired or is not valid yet; have the server's certificate renewed.", host)
	case errors.As(err, &invalid), errors.As(err, &verification):
		return fail(TLSFailed, "The certificate of %s is not valid for an HTTPS server; have the server's certificate mended.", host)
	case errors.As(err, &record):
		return fail(TLSFailed, "%s does not speak TLS at the port of spec.jwksURI; correct the port, or have HTTPS served there.", host)
	}
	var handshake *handshakeError
	switch {
	case !errors.As(err, &handshake):
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fail(TLSFailed, "%s broke off the TLS handshake; check that it serves HTTPS under the name and at the port of spec.jwksURI.", host)
	}
	return fail(TLSFailed, "The TLS handshake with %s failed; the server must speak TLS 1.2 or later.", host)
}
