// commands_test.go finds the commands of a document, and runs them.

package docs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// document is one whose commands are run, each of them.
type document struct {
	name     string
	commands []string
	ran      map[string]bool
	// folder is where they run, with the environment besides the test's own.
	folder string
	env    []string
	// stand are what the document has for what differs from run to run.
	stand map[string]string
}

func open(t *testing.T, name, folder string, env ...string) *document {
	t.Helper()
	d := &document{name: name, commands: commandsIn(read(t, name)), ran: map[string]bool{}, folder: folder, env: env, stand: map[string]string{}}
	t.Cleanup(func() {
		for _, c := range d.commands {
			if !d.ran[c] && !t.Failed() {
				t.Errorf("%s has a command that was not run: %s", name, c)
			}
		}
	})
	return d
}

// commandsIn are the commands in a text's fenced blocks: the lines of those that are
// "sh", and those after a prompt in those that are "console".
func commandsIn(text string) []string {
	var out []string
	language, command, until := "", "", ""
	for line := range strings.SplitSeq(text, "\n") {
		bare := strings.TrimSpace(line)
		if fence, is := strings.CutPrefix(bare, "```"); is {
			language, command = fence, ""
			continue
		}
		part, prompted := strings.CutPrefix(bare, "$ ")
		if command == "" && (language != "sh" && (language != "console" || !prompted) || part == "" || strings.HasPrefix(part, "#")) {
			continue
		}
		if until == "" {
			part, _, _ = strings.Cut(part, "   # ")
		} else {
			part = strings.TrimPrefix(line, "   ") // as it is shown, in a list
		}
		command += part
		if _, word, is := strings.Cut(part, "<<"); is {
			until = word
		}
		switch {
		case until != "" && part != until, strings.HasSuffix(part, `\`):
			command += "\n"
			continue
		}
		out = append(out, strings.TrimSpace(command))
		command, until = "", ""
	}
	return out
}

// run runs the command that begins so, and has these parts; there has to be one. It
// fails the test where the exit code is another.
func (d *document) run(t *testing.T, code int, input, begins string, parts ...string) string {
	t.Helper()
	command := ""
	for _, c := range d.commands {
		fits := strings.HasPrefix(c, begins)
		for _, p := range parts {
			fits = fits && strings.Contains(c, p)
		}
		if fits && (command == "" || !d.ran[c]) {
			command = c
		}
	}
	if command == "" {
		t.Fatalf("%s has no command %q with %q", d.name, begins, parts)
	}
	d.ran[command] = true
	for in, is := range d.stand {
		command = strings.ReplaceAll(command, in, is)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdin = d.folder, append(os.Environ(), d.env...), strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("%s: %s: %v\n%s", d.name, command, err, out.String())
	}
	return out.String()
}

// elsewhere says which commands something else runs.
func (d *document) elsewhere(begins ...string) {
	for _, c := range d.commands {
		for _, b := range begins {
			d.ran[c] = d.ran[c] || strings.HasPrefix(c, b)
		}
	}
}

// expect fails the test where the output of a command lacks a part.
func expect(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Fatalf("the output lacks %q:\n%s", p, out)
		}
	}
}

// scratch is a folder for all tests.
var scratch string

// binaries builds our commands, once, and says where they are.
var binaries = sync.OnceValues(func() (string, error) {
	folder := filepath.Join(scratch, "bin")
	cmd := exec.Command("go", "build", "-o", folder+string(filepath.Separator), "./cmd/...")
	cmd.Dir = harness.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return folder, fmt.Errorf("building our commands: %w\n%s", err, out)
	}
	return folder, nil
})

// environment has our commands and kubectl, and an administrator's kubeconfig.
func environment(t *testing.T, kubeconfig string) []string {
	t.Helper()
	folder, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"KUBECONFIG=" + kubeconfig, "PATH=" + strings.Join([]string{folder, harness.Assets(), os.Getenv("PATH")}, string(filepath.ListSeparator))}
}

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	var err error
	if scratch, err = os.MkdirTemp("", "jwks-trust-docs-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch) // the system cleans up what stays
	os.Exit(code)
}

func TestCommands(t *testing.T) {
	text := "```sh\none --a \\\n  --b   # why\n# no command\ntwo\n```\n   ```sh\n   cat > x <<EOF\n   a:\n     b\n   EOF\n   ```\n```console\n$ three\noutput\n```\n```yaml\nno: command\n```\n"
	want := []string{"one --a \\\n--b", "two", "cat > x <<EOF\na:\n  b\nEOF", "three"}
	if got := commandsIn(text); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("the commands are %q, not %q", got, want)
	}
}
