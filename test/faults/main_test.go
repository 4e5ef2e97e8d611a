// Package faults breaks what the product stands on, while it works: its process,
// the API server, etcd, issuers, certificates, rights. The manager is the real
// binary, in processes of its own; etcd, kube-apiserver and Kubernetes' controllers
// are real; issuers are real TLS servers.
//
// The manager talks to the API server through a proxy of the test's (server_test.go),
// which can end the process at any write, before or after the server has seen it,
// answer with conflicts, cut watches, or be gone. A witness (witness_test.go) reads
// every version of every object past that proxy, and judges the whole history: there
// was no moment at which a verifier could have found no trusted keys.
//
// `make test` runs a bounded part; `make faults` all of it (-full). What came out is
// printed at the end, and is the table in docs/reliability.md (report_test.go).
package faults

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

var (
	full     = flag.Bool("full", false, "run all faults, not only those that are quick")
	given    = flag.String("manager", "", "the manager's binary, in place of one that is built now")
	reportTo = flag.String("report", "", "write the figures to this file too")
	intoDocs = flag.Bool("docs", false, "write them into docs/reliability.md, if all is well")
	keep     = flag.String("logs", "", "keep the logs of all processes in this folder, which must not exist")
	// binary is the manager under test.
	binary string
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // every test skips itself
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	if err := flag.Set("test.parallel", "4"); err != nil { // they mostly wait
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "jwks-trust-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if logs = *keep; logs == "" {
		logs = filepath.Join(dir, "logs")
	}
	if binary = *given; binary == "" {
		binary = filepath.Join(dir, "manager")
		err = build(binary)
	}
	if err = errors.Join(err, os.Mkdir(logs, 0o700)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	closeShared()
	closeToxiproxy()
	if err := scanLogs(); err != nil {
		fmt.Fprintln(os.Stderr, "--- FAIL: the managers' logs:", err)
		code = 1
	}
	if err := figures.write(code == 0 && *intoDocs); err != nil {
		fmt.Fprintln(os.Stderr, "--- FAIL: the figures:", err)
		code = 1
	}
	return code
}

// build builds the manager, with the race detector where this test has it.
func build(to string, args ...string) error {
	args = append([]string{"build", "-o", to}, args...)
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/manager")...)
	cmd.Dir = harness.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the manager: %w\n%s", err, out)
	}
	return nil
}

// needsControlPlane skips a test where there is none by intent.
func needsControlPlane(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a control plane")
	}
}

// needsTime skips a test that the bounded run has no time for.
func needsTime(t *testing.T) {
	t.Helper()
	needsControlPlane(t)
	if !*full {
		t.Skip("make faults runs it")
	}
}

// logs is the folder with the logs of all processes.
var logs string

// scanLogs looks through what the managers logged for what must never be there: a
// token, a data race, a panic.
func scanLogs() error {
	files, err := filepath.Glob(filepath.Join(logs, "*.log"))
	if err != nil {
		return err
	}
	lines := 0
	for _, name := range files {
		n, err := scanLog(name)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		lines += n
	}
	if lines > 0 {
		figures.add("all of the above", "no token, no panic and no data race in the managers' logs", "0 in %d lines of %d logs", lines, len(files))
	}
	return nil
}

func scanLog(name string) (lines int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		for _, bad := range []string{"eyJ", "DATA RACE", "panic:", "A request panicked"} {
			if strings.Contains(s.Text(), bad) {
				return lines, fmt.Errorf("it has %q: %.300s", bad, s.Text())
			}
		}
	}
	return lines, nil
}
