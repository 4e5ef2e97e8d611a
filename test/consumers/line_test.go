package consumers

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// line is the way to the mirror, which can be cut.
type line struct {
	url      string
	broken   atomic.Bool
	requests atomic.Int32
}

func newLine(t *testing.T) *line {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(world.certificateFile, world.keyFile)
	must(t, err)
	mirror := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: world.address})
	mirror.Transport = world.http.Transport
	l := &line{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.requests.Add(1)
		if l.broken.Load() {
			panic(http.ErrAbortHandler) // hangs up
		}
		mirror.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

// to is the URL of the mirrored keys, by this way.
func (l *line) to(ti *api.TrustedIssuer) string {
	return strings.Replace(mirrorURL(ti), "https://"+world.address, l.url, 1)
}

// cut lets no answer pass any more. It returns how many requests there have been.
func (l *line) cut() int32 {
	l.broken.Store(true)
	return l.requests.Load()
}
