package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

func TestCommandLine(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no namespace":                  {nil, "--operator-namespace is required"},
		"a certificate without its key": {[]string{"--operator-namespace=x", "--tls-cert-file=a"}, "go together"},
		"TokenReview without HTTPS":     {[]string{"--operator-namespace=x", "--tokenreview-client-ca-file=a"}, "needs --tls-cert-file"},
		"a component that is none":      {[]string{"--operator-namespace=x", "--components=controller,webhook"}, `"webhook" is neither`},
		"a selector that is none":       {[]string{"--operator-namespace=x", "--components=controller", "--issuer-selector=a in b"}, "--issuer-selector"},
		"a part of the issuers, judged": {[]string{"--operator-namespace=x", "--issuer-selector=a=b"}, "needs --components=controller"},
		"ext_authz without TLS":         {[]string{"--operator-namespace=x", "--ext-authz-bind-address=:1"}, "needs --tls-cert-file"},
		"a certificate for plain HTTP":  {[]string{"--operator-namespace=x", "--metrics-cert-dir=a"}, "needs --metrics-secure"},
		"secure metrics that are off":   {[]string{"--operator-namespace=x", "--metrics-secure"}, "needs --metrics-bind-address"},
		"an egress rule that is none":   {[]string{"--operator-namespace=x", "--components=controller", "--egress-allow-cidr=10.0.0.0/8,all"}, `"all" is not a CIDR`},
		"a collector that is no URL":    {[]string{"--operator-namespace=x", "--components=controller", "--tracing-endpoint=collector:4317"}, "--tracing-endpoint"},
		"a proxy that is no URL":        {[]string{"--operator-namespace=x", "--components=controller", "--egress-proxy=://"}, "--egress-proxy"},
		"a word that is no flag":        {[]string{"--leader-elect", "true", "--components=verifier", "--metrics-secure"}, `"true" is no flag`},
		"no component":                  {[]string{"--operator-namespace=x", "--components="}, "--components is empty"},
		"no component but a comma":      {[]string{"--operator-namespace=x", "--components", " ,"}, "--components is empty"},
		"a mirror without HTTPS":        {[]string{"--operator-namespace=x", "--verifier-http-bind-address=:1", "--mirror-url=https://keys.example.com"}, "--mirror-url needs --tls-cert-file"},
		"a verifier nobody can reach":   {[]string{"--operator-namespace=x", "--components=verifier"}, "listen nowhere"},
		"both, and it cannot, either":   {[]string{"--operator-namespace=x"}, "listen nowhere"},
		"a verifier who knows where":    {[]string{"--operator-namespace=x", "--tls-cert-file=a", "--tls-private-key-file=b", "--verifier-bind-address="}, "--verifier-bind-address is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var o options
			flags := flag.NewFlagSet(name, flag.ContinueOnError)
			err := o.parse(flags, tc.args)
			if err == nil {
				err = run(context.Background(), &o, logr.Discard())
			}
			g.Expect(err).To(MatchError(ContainSubstring(tc.want)))
		})
	}
}

// TestWhatIsCached is about memory: what nobody reads is not kept, and nothing twice.
func TestWhatIsCached(t *testing.T) {
	g := NewWithT(t)
	text := []byte(`{"keys":[]}`)
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Annotations:   map[string]string{corev1.LastAppliedConfigAnnotation: "{}", api.AnnotationDigest: "sha256:a"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "someone"}},
		},
		Data: map[string]string{snapshot.KeyJWKSJSON: string(text), snapshot.KeyJWKS: string(text), snapshot.KeyIssuerJSON: "{}"},
	}
	out, err := lean(cm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(BeIdenticalTo(cm))
	g.Expect(cm.ManagedFields).To(BeEmpty())
	g.Expect(cm.Annotations).To(Equal(map[string]string{api.AnnotationDigest: "sha256:a"}))
	g.Expect(cm.Data).To(Equal(map[string]string{snapshot.KeyJWKSJSON: string(text), snapshot.KeyJWKS: string(text), snapshot.KeyIssuerJSON: "{}"}))

	other := &corev1.ConfigMap{Data: map[string]string{snapshot.KeyJWKSJSON: "a", snapshot.KeyJWKS: "b"}}
	_, err = lean(other)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(other.Data).To(HaveKeyWithValue(snapshot.KeyJWKS, "b"), "what somebody has changed shows")
	gone := toolscache.DeletedFinalStateUnknown{Key: "a"}
	g.Expect(lean(gone)).To(Equal(gone))
}

// stage is a whole manager on a real API server, and an issuer.
type stage struct {
	*WithT
	ctx    context.Context
	api    client.Client
	issuer *testissuer.Issuer
	key    *testissuer.Key
	http   *http.Client
	at     string // the verifier's address
	// kubeconfig is the administrator's.
	kubeconfig string
	// authority issues its certificate, and those of TokenReview's clients.
	authority *harness.Authority
	file      func(name string, content []byte) string
}

// TestManager runs everything together, watches included: what is damaged comes
// back by itself.
func TestManager(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t)
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "auth"}}
	ti.Spec.IssuerSpec = api.IssuerSpec{
		Issuer: s.issuer.URL(), Audiences: []string{"orders"}, JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle(),
	}
	s.Expect(s.api.Create(s.ctx, ti)).To(Succeed())
	s.Eventually(s.answer).WithTimeout(10*time.Second).Should(Equal(http.StatusOK), "a token is accepted as soon as the keys are there")

	users := client.ObjectKey{Namespace: "default", Name: "auth-jwks"}
	ours := client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(ti.UID)}
	s.Eventually(func() map[string]string { return s.data(users) }).WithTimeout(10 * time.Second).Should(HaveKey("jwks.json"))

	// A new key is found by its first token, and another object with the same
	// source has it too, without a request of its own.
	twin := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "twin"}}
	twin.Spec = ti.Spec
	s.Expect(s.api.Create(s.ctx, twin)).To(Succeed())
	twins := client.ObjectKey{Namespace: "default", Name: "twin-jwks"}
	s.Eventually(func() map[string]string { return s.data(twins) }).WithTimeout(10 * time.Second).Should(HaveKey("jwks.json"))
	s.Expect(s.issuer.Requests()).To(BeNumerically("<=", 2))
	before := s.issuer.Requests()
	s.issuer.Publish(s.key, testissuer.NewKey("k2", "ES256"))
	refresh := ti.DeepCopy()
	metav1.SetMetaDataAnnotation(&refresh.ObjectMeta, api.AnnotationRefresh, "now")
	s.Expect(s.api.Patch(s.ctx, refresh, client.MergeFrom(ti))).To(Succeed())
	for _, key := range []client.ObjectKey{users, twins} {
		s.Eventually(func() string { return s.data(key)["jwks.json"] }).WithTimeout(10*time.Second).Should(ContainSubstring(`"k2"`), key.Name)
	}
	s.Expect(s.issuer.Requests() - before).To(Equal(1))
	s.Expect(s.api.Delete(s.ctx, twin)).To(Succeed())

	// Which key signs is reported within seconds.
	s.Eventually(func() []api.KeyUsage {
		s.Expect(s.api.Get(s.ctx, client.ObjectKeyFromObject(ti), ti)).To(Succeed())
		return ti.Status.KeyUsage
	}).WithTimeout(30 * time.Second).Should(ConsistOf(HaveField("LastUsedTime.Time", BeTemporally("~", time.Now(), time.Minute))))

	want := s.data(users)
	s.Expect(s.data(ours)).To(Equal(want))
	s.issuer.Stop()

	for name, key := range map[string]client.ObjectKey{"users' copy": users, "authoritative one": ours} {
		// THREATS 39, 49: repaired within five seconds, without the issuer, and
		// no token is refused meanwhile.
		cm := &corev1.ConfigMap{}
		s.Expect(s.api.Get(s.ctx, key, cm)).To(Succeed())
		cm.Data["jwks.json"] = `{"keys":[]}`
		s.Expect(s.api.Update(s.ctx, cm)).To(Succeed())
		s.Expect(s.answer()).To(Equal(http.StatusOK), "%s tampered with", name)
		s.Eventually(func() map[string]string { return s.data(key) }).WithTimeout(5*time.Second).Should(Equal(want), "%s tampered with", name)

		s.Expect(s.api.Delete(s.ctx, cm)).To(Succeed())
		s.Expect(s.answer()).To(Equal(http.StatusOK), "%s deleted", name)
		s.Eventually(func() map[string]string { return s.data(key) }).WithTimeout(5*time.Second).Should(Equal(want), "%s deleted", name)
	}

	s.logsIn(t)

	s.Expect(s.api.Delete(s.ctx, ti)).To(Succeed())
	s.Eventually(s.answer).WithTimeout(5*time.Second).Should(Equal(http.StatusServiceUnavailable), "trust ends with the object")
	for _, key := range []client.ObjectKey{users, ours} {
		s.Eventually(func() error { return s.api.Get(s.ctx, key, &corev1.ConfigMap{}) }).WithTimeout(5 * time.Second).Should(Satisfy(apierrors.IsNotFound))
	}
}

// newStage starts a control plane, an issuer and the manager, and stops them at
// the end of the test.
func newStage(t *testing.T, edits ...func(*options)) *stage {
	g := NewWithT(t)
	env, err := harness.NewControlPlane(true, nil)
	g.Expect(err).NotTo(HaveOccurred())
	cfg, err := env.Start()
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = env.Stop() })
	scheme := runtime.NewScheme()
	g.Expect(errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), api.AddToScheme(scheme))).To(Succeed())
	s := &stage{WithT: g, ctx: context.Background(), key: testissuer.NewKey("k1", "ES256")}
	s.api, err = client.New(cfg, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.api.Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: harness.OperatorNamespace}})).To(Succeed())

	s.issuer, err = testissuer.Start()
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(s.issuer.Close)
	s.issuer.Publish(s.key)

	dir := t.TempDir()
	s.file = func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		g.Expect(os.WriteFile(path, content, 0o600)).To(Succeed())
		return path
	}
	file := s.file
	s.kubeconfig = file("kubeconfig", env.KubeConfig)
	t.Setenv("KUBECONFIG", s.kubeconfig)
	ca, err := harness.NewAuthority("test")
	g.Expect(err).NotTo(HaveOccurred())
	s.authority = ca
	cert, key, err := ca.Issue("verifier")
	g.Expect(err).NotTo(HaveOccurred())
	s.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}}}
	t.Cleanup(s.http.CloseIdleConnections)
	s.at, err = harness.FreeAddress()
	g.Expect(err).NotTo(HaveOccurred())

	o := newOptions()
	o.server.MirrorURL = "https://" + s.at
	o.server.Address, o.server.CertFile, o.server.KeyFile = s.at, file("tls.crt", cert), file("tls.key", key)
	o.server.ClientCAFile, o.apiAudiences = file("clients.crt", ca.PEM()), stringList{apiAudience}
	for _, edit := range edits {
		edit(o)
	}
	s.run(t, o)
	return s
}

// newOptions are those of a manager among others in the same process.
func newOptions() *options {
	return &options{
		operatorNamespace: harness.OperatorNamespace, metricsAddress: "0", probeAddress: "0", egressAllow: stringList{"127.0.0.0/8"},
		controllers: config.Controller{SkipNameValidation: ptr.To(true)},
	}
}

// run runs the manager until the end of the test, where it must end cleanly.
func (s *stage) run(t *testing.T, o *options) { s.start(t, o) }

// start runs the manager until it is stopped, or until the end of the test. It must
// end cleanly.
func (s *stage) start(t *testing.T, o *options) (stop func()) {
	log := testr.New(t)
	ctrl.SetLogger(logr.Discard())
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, o, log) }()
	stop = sync.OnceFunc(func() {
		cancel()
		s.Eventually(ended).WithTimeout(30*time.Second).Should(Receive(BeNil()), "the manager ends when it is told to")
	})
	t.Cleanup(stop)
	return stop
}

// data are those of a ConfigMap; nil when it is not there.
func (s *stage) data(key client.ObjectKey) map[string]string {
	cm := &corev1.ConfigMap{}
	s.Expect(client.IgnoreNotFound(s.api.Get(s.ctx, key, cm))).To(Succeed())
	return cm.Data
}

// answer is what forward-auth says to a good token.
func (s *stage) answer() (int, error) {
	return s.answerAt(s.at, s.key.Sign(testissuer.Claims(s.issuer.URL(), "alice", "orders", time.Now(), time.Hour)))
}

// answerAt is what a verifier says to a token.
func (s *stage) answerAt(at, token string) (int, error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, fmt.Sprintf("https://%s/forward-auth/ns/default/auth", at), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
