package sim

import (
	"flag"
	"slices"
	"testing"
)

var all = flag.Bool("sim.all", false, "disturb every point, not each sixth, and kill the next manager at each of its calls as well")

// finished begins most of the small scenarios.
var finished = step{"finish", 0}

// small are scenarios of one change each: what comes before it, and the change.
var small = []struct {
	name    string
	setting int
	before  []step
	change  []step
}{
	{"the first publication", 0, nil, nil},
	{"a new key", 0, []step{finished}, []step{{"publish", 2}, {"refresh", 0}, {"advance", 2}}},
	{"a removed key", 0, []step{finished, {"retire", 1}, {"advance", 4}, finished}, []step{{"advance", 2}}},
	{"a removed key, with grace", 1, []step{finished, {"retire", 1}, {"advance", 4}, finished}, []step{{"advance", 2}}},
	{"all keys replaced", 0, []step{finished}, []step{{"replace", 0}, {"refresh", 0}, {"advance", 2}}},
	{"a revoked key", 0, []step{finished}, []step{{"revoke", 1}, {"advance", 2}}},
	{"a leaked key", 0, []step{finished}, []step{{"leak", 1}, {"refresh", 0}, {"advance", 2}}},
	{"a quarantined set", 2, []step{finished, {"approve", 0}, {"advance", 1}, finished, {"publish", 2}, {"refresh", 0}, {"advance", 2}, finished}, []step{{"approve", 0}, {"advance", 2}}},
	{"a tampered ConfigMap", 0, []step{finished}, []step{{"tamper", 2}}},
	{"a deletion", 0, []step{finished}, []step{{"delete", 0}}},
}

// deaths are the fates of a call that matter for what is left behind.
var deaths = []fate{unavailable, late, conflicted, diesBefore, diesAfter}

// seen lets everybody see all that has changed.
var seen = slices.Concat(slices.Repeat([]step{{"deliver", 0}}, 20), []step{{"show all", 0}, {"show all", 1}})

// after is what may follow the disturbance: nothing, or another change at once.
var after = [][]step{nil, {{"replace", 0}, {"refresh", 0}, {"advance", 2}}, {{"mode", int(down)}, {"refresh", 0}, {"advance", 2}}}

// calls is how many calls a reconciliation makes after these steps.
func calls(s setting, before []step) int {
	w := newWorld(s, 1)
	defer w.close()
	for _, step := range before {
		w.take(step)
	}
	for n := 0; ; n++ {
		if w.leader.run(answered); w.leader.next == nil {
			return n
		}
	}
}

// keeps fails the test, with the shortest schedule that it finds, where a promise is broken.
func keeps(t *testing.T, scenario string, s setting, schedule []step) {
	t.Helper()
	if problem, taken := play(s, 1, schedule); problem != "" {
		f := &failure{seed: 1, setting: s, steps: schedule[:taken], problem: problem, original: len(schedule)}
		f.shrink()
		t.Fatalf("%s: %s", scenario, f)
	}
}

// TestEveryPointOfDeposition has another manager become the leader at each call of each
// small scenario, and the old one finish at each call of the new one; a part of that
// where not all is asked for.
func TestEveryPointOfDeposition(t *testing.T) {
	plays := 0
	scenarios := small
	if testing.Short() {
		scenarios = small[:2]
	}
	for _, sc := range scenarios {
		s, prepared := settings[sc.setting], slices.Concat(sc.before, seen, sc.change, seen)
		for point := range calls(s, prepared) {
			for i, more := range after {
				deposed := slices.Concat(prepared, slices.Repeat([]step{{"run", 0}}, point+1), []step{{"depose", 0}}, more)
				for second := range calls(s, deposed) + 1 {
					if !*all && (point+second+i)%6 != 0 {
						continue
					}
					plays++
					keeps(t, sc.name, s, slices.Concat(deposed, slices.Repeat([]step{{"run", 0}}, second), []step{{"outlive", 0}, finished}))
				}
			}
		}
	}
	t.Logf("%d schedules", plays)
}

// TestEveryPointOfDisturbance disturbs each call of each small scenario in each
// way, with and without another change after it, and kills the next manager at each
// of its calls as well; a part of that where not all is asked for.
func TestEveryPointOfDisturbance(t *testing.T) {
	plays := 0
	scenarios := small
	if testing.Short() {
		scenarios = small[:2]
	}
	for _, sc := range scenarios {
		s, prepared := settings[sc.setting], slices.Concat(sc.before, seen, sc.change, seen)
		for point := range calls(s, prepared) {
			for _, death := range deaths {
				for i, more := range after {
					if !*all && (point+int(death)+i)%6 != 0 {
						continue
					}
					schedule := slices.Concat(prepared, slices.Repeat([]step{{"run", 0}}, point+1), []step{{"disturb", int(death)}}, more)
					plays++
					keeps(t, sc.name, s, schedule)
					if death != diesAfter || !*all {
						continue
					}
					for second := range calls(s, schedule) {
						plays++
						keeps(t, sc.name, s, slices.Concat(schedule, slices.Repeat([]step{{"run", 0}}, second+1), []step{{"disturb", int(diesAfter)}}))
					}
				}
			}
		}
	}
	t.Logf("%d schedules", plays)
}
