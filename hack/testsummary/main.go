// Command testsummary reads what `go test -json` writes, prints what `go test`
// would have printed (a line for each package; the output of failed tests), and
// closes with the count of what really ran:
//
//	12 passed, 0 failed
//
// A Ginkgo suite, a single test to Go, counts with each of its specs. The exit
// status is 1 when anything failed, and when nothing ran at all. While nothing
// finishes, the packages at work are named now and then.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	s := newSummary(os.Stdout)
	if err := follow(os.Stdin, s, time.Tick(30*time.Second)); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	if !s.close() {
		os.Exit(1)
	}
}

// follow feeds the lines of r to s, and at each alive tick says what runs.
func follow(r io.Reader, s *summary, alive <-chan time.Time) error {
	lines := make(chan []byte)
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 16<<20)
	go func() {
		defer close(lines)
		for scan.Scan() {
			lines <- append([]byte(nil), scan.Bytes()...)
		}
	}()
	for {
		select {
		case line, more := <-lines:
			if !more {
				return scan.Err()
			}
			s.line(line)
		case <-alive:
			s.alive()
		}
	}
}

// line takes one line: an event or, from a tool that does not speak JSON, text.
func (s *summary) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		fmt.Fprintf(s.out, "%s\n", line)
		return
	}
	s.event(e)
}
