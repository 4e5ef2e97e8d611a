// world_test.go is a control plane that knows all the schemas, a manager, and two
// issuer objects with several keys and audiences.

package schemas

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const namespace = "orders"

// audiences are those of both issuer objects.
var audiences = []string{"https://orders.example.com", "https://billing.example.com"}

// requiredClaims are those that both demand: kube-apiserver has names of its own for
// most of them.
var requiredClaims = []string{"tenant", "https://example.com/tenant-id", "a.b-c__d"}

// world is all that runs.
type world struct {
	*WithT
	*harness.Cluster

	ctx  context.Context
	tool string // kubectl-jwks

	issuer *testissuer.Issuer
	keys   []*testissuer.Key
	// verifierURL is where the verifier is.
	verifierURL string
	// authority issued the verifier's certificate.
	authority *harness.Authority
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	ctrl.SetLogger(logr.Discard())
	w := &world{WithT: NewWithT(t), ctx: t.Context()}
	var err error
	w.Cluster, err = harness.StartCluster(w.ctx, namespace)
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if t.Failed() {
			w.PrintLogs()
		}
		w.Close()
	})
	w.installSchemas()
	w.tool = w.build("kubectl-jwks")
	w.startManager()
	w.startIssuer(t)
	w.trust()
	return w
}

// build builds a program of ours.
func (w *world) build(name string) string {
	path := w.Path(name)
	cmd := exec.CommandContext(w.ctx, "go", "build", "-o", path, "./cmd/"+name) //nolint:gosec // our own source
	cmd.Dir = harness.Root()
	out, err := cmd.CombinedOutput()
	w.Expect(err).NotTo(HaveOccurred(), string(out))
	return path
}

// installSchemas installs what Istio, Envoy Gateway and the Gateway API publish.
func (w *world) installSchemas() {
	published := map[string][]string{
		"istio.io/api":                  {"kubernetes/customresourcedefinitions.gen.yaml"},
		"github.com/envoyproxy/gateway": {"charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml"},
		"sigs.k8s.io/gateway-api":       {"config/crd/standard/gateway.networking.k8s.io_httproutes.yaml", "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml"},
	}
	var paths []string
	for module, files := range published {
		for _, file := range files {
			path := filepath.Join(w.folderOf(module), filepath.FromSlash(file))
			w.Expect(path).To(BeARegularFile())
			paths = append(paths, path)
		}
	}
	_, err := envtest.InstallCRDs(w.Config, envtest.CRDInstallOptions{Paths: paths, ErrorIfPathMissing: true, MaxTime: time.Minute})
	w.Expect(err).NotTo(HaveOccurred())
}

// folderOf is where a module of go.mod is kept.
func (w *world) folderOf(module string) string {
	out, err := exec.CommandContext(w.ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output() //nolint:gosec // a module of ours
	w.Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(string(out))
}

// startManager starts both components, with the mirror's metadata.
func (w *world) startManager() {
	var err error
	w.authority, err = harness.NewAuthority("verifier")
	w.Expect(err).NotTo(HaveOccurred())
	certificate, key, err := w.authority.Issue("verifier")
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(errors.Join(
		os.WriteFile(w.Path("ca.crt"), w.authority.PEM(), 0o600),
		os.WriteFile(w.Path("tls.crt"), certificate, 0o600),
		os.WriteFile(w.Path("tls.key"), key, 0o600),
	)).To(Succeed())
	address, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	w.verifierURL = "https://" + address
	_, err = w.StartManager(w.ctx, w.build("manager"), harness.Both, "manager",
		"--verifier-bind-address", address, "--mirror-url", w.verifierURL,
		"--tls-cert-file", w.Path("tls.crt"), "--tls-private-key-file", w.Path("tls.key"))
	w.Expect(err).NotTo(HaveOccurred())
}

// startIssuer publishes a key of each kind.
func (w *world) startIssuer(t *testing.T) {
	t.Helper()
	var err error
	w.issuer, err = testissuer.Start()
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(w.issuer.Close)
	for _, algorithm := range []string{"RS256", "ES256", "ES384", "EdDSA"} {
		w.keys = append(w.keys, testissuer.NewKey("key-"+strings.ToLower(algorithm), algorithm))
	}
	w.issuer.Publish(w.keys...)
}

// trust makes a TrustedIssuer, and a ClusterTrustedIssuer with a copy in its namespace,
// and waits until all is published.
func (w *world) trust() {
	spec := api.IssuerSpec{
		Issuer: w.issuer.URL(), Audiences: audiences, JWKSURI: w.issuer.JWKSURI(), CABundle: w.issuer.CABundle(),
		Verification: &api.VerificationSpec{
			MaxTokenLifetime: &metav1.Duration{Duration: 2 * time.Hour},
			RequiredClaims:   requiredClaims,
			ResponseHeaders:  []api.ResponseHeader{{Name: "X-Auth-Tenant", Claim: "tenant"}},
		},
	}
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "auth0"}}
	ti.Spec.IssuerSpec = spec
	cti := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "login"}}
	cti.Spec.IssuerSpec, cti.Spec.NamespaceSelector = spec, &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}}
	cti.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{
		UsernamePrefix: "s", GroupsPrefix: "s", // of which a token can make system:
		ClaimMappings:       &api.ClaimMappings{Username: &api.ClaimOrExpression{Expression: "claims.sub"}, Groups: &api.ClaimOrExpression{Claim: "roles"}},
		UserValidationRules: []api.UserValidationRule{{Expression: "user.username != 'sroot'", Message: "no root"}},
	}
	for _, issuer := range []api.Issuer{ti, cti} {
		w.Expect(w.Client.Create(w.ctx, issuer)).To(Succeed())
		w.Eventually(func() ([]metav1.Condition, error) {
			err := w.Client.Get(w.ctx, client.ObjectKeyFromObject(issuer), issuer)
			return issuer.IssuerStatus().Conditions, err
		}).WithTimeout(time.Minute).Should(ContainElement(And(HaveField("Type", api.ConditionReady), HaveField("Status", metav1.ConditionTrue))))
	}
	w.Eventually(func() ([]metav1.Condition, error) {
		err := w.Client.Get(w.ctx, client.ObjectKeyFromObject(cti), cti)
		return cti.Status.Conditions, err
	}).WithTimeout(time.Minute).Should(ContainElement(HaveField("Reason", api.ReasonDistributed)))
}

// export runs the command, as a user of the namespace.
func (w *world) export(name, format string, more ...string) []byte {
	out, errs := w.run(append([]string{"export", name, "-n", namespace, "--format", format}, more...)...)
	w.Expect(out).NotTo(BeEmpty(), errs)
	return out
}

// run runs kubectl-jwks, which has to succeed.
func (w *world) run(args ...string) (out []byte, errs string) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(w.ctx, w.tool, append(args, "--kubeconfig", w.Path("admin.yaml"))...) //nolint:gosec // our own build
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	w.Expect(cmd.Run()).To(Succeed(), stderr.String())
	return stdout.Bytes(), stderr.String()
}

// apply asks the API server what it thinks of an object. Unknown fields are errors.
func (w *world) apply(object []byte) (string, error) {
	cmd := exec.CommandContext(w.ctx, filepath.Join(harness.Assets(), "kubectl"), "--kubeconfig", w.Path("admin.yaml"), //nolint:gosec // our own build
		"apply", "--dry-run=server", "--validate=strict", "-f", "-")
	cmd.Stdin = bytes.NewReader(object)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
