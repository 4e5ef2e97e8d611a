package peers

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	operatorNamespace = "jwks-trust-system"
	issuerURL         = "https://tenant.eu.auth0.com/"
	audience          = "https://orders.example.com"
	subject           = "auth0|alice"
	// serverName is in the server's certificate.
	serverName = "localhost"
	// cookieName is where a token may be besides the Authorization header.
	cookieName = "session"
	// trusted is the issuer object that the tests are about, and keyless one that
	// nothing can be decided for, as they stand in paths.
	trusted, keyless = "ns/orders/auth0", "ns/orders/keyless"
	// patience is how long anything may take that takes a moment.
	patience = 10 * time.Second
)

// server is ours, over TLS. It has read two TrustedIssuers of the namespace orders:
// auth0, and keyless.
type server struct {
	address string
	// authority issued its certificate; authorityFile has it for other programs.
	authority     *x509.CertPool
	authorityFile string

	informers *informertest.FakeInformers
	started   time.Time
}

// startServer starts a server that trusts the keys. It ends with the test.
func startServer(t *testing.T, keys ...*testissuer.Key) *server {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, errors.Join(corev1.AddToScheme(scheme), api.AddToScheme(scheme)))
	s := &server{informers: &informertest.FakeInformers{Scheme: scheme}, started: time.Now()}
	store := verifier.NewStore(nil)
	watch, err := verifier.SetupWatch(t.Context(), s.informers, store, operatorNamespace, logr.Discard())
	must(t, err)
	s.publish(t, keys...)
	s.feed(t, trustedIssuer("keyless"))
	background(t, watch.Start)
	within(t, "the store is ready", store.Ready)
	s.serve(t, store)
	return s
}

// serve starts the server itself.
func (s *server) serve(t *testing.T, store *verifier.Store) {
	t.Helper()
	authority, err := harness.NewAuthority("servers")
	must(t, err)
	certificate, key, err := authority.Issue("verifier")
	must(t, err)
	dir := openDir(t)
	s.authority, s.authorityFile = authority.Pool(), filepath.Join(dir, "ca.crt")
	options := verifier.ServerOptions{
		Address: "127.0.0.1:0", CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
		TokenCacheSize: 1 << 20,
	}
	must(t, errors.Join(
		os.WriteFile(s.authorityFile, authority.PEM(), 0o600),
		os.WriteFile(options.CertFile, certificate, 0o600),
		os.WriteFile(options.KeyFile, key, 0o600)))
	server, err := verifier.NewServer(options, store, logr.Discard())
	must(t, err)
	background(t, server.Start)
	within(t, "the server listens", func() bool { return server.Addr() != "" })
	s.address = server.Addr()
}

// publish makes the keys those that are trusted, as the controller does when the
// issuer has new ones. Without keys none are trusted any more.
func (s *server) publish(t *testing.T, keys ...*testissuer.Key) {
	t.Helper()
	o := trustedIssuer("auth0")
	content := &corev1.ConfigMap{}
	content.Namespace, content.Name = operatorNamespace, snapshot.AuthoritativeName(o.UID)
	if len(keys) > 0 {
		content.Labels = map[string]string{api.LabelSnapshot: "true"}
		set := keySet(t, keys)
		var err error
		content.Data, err = snapshot.Encode(set, snapshot.Descriptor{Kind: api.TrustedIssuerKind, Namespace: o.Namespace, Name: o.Name, Issuer: issuerURL})
		must(t, err)
		endorse(o, set, s.started)
	}
	s.feed(t, content, o)
}

// feed lets the server see objects as they are now.
func (s *server) feed(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		informer, err := s.informers.FakeInformerFor(t.Context(), o)
		must(t, err)
		informer.Add(o)
	}
}

func trustedIssuer(name string) *api.TrustedIssuer {
	o := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: name, UID: types.UID("uid-of-" + name), Generation: 1}}
	o.Spec.Issuer = issuerURL
	o.Spec.Audiences = []string{audience}
	o.Spec.JWKSURI = issuerURL + "jwks.json"
	o.Spec.CacheTTL = &metav1.Duration{Duration: time.Hour}
	o.Spec.StaleTTL = &metav1.Duration{Duration: time.Hour}
	o.Spec.Verification = &api.VerificationSpec{
		Cookie: cookieName,
		ResponseHeaders: []api.ResponseHeader{
			{Name: "X-Auth-Email", Claim: "email"},
			{Name: "X-Auth-Groups", Claim: "groups"},
		},
	}
	return o
}

// endorse makes the object's status name the key set.
func endorse(o *api.TrustedIssuer, set *keyset.Set, at time.Time) {
	time := metav1.NewTime(at)
	o.Status.Snapshot = &api.SnapshotStatus{Digest: set.Digest(), ObservedGeneration: 1, LastSuccessTime: &time}
	for _, k := range set.Keys() {
		o.Status.Keys = append(o.Status.Keys, api.KeyStatus{KeyID: k.KeyID(), Thumbprint: k.Thumbprint(), State: api.KeyActive})
	}
}

func keySet(t *testing.T, keys []*testissuer.Key) *keyset.Set {
	t.Helper()
	jwks := map[string][]any{}
	for _, k := range keys {
		jwks["keys"] = append(jwks["keys"], k.JWK())
	}
	text, err := json.Marshal(jwks)
	must(t, err)
	parsed, err := keyset.Parse(text, keyset.Policy{})
	must(t, err)
	return parsed.Set
}

// claims are those of a good token, with some of them changed; nil leaves one out.
func claims(changes map[string]any) map[string]any {
	c := testissuer.Claims(issuerURL, subject, audience, time.Now(), time.Hour)
	c["email"], c["groups"] = "alice@example.com", []string{"staff", "on-call"}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// tampered is a token whose payload is not the one that was signed.
func tampered(key *testissuer.Key) string {
	parts := func(changes map[string]any) []string { return splitToken(key.Sign(claims(changes))) }
	good, other := parts(nil), parts(map[string]any{"sub": "auth0|mallory"})
	return good[0] + "." + other[1] + "." + good[2]
}

// client trusts the server, and closes its connections at the end.
func (s *server) client(t *testing.T) *http.Client {
	t.Helper()
	return newClient(t, s.authority)
}
