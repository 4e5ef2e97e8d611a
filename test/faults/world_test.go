// world_test.go starts and ends the real parts.

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// mended is how long it may take, after a fault has ended, until all is as if it had
// never been.
const mended = 30 * time.Second

// world is a control plane.
type world struct {
	env    *envtest.Environment
	config *rest.Config // the administrator's, past all proxies
	api    client.WithWatch
	dir    string
	seen   *witness // of the shared world

	mu    sync.Mutex
	again []*exec.Cmd // etcd and API servers that were started again
}

// newWorld starts a control plane; close ends it.
func newWorld(flags map[string]string, edits ...func(*envtest.Environment)) (*world, error) {
	env, err := harness.NewControlPlane(true, flags)
	if err != nil {
		return nil, err
	}
	for _, edit := range edits {
		edit(env)
	}
	w := &world{env: env}
	if w.config, err = env.Start(); err != nil {
		return nil, errors.Join(err, env.Stop())
	}
	w.config.QPS = -1
	scheme := runtime.NewScheme()
	err = errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), api.AddToScheme(scheme))
	if err == nil {
		w.api, err = client.NewWithWatch(w.config, client.Options{Scheme: scheme})
	}
	if err == nil {
		w.dir, err = os.MkdirTemp("", "jwks-trust-world-")
	}
	if err == nil {
		err = w.namespace(harness.OperatorNamespace, nil)
	}
	if err != nil {
		w.close()
	}
	return w, err
}

func (w *world) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.again) - 1; i >= 0; i-- { // the API server before its etcd
		_ = w.again[i].Process.Kill() // it may have ended
		_ = w.again[i].Wait()
	}
	_ = w.env.Stop()
	_ = os.RemoveAll(w.dir)
}

// shared is a world for all tests that do not harm it.
var shared = sync.OnceValues(func() (*world, error) {
	w, err := newWorld(nil)
	if err == nil {
		w.seen, err = watchAll(w)
	}
	sharedStarted.Store(true)
	return w, err
})

var sharedStarted atomic.Bool

func closeShared() {
	if !sharedStarted.Load() {
		return
	}
	if w, err := shared(); err == nil {
		w.seen.close()
		w.close()
	}
}

// inShared is the shared world.
func inShared(t *testing.T) *world {
	t.Helper()
	w, err := shared()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return w
}

// ownWorld is a world that the test may harm.
func ownWorld(t *testing.T, flags map[string]string, edits ...func(*envtest.Environment)) *world {
	t.Helper()
	w, err := newWorld(flags, edits...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(w.close)
	return w
}

func (w *world) namespace(name string, labels map[string]string) error {
	return w.api.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// process finds the process of this test whose command line has the text.
func process(program, text string) (pid int, args []string, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, nil, err
	}
	for _, stat := range all {
		content, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid: the name may have spaces.
		fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if filepath.Base(args[0]) != program || !strings.Contains(string(line), text) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		return pid, args, err
	}
	return 0, nil, fmt.Errorf("no %s of ours is running", program)
}

// killed ends etcd or the API server without a warning. start starts it again, as it
// was.
func (w *world) killed(g Gomega, program string) (start func(g Gomega)) {
	marks := map[string]string{"etcd": w.env.ControlPlane.Etcd.DataDir, "kube-apiserver": w.env.ControlPlane.APIServer.CertDir}
	pid, args, err := process(program, marks[program])
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
	w.reap(pid)
	g.Eventually(func() error { return syscall.Kill(pid, 0) }).WithTimeout(10 * time.Second).ShouldNot(Succeed())
	return func(g Gomega) {
		cmd := exec.Command(args[0], args[1:]...)
		log, err := os.Create(filepath.Join(w.dir, program+".txt"))
		g.Expect(err).NotTo(HaveOccurred())
		cmd.Stdout, cmd.Stderr = log, log
		g.Expect(errors.Join(cmd.Start(), log.Close())).To(Succeed())
		w.mu.Lock()
		w.again = append(w.again, cmd)
		w.mu.Unlock()
	}
}

// reap waits for a process that was started again; envtest waits for its own.
func (w *world) reap(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, cmd := range w.again {
		if cmd.Process.Pid == pid {
			_ = cmd.Wait()
			w.again = append(w.again[:i], w.again[i+1:]...)
			return
		}
	}
}

// healthy reports whether the API server can read and write.
func (w *world) healthy() error {
	return w.api.Create(context.Background(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-", Namespace: "default"}})
}

// instance is a manager with its proxy.
type instance struct {
	*harness.Manager
	proxy   *proxy
	name    string
	program string
	args    []string
	log     string // where it logs to; a file of its own for each start, if empty
}

var instances atomic.Int32

// prepare is a manager behind a proxy with the rights of config, which is still to be
// started.
func (w *world) prepare(g Gomega, config *rest.Config, name string, args ...string) *instance {
	i := &instance{name: fmt.Sprintf("%s-%d", name, instances.Add(1)), program: binary, proxy: newProxy(g, config)}
	file := filepath.Join(w.dir, i.name+".yaml")
	g.Expect(os.WriteFile(file, i.proxy.kubeconfig(), 0o600)).To(Succeed())
	i.args = append([]string{"--kubeconfig", file}, args...)
	return i
}

// launch starts one, and does not wait for it.
func (w *world) launch(g Gomega, config *rest.Config, name string, args ...string) *instance {
	i := w.prepare(g, config, name, args...)
	i.start(g)
	return i
}

// wrapped is a program that does what the shell's text says, which ends with exec.
func wrapped(g Gomega, dir, text string) string {
	file := filepath.Join(dir, fmt.Sprintf("wrapped-%d", instances.Add(1)))
	g.Expect(os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700)).To(Succeed())
	return file
}

// run starts a manager and waits until it is ready.
func (w *world) run(g Gomega, name string, args ...string) *instance {
	i := w.launch(g, w.config, name, args...)
	i.ready(g)
	return i
}

// start starts the process, again or for the first time.
func (i *instance) start(g Gomega) {
	log := i.log
	if log == "" {
		log = filepath.Join(logs, fmt.Sprintf("%s.%d.log", i.name, instances.Add(1)))
	}
	m, err := harness.LaunchManager(i.program, i.name, log, i.args...)
	g.Expect(err).NotTo(HaveOccurred())
	i.Manager = m
}

func (i *instance) ready(g Gomega) {
	g.Eventually(i.Ready).WithTimeout(time.Minute).WithPolling(50*time.Millisecond).Should(BeTrue(), "%s becomes ready", i.name)
}

// end ends the process and its proxy. It may be called again.
func (i *instance) end() {
	if i.Manager != nil && !i.Ended() {
		i.Kill()
	}
	i.proxy.close()
}

// newIssuer starts an issuer that publishes the keys.
func newIssuer(g Gomega, keys ...*testissuer.Key) *testissuer.Issuer {
	i, err := testissuer.Start()
	g.Expect(err).NotTo(HaveOccurred())
	i.Publish(keys...)
	return i
}

// Keys are made once.
var (
	key1 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("k1", "ES256") })
	key2 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("k2", "RS256") })
	key3 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("k3", "EdDSA") })
)

// specFor trusts the issuer.
func specFor(i *testissuer.Issuer) api.IssuerSpec {
	return api.IssuerSpec{Issuer: i.URL(), Audiences: []string{"orders"}, JWKSURI: i.JWKSURI(), CABundle: i.CABundle()}
}

// failure is what failing catches.
type failure string

// failing runs what expects things, away from the test's own goroutine, and gives
// what it expected in vain.
func failing(do func(g Gomega)) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = errors.New(string(p))
		default:
			panic(p)
		}
	}()
	do(NewGomega(func(message string, _ ...int) { panic(failure(message)) }))
	return nil
}
