// cluster.go is what benchmarks run on: a control plane with our CRDs and rights,
// and managers that have those rights and no others.

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

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
)

// Cluster is a running control plane.
type Cluster struct {
	// Client is the administrator's, without a limit of its own: what is measured
	// is the manager, not this client.
	Client client.WithWatch
	// Config is what it was made from.
	Config *rest.Config

	dir      string // for files; removed at the end
	env      *envtest.Environment
	managers []*Manager
}

// StartCluster starts a control plane with our CRDs, and gives the manager its
// rights. On an error nothing is left.
func StartCluster(ctx context.Context, namespaces ...string) (c *Cluster, err error) {
	c = &Cluster{}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "jwks-trust-"); err != nil {
		return c, err
	}
	if c.env, err = NewControlPlane(true, nil); err != nil {
		return c, err
	}
	config, err := c.env.Start()
	if err != nil {
		return c, fmt.Errorf("starting the control plane: %w", err)
	}
	if err = os.WriteFile(c.Path("admin.yaml"), c.env.KubeConfig, 0o600); err != nil {
		return c, err
	}
	scheme := runtime.NewScheme()
	if err = errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		return c, err
	}
	c.Config = rest.CopyConfig(config)
	c.Config.QPS = -1
	if c.Client, err = client.NewWithWatch(c.Config, client.Options{Scheme: scheme}); err != nil {
		return c, err
	}
	for _, name := range append([]string{OperatorNamespace}, namespaces...) {
		if err = c.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return c, err
		}
	}
	return c, c.install(ctx)
}

// The components of a manager. Both is a process that is both, and has the rights of
// both.
const (
	Controller = "controller"
	Verifier   = "verifier"
	Both       = "both"
)

// install gives each component its rights, and a kubeconfig with them.
func (c *Cluster) install(ctx context.Context) error {
	if _, err := c.kubectl(ctx, "apply", "-k", filepath.Join(Root(), "config", "rbac")); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "create", "serviceaccount", "jwks-trust-"+Both, "-n", OperatorNamespace); err != nil {
		return err
	}
	for _, of := range []string{Controller, Verifier} {
		for _, kind := range []string{"role", "clusterrole"} {
			if _, err := c.kubectl(ctx, "create", kind+"binding", Both+"-"+of, "--"+kind+"=jwks-trust-"+of,
				"--serviceaccount="+OperatorNamespace+":jwks-trust-"+Both, "-n", OperatorNamespace); err != nil {
				return err
			}
		}
	}
	return errors.Join(c.actAs(ctx, Controller), c.actAs(ctx, Verifier), c.actAs(ctx, Both))
}

// actAs writes a kubeconfig with a token of a component's service account.
func (c *Cluster) actAs(ctx context.Context, component string) error {
	token, err := c.kubectl(ctx, "create", "token", "jwks-trust-"+component, "-n", OperatorNamespace, "--duration=24h")
	if err != nil {
		return err
	}
	config, err := clientcmd.LoadFromFile(c.Path("admin.yaml"))
	if err != nil {
		return err
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: strings.TrimSpace(token)}
	}
	return clientcmd.WriteToFile(*config, c.Path(component+".yaml"))
}

func (c *Cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(Assets(), "kubectl"), append([]string{"--kubeconfig", c.Path("admin.yaml")}, args...)...) //nolint:gosec // our own build
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

// StartManager starts a manager, of the component and with its rights, and waits until
// it is ready. It ends with the cluster, if not before.
func (c *Cluster) StartManager(ctx context.Context, binary, component, name string, args ...string) (*Manager, error) {
	args = append(args, "--kubeconfig", c.Path(component+".yaml"))
	if component != Both {
		args = append(args, "--components", component)
	}
	m, err := StartManager(ctx, binary, name, c.Path(name+".log"), args...)
	if m != nil {
		c.managers = append(c.managers, m)
	}
	return m, err
}

// Check reports a manager that ended without having been told to, which makes every
// figure worthless.
func (c *Cluster) Check() error {
	for _, m := range c.managers {
		if m.Ended() && !m.told {
			return fmt.Errorf("%s ended", m.Name)
		}
	}
	return nil
}

// Path is that of a file, which is removed at the end.
func (c *Cluster) Path(name string) string { return filepath.Join(c.dir, name) }

// Close stops everything and removes the files.
func (c *Cluster) Close() {
	for _, m := range c.managers {
		m.Stop()
	}
	if c.env != nil {
		if err := c.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
		}
	}
	if c.dir != "" {
		_ = os.RemoveAll(c.dir)
	}
}

// PrintLogs shows the end of the managers' logs, after a failure.
func (c *Cluster) PrintLogs() {
	for _, m := range c.managers {
		m.PrintLog()
	}
}

// InCluster measures something in a cluster of its own.
func InCluster(ctx context.Context, measure func(*Cluster) error, namespaces ...string) error {
	c, err := StartCluster(ctx, namespaces...)
	if err != nil {
		return err
	}
	defer c.Close()
	if err = errors.Join(measure(c), c.Check()); err != nil {
		c.PrintLogs()
	}
	return err
}
