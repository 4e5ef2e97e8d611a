// run.go runs schedules, and shrinks those that fail.

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// failure is a schedule that breaks a promise.
type failure struct {
	seed     uint64
	setting  any
	steps    []step
	problem  string
	original int
	// play plays another schedule in such a world, and words tells a step.
	play  player
	words func(step) string
}

// player plays a schedule, and then lets all come right. It returns the first problem
// and how many steps led to it.
type player func(steps []step) (problem string, taken int)

// String tells it.
func (f *failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %+v: %s\n%d of %d steps are needed:\n", f.seed, f.setting, f.problem, len(f.steps), f.original)
	for i, s := range f.steps {
		fmt.Fprintf(&b, "  %2d. %s\n", i+1, f.words(s))
	}
	return b.String()
}

var settings = []setting{{}, {Grace: 20 * time.Minute}, {Approval: true}, {Overlap: true}, {Discovery: true}, {Jumps: true}}

// Seed runs the schedule of a seed, and shrinks it where it fails. A nil failure
// is none.
func Seed(seed uint64, steps int) *failure {
	s := settings[seed%uint64(len(settings))]
	return judge(seed, s, life.draw(rand.New(rand.NewPCG(seed, 0)), steps), playIn(s, seed), life.words) //nolint:gosec // a simulation
}

// judge plays a schedule, and shrinks it where it fails.
func judge(seed uint64, setting any, all []step, play player, words func(step) string) *failure {
	problem, taken := play(all)
	if problem == "" {
		return nil
	}
	f := &failure{seed: seed, setting: setting, steps: all[:taken], problem: problem, original: len(all), play: play, words: words}
	f.shrink()
	return f
}

// playIn plays schedules in worlds of a setting.
func playIn(s setting, seed uint64) player {
	return func(steps []step) (string, int) {
		return playOut(newWorld(s, seed), steps, seed < watchedToTheEnd || seed%watchedToTheEnd == 0)
	}
}

// stage is a world in which a schedule is played.
type stage interface {
	take(s step)
	// recover ends all faults, and checks that all comes right; toTheEnd, that it stays so.
	recover(toTheEnd bool)
	close()
	// trouble is the first problem; empty for none.
	trouble() string
}

func playOut(w stage, steps []step, toTheEnd bool) (problem string, taken int) {
	defer w.close()
	for i, step := range steps {
		if w.take(step); w.trouble() != "" {
			return w.trouble(), i + 1
		}
	}
	w.recover(toTheEnd)
	return w.trouble(), len(steps)
}

func (w *world) trouble() string { return w.checks.problem }

// watchedToTheEnd is of how many schedules one is watched until the longest waits are
// over; the first ones all are. For the others it is enough that all has come right: those
// hours cost more than all that comes before them, and in most of them nothing happens.
const watchedToTheEnd = 16

// recover ends all faults, and checks that all comes right: what is half-done
// within half a minute, the rest when the longest waits are over, at the latest.
func (w *world) recover(toTheEnd bool) {
	for _, p := range w.deposed {
		p.kill()
	}
	w.deposed = nil
	w.issuer.mode, w.issuer.leaked = honest, nil
	w.calm(30 * time.Second)
	w.checks.settled()
	if w.checks.failed() || !toTheEnd && w.checks.hasArrived() == "" {
		return
	}
	longest := confirmWithin + 20*time.Minute + w.setting.Grace
	if w.setting.Discovery {
		longest += 75 * time.Minute // metadata are read again after an hour
	}
	w.calm(longest)
	w.checks.settled()
	w.checks.arrived()
}

// kind is a problem without its details: a smaller schedule has to fail alike.
func kind(problem string) string { name, _, _ := strings.Cut(problem, ":"); return name }

// shrink leaves out steps, in ever smaller pieces, as long as it fails alike.
func (f *failure) shrink() {
	for piece := max(1, len(f.steps)/2); ; {
		left := false
		for at := 0; at < len(f.steps); {
			fewer := slices.Delete(slices.Clone(f.steps), at, min(at+piece, len(f.steps)))
			if problem, taken := f.play(fewer); kind(problem) == kind(f.problem) {
				f.steps, f.problem, left = fewer[:taken], problem, true
				continue
			}
			at += piece
		}
		if piece == 1 && !left {
			return
		}
		piece = max(1, piece/2)
	}
}
