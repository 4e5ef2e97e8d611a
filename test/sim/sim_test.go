package sim

import (
	"flag"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

var (
	seeds   = flag.Int("sim.seeds", 60, "how many schedules")
	first   = flag.Uint64("sim.first", 1, "the first seed")
	steps   = flag.Int("sim.steps", 200, "how many steps each has")
	workers = flag.Int("sim.workers", runtime.GOMAXPROCS(0), "how many schedules are played at the same time")
)

func init() { log.SetLogger(logr.Discard()) }

// TestRandomSchedules prints the shortest schedule that breaks a promise. Schedules have
// nothing in common, so that they can be played at the same time.
func TestRandomSchedules(t *testing.T) { playSeeds(t, Seed) }

func playSeeds(t *testing.T, play func(seed uint64, steps int) *failure) {
	t.Helper()
	n := *seeds
	if testing.Short() {
		n = min(n, 10)
	}
	var next, broken atomic.Uint64
	var group sync.WaitGroup
	begun := time.Now()
	next.Store(*first)
	for range max(1, *workers) {
		group.Go(func() {
			for !t.Failed() {
				seed := next.Add(1) - 1
				if seed >= *first+uint64(n) {
					return
				}
				if f := play(seed, *steps); f != nil {
					broken.Add(1)
					t.Error(f)
				}
			}
		})
	}
	group.Wait()
	if broken.Load() == 0 {
		took := time.Since(begun)
		t.Logf("%d schedules of %d steps each: %d steps, no promise broken; %.0f schedules a second", n, *steps, n**steps, float64(n)/took.Seconds())
	}
}
