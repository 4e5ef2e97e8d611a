// namespaces.go runs the whole test in namespaces of its own (network, mounts,
// processes), so that nothing of it stays behind: when the first process of the
// namespace ends, however it does, the kernel ends all others, and takes back the
// mounts, bridges and iptables rules.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// inside marks the process that is in the namespaces, and names its folder.
const inside = "JWKS_E2E_INSIDE"

// enter runs this program again inside, and returns its exit code.
func enter(dir string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	signal.Ignore(syscall.SIGINT) // the one inside gets it too, and ends in order
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	case err != nil:
		return 0, &noNode{err}
	}
	return 0, nil
}

// arrange gives the namespaces a /proc of their own, and keeps their mounts to them.
func arrange() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return syscall.Sethostname([]byte(nodeName))
}

// removeGroups removes the control groups of the pods, which are the only thing that
// no namespace holds. The deepest ones go first; their processes have ended.
func removeGroups() error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/kubepods")
	if err != nil {
		return err
	}
	for _, root := range roots {
		var groups []string
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0 && err == nil; i-- {
			err = syscall.Rmdir(groups[i])
		}
		if err != nil {
			return fmt.Errorf("removing control group %s: %w", root, err)
		}
	}
	return nil
}
