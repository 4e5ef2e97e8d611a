// server.go is the verifier's server: HTTPS for forward-auth, TokenReview and the
// mirror, and, where they are asked for, gRPC for external authorization and plain
// HTTP for forward-auth alone.

package verifier

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log" //nolint:depguard // the type of http.Server.ErrorLog
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// DefaultMaxInFlight is how many requests of each protocol are worked on at the
// same time unless ServerOptions says otherwise. One whose key is dearer than RSA
// with 2048 bits counts for as many as it costs.
const DefaultMaxInFlight = 512

const (
	// maxHeaderBytes leaves room for a token of 16 KiB beside other headers.
	maxHeaderBytes = 32 << 10
	// readHeaderTimeout, readTimeout and writeTimeout bound what one slow client
	// can hold.
	readHeaderTimeout, readTimeout, writeTimeout = 5 * time.Second, 10 * time.Second, 15 * time.Second
	// idleTimeout is longer than that of the usual clients, so that it is they
	// who close idle connections: closing here could cross with a request.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests may take after clients have had the time
	// to go. Both together are shorter than the manager's own patience.
	shutdownTimeout = 20 * time.Second
)

// ServerOptions configure a Server.
type ServerOptions struct {
	// Address of the HTTPS listener, such as ":9443".
	Address string
	// CertFile and KeyFile hold the certificate chain and its key in PEM. They
	// are read again when they change; while the new ones are no pair, or have
	// expired, the last good one is used. Without them there is no HTTPS.
	CertFile, KeyFile string
	// ClientCAFile holds the PEM certificates of the authority that signs the
	// API server's client certificate. It is read again when it changes. Without
	// it TokenReview is off. Every certificate of that authority for client
	// authentication may ask: give the webhook an authority of its own.
	ClientCAFile string
	// HTTPAddress is that of a plain HTTP listener for forward-auth; empty for
	// none.
	HTTPAddress string
	// ExtAuthzAddress is that of a gRPC listener, over TLS, for Envoy's external
	// authorization; empty for none.
	ExtAuthzAddress string
	// MirrorURL is the URL of the HTTPS listener as clients reach it; metadata
	// name it. Without it the mirror has none.
	MirrorURL string
	// MaxInFlight limits how many requests of each protocol are worked on at the
	// same time; more are answered with 503. 0 means DefaultMaxInFlight.
	MaxInFlight int
	// TokenCacheSize is how much memory accepted tokens may take, in bytes; 0 turns
	// remembering them off.
	TokenCacheSize uint64
	// APIAudiences are the audiences of the Kubernetes API server, its
	// --api-audiences: a token that an issuer of ours vouches for is good for
	// those as well.
	APIAudiences []string
	// RefreshRequests writes the requests to refresh keys that a token names and
	// the set lacks; nil: there are none, and such a token waits for the next
	// scheduled refresh.
	RefreshRequests client.SubResourceClientConstructor
	// Tracing takes spans; nil for none.
	Tracing trace.TracerProvider
}

// Server answers forward-auth and TokenReview on every replica.
type Server struct {
	options     ServerOptions
	log         logr.Logger
	forwardAuth *forwardAuth
	tokenReview *tokenReview // nil when off
	extAuthz    *extAuthz
	mirror      *mirror
	certificate *certwatcher.CertWatcher
	shows       *certificates
	tls         *tlsConfig
	// drain is how long clients have to go, and checkTimeout how long one request of
	// external authorization may take.
	drain, checkTimeout time.Duration

	address, httpAddress, extAuthzAddress atomic.Value
}

var (
	_ manager.Runnable               = (*Server)(nil)
	_ manager.LeaderElectionRunnable = (*Server)(nil)
)

// NewServer makes a server that answers from the store. An error means that the
// options contradict each other or that a file cannot be used. Nothing listens
// before Start.
func NewServer(o ServerOptions, store *Store, log logr.Logger) (*Server, error) {
	switch {
	case (o.CertFile == "") != (o.KeyFile == ""):
		return nil, errors.New("the certificate file and the key file go together")
	case o.ClientCAFile != "" && o.CertFile == "":
		return nil, errors.New("the client CA file needs a certificate file: TokenReview is served over HTTPS alone")
	case o.ExtAuthzAddress != "" && o.CertFile == "":
		return nil, errors.New("the address for external authorization needs a certificate file: it is served over TLS alone")
	case o.MirrorURL != "" && checkMirrorURL(o.MirrorURL) != nil:
		return nil, checkMirrorURL(o.MirrorURL)
	case o.MaxInFlight < 0:
		return nil, errors.New("the limit of requests in flight is negative")
	case o.MaxInFlight == 0:
		o.MaxInFlight = DefaultMaxInFlight
	}
	var unknownKeys *lookup
	if o.RefreshRequests != nil {
		unknownKeys = newLookup(store, statusAsker(o.RefreshRequests), store.now, log)
		store.dropped = unknownKeys.forget
	}
	cache, err := newTokenCache(o.TokenCacheSize, store.now)
	if err != nil {
		return nil, err
	}
	tracer := newRequestTracer(o.Tracing)
	s := &Server{
		options: o, log: log, drain: drainTimeout, checkTimeout: checkTimeout,
		mirror:      &mirror{issuers: store, now: store.now, url: o.MirrorURL},
		forwardAuth: &forwardAuth{issuers: store, lookup: unknownKeys, now: store.now, gate: newGate(o.MaxInFlight), cache: cache, tracer: tracer, log: log.WithValues("protocol", protocolForwardAuth)},
	}
	checks := *s.forwardAuth
	checks.gate, checks.log = newGate(o.MaxInFlight), log.WithValues("protocol", protocolExtAuthz)
	s.extAuthz = &extAuthz{auth: &checks}
	if o.ClientCAFile != "" {
		s.tokenReview = &tokenReview{
			issuers: store, lookup: unknownKeys, now: store.now, apiAudiences: o.APIAudiences,
			gate: newGate(o.MaxInFlight), cache: cache, tracer: tracer, log: log.WithValues("protocol", protocolTokenReview),
		}
	}
	return s, s.loadCertificates()
}

func (s *Server) loadCertificates() error {
	if s.options.CertFile == "" {
		return nil
	}
	var err error
	if s.certificate, err = certwatcher.New(s.options.CertFile, s.options.KeyFile); err != nil {
		return fmt.Errorf("reading the serving certificate: %w", err)
	}
	s.shows = newCertificates(s.certificate.GetCertificate, s.log)
	s.tls, err = newTLSConfig(s.shows.pick, s.options.ClientCAFile, s.log)
	return err
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica
// answers.
func (*Server) NeedLeaderElection() bool { return false }

// Addr is the address of the HTTPS listener once Start has opened it, and empty
// before and without one.
func (s *Server) Addr() string { return load(&s.address) }

// HTTPAddr is the address of the plain HTTP listener once Start has opened it,
// and empty before and without one.
func (s *Server) HTTPAddr() string { return load(&s.httpAddress) }

// ExtAuthzAddr is the address of the gRPC listener once Start has opened it, and
// empty before and without one.
func (s *Server) ExtAuthzAddr() string { return load(&s.extAuthzAddress) }

func load(v *atomic.Value) string {
	address, _ := v.Load().(string)
	return address
}

// Verify judges a token as forward-auth does, but for the headers that a proxy
// gets.
func (s *Server) Verify(ctx context.Context, o Object, token string) Verdict {
	issuer, ok := s.forwardAuth.issuers.ForObject(o)
	if !ok {
		return Verdict{Outcome: CannotDecide, Reason: UnknownIssuer}
	}
	v, _ := s.forwardAuth.verify(ctx, token, issuer)
	return v
}

// Handler serves all protocols and the mirror, as the HTTPS listener does.
func (s *Server) Handler() http.Handler {
	return s.safely(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.tokenReview != nil && r.URL.Path == tokenReviewPath:
			s.tokenReview.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, mirrorPrefix):
			s.mirror.ServeHTTP(w, r)
		default:
			s.forwardAuth.ServeHTTP(w, r)
		}
	}))
}

// HTTPHandler serves forward-auth alone, as the plain HTTP listener does.
func (s *Server) HTTPHandler() http.Handler { return s.safely(s.forwardAuth) }

// safely answers 503 where a handler panics. The handlers contain panics of the
// verification itself; this is for the rest.
func (s *Server) safely(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				logPanic(s.log, p)
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// Start listens and serves until the context ends; then it lets clients go, takes no
// more connections, and returns when every request has been answered, or after 23 s.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	if err := s.listen(ctx, group); err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	group.Go(func() error { <-ctx.Done(); return nil })
	return group.Wait()
}

// listen opens the listeners and adds what serves them to the group.
func (s *Server) listen(ctx context.Context, group *errgroup.Group) error {
	if s.tls != nil {
		shown.Store(s.shows)
		context.AfterFunc(ctx, func() { shown.CompareAndSwap(s.shows, nil) })
		if err := s.serve(ctx, group, s.options.Address, &s.address, s.Handler(), s.tls.listener()); err != nil {
			return err
		}
		group.Go(func() error { return unlessOver(ctx, s.certificate.Start(ctx)) })
		group.Go(func() error { return s.tls.watch(ctx) })
	}
	if s.options.ExtAuthzAddress != "" {
		if err := s.serveExtAuthz(ctx, group); err != nil {
			return err
		}
	}
	if s.options.HTTPAddress == "" {
		return nil
	}
	return s.serve(ctx, group, s.options.HTTPAddress, &s.httpAddress, s.HTTPHandler(), nil)
}

// serveExtAuthz opens the gRPC listener and adds its sides to the group.
func (s *Server) serveExtAuthz(ctx context.Context, group *errgroup.Group) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.options.ExtAuthzAddress)
	if err != nil {
		return fmt.Errorf("opening the listener for external authorization: %w", err)
	}
	server, states := s.grpcServer()
	s.extAuthzAddress.Store(listener.Addr().String())
	s.log.Info("Serving", "scheme", "grpc", "address", listener.Addr().String())
	group.Go(func() error {
		if err := server.Serve(listener); err != nil {
			return fmt.Errorf("serving external authorization: %w", err)
		}
		return nil
	})
	group.Go(func() error { return reportHealth(ctx, s.forwardAuth.issuers.Ready, states) })
	group.Go(func() error {
		<-ctx.Done()
		new(drain).wait(s.drain) // the health service has told them to go
		late := time.AfterFunc(shutdownTimeout, server.Stop)
		defer late.Stop()
		server.GracefulStop()
		return nil
	})
	return nil
}

// unlessOver drops an error that only says that the end has come.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// serve opens a listener and adds its two sides to the group: serving, and
// shutting down when the context ends. A nil configuration means plain HTTP.
func (s *Server) serve(ctx context.Context, group *errgroup.Group, address string, bound *atomic.Value, handler http.Handler, config *tls.Config) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("opening the verifier's listener: %w", err)
	}
	clients := &drain{}
	server := s.httpServer(clients.handler(handler))
	scheme := "http"
	if config != nil {
		listener, scheme = tls.NewListener(listener, config), "https"
	}
	bound.Store(listener.Addr().String())
	s.log.Info("Serving", "scheme", scheme, "address", listener.Addr().String(), "tokenReview", s.tokenReview != nil && config != nil)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving %s: %w", scheme, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		clients.wait(s.drain)
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(deadline); err != nil {
			return errors.Join(fmt.Errorf("requests were still running after %s: %w", shutdownTimeout, err), server.Close())
		}
		return nil
	})
	return nil
}

// httpServer is a server with all its limits. It speaks HTTP/1.1 alone: HTTP/2
// costs twice the CPU here, and nobody needs its streams.
func (s *Server) httpServer(handler http.Handler) *http.Server {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          stdlog.New(debugWriter{s.log}, "", 0),
		Protocols:         new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	return server
}

// debugWriter logs what net/http has to say about connections. Any client can
// make it say a lot.
type debugWriter struct{ log logr.Logger }

func (d debugWriter) Write(p []byte) (int, error) {
	d.log.V(1).Info("HTTP server", "message", strings.TrimSpace(string(p)))
	return len(p), nil
}

// gate limits how much is worked on at the same time, in verifications with a
// 2048-bit RSA key. It never makes anyone wait. A nil one has no limit.
type gate struct {
	limit int64
	used  atomic.Int64
}

func newGate(limit int) *gate { return &gate{limit: int64(limit)} }

// enter reports whether there was room for a request; then leave has to follow,
// once.
func (g *gate) enter() bool {
	if g.used.Add(1) > g.limit {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() { g.used.Add(-1) }

// work reports whether there was room for what a request costs besides; then done
// has to follow, once. A request that is alone may cost anything.
func (g *gate) work(cost int) bool {
	if g == nil {
		return true
	}
	if used := g.used.Add(int64(cost)); used > g.limit && used > int64(cost)+1 {
		g.done(cost)
		return false
	}
	return true
}

func (g *gate) done(cost int) {
	if g != nil {
		g.used.Add(-int64(cost))
	}
}

// contained runs a verification. A panic in it is "cannot decide".
func contained(log logr.Logger, verify func() Verdict) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(log, p)
			v = Verdict{Outcome: CannotDecide, Reason: InternalError}
		}
	}()
	return verify()
}

// logPanic logs where a panic came from. What it said is left out unless the
// runtime said it: other values could hold part of a token.
func logPanic(log logr.Logger, p any) {
	said := fmt.Sprintf("%T", p)
	var re runtime.Error
	if err, ok := p.(error); ok && errors.As(err, &re) {
		said = re.Error()
	}
	log.Error(nil, "A request panicked", "panic", said, "stack", string(debug.Stack()))
}

// maxLogged is how many bytes of an untrusted value go into the log.
const maxLogged = 128

// logVerdict logs, at debug level, how a token was judged; never the token.
func logVerdict(log logr.Logger, v Verdict, object string) {
	if debug := log.V(1); debug.Enabled() {
		debug.Info("Judged a token", "outcome", v.Outcome.String(), "reason", v.Reason, "detail", v.Detail,
			"issuer", object, "untrustedIss", quoted(v.untrustedIssuer), "untrustedKid", quoted(v.untrustedKeyID))
	}
}

// quoted is an untrusted value for the log: cut, and in printable ASCII.
func quoted(s string) string {
	return strconv.QuoteToASCII(s[:min(len(s), maxLogged)])
}
