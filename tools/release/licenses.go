// licenses.go finds the licences of all that the binaries contain, refuses those that
// are not on the list, and collects their texts, which have to go with the binaries.

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"go/build"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-licenses/v2/licenses"
	"golang.org/x/mod/module"
	"k8s.io/klog/v2"
)

// licensesFile is in the repository, in each archive, and in the image.
const licensesFile = "THIRD_PARTY_LICENSES.txt"

// allowed are the licences, by their SPDX names, that a binary may contain code under.
// Another one is a decision, not an accident.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// library is what one licence file covers: a module, or a folder of one.
type library struct {
	module, folder, version string
	licenses                []string
	texts                   []string
}

func (l library) name() string {
	if l.folder == "" {
		return l.module
	}
	return l.module + "/" + l.folder
}

// makeLicenses wants the licences to be allowed, and the file of their texts to be
// that of this commit.
func (r *release) makeLicenses(ctx context.Context, work string) error {
	r.say("Looking at licences")
	text, err := r.readLicenses(ctx, filepath.Join(work, "source"))
	if err != nil {
		return err
	}
	committed, err := os.ReadFile(filepath.Join(work, "source", licensesFile)) //nolint:gosec // a file of this release
	if err != nil {
		return err
	}
	if !bytes.Equal(committed, text) {
		return fmt.Errorf("%s is not what the binaries contain: run `make licenses`, and commit it", licensesFile)
	}
	if err := os.WriteFile(filepath.Join(r.out, licensesFile), text, 0o644); err != nil { //nolint:gosec // is published
		return err
	}
	table, err := licenseTable(r.libs)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, "licenses.csv"), table, 0o644) //nolint:gosec // likewise
}

// writeLicenses writes the file of their texts into the checkout.
func (r *release) writeLicenses(ctx context.Context) error {
	root, err := filepath.Abs(r.root)
	if err != nil {
		return err
	}
	text, err := r.readLicenses(ctx, root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, licensesFile), text, 0o644) //nolint:gosec // is published
}

// readLicenses finds the libraries, and makes the text.
func (r *release) readLicenses(ctx context.Context, source string) ([]byte, error) {
	env, err := environment(ctx)
	if err != nil {
		return nil, err
	}
	goroot, err := output(ctx, source, env, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	standard, err := standardLibrary(goroot)
	if err != nil {
		return nil, err
	}
	if standard.version, err = output(ctx, source, env, "go", "env", "GOVERSION"); err != nil {
		return nil, err
	}
	if r.libs, err = librariesOf(ctx, source, goroot, env); err != nil {
		return nil, err
	}
	r.libs = append([]library{standard}, r.libs...)
	if err := checkLicenses(r.libs); err != nil {
		return nil, err
	}
	return licenseTexts(r.libs), nil
}

// standardLibrary is Go's own, which is in every binary.
func standardLibrary(goroot string) (library, error) {
	l := library{module: "std", licenses: []string{"BSD-3-Clause"}}
	for _, name := range []string{"LICENSE", "PATENTS"} {
		text, err := os.ReadFile(filepath.Join(goroot, name)) //nolint:gosec // a file of Go's
		if err != nil {
			return l, fmt.Errorf("the licence of Go: %w", err)
		}
		l.texts = append(l.texts, string(text))
	}
	return l, nil
}

// librariesOf finds the libraries of all targets: some are for Windows alone. The
// finder reads our environment and folder.
func librariesOf(ctx context.Context, source, goroot string, env []string) ([]library, error) {
	restore, err := enter(source, env)
	if err != nil {
		return nil, err
	}
	defer restore()
	klog.LogToStderr(false) // it names each package that has assembly in it
	klog.SetOutput(io.Discard)
	build.Default.GOROOT = goroot // by which the finder knows the standard library
	slow, err := licenses.NewClassifier()
	if err != nil {
		return nil, err
	}
	classifier := &memory{Classifier: slow, of: map[string][]licenses.License{}}
	modules, err := output(ctx, source, env, "go", "env", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	found := map[string]library{} // by licence file
	for _, t := range targets {
		if err := errors.Join(os.Setenv("GOOS", t.os), os.Setenv("GOARCH", t.arch)); err != nil {
			return nil, err
		}
		libs, err := licenses.Libraries(ctx, classifier, false, nil, "./cmd/"+t.program)
		if err != nil {
			return nil, fmt.Errorf("the licences of %s: %w", t, err)
		}
		for _, lib := range libs {
			if known := found[lib.LicenseFile]; known.module != "" || filepath.Dir(lib.LicenseFile) == source {
				continue // our own
			}
			l, err := read(classifier, modules, lib)
			if err != nil {
				return nil, err
			}
			found[lib.LicenseFile] = l
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b library) int { return strings.Compare(a.name(), b.name()) }), nil
}

// memory looks at each file once, and not once for each target.
type memory struct {
	licenses.Classifier

	mu sync.Mutex
	of map[string][]licenses.License
}

// Identify implements licenses.Classifier.
func (m *memory) Identify(path string) ([]licenses.License, error) {
	m.mu.Lock()
	known, seen := m.of[path]
	m.mu.Unlock()
	if seen {
		return known, nil
	}
	kinds, err := m.Classifier.Identify(path)
	if err == nil {
		m.mu.Lock()
		m.of[path] = kinds
		m.mu.Unlock()
	}
	return kinds, err
}

// enter goes to a folder and takes an environment on, until it is left again.
func enter(dir string, env []string) (func(), error) {
	before, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	was := os.Environ()
	set := func(all []string) {
		os.Clearenv()
		for _, e := range all {
			name, value, _ := strings.Cut(e, "=")
			_ = os.Setenv(name, value) // fails for names that no environment has
		}
	}
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	set(env)
	return func() {
		set(was)
		_ = os.Chdir(before) // it was there
	}, nil
}

var (
	licenseNames = regexp.MustCompile(`(?i)^(un)?licen[sc]es?|^copying`)
	noticeNames  = regexp.MustCompile(`(?i)^(notice|patents)`)
)

// read reads what lies beside a licence file too: some modules have several.
func read(classifier licenses.Classifier, modules string, lib *licenses.Library) (library, error) {
	if lib.LicenseFile == "" {
		return library{}, fmt.Errorf("%s has no licence that could be found: nobody may copy it", lib.Name())
	}
	dir := filepath.Dir(lib.LicenseFile)
	l, err := locate(modules, dir)
	if err != nil {
		return l, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		path, isLicense := filepath.Join(dir, e.Name()), licenseNames.MatchString(e.Name())
		if e.IsDir() || filepath.Ext(path) == ".go" || (!isLicense && !noticeNames.MatchString(e.Name()) && path != lib.LicenseFile) {
			continue
		}
		text, err := os.ReadFile(path) //nolint:gosec // a file of a module
		if err != nil {
			return l, err
		}
		l.texts = append(l.texts, strings.ReplaceAll(string(text), "\r\n", "\n"))
		kinds, err := classifier.Identify(path)
		if err != nil {
			return l, err
		}
		if isLicense && len(kinds) == 0 {
			return l, fmt.Errorf("%s: %s is no licence that is known", l.name(), e.Name())
		}
		for _, kind := range kinds {
			l.licenses = append(l.licenses, kind.Name)
		}
	}
	slices.Sort(l.licenses)
	l.licenses = slices.Compact(l.licenses)
	return l, nil
}

// locate tells by a folder in the module cache which module it is of.
func locate(modules, dir string) (library, error) {
	within, err := filepath.Rel(modules, dir)
	if err != nil {
		return library{}, err
	}
	path, rest, found := strings.Cut(filepath.ToSlash(within), "@")
	version, folder, _ := strings.Cut(rest, "/")
	if !found || strings.HasPrefix(within, "..") {
		return library{}, fmt.Errorf("%s is in no module", dir)
	}
	l := library{folder: folder}
	if l.module, err = module.UnescapePath(path); err != nil {
		return l, err
	}
	l.version, err = module.UnescapeVersion(version)
	return l, err
}

// checkLicenses names each library that may not be in a binary.
func checkLicenses(libs []library) error {
	var bad []error
	for _, l := range libs {
		if len(l.licenses) == 0 {
			bad = append(bad, fmt.Errorf("%s: unknown", l.name()))
		}
		for _, kind := range l.licenses {
			if !slices.Contains(allowed, kind) {
				bad = append(bad, fmt.Errorf("%s: %s", l.name(), kind))
			}
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("licences other than %s:\n%w", strings.Join(allowed, ", "), errors.Join(bad...))
	}
	return nil
}

// licenseTexts is the file. Libraries whose texts are the same but for white space
// share them; versions are left out, so that only a change of the licences changes it.
func licenseTexts(libs []library) []byte {
	type group struct{ names, licenses, text string }
	var groups []*group // in order of the first library
	known := map[string]*group{}
	for _, l := range libs {
		text := strings.TrimSpace(strings.Join(l.texts, "\n"+strings.Repeat("-", 80)+"\n\n"))
		words := strings.Join(strings.Fields(text), " ")
		g := known[words]
		if g == nil {
			g = &group{licenses: strings.Join(l.licenses, ", "), text: text}
			groups, known[words] = append(groups, g), g
		}
		g.names += l.name() + "\n"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "The binaries of jwks-trust-manager contain these libraries besides its own code (LICENSE);\n"+
		"std is Go's standard library. `make licenses` writes this file.\n")
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), g.names, g.licenses, g.text)
	}
	return b.Bytes()
}

// licenseTable is the same in short, with versions.
func licenseTable(libs []library) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"library", "version", "licenses"}}
	for _, l := range libs {
		rows = append(rows, []string{l.name(), l.version, strings.Join(l.licenses, " AND ")})
	}
	err := w.WriteAll(rows)
	return b.Bytes(), err
}
