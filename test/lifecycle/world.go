// world.go starts and stops the parts: etcd and kube-apiserver, two replicas of the
// manager with the rights that config/rbac gives it, and the objects.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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
	name    string
	address string // of forward-auth
	cmd     *exec.Cmd
	exited  chan struct{}
	log     *os.File
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
	m := &replica{name: name, exited: make(chan struct{})}
	probes, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	if m.address, err = harness.FreeAddress(); err != nil {
		return nil, err
	}
	if m.log, err = os.Create(w.path(name + ".log")); err != nil {
		return nil, err
	}
	m.cmd = exec.Command(binary, //nolint:gosec // the binary that make built
		"--kubeconfig", w.path("manager.yaml"),
		"--operator-namespace", harness.OperatorNamespace,
		"--leader-elect",
		"--verifier-http-bind-address", m.address,
		"--egress-allow-cidr", "127.0.0.0/8",
		"--health-probe-bind-address", probes,
	)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the manager (make build makes it): %w", errors.Join(err, m.log.Close()))
	}
	go func() {
		_ = m.cmd.Wait() // its exit is what matters, not the code
		close(m.exited)
	}()
	return m, within(ctx, time.Minute, 100*time.Millisecond, name+" to become ready", func() (bool, error) {
		if m.ended() {
			return false, errors.New("the manager ended")
		}
		resp, err := http.Get("http://" + probes + "/readyz") //nolint:noctx // a loopback address of ours
		if err != nil {
			return false, nil //nolint:nilerr // not listening yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

func (m *replica) ended() bool {
	select {
	case <-m.exited:
		return true
	default:
		return false
	}
}

// check reports a manager that ended, which makes every figure worthless.
func (w *world) check() error {
	for _, m := range w.managers {
		if m.ended() {
			return fmt.Errorf("%s ended", m.name)
		}
	}
	return nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// close stops everything and removes the files.
func (w *world) close() {
	for _, m := range w.managers {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	}
	for _, m := range w.managers {
		select {
		case <-m.exited:
		case <-time.After(30 * time.Second):
			_ = m.cmd.Process.Kill()
		}
		_ = m.log.Close()
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
		content, err := os.ReadFile(w.path(m.name + ".log"))
		if err != nil {
			continue
		}
		const most = 4 << 10
		content = content[max(0, len(content)-most):]
		fmt.Fprintf(os.Stderr, "\nThe end of the log of %s:\n", m.name)
		_, _ = io.Copy(os.Stderr, bytes.NewReader(content))
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

// within looks for a condition every so often, with a sign of life every ten seconds.
func within(ctx context.Context, limit, every time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	started, told := time.Now(), time.Now()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Since(told) >= 10*time.Second {
			told = time.Now()
			say("... waiting for %s (%s)", what, time.Since(started).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s", time.Since(started).Round(time.Second), what)
		case <-tick.C:
		}
	}
}
