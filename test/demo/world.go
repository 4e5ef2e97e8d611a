// world.go starts and stops the parts: etcd and kube-apiserver, the issuer, and
// controller and verifier, each with the rights that config/rbac gives it.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// world is everything that runs.
type world struct {
	dir                  string // for files; removed at the end
	env                  *envtest.Environment
	address              string // of the verifier
	client               *http.Client
	issuer               *testissuer.Issuer
	controller, verifier *harness.Manager
	kubeconf             string

	// what the steps hand on to each other
	oldKey, newKey *testissuer.Key
	goodToken      string
	apiIssuer      string
	stopped        time.Time
}

// newWorld starts all parts but the manager's objects: the steps do the rest.
func newWorld(ctx context.Context, managerBinary string) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.controller.PrintLog()
			w.verifier.PrintLog()
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "jwks-trust-demo-"); err != nil {
		return w, err
	}
	if w.address, err = harness.FreeAddress(); err != nil {
		return w, err
	}
	say("Starting etcd and kube-apiserver, with our verifier as its token webhook ...")
	if err = w.startControlPlane(); err != nil {
		return w, err
	}
	say("Starting an issuer that the demo can script, on HTTPS with a CA of its own ...")
	if w.issuer, err = testissuer.Start(); err != nil {
		return w, err
	}
	w.oldKey = testissuer.NewKey("key-1", "RS256")
	w.issuer.Publish(w.oldKey)
	say("Installing the CRDs and the rights, and starting controller and verifier ...")
	if err = w.install(ctx); err != nil {
		return w, err
	}
	return w, w.startManager(ctx, managerBinary)
}

// startControlPlane starts the API server with a webhook configuration that
// points to where the verifier will listen.
func (w *world) startControlPlane() error {
	ca, err := harness.NewAuthority("demo serving CA")
	if err != nil {
		return err
	}
	for _, name := range []string{"server", "client"} {
		cert, key, err := ca.Issue(name)
		if err != nil {
			return err
		}
		if err := errors.Join(w.write(name+".crt", cert), w.write(name+".key", key)); err != nil {
			return err
		}
	}
	w.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12},
	}}
	webhook := clientcmdapi.NewConfig()
	webhook.Clusters["verifier"] = &clientcmdapi.Cluster{Server: "https://" + w.address + "/tokenreview", CertificateAuthority: w.path("ca.crt")}
	webhook.AuthInfos["api-server"] = &clientcmdapi.AuthInfo{ClientCertificate: w.path("client.crt"), ClientKey: w.path("client.key")}
	webhook.Contexts["webhook"] = &clientcmdapi.Context{Cluster: "verifier", AuthInfo: "api-server"}
	webhook.CurrentContext = "webhook"
	if err := errors.Join(w.write("ca.crt", ca.PEM()), clientcmd.WriteToFile(*webhook, w.path("webhook.yaml"))); err != nil {
		return err
	}
	if w.env, err = harness.NewControlPlane(false, map[string]string{
		"authentication-token-webhook-config-file": w.path("webhook.yaml"),
		"authentication-token-webhook-version":     "v1",
		"authentication-token-webhook-cache-ttl":   "10s",
		"api-audiences":                            apiAudience,
	}); err != nil {
		return err
	}
	if _, err := w.env.Start(); err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	w.kubeconf = w.path("admin.yaml")
	return w.write("admin.yaml", w.env.KubeConfig)
}

// install applies what a user would: the CRDs, the namespace and the rights.
func (w *world) install(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "-k", filepath.Join(harness.Root(), "config", "crd")},
		{"create", "namespace", harness.OperatorNamespace},
		{"apply", "-k", filepath.Join(harness.Root(), "config", "rbac")},
		{"wait", "--for=condition=Established", "--timeout=30s", "crd/trustedissuers.jwks-trust.dev", "crd/clustertrustedissuers.jwks-trust.dev"},
	} {
		if out, err := w.kubectlQuiet(ctx, args...); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// startManager runs the controller and the verifier, each as its own service
// account, so that the demo also shows that their rights suffice.
func (w *world) startManager(ctx context.Context, binary string) error {
	for _, component := range []string{"controller", "verifier"} {
		if err := w.actAs(ctx, component); err != nil {
			return err
		}
	}
	var err error
	w.controller, err = harness.StartManager(ctx, binary, "the controller", w.path("controller.log"),
		"--components", "controller", "--kubeconfig", w.path("controller.yaml"), "--zap-log-level", "debug")
	if err != nil {
		return err
	}
	w.verifier, err = harness.StartManager(ctx, binary, "the verifier", w.path("verifier.log"),
		"--components", "verifier", "--kubeconfig", w.path("verifier.yaml"), "--zap-log-level", "debug",
		"--verifier-bind-address", w.address,
		"--tls-cert-file", w.path("server.crt"), "--tls-private-key-file", w.path("server.key"),
		"--tokenreview-client-ca-file", w.path("ca.crt"),
		"--api-audiences", apiAudience,
	)
	return err
}

// actAs writes a kubeconfig with a token of a component's service account.
func (w *world) actAs(ctx context.Context, component string) error {
	token, err := w.kubectlQuiet(ctx, "create", "token", "jwks-trust-"+component, "-n", harness.OperatorNamespace, "--duration=24h")
	if err != nil {
		return fmt.Errorf("making a token for the %s: %w\n%s", component, err, token)
	}
	admin, err := clientcmd.LoadFromFile(w.kubeconf)
	if err != nil {
		return err
	}
	for name := range admin.AuthInfos {
		admin.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: strings.TrimSpace(token)}
	}
	return clientcmd.WriteToFile(*admin, w.path(component+".yaml"))
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, content []byte) error {
	return os.WriteFile(w.path(name), content, 0o600)
}

// kubectl runs kubectl, shows command and output, and returns the output.
func (w *world) kubectl(ctx context.Context, args ...string) (string, error) {
	fmt.Printf("   $ kubectl %s\n", shown(args))
	out, err := w.kubectlQuiet(ctx, args...)
	for _, line := range strings.Split(strings.TrimRight(out, "\n"), "\n") {
		fmt.Println("     " + line)
	}
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w", shown(args), err)
	}
	return out, nil
}

// shown is a command line with tokens and folders made short.
func shown(args []string) string {
	short := make([]string, len(args))
	for i, a := range args {
		switch {
		case strings.HasPrefix(a, "--token="):
			a = "--token=<token>"
		case filepath.IsAbs(a):
			a = filepath.Base(a)
		case strings.ContainsAny(a, " {}"):
			a = "'" + a + "'"
		}
		short[i] = a
	}
	return strings.Join(short, " ")
}

func (w *world) kubectlQuiet(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(harness.Assets(), "kubectl"), append([]string{"--kubeconfig", w.kubeconf}, args...)...) //nolint:gosec // our own build
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kubectlAs runs kubectl with a bearer token and nothing else.
func (w *world) kubectlAs(ctx context.Context, token string, args ...string) (string, error) {
	bare := clientcmdapi.NewConfig()
	bare.Clusters["demo"] = &clientcmdapi.Cluster{Server: w.env.Config.Host, CertificateAuthorityData: w.env.Config.CAData}
	bare.Contexts["demo"] = &clientcmdapi.Context{Cluster: "demo"}
	bare.CurrentContext = "demo"
	if !strings.HasPrefix(bare.Clusters["demo"].Server, "https://") {
		bare.Clusters["demo"].Server = "https://" + bare.Clusters["demo"].Server
	}
	if err := clientcmd.WriteToFile(*bare, w.path("bare.yaml")); err != nil {
		return "", err
	}
	before := w.kubeconf
	w.kubeconf = w.path("bare.yaml")
	defer func() { w.kubeconf = before }()
	return w.kubectl(ctx, append([]string{"--token=" + token}, args...)...)
}

// wait leaves the world running until ctx ends, and says how to play with it.
func (w *world) wait(ctx context.Context) error {
	fmt.Printf(`
Everything keeps running until you press Ctrl-C. In another terminal:

  export KUBECONFIG=%s
  export PATH=%s:$PATH
  kubectl get trustedissuers,clustertrustedissuers -A -o wide
  kubectl describe trustedissuer -n orders orders
  TOKEN=$(cat %s)
  curl -i --cacert %s -H "Authorization: Bearer $TOKEN" https://%s/forward-auth/ns/orders/orders
  kubectl --kubeconfig=%s --token="$TOKEN" auth whoami
  tail -f %s %s
`, w.kubeconf, harness.Assets(), w.path("token"), w.path("ca.crt"), w.address, w.path("bare.yaml"), w.controller.LogPath, w.verifier.LogPath)
	token := w.newKey.Sign(testissuer.Claims(w.issuer.URL(), "alice", audience, time.Now(), 24*time.Hour))
	if err := w.write("token", []byte(token)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// close stops everything and removes the files.
func (w *world) close() {
	w.verifier.Stop()
	w.controller.Stop()
	if w.issuer != nil {
		w.issuer.Close()
	}
	if w.env != nil {
		if err := w.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
		}
	}
	_ = os.RemoveAll(w.dir)
}

func say(line string) { fmt.Println("   " + line) }
