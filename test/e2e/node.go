// node.go is a Kubernetes cluster of one node, out of its real programs: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet and
// kube-proxy. It runs in namespaces of its own (namespaces.go), so it may do with
// addresses, iptables and mounts what it likes.

package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	nodeName = "e2e"
	// hostIP is the node's address; the API server's may not be a loopback one.
	hostIP = "10.250.0.1"
	// podNet and serviceNet are the ranges of pods and of services, and apiService
	// is where pods find the API server.
	podNet, serviceNet, apiService = "10.251.0.0/24", "10.96.0.0/16", "10.96.0.1"
	apiServer                      = "https://" + hostIP + ":6443"
)

// node is the cluster.
type node struct {
	dir      string // for all files
	programs string // the folder with kubelet and others
	running  []*harness.Manager
}

// startNode starts everything, and returns once the API server answers.
func startNode(ctx context.Context, dir, programs string) (*node, error) {
	n := &node{dir: dir, programs: programs}
	for _, start := range []func(context.Context) error{n.prepare, n.startControlPlane, n.startContainerd, n.startNodeAgents, n.tryPod} {
		if err := start(ctx); err != nil {
			return n, err
		}
	}
	return n, nil
}

// stop ends the programs, the newest first. A nil node has none.
func (n *node) stop() {
	if n == nil {
		return
	}
	for i := len(n.running) - 1; i >= 0; i-- {
		n.running[i].Stop()
	}
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// run starts a program that goes on; a program of Kubernetes' by its name.
func (n *node) run(name, binary string, args ...string) error {
	m, err := harness.StartProgram(name, n.path(name+".log"), binary, args...)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	n.running = append(n.running, m)
	return nil
}

// prepare makes the addresses, the certificates and the kubeconfigs.
func (n *node) prepare(ctx context.Context) error {
	for _, command := range []string{
		"ip link set lo up", "ip addr add " + hostIP + "/32 dev lo",
		// Requests of this process' own, before kube-proxy's rules send them on.
		"ip route add " + serviceNet + " dev lo src " + hostIP,
		"sysctl -q -w net.ipv4.ip_forward=1",
	} {
		if err := quietly(ctx, strings.Fields(command)...); err != nil {
			return err
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	ca, err := harness.NewAuthority("e2e")
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(n.path("sa.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(n.path("ca.crt"), ca.PEM(), 0o600),
	); err != nil {
		return err
	}
	for user, group := range map[string]string{
		"admin": "system:masters", "system:kube-controller-manager": "", "system:kube-scheduler": "",
		"system:kube-proxy": "", "system:node:" + nodeName: "system:nodes",
	} {
		if err := n.kubeconfig(ca, user, group); err != nil {
			return err
		}
	}
	cert, serverKey, err := ca.Issue("kube-apiserver", func(c *x509.Certificate) {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(hostIP), net.ParseIP(apiService))
		c.Subject.Organization = []string{"system:masters"} // as a client, of the kubelet
	})
	return errors.Join(err, os.WriteFile(n.path("apiserver.crt"), cert, 0o600), os.WriteFile(n.path("apiserver.key"), serverKey, 0o600))
}

// kubeconfig writes that of a user: "system:node:e2e" has node.yaml, and so on.
func (n *node) kubeconfig(ca *harness.Authority, user, group string) error {
	cert, key, err := ca.Issue(user, func(c *x509.Certificate) {
		if group != "" {
			c.Subject.Organization = []string{group}
		}
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(hostIP)) // the kubelet serves with it
	})
	if err != nil {
		return err
	}
	c := clientcmdapi.NewConfig()
	c.Clusters[nodeName] = &clientcmdapi.Cluster{Server: apiServer, CertificateAuthorityData: ca.PEM()}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts[nodeName] = &clientcmdapi.Context{Cluster: nodeName, AuthInfo: user}
	c.CurrentContext = nodeName
	name := strings.TrimSuffix(strings.TrimPrefix(user, "system:"), ":"+nodeName)
	return errors.Join(
		clientcmd.WriteToFile(*c, n.path(name+".yaml")),
		os.WriteFile(n.path(name+".crt"), cert, 0o600), os.WriteFile(n.path(name+".key"), key, 0o600),
	)
}

func (n *node) startControlPlane(ctx context.Context) error {
	assets := harness.Assets()
	if err := n.run("etcd", filepath.Join(assets, "etcd"),
		"--data-dir", n.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380"); err != nil {
		return err
	}
	if err := n.run("kube-apiserver", filepath.Join(assets, "kube-apiserver"),
		"--etcd-servers", "http://127.0.0.1:2379",
		"--bind-address", "0.0.0.0", "--advertise-address", hostIP, "--secure-port", "6443",
		"--tls-cert-file", n.path("apiserver.crt"), "--tls-private-key-file", n.path("apiserver.key"),
		"--client-ca-file", n.path("ca.crt"),
		"--kubelet-client-certificate", n.path("apiserver.crt"), "--kubelet-client-key", n.path("apiserver.key"),
		"--kubelet-certificate-authority", n.path("ca.crt"), "--kubelet-preferred-address-types", "InternalIP",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", n.path("sa.key"),
		"--service-account-signing-key-file", n.path("sa.key"), "--service-cluster-ip-range", serviceNet,
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction"); err != nil {
		return err
	}
	if err := harness.Within(ctx, 2*time.Minute, 500*time.Millisecond, "the API server", func() (bool, error) {
		return n.kubectlQuiet(ctx, "get", "--raw", "/readyz") == nil, nil
	}); err != nil {
		return err
	}
	return errors.Join(
		n.run("kube-controller-manager", filepath.Join(assets, "kube-controller-manager"),
			"--kubeconfig", n.path("kube-controller-manager.yaml"), "--leader-elect=false", "--use-service-account-credentials",
			"--service-account-private-key-file", n.path("sa.key"), "--root-ca-file", n.path("ca.crt")),
		n.run("kube-scheduler", filepath.Join(n.programs, "kube-scheduler"),
			"--kubeconfig", n.path("kube-scheduler.yaml"), "--leader-elect=false"),
	)
}

const containerdConfig = `version = 2
root = "%[1]s/containerd/root"
state = "%[1]s/containerd/state"
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + appImage + `"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

const cniConfig = `{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{
  "type": "bridge", "bridge": "e2e0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "%[1]s/ipam",
    "ranges": [[{"subnet": "` + podNet + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
`

func (n *node) startContainerd(ctx context.Context) error {
	if err := errors.Join(
		os.MkdirAll(n.path("cni"), 0o700),
		os.WriteFile(n.path("cni/10-e2e.conflist"), fmt.Appendf(nil, cniConfig, n.dir), 0o600),
		os.WriteFile(n.path("containerd.toml"), fmt.Appendf(nil, containerdConfig, n.dir), 0o600),
	); err != nil {
		return err
	}
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	if err := n.run("containerd", containerd, "--config", n.path("containerd.toml")); err != nil {
		return err
	}
	ctr := []string{"ctr", "--address", n.path("containerd.sock"), "-n", "k8s.io"}
	if err := harness.Within(ctx, time.Minute, 200*time.Millisecond, "containerd", func() (bool, error) {
		return quietly(ctx, append(ctr, "version")...) == nil, nil
	}); err != nil {
		return err
	}
	images, err := archives(n.dir)
	if err != nil {
		return err
	}
	for _, archive := range images {
		if err := quietly(ctx, append(ctr, "images", "import", archive)...); err != nil {
			return err
		}
	}
	return nil
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: %[1]s/ca.crt}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://%[1]s/containerd.sock
tlsCertFile: %[1]s/node.crt
tlsPrivateKeyFile: %[1]s/node.key
podLogsDir: %[1]s/pods
volumePluginDir: %[1]s/plugins
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 50Mi}
resolvConf: ""
`

func (n *node) startNodeAgents(ctx context.Context) error {
	if err := os.WriteFile(n.path("kubelet.yaml"), fmt.Appendf(nil, kubeletConfig, n.dir), 0o600); err != nil {
		return err
	}
	if err := errors.Join(
		n.run("kubelet", filepath.Join(n.programs, "kubelet"),
			"--config", n.path("kubelet.yaml"), "--kubeconfig", n.path("node.yaml"),
			"--root-dir", n.path("kubelet"), "--hostname-override", nodeName, "--node-ip", hostIP),
		n.run("kube-proxy", filepath.Join(n.programs, "kube-proxy"),
			"--kubeconfig", n.path("kube-proxy.yaml"), "--hostname-override", nodeName,
			"--proxy-mode", "iptables", "--cluster-cidr", podNet, "--conntrack-max-per-core=0"),
	); err != nil {
		return err
	}
	return harness.Within(ctx, 2*time.Minute, time.Second, "the node", func() (bool, error) {
		return n.kubectlQuiet(ctx, "wait", "--for=condition=Ready", "--timeout=1s", "node/"+nodeName) == nil, nil
	})
}

// tryPod runs a pod that does nothing, to tell a machine on which none can run from a
// fault of what is tested.
func (n *node) tryPod(ctx context.Context) error {
	// The service account of the namespace comes a moment after it.
	if err := harness.Within(ctx, time.Minute, time.Second, "the first pod to be admitted", func() (bool, error) {
		return n.kubectlQuiet(ctx, "run", "try", "--image", appImage, "--image-pull-policy=Never") == nil, nil
	}); err != nil {
		return err
	}
	if err := n.kubectlQuiet(ctx, "wait", "--for=condition=Ready", "--timeout=90s", "pod/try"); err != nil {
		why, _ := n.output(ctx, "describe", "pod/try")
		return fmt.Errorf("no pod runs: %w\n%s", err, why)
	}
	return n.kubectlQuiet(ctx, "delete", "pod/try", "--now")
}

// kubectlQuiet runs kubectl as the administrator, and shows nothing.
func (n *node) kubectlQuiet(ctx context.Context, args ...string) error {
	_, err := n.output(ctx, args...)
	return err
}

// output is what kubectl prints.
func (n *node) output(ctx context.Context, args ...string) (string, error) {
	return outputOf(ctx, append([]string{filepath.Join(harness.Assets(), "kubectl"), "--kubeconfig", n.path("admin.yaml")}, args...)...)
}

// quietly runs a program; its output is part of the error.
func quietly(ctx context.Context, command ...string) error {
	_, err := outputOf(ctx, command...)
	return err
}

func outputOf(ctx context.Context, command ...string) (string, error) {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput() //nolint:gosec // commands of ours
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return string(out), nil
}
