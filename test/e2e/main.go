// Command e2e installs the operator on a real Kubernetes node and uses it as a
// platform team does: chart, pods, a mounted key set, a rotation, a roll-out, an
// upgrade and an uninstallation, under requests that must not fail.
//
// It needs root on Linux, containerd, runc, the CNI plugins, iptables, conntrack and
// buildah. Everything runs in namespaces of its own and ends with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// options are the command line.
type options struct {
	programs, helm, from string
	keep, smoke          bool
}

func main() {
	var o options
	flag.StringVar(&o.programs, "node-programs", "bin/node", "the folder with kubelet, kube-proxy and kube-scheduler")
	flag.StringVar(&o.helm, "helm", "bin/tools/helm", "helm")
	flag.StringVar(&o.from, "from", "", "the commit or tag whose chart and image are upgraded from; empty for the sources as they are")
	flag.BoolVar(&o.smoke, "smoke", false, "only install, and verify a token")
	flag.BoolVar(&o.keep, "keep", false, "leave everything running at the end, until interrupted")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := 0, error(nil)
	if dir := os.Getenv(inside); dir != "" {
		err = runInside(ctx, o, dir)
	} else {
		code, err = runOutside(ctx, o)
	}
	stop()
	var no *noNode
	switch {
	case errors.As(err, &no):
		fmt.Fprintf(os.Stderr, "\nNo node can run on this machine: %v\n", err)
		code = exitNoNode
	case err != nil:
		fmt.Fprintf(os.Stderr, "\nThe end-to-end test FAILED: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

// exitNoNode is the exit code on a machine that lacks what a node needs, so that
// nothing has been tested.
const exitNoNode = 3

// noNode is an error of the machine, and not of what is tested.
type noNode struct{ error }

func (e *noNode) Unwrap() error { return e.error }

// runOutside makes the images, which may need the network, and goes inside.
func runOutside(ctx context.Context, o options) (code int, err error) {
	if os.Getuid() != 0 {
		return 0, &noNode{errors.New("a node needs root: run it as root")}
	}
	dir, err := os.MkdirTemp("", "jwks-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeGroups(), os.RemoveAll(dir)) }()
	fmt.Println("==> Building the images")
	if err := checkOut(ctx, dir, o.from); err != nil {
		return 0, err
	}
	if err := buildImages(ctx, dir); err != nil {
		return 0, err
	}
	return enter(dir)
}

// runInside starts the cluster, and has the steps done one after the other.
func runInside(ctx context.Context, o options, dir string) (err error) {
	started := time.Now()
	pid, err := os.Readlink("/proc/self") // outside: /proc is still that of before
	if err != nil {
		return err
	}
	if err := arrange(); err != nil {
		return &noNode{err}
	}
	fmt.Println("==> Starting a node")
	w := &world{options: o}
	defer func() {
		if err != nil {
			w.explain()
		}
		w.stop()
	}()
	if w.node, err = startNode(ctx, dir, o.programs); err != nil {
		return &noNode{err}
	}
	steps := steps
	if o.smoke {
		steps = steps[:smokeSteps]
	}
	for i, s := range steps {
		fmt.Printf("\n── %d/%d  %s\n", i+1, len(steps), s.title)
		before := time.Now()
		if err := s.do(ctx, w); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, s.title, err)
		}
		fmt.Printf("   (%s)\n", time.Since(before).Round(time.Second))
	}
	fmt.Printf("\nAll %d steps went as they say, in %s.\n", len(steps), time.Since(started).Round(time.Second))
	if o.keep {
		fmt.Printf("\nIt goes on running until you interrupt it. From another terminal:\n"+
			"  nsenter -t %s -n -m -p %s --kubeconfig %s get pods -A\n",
			pid, filepath.Join(harness.Assets(), "kubectl"), w.path("admin.yaml"))
		<-ctx.Done()
	}
	return nil
}
