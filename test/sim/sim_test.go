package sim

import (
	"flag"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

var (
	seeds = flag.Int("sim.seeds", 60, "how many schedules")
	first = flag.Uint64("sim.first", 1, "the first seed")
	steps = flag.Int("sim.steps", 200, "how many steps each has")
)

func init() { log.SetLogger(logr.Discard()) }

// TestRandomSchedules prints the shortest schedule that breaks a promise.
func TestRandomSchedules(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 10)
	}
	for seed := *first; seed < *first+uint64(n); seed++ {
		if f := Seed(seed, *steps); f != nil {
			t.Fatal(f)
		}
	}
}
