// Package docs tests what can be tested of the documents as such.
package docs

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

var (
	// link is [text](target), the target without a title.
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`^#{1,6} +(.+)$`)
	code    = regexp.MustCompile("`[^`]*`")
	linked  = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// TestLinksLeadSomewhere follows each relative link in the Markdown files, anchors
// included. Links to other sites are not followed: there may be no way out.
func TestLinksLeadSomewhere(t *testing.T) {
	files, links := 0, 0
	for _, file := range markdown(t) {
		files++
		for _, target := range linksIn(read(t, file)) {
			links++
			if problem := follow(t, file, target); problem != "" {
				t.Errorf("%s: (%s): %s", file, target, problem)
			}
		}
	}
	if files < 20 || links < 150 {
		t.Errorf("only %d links in %d files were found", links, files)
	}
}

// Every document is in the index, so that there is a way to it.
func TestTheIndexHasEveryDocument(t *testing.T) {
	index := linksIn(read(t, "docs/README.md"))
	for _, file := range markdown(t) {
		name, is := strings.CutPrefix(file, "docs/")
		if !is || name == "README.md" || strings.Contains(name, "/") {
			continue
		}
		found := false
		for _, target := range index {
			found = found || target == name
		}
		if !found {
			t.Errorf("docs/README.md does not lead to %s", name)
		}
	}
}

// ours is an address of a file in the repository.
var ours = regexp.MustCompile(`https://github\.com/jwks-trust/jwks-trust-manager/blob/main/([A-Za-z0-9_./#-]*[A-Za-z0-9])`)

// TestAddressesOfDocumentsLeadSomewhere: programs and the dashboard name documents by
// address, because who uses them need not have the repository.
func TestAddressesOfDocumentsLeadSomewhere(t *testing.T) {
	if home := "home: https://github.com/jwks-trust/jwks-trust-manager\n"; !strings.Contains(read(t, "charts/jwks-trust-manager/Chart.yaml"), home) {
		t.Error("the chart names another home")
	}
	for _, file := range []string{"config/grafana/dashboard.json", "cmd/kubectl-jwks/documents.go"} {
		found := ours.FindAllStringSubmatch(read(t, file), -1)
		if len(found) < 2 {
			t.Errorf("only %d addresses were found in %s", len(found), file)
		}
		for _, address := range found {
			if problem := follow(t, "README.md", address[1]); problem != "" {
				t.Errorf("%s: %s: %s", file, address[0], problem)
			}
		}
	}
}

// The test can fail, and knows anchors as GitHub makes them.
func TestAnchors(t *testing.T) {
	text := "# One `two` three\n\n```sh\n# no heading\n```\n\n## [Linked](x.md), and: *more*\n## Twice\n## Twice\n"
	for anchor, want := range map[string]bool{
		"one-two-three": true, "linked-and-more": true, "twice": true, "twice-1": true, "twice-2": false, "no-heading": false,
	} {
		if got := anchorsIn(text)[anchor]; got != want {
			t.Errorf("the anchor %s: %v, not %v", anchor, got, want)
		}
	}
	for target, want := range map[string]string{
		"no-such-file.md": "there is no docs/no-such-file.md", "install.md#no-such-heading": "docs/install.md has no heading of that name",
		"install.md#metrics": "", "../Makefile": "", "https://example.com/": "",
	} {
		if got := follow(t, "docs/README.md", target); got != want {
			t.Errorf("following %s gives %q, not %q", target, got, want)
		}
	}
}

// markdown are the Markdown files of the repository, without what was built or
// downloaded.
func markdown(t *testing.T) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(os.DirFS(harness.Root()), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bin" || d.Name() == "dist" || d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case path.Ext(name) == ".md":
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// linksIn are the targets of the links in a text, code aside.
func linksIn(text string) []string {
	var out []string
	for _, line := range prose(text) {
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(line, ""), -1) {
			out = append(out, found[1])
		}
	}
	return out
}

// prose are the lines outside of fenced blocks.
func prose(text string) []string {
	var out []string
	fenced := false
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			out = append(out, line)
		}
	}
	return out
}

// follow says what is wrong with a link, if anything is.
func follow(t *testing.T, from, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		return err.Error()
	}
	if u.Scheme != "" {
		return ""
	}
	file := from
	if u.Path != "" {
		file = path.Join(path.Dir(from), u.Path)
	}
	info, err := os.Stat(filepath.Join(harness.Root(), file))
	switch {
	case err != nil:
		return "there is no " + file
	case u.Fragment == "":
		return ""
	case info.IsDir() || !anchorsIn(read(t, file))[u.Fragment]:
		return file + " has no heading of that name"
	}
	return ""
}

// anchorsIn are the names under which GitHub lets a text's headings be linked to.
func anchorsIn(text string) map[string]bool {
	out := map[string]bool{}
	for _, line := range prose(text) {
		found := heading.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		anchor := slug(linked.ReplaceAllString(found[1], "$1"))
		for unique, n := anchor, 1; ; n++ {
			if !out[unique] {
				out[unique] = true
				break
			}
			unique = fmt.Sprintf("%s-%d", anchor, n)
		}
	}
	return out
}

func slug(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, title)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
