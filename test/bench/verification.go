package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// run is a contender at work on one token.
type run struct {
	name   string
	once   func() error
	batch  int
	times  []float64 // of one verification in each round, in nanoseconds
	allocs float64
}

// newRuns are the floor and all contenders, at one and the same token.
func newRuns(ctx context.Context, algorithm string) ([]*run, error) {
	f := newFixture(algorithm)
	token := f.token(1)
	bare, err := floor(f.signer().Public(), token)
	if err != nil {
		return nil, err
	}
	all, err := newContenders(ctx, f)
	if err != nil {
		return nil, err
	}
	runs := []*run{{name: nameFloor, once: bare}}
	for _, c := range all {
		runs = append(runs, &run{name: c.name, once: func() error { return c.verify(token) }})
	}
	for _, r := range runs {
		if err := r.once(); err != nil {
			return nil, fmt.Errorf("%s refuses the token of %s: %w", r.name, algorithm, err)
		}
	}
	return runs, nil
}

// CompareVerification prints what the verification of a token costs, as a ratio
// to the bare signature check. In each round every contender works for about the
// time of a batch.
func CompareVerification(ctx context.Context, out io.Writer, rounds int, batch time.Duration) error {
	byAlgorithm := make([][]*run, 0, len(algorithms))
	for _, algorithm := range algorithms {
		runs, err := newRuns(ctx, algorithm)
		if err != nil {
			return err
		}
		for _, r := range runs {
			r.allocs = testing.AllocsPerRun(100, func() { _ = r.once() }) // it has accepted the token before
			r.batch = max(1, int(float64(batch)/r.measure(100)))
		}
		byAlgorithm = append(byAlgorithm, runs)
	}
	for round := range rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, runs := range byAlgorithm {
			for i := range runs {
				// Who goes first changes, so that nobody always follows the same one.
				r := runs[(i+round)%len(runs)]
				r.times = append(r.times, r.measure(r.batch))
			}
		}
	}
	return printVerification(out, byAlgorithm)
}

// measure is the time of one of n verifications, in nanoseconds. The garbage of
// others is collected before; that of its own counts.
func (r *run) measure(n int) float64 {
	runtime.GC()
	start := time.Now()
	for range n {
		_ = r.once() // the same token was accepted before
	}
	return float64(time.Since(start)) / float64(n)
}

func printVerification(out io.Writer, byAlgorithm [][]*run) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "CONTENDER\t%s\tALLOCS (%s)\n", strings.Join(algorithms, "\t"), strings.Join(algorithms, "/"))
	for i, r := range byAlgorithm[0] {
		line, allocs := []string{r.name}, []string{}
		for _, runs := range byAlgorithm {
			line = append(line, fmt.Sprintf("%.3f", median(runs[i].times)/median(runs[0].times)))
			allocs = append(allocs, fmt.Sprintf("%.0f", runs[i].allocs))
		}
		fmt.Fprintln(w, strings.Join(append(line, strings.Join(allocs, "/")), "\t"))
	}
	floors := []string{"(the floor)"}
	for _, runs := range byAlgorithm {
		floors = append(floors, fmt.Sprintf("%.1f µs ±%.0f%%", median(runs[0].times)/1e3, 100*spread(runs[0].times)))
	}
	fmt.Fprintln(w, strings.Join(append(floors, "half of the rounds are within ±"), "\t"))
	return w.Flush()
}

// median is the middle one of some figures, or the lower of the two in the middle.
func median(figures []float64) float64 { return quantile(figures, 2) }

// spread is half the distance between the quartiles, as a part of the median.
func spread(figures []float64) float64 {
	return (quantile(figures, 3) - quantile(figures, 1)) / 2 / median(figures)
}

// quantile is the figure that so many quarters of the others do not exceed.
func quantile(figures []float64, quarters int) float64 {
	if len(figures) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(figures))[(len(figures)-1)*quarters/4]
}
