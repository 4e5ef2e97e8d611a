package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// event is a line of `go test -json` (`go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

// count is how many tests ended how.
type count struct{ passed, failed, skipped int }

func (c *count) add(o count) {
	c.passed += o.passed
	c.failed += o.failed
	c.skipped += o.skipped
}

// test is one test function or subtest. The package's own output is kept in one
// without a name.
type test struct {
	name   string
	result string // pass, fail, skip; empty while it has not ended
	output []string
	specs  *count // of a Ginkgo suite
}

// pkg is one package under test.
type pkg struct {
	path  string
	tests []*test
}

func (p *pkg) test(name string) *test {
	for _, t := range p.tests {
		if t.name == name {
			return t
		}
	}
	t := &test{name: name}
	p.tests = append(p.tests, t)
	return t
}

// summary follows a test run.
type summary struct {
	out     io.Writer
	running []*pkg
	total   count
}

func newSummary(out io.Writer) *summary { return &summary{out: out} }

func (s *summary) pkg(path string) *pkg {
	for _, p := range s.running {
		if p.path == path {
			return p
		}
	}
	p := &pkg{path: path}
	s.running = append(s.running, p)
	return p
}

// event takes the next event of the run.
func (s *summary) event(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail": // the package's own failure follows
	case "output":
		s.pkg(e.Package).test(e.Test).write(e.Output)
	case "pass", "fail", "skip":
		p := s.pkg(e.Package)
		p.test(e.Test).result = e.Action
		if e.Test == "" {
			s.finish(p)
		}
	default:
		s.pkg(e.Package).test(e.Test)
	}
}

// finish prints and counts a package that has ended.
func (s *summary) finish(p *pkg) {
	s.running = slices.DeleteFunc(s.running, func(q *pkg) bool { return p == q })
	own := p.test("")
	c := p.count()
	if own.result == "fail" && c.failed == 0 {
		c.failed = 1 // did not build, or broke outside of any test
	}
	s.total.add(c)
	for _, t := range p.tests {
		if t != own && (t.result == "fail" || t.result == "") {
			t.print(s.out)
		}
	}
	if own.result == "fail" {
		own.print(s.out)
		return
	}
	for _, line := range own.output {
		if strings.HasPrefix(line, "ok  ") || strings.HasPrefix(line, "?   ") {
			fmt.Fprint(s.out, line)
		}
	}
}

// count counts the tests without subtests, and each spec of a Ginkgo suite. A
// test with subtests counts only where it failed by itself.
func (p *pkg) count() count {
	var c count
	for _, t := range p.tests {
		if t.name == "" {
			continue
		}
		below := t.below(p.tests)
		if t.specs != nil {
			c.add(*t.specs)
			below.add(*t.specs)
		}
		parent := below != count{}
		switch {
		case t.result == "pass" && !parent:
			c.passed++
		case t.result == "skip" && !parent:
			c.skipped++
		case (t.result == "fail" || t.result == "") && below.failed == 0:
			c.failed++
		}
	}
	return c
}

// below counts the subtests of t, at any depth.
func (t *test) below(all []*test) count {
	var c count
	for _, sub := range all {
		if !strings.HasPrefix(sub.name, t.name+"/") {
			continue
		}
		switch sub.result {
		case "pass":
			c.passed++
		case "skip":
			c.skipped++
		default:
			c.failed++
		}
	}
	return c
}

// specs is the last line of a Ginkgo suite.
var specs = regexp.MustCompile(`-- .*?(\d+) Passed.*?\| .*?(\d+) Failed.*?\| .*?(\d+) Pending.*?\| .*?(\d+) Skipped`)

func (t *test) write(output string) {
	if m := specs.FindStringSubmatch(output); m != nil && t.name != "" {
		number := func(i int) int {
			n, _ := strconv.Atoi(m[i])
			return n
		}
		t.specs = &count{passed: number(1), failed: number(2), skipped: number(3) + number(4)}
	}
	t.output = append(t.output, output)
}

// print writes what the test wrote, less the marks that `go test -v` adds.
func (t *test) print(out io.Writer) {
	for _, line := range t.output {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(out, line)
		}
	}
}

// alive names the packages at work.
func (s *summary) alive() {
	var names []string
	for _, p := range s.running {
		names = append(names, p.path[strings.LastIndex(p.path, "/")+1:])
	}
	if len(names) > 0 {
		fmt.Fprintf(s.out, "    ... running: %s\n", strings.Join(names, ", "))
		return
	}
	fmt.Fprintln(s.out, "    ... building")
}

// close ends the run with the count, and reports whether all is well.
func (s *summary) close() bool {
	for _, p := range slices.Clone(s.running) { // cut short
		p.test("").result = "fail"
		s.finish(p)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed", s.total.passed, s.total.failed)
	if s.total.skipped > 0 {
		fmt.Fprintf(s.out, ", %d skipped", s.total.skipped)
	}
	fmt.Fprintln(s.out)
	return s.total.passed > 0 && s.total.failed == 0
}
