// report_test.go is the table of what came out, as docs/reliability.md has it.

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// row is one promise under one fault, the test that sees to it, and what it found.
type row struct{ fault, promise, test, figure string }

func (r row) String() string {
	return fmt.Sprintf("| %s | %s | %s | %s |", r.fault, r.promise, r.test, r.figure)
}

// table is what came out.
type table struct {
	mu   sync.Mutex
	rows []row
}

var figures table

// add notes a figure for a promise, as found by the test that calls it.
func (f *table) add(fault, promise, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows = append(f.rows, row{fault, promise, caller(), fmt.Sprintf(format, args...)})
}

// caller is the test that has called, in code font.
func caller() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		frame, more := frames.Next()
		_, name, _ := strings.Cut(filepath.Base(frame.Function), ".")
		if name, _, _ = strings.Cut(name, "."); strings.HasPrefix(name, "Test") && name != "TestMain" {
			return "`" + name + "`"
		}
		if !more {
			return "all"
		}
	}
}

// The table in the documentation stands between these lines.
const begins, ends = "<!-- make faults: begin -->\n", "<!-- make faults: end -->\n"

// write prints the table, in the order of the documentation, and writes it to where it
// is wanted. A run of everything has a figure for each promise that the documentation
// makes.
func (f *table) write(intoDocs bool) error {
	if len(f.rows) == 0 {
		return nil
	}
	page := filepath.Join(harness.Root(), "docs", "reliability.md")
	content, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(content), begins)
	promised, after, alsoOK := strings.Cut(rest, ends)
	if !ok || !alsoOK {
		return errors.New("docs/reliability.md has no table of this suite")
	}
	// Each row begins with fault and promise, which say which one it is.
	place := func(r row) int { return strings.Index(promised, fmt.Sprintf("| %s | %s |", r.fault, r.promise)) }
	slices.SortStableFunc(f.rows, func(a, b row) int {
		if pa, pb := place(a), place(b); pa >= 0 && pb >= 0 {
			return pa - pb
		} else if pa != pb {
			return pb - pa // a new one comes last
		}
		return strings.Compare(a.test, b.test)
	})
	text := "| fault | promise | test | figure |\n|---|---|---|---|\n"
	for _, r := range f.rows {
		text += r.String() + "\n"
	}
	fmt.Println("\n" + text)
	if *reportTo != "" {
		err = os.WriteFile(*reportTo, []byte(text), 0o600)
	}
	if !intoDocs || err != nil {
		return err
	}
	for line := range strings.Lines(promised) {
		cells := strings.SplitN(line, "|", 4)
		if len(cells) == 4 && !strings.Contains(text, strings.Join(cells[:3], "|")+"|") {
			return fmt.Errorf("docs/reliability.md makes a promise that no test has kept: %s", line)
		}
	}
	return os.WriteFile(page, []byte(before+begins+text+ends+after), 0o644)
}
