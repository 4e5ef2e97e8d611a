package sim

import (
	"flag"
	"slices"
	"testing"
	"testing/synctest"
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
	{"the last key's grace ends, and the other one is revoked", 1, []step{
		finished, {"retire", 1}, {"advance", 4}, finished, {"advance", 2}, finished, {"revoke", 0}, {"advance", 5}, finished, {"advance", 4}, finished,
	}, []step{{"advance", 3}}},
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

// after is what may follow the disturbance: nothing, or another change at once. What a user
// asks for with it is news to the next manager, whose first writes to the object fail on it;
// what only the issuer does is not.
var after = [][]step{
	nil,
	{{"replace", 0}, {"refresh", 0}, {"advance", 2}}, {{"mode", int(down)}, {"refresh", 0}, {"advance", 2}},
	{{"replace", 0}}, {{"mode", int(down)}},
}

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
	if f := judge(1, s, schedule, playIn(s, 1), life.words); f != nil {
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

// smallFleets are scenarios of one change each, for fleets.
var smallFleets = []struct {
	name           string
	setting        int
	before, change []step
}{
	{"the first copies", 0, nil, nil},
	{"a new key is copied", 0, settledFleet, []step{{"publish", 2}, {"refresh", 0}, {"advance", 2}}},
	{"a revoked key", 0, settledFleet, []step{{"revoke", 1}, {"advance", 2}}},
	{"a namespace stops matching", 0, settledFleet, []step{{"unlabel", 0}}},
	{"a namespace begins to match", 0, settledFleet, []step{{"label", 2}}},
	{"the selector is narrowed", 0, slices.Concat(settledFleet, []step{{"select", 0}, {"deliver all", 0}, finished}), []step{{"select", 1}}},
	{"a copy is tampered with", 0, settledFleet, []step{{"tamper", len(places) + 1}}},
	{"the object is deleted", 0, settledFleet, []step{{"delete", 0}}},
	{"the object is deleted, and its copies stay", 5, settledFleet, []step{{"delete", 0}}},
}

var settledFleet = []step{finished, {"deliver all", 0}, finished, {"deliver all", 0}, finished}

// moves is how many moves there are to make after these steps.
func moves(t *testing.T, s fleetSetting, before []step) (n int) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		f := newFleet(s)
		defer f.close()
		for _, step := range before {
			f.take(step)
		}
		for f.move() {
			n++
		}
	})
	return n
}

// TestEveryPointOfCopies disturbs each call of each small scenario of a fleet in each
// way, and has another manager become the leader at each, while the old one finishes at
// each call of the new one; a part of that where not all is asked for.
func TestEveryPointOfCopies(t *testing.T) {
	plays, scenarios, part := 0, smallFleets, 60
	if testing.Short() {
		scenarios = smallFleets[:2]
	}
	if *all {
		part = 1
	}
	for _, sc := range scenarios {
		s, prepared := fleetSettings[sc.setting], slices.Concat(sc.before, sc.change)
		try := func(nth int, schedule []step) {
			if nth%part != 0 {
				return
			}
			plays++
			if f := judge(1, s, schedule, playFleet(t, s), fleetLife.words); f != nil {
				t.Fatalf("%s: %s", sc.name, f)
			}
		}
		for point := range moves(t, s, prepared) {
			there := slices.Concat(prepared, slices.Repeat([]step{{"move", 0}}, point+1))
			for _, death := range deaths {
				for i, more := range [][]step{nil, {{"mode", int(down)}, {"advance", 2}}, {{"unlabel", 1}}, {{"delete", 0}}} {
					try(point*5+int(death)+i*7, slices.Concat(there, []step{{"disturb", int(death)}}, more))
				}
			}
			for i, more := range [][]step{nil, {{"delete", 0}}} {
				deposed := slices.Concat(there, []step{{"depose", 0}}, more)
				for second := range moves(t, s, deposed) + 1 {
					try(point*11+second+i*5, slices.Concat(deposed, slices.Repeat([]step{{"move", 0}}, second), []step{{"outlive", 0}, finished}))
				}
			}
		}
	}
	t.Logf("%d schedules", plays)
}
