package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// documented is a command of ours in a text: up to what the shell would take, or the end
// of the code that it stands in.
var documented = regexp.MustCompile("kubectl\\s+jwks\\s+([a-z]+[^`\n#|<;,$]*)")

// TestDocumentedCommandsExist: each command that a document shows is there, with the flags
// that it shows.
func TestDocumentedCommandsExist(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(harness.Root(), "docs", "*.md"))
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	seen := 0
	for _, file := range append(files, filepath.Join(harness.Root(), "README.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range documented.FindAllStringSubmatch(codeIn(string(text)), -1) {
			seen++
			if err := parses(strings.Fields(found[1])); err != nil {
				t.Errorf("%s: kubectl jwks %s: %v", filepath.Base(file), found[1], err)
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands were found", seen)
	}
	if parses([]string{"diff", "auth0", "--candidates"}) == nil || parses([]string{"aprove", "auth0"}) == nil {
		t.Error("the test cannot fail")
	}
}

// codeIn are the lines of a text, those that belong to one span of code joined.
func codeIn(text string) string {
	return regexp.MustCompile("`[^`]+`").ReplaceAllStringFunc(text, func(span string) string {
		if strings.Count(span, "\n") > 1 { // no span, but what is between two
			return span
		}
		return strings.ReplaceAll(span, "\n", " ")
	})
}

// parses finds the command and reads its flags, without running it.
func parses(args []string) error {
	var out bytes.Buffer
	root := newRoot(newCLI(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out}))
	root.InitDefaultCompletionCmd() // as running it does
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root {
		return errors.New("there is no such command")
	}
	return cmd.ParseFlags(rest)
}
