package bench

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"io"
	stdlog "log" //nolint:depguard // the type of http.Server.ErrorLog
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// protocol is one of ours: what a request looks like and what a good answer says.
type protocol struct {
	name    string
	request func(token string) []byte
	// accepted is in the body of our good answers.
	accepted string
	// tokenOf finds the token in a request as fast as can be.
	tokenOf func(*http.Request) string
}

var protocols = []protocol{
	{name: "TokenReview", request: reviewRequest, accepted: `"authenticated":true`, tokenOf: tokenInBody},
	{name: "forward-auth", request: forwardAuthRequest, tokenOf: tokenInHeader},
}

func reviewRequest(token string) []byte {
	body := `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{"creationTimestamp":null},` +
		`"spec":{"token":"` + token + `","audiences":["` + audience + `"]},"status":{"user":{}}}`
	return rendered(http.MethodPost, "/tokenreview", "Content-Type", "application/json", body)
}

func forwardAuthRequest(token string) []byte {
	return rendered(http.MethodGet, "/forward-auth/cluster/"+objectName, "Authorization", "Bearer "+token, "")
}

// rendered is a request as it goes over the wire.
func rendered(method, path, header, value, body string) []byte {
	r, err := http.NewRequest(method, "https://localhost"+path, strings.NewReader(body))
	if err != nil {
		panic(err) // the addresses are constants
	}
	r.Header.Set(header, value)
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		panic(err) // memory takes everything
	}
	return wire.Bytes()
}

func tokenInHeader(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func tokenInBody(r *http.Request) string {
	body, _ := io.ReadAll(r.Body) // half a body has no good token
	_, rest, _ := bytes.Cut(body, []byte(`"token":"`))
	token, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(token)
}

// emptyHandler does nothing: what is left is HTTP and TLS.
func emptyHandler(http.ResponseWriter, *http.Request) {}

// signatureHandler checks the signature and nothing else.
func signatureHandler(public crypto.PublicKey, p protocol) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if signatureOnly(public, p.tokenOf(r)) != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
}

// serve runs a handler behind TLS until the context ends, with the limits and the
// version of HTTP that our server has: they cost something too.
func serve(ctx context.Context, certs *certificates, handler http.Handler) (address string, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{
		Handler: handler, ErrorLog: stdlog.New(io.Discard, "", 0), Protocols: new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	server.Protocols.SetHTTP1(true)
	context.AfterFunc(ctx, func() { _ = server.Close() }) // nobody waits for an answer any more
	go func() { _ = server.Serve(tls.NewListener(listener, certs.forServer())) }()
	return listener.Addr().String(), nil
}

// serveOurs runs our server until the context ends.
func serveOurs(ctx context.Context, certs *certificates, f *fixture) (address string, err error) {
	store, err := newStore(ctx, f)
	if err != nil {
		return "", err
	}
	server, err := verifier.NewServer(verifier.ServerOptions{
		Address: "127.0.0.1:0", CertFile: certs.certFile, KeyFile: certs.keyFile, ClientCAFile: certs.clientCAFile,
		TokenCacheSize: verifier.DefaultTokenCacheSize,
	}, store, logr.Discard())
	if err != nil {
		return "", err
	}
	go func() { _ = server.Start(ctx) }() // without an address below, had it failed
	err = waitUntil(ctx, func() bool { return server.Addr() != "" })
	return server.Addr(), err
}
