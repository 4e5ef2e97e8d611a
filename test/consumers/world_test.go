package consumers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	// namespace is where the TrustedIssuers are.
	namespace = "orders"
	// audience is whom tokens are for.
	audience = "https://orders.example.com"
	// patience is for what takes a moment. Between two fetches are at least 5 s.
	patience = time.Minute
)

// world is what all tests share: a control plane and the manager.
var world *operator

type operator struct {
	dir     string
	env     *envtest.Environment
	client  client.WithWatch
	manager *harness.Manager

	authority *harness.Authority
	// authorityFile has the certificate of the one that issues all servers' certificates
	// here, certificateFile and keyFile one for loopback.
	authorityFile, certificateFile, keyFile string

	// address is the verifier's.
	address string
	http    *http.Client
}

func TestMain(m *testing.M) {
	// The flags are not parsed yet, and -short needs no world.
	short := false
	for _, arg := range os.Args {
		short = short || arg == "-test.short" || arg == "-test.short=true"
	}
	os.Exit(func() int {
		if short {
			return m.Run()
		}
		world = &operator{}
		defer world.stop()
		if err := world.start(context.Background()); err != nil {
			world.manager.PrintLog()
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if code != 0 {
			world.manager.PrintLog()
		}
		return code
	}())
}

// start starts everything; stop ends what of it has started.
func (o *operator) start(ctx context.Context) (err error) {
	if o.dir, err = os.MkdirTemp("", "consumers-"); err != nil {
		return err
	}
	if err := o.issueCertificate(); err != nil {
		return err
	}
	if o.env, err = harness.NewControlPlane(true, nil); err != nil {
		return err
	}
	config, err := o.env.Start()
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		return err
	}
	if o.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	for _, name := range []string{harness.OperatorNamespace, namespace} {
		if err := o.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	return o.startManager(ctx)
}

func (o *operator) issueCertificate() (err error) {
	if o.authority, err = harness.NewAuthority("servers"); err != nil {
		return err
	}
	certificate, key, err := o.authority.Issue("localhost")
	if err != nil {
		return err
	}
	o.authorityFile, o.certificateFile, o.keyFile = o.path("ca.crt"), o.path("tls.crt"), o.path("tls.key")
	o.http = &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: o.authority.Pool(), MinVersion: tls.VersionTLS12},
	}}
	return errors.Join(
		os.WriteFile(o.authorityFile, o.authority.PEM(), 0o600),
		os.WriteFile(o.certificateFile, certificate, 0o600),
		os.WriteFile(o.keyFile, key, 0o600))
}

// startManager builds the manager as make build does, and starts it.
func (o *operator) startManager(ctx context.Context) (err error) {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.path("manager"), "./cmd/manager")
	build.Dir, build.Env = harness.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the manager: %w\n%s", err, out)
	}
	if o.address, err = harness.FreeAddress(); err != nil {
		return err
	}
	kubeconfig := o.path("kubeconfig")
	if err := os.WriteFile(kubeconfig, o.env.KubeConfig, 0o600); err != nil {
		return err
	}
	o.manager, err = harness.StartManager(ctx, o.path("manager"), "manager", o.path("manager.log"),
		"--kubeconfig", kubeconfig, "--verifier-bind-address", o.address,
		"--tls-cert-file", o.certificateFile, "--tls-private-key-file", o.keyFile)
	return err
}

func (o *operator) stop() {
	o.manager.Stop()
	if o.env != nil {
		if err := o.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
		}
	}
	_ = os.RemoveAll(o.dir)
}

func (o *operator) path(name string) string { return filepath.Join(o.dir, name) }

// trust makes a TrustedIssuer of that name and spec, and waits for its keys.
func trust(t *testing.T, name string, spec api.IssuerSpec) *api.TrustedIssuer {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what needs other programs")
	}
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	ti.Spec.IssuerSpec = spec
	must(t, world.client.Create(t.Context(), ti))
	t.Cleanup(func() { _ = world.client.Delete(context.Background(), ti) })
	within(t, name+" is Ready", func() error {
		if err := world.client.Get(t.Context(), client.ObjectKeyFromObject(ti), ti); err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(ti.Status.Conditions, api.ConditionReady) {
			return fmt.Errorf("its conditions are %+v", ti.Status.Conditions)
		}
		return nil
	})
	return ti
}

// edit changes an issuer object.
func edit(t *testing.T, ti *api.TrustedIssuer, change func()) {
	t.Helper()
	before := ti.DeepCopy()
	change()
	must(t, world.client.Patch(t.Context(), ti, client.MergeFrom(before)))
}

// refresh has the keys fetched now, as an administrator does.
func refresh(t *testing.T, ti *api.TrustedIssuer) {
	t.Helper()
	edit(t, ti, func() { metav1.SetMetaDataAnnotation(&ti.ObjectMeta, api.AnnotationRefresh, time.Now().String()) })
}

// mirrorURL is where the mirror has the keys of an issuer object.
func mirrorURL(ti *api.TrustedIssuer) string {
	return fmt.Sprintf("https://%s/mirror/ns/%s/%s/jwks.json", world.address, ti.Namespace, ti.Name)
}

// forwardAuth is what the verifier says about a token: the subject, or why not.
func forwardAuth(t *testing.T, ti *api.TrustedIssuer, token string) string {
	t.Helper()
	url := fmt.Sprintf("https://%s/forward-auth/ns/%s/%s", world.address, ti.Namespace, ti.Name)
	resp, _ := get(t, url, http.Header{"Authorization": {"Bearer " + token}})
	if resp.StatusCode == http.StatusOK {
		return resp.Header.Get("X-Auth-Subject")
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("X-Jwks-Trust-Reason"))
}

func get(t *testing.T, url string, header http.Header) (resp *http.Response, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	req.Header = header
	return send(t, world.http, req)
}

func send(t *testing.T, client *http.Client, req *http.Request) (resp *http.Response, body string) {
	t.Helper()
	resp, err := client.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits for what others are about to bring about.
func within(t *testing.T, what string, done func() error) {
	t.Helper()
	var last error
	err := harness.Within(context.Background(), patience, 50*time.Millisecond, what, func() (bool, error) {
		last = done()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

// program is the path of one. A test must not pass because it is missing.
func program(t *testing.T, variable, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what needs other programs")
	}
	if other := os.Getenv(variable); other != "" {
		name = other
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("there is no %s: hack/consumers.sh installs it (or set %s to its path)", name, variable)
	}
	return path
}

// example is the folder of one.
func example(name string) string { return filepath.Join(harness.Root(), "examples", name) }

// hasModules makes sure that a folder's npm packages are there.
func hasModules(t *testing.T, folder string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(folder, "node_modules")); err != nil {
		t.Fatalf("run hack/consumers.sh: %v", err)
	}
}

// tampered is a token whose payload is not the one that was signed.
func tampered(token, other string) string {
	good, bad := strings.Split(token, "."), strings.Split(other, ".")
	return good[0] + "." + bad[1] + "." + good[2]
}

// mirrorLacks is an error while the mirror's keys have that text.
func mirrorLacks(t *testing.T, ti *api.TrustedIssuer, text string) error {
	t.Helper()
	if _, body := get(t, mirrorURL(ti), nil); strings.Contains(body, text) {
		return fmt.Errorf("the mirror has %s", body)
	}
	return nil
}
