// world.go starts and stops the parts: etcd and kube-apiserver, two replicas of the
// manager with the rights that config/rbac gives it, and the objects.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	// replicas is how many managers run. One of them is elected.
	replicas = 2
	// namespace is where the TrustedIssuers are.
	namespace = "lifecycle"
	// audience is what a token must be meant for.
	audience = "https://orders.example.com"
	// neverScheduled is the cacheTTL: so long that no fetch is a scheduled one.
	neverScheduled = 24 * time.Hour
)

// world is everything that runs.
type world struct {
	dir      string // for files; removed at the end
	env      *envtest.Environment
	client   client.WithWatch
	managers []*replica
}

// replica is a manager.
type replica struct {
	*harness.Manager

	address string // of forward-auth
}

// newWorld starts a control plane and the managers. On an error nothing is left.
func newWorld(ctx context.Context, managerBinary string) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.printLogs()
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "jwks-trust-lifecycle-"); err != nil {
		return w, err
	}
	say("Starting etcd, kube-apiserver and two managers ...")
	if err = w.startControlPlane(); err != nil {
		return w, err
	}
	if err = w.install(ctx); err != nil {
		return w, err
	}
	for n := range replicas {
		m, err := w.startManager(ctx, managerBinary, fmt.Sprintf("manager-%d", n+1))
		if m != nil {
			w.managers = append(w.managers, m)
		}
		if err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) startControlPlane() (err error) {
	if w.env, err = harness.NewControlPlane(true, nil); err != nil {
		return err
	}
	config, err := w.env.Start()
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	if err := os.WriteFile(w.path("admin.yaml"), w.env.KubeConfig, 0o600); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		return err
	}
	unlimited := rest.CopyConfig(config)
	unlimited.QPS = -1 // what is measured is the manager, not this client
	w.client, err = client.NewWithWatch(unlimited, client.Options{Scheme: scheme})
	return err
}

// install makes the namespaces and gives the manager its rights.
func (w *world) install(ctx context.Context) error {
	for _, name := range []string{harness.OperatorNamespace, namespace} {
		if err := w.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	if _, err := w.kubectl(ctx, "apply", "-k", filepath.Join(harness.Root(), "config", "rbac")); err != nil {
		return err
	}
	token, err := w.kubectl(ctx, "create", "token", "jwks-trust-manager", "-n", harness.OperatorNamespace, "--duration=24h")
	if err != nil {
		return err
	}
	config, err := clientcmd.LoadFromFile(w.path("admin.yaml"))
	if err != nil {
		return err
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: strings.TrimSpace(token)}
	}
	return clientcmd.WriteToFile(*config, w.path("manager.yaml"))
}

func (w *world) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(harness.Assets(), "kubectl"), append([]string{"--kubeconfig", w.path("admin.yaml")}, args...)...) //nolint:gosec // our own build
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

// startManager starts one and waits until it is ready. A manager that was started is
// returned in any case, to be stopped.
func (w *world) startManager(ctx context.Context, binary, name string) (*replica, error) {
	address, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	m, err := harness.StartManager(ctx, binary, name, w.path(name+".log"),
		"--kubeconfig", w.path("manager.yaml"), "--leader-elect", "--verifier-http-bind-address", address)
	if m == nil {
		return nil, err
	}
	return &replica{m, address}, err
}

// check reports a manager that ended, which makes every figure worthless.
func (w *world) check() error {
	for _, m := range w.managers {
		if m.Ended() {
			return fmt.Errorf("%s ended", m.Name)
		}
	}
	return nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// close stops everything and removes the files.
func (w *world) close() {
	for _, m := range w.managers {
		m.Stop()
	}
	if w.env != nil {
		if err := w.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
		}
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// printLogs shows the end of the managers' logs, after a failure.
func (w *world) printLogs() {
	for _, m := range w.managers {
		m.PrintLog()
	}
}

// inWorld measures something in a world of its own.
func inWorld(ctx context.Context, managerBinary string, measure func(*world) error) error {
	w, err := newWorld(ctx, managerBinary)
	if err != nil {
		return err
	}
	defer w.close()
	if err = errors.Join(measure(w), w.check()); err != nil {
		w.printLogs()
	}
	return err
}
