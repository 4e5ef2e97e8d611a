// server_test.go stands between a manager and the API server.

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// proxy passes requests on to the API server, with the rights of its configuration,
// unless a fault says otherwise.
type proxy struct {
	address  string
	upstream *httputil.ReverseProxy
	server   *http.Server

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	// down: nobody listens, as far as a client can tell.
	down bool
	// fault is asked about each request; nil passes all.
	fault fault
	// writes are those that were begun.
	writes []string
}

// fault does what it wants with a request; pass answers it as the API server would.
type fault func(c call, w http.ResponseWriter, r *http.Request, pass http.HandlerFunc)

// call is what a fault decides by.
type call struct {
	// write: it changes an object that counts. Events and leases do not.
	write, watch bool
	method, path string
}

func (c call) String() string { return c.method + " " + c.path }

// newProxy starts one.
func newProxy(g Gomega, config *rest.Config) *proxy {
	config = rest.CopyConfig(config)
	config.QPS = -1
	transport, err := rest.TransportFor(config)
	g.Expect(err).NotTo(HaveOccurred())
	target, err := url.Parse(config.Host)
	g.Expect(err).NotTo(HaveOccurred())
	if target.Host == "" {
		target = &url.URL{Scheme: "https", Host: config.Host}
	}
	p := &proxy{conns: map[net.Conn]struct{}{}}
	p.upstream = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,                         // watches
		ErrorLog:      log.New(io.Discard, "", 0), // watches break: that is what this is for
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // held until the end, so any port will do
	g.Expect(err).NotTo(HaveOccurred())
	p.address = l.Addr().String()
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, ConnState: p.track, ErrorLog: p.upstream.ErrorLog}
	go func() { _ = p.server.Serve(l) }() // until close
	return p
}

func (p *proxy) close() { _ = p.server.Close() }

func (p *proxy) track(c net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		if p.conns[c] = struct{}{}; p.down {
			_ = c.Close() // refused
		}
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, c)
	}
}

// takeDown breaks all connections and lets nobody in; up ends that.
func (p *proxy) takeDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	p.breakAll()
}

func (p *proxy) up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// breakConnections breaks those that are open, watches included.
func (p *proxy) breakConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breakAll()
}

func (p *proxy) breakAll() {
	for c := range p.conns {
		_ = c.Close() // it may be closed already
	}
}

// inject sets the fault; nil ends it.
func (p *proxy) inject(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// taken are the writes since the last time.
func (p *proxy) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	writes := p.writes
	p.writes = nil
	return writes
}

// written is how many writes there were since taken.
func (p *proxy) written() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.writes)
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call{method: r.Method, path: r.URL.Path, watch: r.URL.Query().Get("watch") != ""}
	c.write = r.Method != http.MethodGet && r.Method != http.MethodHead &&
		!strings.Contains(r.URL.Path, "/events") && !strings.Contains(r.URL.Path, "/leases") && !strings.Contains(r.URL.Path, "/apis/authorization.k8s.io/")
	p.mu.Lock()
	if c.write {
		p.writes = append(p.writes, c.String())
	}
	f := p.fault
	p.mu.Unlock()
	if f == nil {
		p.upstream.ServeHTTP(w, r)
		return
	}
	f(c, w, r, p.upstream.ServeHTTP)
}

// pastTheClient carries a request out, whether or not the client is still there, and
// drops the answer.
func pastTheClient(r *http.Request, pass http.HandlerFunc) {
	pass(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
}

// conflict answers as the API server does to a write with an old resourceVersion.
func conflict(w http.ResponseWriter) {
	refuse(w, http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified; please apply your changes to the latest version and try again")
}

// gone answers as it does to a watch from a version that has been compacted away.
func gone(w http.ResponseWriter) {
	refuse(w, http.StatusGone, metav1.StatusReasonExpired, "too old resource version")
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // a client that is gone is its own problem
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

// kubeconfig is a file for a client of the proxy.
func (p *proxy) kubeconfig() []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: proxy, cluster: {server: "http://%s"}}]
contexts: [{name: proxy, context: {cluster: proxy, user: nobody}}]
users: [{name: nobody, user: {}}]
current-context: proxy
`, p.address)
}
