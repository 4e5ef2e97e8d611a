package sim

import (
	"reflect"
	"testing"
	"testing/synctest"
)

// playFleet plays schedules in fleets of a setting, each in a bubble of its own.
func playFleet(t *testing.T, s fleetSetting) player {
	t.Helper()
	return func(steps []step) (problem string, taken int) {
		synctest.Test(t, func(*testing.T) { problem, taken = playOut(newFleet(s), steps, true) })
		return problem, taken
	}
}

// TestRandomSchedulesOfCopies prints the shortest schedule that breaks a promise about
// copies, or about requests that are shared.
func TestRandomSchedulesOfCopies(t *testing.T) {
	playSeeds(t, func(seed uint64, steps int) *failure {
		s := fleetSettings[seed%uint64(len(fleetSettings))]
		return judge(seed, s, drawFleet(seed, steps), playFleet(t, s), fleetLife.words)
	})
}

// TestFleetsGoTheSameWayAgain plays schedules twice: that several things go on at the
// same time must not show.
func TestFleetsGoTheSameWayAgain(t *testing.T) {
	for seed := range uint64(12) {
		s := fleetSettings[seed%uint64(len(fleetSettings))]
		play := func() (history []event) {
			synctest.Test(t, func(*testing.T) {
				f := newFleet(s)
				if problem, _ := playOut(f, drawFleet(seed, 200), true); problem != "" {
					t.Error(problem)
				}
				history = f.server.history
			})
			return history
		}
		if !reflect.DeepEqual(play(), play()) {
			t.Errorf("seed %d: another history", seed)
		}
	}
}
