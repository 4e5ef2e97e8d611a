package consumers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// process is a program that answers each line on its standard input with a line.
type process struct {
	name    string
	mu      sync.Mutex
	in      io.Writer
	answers *bufio.Reader
	errors  *bytes.Buffer
}

// startProcess starts one, which ends with the test.
func startProcess(t *testing.T, name, dir string, env []string, command ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	p := &process{name: name, errors: &bytes.Buffer{}}
	cmd.Stderr = p.errors
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	p.in, p.answers = in, bufio.NewReader(out)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if t.Failed() && p.errors.Len() > 0 {
			t.Logf("%s said:\n%s", name, p.errors)
		}
	})
	return p
}

// ask sends a line, and returns the one that answers it.
func (p *process) ask(t *testing.T, line string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.ContainsAny(line, "\r\n") {
		t.Fatalf("%q is no line", line)
	}
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	answer, err := p.answers.ReadString('\n')
	if err != nil {
		t.Fatalf("%s has ended: %v", p.name, err)
	}
	return strings.TrimSpace(answer)
}

// wants checks the answer to a token.
func (p *process) wants(t *testing.T, what, token, want string) {
	t.Helper()
	if got := p.ask(t, token); !answers(got, want) {
		t.Errorf("%s: %s said %q, not %q", what, p.name, got, want)
	}
}

// comesToWant waits for an answer.
func (p *process) comesToWant(t *testing.T, what, token, want string) {
	t.Helper()
	within(t, what, func() error {
		if got := p.ask(t, token); !answers(got, want) {
			return fmt.Errorf("%s said %q, not %q", p.name, got, want)
		}
		return nil
	})
}

// answers compares with what is wanted: refused, unavailable, or the subject.
func answers(got, want string) bool {
	switch want {
	case refused:
		return got == "null"
	case unavailable:
		return strings.HasPrefix(got, "unavailable: ")
	default:
		return strings.ReplaceAll(got, " ", "") == fmt.Sprintf(`{"sub":%q}`, want)
	}
}

const refused, unavailable = "refused", "unavailable"
