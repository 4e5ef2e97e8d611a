package main

import (
	"bytes"
	"strings"
	"testing"
)

const okPackage = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"run","Package":"m/a","Test":"TestX/one"}
{"Action":"pass","Package":"m/a","Test":"TestX/one"}
{"Action":"run","Package":"m/a","Test":"TestX/two"}
{"Action":"skip","Package":"m/a","Test":"TestX/two"}
{"Action":"pass","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a"}
`

func TestSummary(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		well bool
		last string
		has  []string
		not  []string
	}{
		"subtests count, their parent does not": {
			in: okPackage, well: true, last: "1 passed, 0 failed, 1 skipped",
			has: []string{"ok  \tm/a\t0.1s\n"}, not: []string{"=== RUN", "PASS\n"},
		},
		"nothing ran": {
			in:   `{"Action":"output","Package":"m/b","Output":"?   \tm/b\t[no test files]\n"}` + "\n" + `{"Action":"skip","Package":"m/b"}`,
			last: "0 passed, 0 failed", has: []string{"[no test files]"},
		},
		"a failed subtest counts once, with its output": {
			in: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"run","Package":"m/a","Test":"TestX/one"}
{"Action":"output","Package":"m/a","Test":"TestX/one","Output":"    x_test.go:1: wrong\n"}
{"Action":"fail","Package":"m/a","Test":"TestX/one"}
{"Action":"fail","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a\t0.1s\n"}
{"Action":"fail","Package":"m/a"}`,
			last: "0 passed, 1 failed", has: []string{"x_test.go:1: wrong", "FAIL\tm/a"},
		},
		"a package that does not build is a failure": {
			in: `{"Action":"build-output","ImportPath":"m/a","Output":"a.go:1: undefined: x\n"}
{"Action":"build-fail","ImportPath":"m/a"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a [build failed]\n"}
{"Action":"fail","Package":"m/a"}` + "\n" + okPackage,
			last: "1 passed, 1 failed, 1 skipped", has: []string{"undefined: x", "[build failed]"},
		},
		"a test that never ended is a failure": {
			in: okPackage + `{"Action":"run","Package":"m/c","Test":"TestHang"}
{"Action":"output","Package":"m/c","Test":"TestHang","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"m/c"}`,
			last: "1 passed, 1 failed, 1 skipped", has: []string{"timed out"},
		},
		"a run that was cut short is a failure": {
			in:   okPackage + `{"Action":"start","Package":"m/c"}`,
			last: "1 passed, 1 failed, 1 skipped",
		},
		"the specs of a Ginkgo suite count": {
			in: `{"Action":"run","Package":"m/g","Test":"TestSuite"}
{"Action":"output","Package":"m/g","Test":"TestSuite","Output":"SUCCESS! -- 12 Passed | 0 Failed | 1 Pending | 2 Skipped\n"}
{"Action":"pass","Package":"m/g","Test":"TestSuite"}
{"Action":"pass","Package":"m/g"}`,
			well: true, last: "12 passed, 0 failed, 3 skipped",
		},
		"failed specs count, their suite does not": {
			in: `{"Action":"run","Package":"m/g","Test":"TestSuite"}
{"Action":"output","Package":"m/g","Test":"TestSuite","Output":"FAIL! -- 10 Passed | 2 Failed | 0 Pending | 0 Skipped\n"}
{"Action":"fail","Package":"m/g","Test":"TestSuite"}
{"Action":"fail","Package":"m/g"}`,
			last: "10 passed, 2 failed",
		},
		"a suite that fails outside of its specs is a failure": {
			in: `{"Action":"run","Package":"m/g","Test":"TestSuite"}
{"Action":"output","Package":"m/g","Test":"TestSuite","Output":"FAIL! -- 0 Passed | 0 Failed | 0 Pending | 7 Skipped\n"}
{"Action":"fail","Package":"m/g","Test":"TestSuite"}
{"Action":"fail","Package":"m/g"}`,
			last: "0 passed, 1 failed, 7 skipped",
		},
		"other text passes through": {
			in: "go: warning: something\n" + okPackage, well: true,
			last: "1 passed, 0 failed, 1 skipped", has: []string{"go: warning: something\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := newSummary(&out)
			if err := follow(strings.NewReader(tc.in), s, nil); err != nil {
				t.Fatal(err)
			}
			if well := s.close(); well != tc.well {
				t.Errorf("close() = %v, want %v", well, tc.well)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if got := lines[len(lines)-1]; got != tc.last {
				t.Errorf("last line %q, want %q", got, tc.last)
			}
			for _, want := range tc.has {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, &out)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("output has %q:\n%s", not, &out)
				}
			}
		})
	}
}
