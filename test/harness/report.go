// report.go is the table of what a benchmark has found.

package harness

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// line is one of the table. A line without a target is for reading.
type line struct {
	name, figure, target string
	met, decides         bool
}

// Report is a table. Its zero value is an empty one.
type Report struct{ lines []line }

// Figure adds what is only reported.
func (r *Report) Figure(name, format string, args ...any) {
	r.lines = append(r.lines, line{name: name, figure: fmt.Sprintf(format, args...)})
}

// Times adds the median and the largest of some durations.
func (r *Report) Times(name string, all []time.Duration) {
	r.Figure(name, "median %s, max %s (%d samples)", Round(Median(all)), Round(slices.Max(all)), len(all))
}

// Target adds what decides over the exit code.
func (r *Report) Target(name string, met bool, target, format string, args ...any) {
	r.lines = append(r.lines, line{name: name, figure: fmt.Sprintf(format, args...), target: target, met: met, decides: true})
}

// Goal adds what depends on the machine: whether it was met is said, and decides
// nothing.
func (r *Report) Goal(name string, met bool, target, format string, args ...any) {
	r.lines = append(r.lines, line{name: name, figure: fmt.Sprintf(format, args...), target: target, met: met})
}

// Missed reports whether any target was.
func (r *Report) Missed() bool {
	return slices.ContainsFunc(r.lines, func(l line) bool { return l.decides && !l.met })
}

// Print writes the table, in Markdown.
func (r *Report) Print(w io.Writer) {
	if len(r.lines) == 0 {
		return
	}
	rows := [][]string{{"name", "figure", "target", "result"}}
	for _, l := range r.lines {
		target, result := l.target, "MISSED"
		switch {
		case target == "":
			target, result = "-", "-"
		case l.met:
			result = "ok"
		case !l.decides:
			result = "not met"
		}
		rows = append(rows, []string{l.name, l.figure, target, result})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for n, cell := range row {
			widths[n] = max(widths[n], len([]rune(cell)))
		}
	}
	rule := make([]string, len(widths))
	for n, width := range widths {
		rule[n] = strings.Repeat("-", width)
	}
	fmt.Fprintln(w)
	for _, row := range slices.Insert(rows, 1, rule) {
		for n, cell := range row {
			row[n] = cell + strings.Repeat(" ", widths[n]-len([]rune(cell)))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}

// Median is the middle one, or the lower of the two in the middle.
func Median(all []time.Duration) time.Duration { return Percentile(all, 50) }

// Percentile is the smallest one that so many percent do not exceed.
func Percentile(all []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)*percent+99)/100-1]
}

// Round leaves what is worth reading.
func Round(d time.Duration) time.Duration {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond)
	case d < 10*time.Second:
		return d.Round(time.Millisecond)
	default:
		return d.Round(100 * time.Millisecond)
	}
}

// Say tells people what goes on.
func Say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }
