// report.go is the table of what came out.
package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// line is one of the table. A line without a target is for reading.
type line struct {
	name, figure, target string
	met                  bool
}

type report struct{ lines []line }

// figure adds what is only reported.
func (r *report) figure(name, format string, args ...any) {
	r.lines = append(r.lines, line{name: name, figure: fmt.Sprintf(format, args...)})
}

// times adds the median and the largest of some durations.
func (r *report) times(name string, all []time.Duration) {
	r.figure(name, "median %s, max %s (%d samples)", round(median(all)), round(slices.Max(all)), len(all))
}

// target adds what decides over the exit code.
func (r *report) target(name string, met bool, target, format string, args ...any) {
	r.lines = append(r.lines, line{name: name, figure: fmt.Sprintf(format, args...), target: target, met: met})
}

// missed reports whether any target was.
func (r *report) missed() bool {
	return slices.ContainsFunc(r.lines, func(l line) bool { return l.target != "" && !l.met })
}

func (r *report) print() {
	if len(r.lines) == 0 {
		return
	}
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tFIGURE\tTARGET\tRESULT") // written by Flush, as all of it
	for _, l := range r.lines {
		target, result := l.target, "MISSED"
		switch {
		case target == "":
			target, result = "-", "-"
		case l.met:
			result = "ok"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.name, l.figure, target, result)
	}
	_ = w.Flush() // to the terminal
}

// median is the middle one, or the lower of the two in the middle.
func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)/2]
}

// round leaves what is worth reading.
func round(d time.Duration) time.Duration {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond)
	case d < 10*time.Second:
		return d.Round(time.Millisecond)
	default:
		return d.Round(100 * time.Millisecond)
	}
}

func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }
