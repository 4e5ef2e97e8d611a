// proxy.go connects through the HTTP proxy that the administrator names, by
// CONNECT (RFC 9110 section 9.3.6). It stands in for http.Transport's own
// support, which would check the proxy's certificate by the issuer's roots, and
// wait a minute for an answer.
//
// The egress policy is applied to what the host's name means here. The proxy
// resolves the name itself and may come to another address, and many clusters
// that need a proxy cannot resolve public names at all: a name that does not
// exist here is left to the proxy. Where the proxy may connect to is the proxy's
// policy.

package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// proxyError is a proxy that does not connect us. It does not unwrap to the
// proxy's own TLS errors: those are none of the issuer's.
type proxyError struct {
	problem string
	timeout bool
}

func (e *proxyError) Error() string { return "the proxy " + e.problem }

// ParseProxy reads the URL of a proxy: http or https, a host, and maybe user
// information, which is sent to it as basic authentication. Its errors do not
// hold the URL, which may have a password.
func ParseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("not a URL such as http://proxy.example.com:3128")
	}
	return u, checkProxy(u)
}

func checkProxy(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("the scheme of the proxy's URL must be http or https")
	case u.Hostname() == "":
		return errors.New("the proxy's URL must name a host")
	}
	return nil
}

// dialThroughProxy is a connection to hostPort by way of the proxy.
func (f *Fetcher) dialThroughProxy(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	if err := f.judgeForProxy(ctx, host); err != nil {
		return nil, err
	}
	conn, err := f.dialProxy(ctx, network)
	if err != nil {
		return nil, err
	}
	if err := f.tunnel(ctx, conn, hostPort); err != nil {
		_ = conn.Close() // the tunnel's error is the one that counts
		return nil, err
	}
	return conn, nil
}

// judgeForProxy applies the policy as well as it can be from here.
func (f *Fetcher) judgeForProxy(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, f.options.ConnectTimeout)
	defer cancel()
	_, err := f.judge(ctx, host)
	var missing *net.DNSError
	if errors.As(err, &missing) && missing.IsNotFound {
		return nil
	}
	return err
}

// dialProxy connects to the proxy itself. The administrator chose its address,
// so the policy does not apply, and its certificate is checked by the system's
// roots.
func (f *Fetcher) dialProxy(ctx context.Context, network string) (net.Conn, error) {
	u := f.options.Proxy
	if err := checkProxy(u); err != nil {
		return nil, &proxyError{problem: "cannot be used: " + err.Error()}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	dialer := net.Dialer{Timeout: f.options.ConnectTimeout}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, &proxyError{"cannot be reached", isTimeout(err)}
	}
	if u.Scheme == "http" {
		return raw, nil
	}
	conn, err := shakeHands(ctx, raw, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, address)
	if err != nil {
		return nil, &proxyError{"fails the TLS handshake; the system's roots must vouch for its certificate", isTimeout(err)}
	}
	return conn, nil
}

// tunnel asks the proxy to connect to hostPort.
func (f *Fetcher) tunnel(ctx context.Context, conn net.Conn, hostPort string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes what waits below
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: hostPort}, Host: hostPort, Header: http.Header{}}
	if f.options.UserAgent != "" {
		req.Header.Set("User-Agent", f.options.UserAgent)
	}
	if user := f.options.Proxy.User; user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := req.Write(conn); err != nil {
		return &proxyError{"broke off", isTimeout(err)}
	}
	reader := bufio.NewReader(io.LimitReader(conn, maxHeaders))
	resp, err := http.ReadResponse(reader, req) //nolint:bodyclose // closing reads to the end, and the end is that of the connection
	switch {
	case err != nil:
		return &proxyError{"does not answer as an HTTP proxy does", isTimeout(err)}
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return &proxyError{problem: fmt.Sprintf("answered with HTTP status %d", resp.StatusCode)}
	case reader.Buffered() > 0: // TLS servers wait for the client to begin
		return &proxyError{problem: "sent something of its own into the connection"}
	}
	return nil
}
