package peers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits for what others are about to bring about.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// background runs what ends with the test, and waits for that.
func background(t *testing.T, start func(context.Context) error) {
	t.Helper()
	ended := make(chan error, 1)
	ctx := t.Context() // is over before the cleanup begins
	go func() { ended <- start(ctx) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// openDir is a folder that a program can read which gives up its privileges;
// t.TempDir stands in one that it cannot.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peers-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := harness.FreeAddress()
	must(t, err)
	return address
}

// newClient trusts an authority alone, and follows no redirect.
func newClient(t *testing.T, authority *x509.CertPool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// program is the path of a peer. A test must not pass because its peer is missing.
func program(t *testing.T, variable, advice string, candidates ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what needs other programs")
	}
	if path := os.Getenv(variable); path != "" {
		candidates = []string{path}
	}
	for _, name := range candidates {
		if path, err := exec.LookPath(name); err == nil {
			path, err = filepath.Abs(path)
			must(t, err)
			return path
		}
	}
	t.Fatalf("there is no %s: %s (or set %s to its path)", strings.Join(candidates, ", nor "), advice, variable)
	return ""
}

// run starts a program that will listen at the address, and ends it with the test.
func run(t *testing.T, address string, command ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	cmd.Dir = openDir(t) // and what it keeps of its own is there
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // it is ended by a signal
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", command[0], said.String())
		}
	})
	within(t, command[0]+" listens", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s has ended", command[0])
		default:
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// render fills in a configuration of testdata.
func render(t *testing.T, name string, values any) string {
	t.Helper()
	parsed, err := template.New(name).Option("missingkey=error").ParseFiles(filepath.Join("testdata", name))
	must(t, err)
	var out strings.Builder
	must(t, parsed.Execute(&out, values))
	return out.String()
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func splitToken(token string) []string { return strings.Split(token, ".") }
