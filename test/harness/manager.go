// manager.go runs programs as processes: the manager's binary, Kubernetes' own
// controllers, and others.

package harness

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
)

// Manager is a running process.
type Manager struct {
	// Name is for people, and LogPath the file with its log.
	Name, LogPath string
	// Probes is where /healthz and /readyz are.
	Probes string

	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
	told   bool // to end
}

// StartManager starts the binary and waits until it is ready. A manager that was
// started is returned in any case, to be stopped.
func StartManager(ctx context.Context, binary, name, logPath string, args ...string) (*Manager, error) {
	m, err := LaunchManager(binary, name, logPath, args...)
	if err != nil {
		return nil, err
	}
	return m, Within(ctx, time.Minute, 100*time.Millisecond, name+" to become ready", func() (bool, error) {
		if m.Ended() {
			return false, errors.New("the manager ended")
		}
		return m.Ready(), nil
	})
}

// LaunchManager starts the binary and does not wait. The arguments given come after
// those that it always has, and so win.
func LaunchManager(binary, name, logPath string, args ...string) (*Manager, error) {
	probes, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	m, err := StartProgram(name, logPath, binary, append([]string{
		"--operator-namespace", OperatorNamespace,
		"--egress-allow-cidr", "127.0.0.0/8",
		"--health-probe-bind-address", probes,
	}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("starting the manager (make build makes it): %w", err)
	}
	m.Probes = probes
	return m, nil
}

// Ready is what /readyz says. A manager that does not listen is not ready.
func (m *Manager) Ready() bool {
	resp, err := http.Get("http://" + m.Probes + "/readyz") //nolint:noctx // a loopback address of ours
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// StartControllers starts these of the controllers of kube-controller-manager, with
// the rights of a kubeconfig. ErrNoAssets means that it has not been built.
func StartControllers(kubeconfig, logPath string, controllers ...string) (*Manager, error) {
	binary := filepath.Join(Assets(), "kube-controller-manager")
	if _, err := os.Stat(binary); err != nil {
		return nil, ErrNoAssets
	}
	return StartProgram("kube-controller-manager", logPath, binary,
		"--kubeconfig", kubeconfig, "--controllers", strings.Join(controllers, ","),
		"--leader-elect=false", "--secure-port=0")
}

// StartProgram runs a program that ends with Stop. Its output goes to the log.
func StartProgram(name, logPath, binary string, args ...string) (*Manager, error) {
	m := &Manager{Name: name, LogPath: logPath, exited: make(chan struct{})}
	var err error
	if m.log, err = os.Create(logPath); err != nil { //nolint:gosec // a path of ours
		return nil, err
	}
	m.cmd = exec.Command(binary, args...) //nolint:gosec // a binary that make built
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(err, m.log.Close())
	}
	go func() {
		_ = m.cmd.Wait() // its exit is what matters, not the code
		close(m.exited)
	}()
	return m, nil
}

// Ended reports whether the process is gone.
func (m *Manager) Ended() bool {
	select {
	case <-m.exited:
		return true
	default:
		return false
	}
}

// Stop ends it, by force where it takes longer than half a minute. A nil manager
// was never started.
func (m *Manager) Stop() {
	if m == nil {
		return
	}
	m.told = true
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-m.exited:
	case <-time.After(30 * time.Second):
		_ = m.cmd.Process.Kill()
	}
	_ = m.log.Close()
}

// Kill ends it as a power failure would, and returns when it is gone.
func (m *Manager) Kill() {
	m.told = true
	_ = m.cmd.Process.Kill() // it may have ended already
	<-m.exited
	_ = m.log.Close()
}

// Terminate asks it to end, as the kubelet does, and does not wait.
func (m *Manager) Terminate() error { return m.cmd.Process.Signal(syscall.SIGTERM) }

// Exited is closed when it has ended.
func (m *Manager) Exited() <-chan struct{} { return m.exited }

// PrintLog shows the end of its log, after a failure.
func (m *Manager) PrintLog() {
	if m == nil {
		return
	}
	content, err := os.ReadFile(m.LogPath)
	if err != nil {
		return
	}
	const most = 8 << 10
	content = content[max(0, len(content)-most):]
	fmt.Fprintf(os.Stderr, "\nThe end of the log of %s:\n", m.Name)
	_, _ = io.Copy(os.Stderr, bytes.NewReader(content))
}

// Within looks for a condition every so often, with a sign of life every ten seconds.
func Within(ctx context.Context, limit, every time.Duration, what string, done func() (bool, error)) error {
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
			fmt.Printf("   ... waiting for %s (%s)\n", what, time.Since(started).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s", time.Since(started).Round(time.Second), what)
		case <-tick.C:
		}
	}
}
