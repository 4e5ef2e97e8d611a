package sim

import (
	"slices"
	"testing"
)

// TestRegressions replays the schedules that have broken a promise once.
func TestRegressions(t *testing.T) {
	for name, schedule := range map[string][]step{
		"a cache that lags does not bring a deleted issuer's ConfigMaps back": {
			{"finish", 0}, {"delete", 0}, {"finish", 0}, {"deliver", 0}, {"deliver", 0}, {"deliver", 0}, {"finish", 0},
		},
		"a cache that lags does not let status name a set that the ConfigMap no longer holds": {
			{"finish", 0}, {"revoke", 0}, {"depose", 0}, {"finish", 0}, {"pardon", 0}, {"advance", 3}, {"run", 0}, {"run", 0},
			{"run", 0}, {"run", 0}, {"run", 0}, {"run", 0}, {"run", 0},
		},
		"a fetch that falls due during a slow call is not missed": {
			{"run", 0}, {"run", 0}, {"disturb", int(diesBefore)}, {"mode", int(down)}, {"finish", 0}, {"deliver", 0}, {"run", 0}, {"advance", 3},
		},
		"a set that a deposed manager publishes after all is not given up by its successor": slices.Concat(
			[]step{{"finish", 0}}, seen, []step{{"publish", 2}, {"refresh", 0}, {"advance", 2}}, seen, slices.Repeat([]step{{"run", 0}}, 5),
			[]step{{"depose", 0}, {"refresh", 0}, {"run", 0}, {"run", 0}, {"outlive", 0}},
		),
		"a clock that is set back during a fetch does not make one look two": {
			{"finish", 0}, {"retire", 1}, {"refresh", 0}, {"advance", 6}, {"show all", 0}, {"deliver", 0}, {"deliver", 0}, {"deliver", 0}, {"deliver", 0}, {"deliver", 0}, {"deliver", 0}, {"deliver", 0}, {"run", 0}, {"advance", 6}, {"run", 0}, {"jump", 4},
		},
		"a leader whose answer did not reach status does not bring it in over a newer one of a deposed manager": {
			{"finish", 0}, {"run", 0}, {"depose", 3}, {"advance", 6}, {"finish", 0}, {"replace", 0}, {"outlive", 0},
		},
		"a clock that is set back after a failure does not put off the next attempt": {
			{"advance", 5}, {"mode", int(empty)}, {"advance", 6}, {"finish", 0}, {"kill", 1}, {"finish", 0}, {"jump", 4},
		},
		"an answer that comes while the first set is being published has to overlap with that": {
			{"run", 0}, {"run", 0}, {"retire", 1}, {"run", 0}, {"run", 0}, {"run", 0}, {"replace", 0}, {"run", 0}, {"advance", 6}, {"refresh", 0},
		},
		"a key that has retired as the last one does not come back": {
			{"finish", 0}, {"advance", 5}, {"retire", 1}, {"finish", 0}, {"advance", 4}, {"revoke", 0}, {"advance", 5}, {"advance", 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed, s := range settings {
				if problem, _ := playIn(s, uint64(seed))(schedule); problem != "" {
					t.Errorf("%+v: %s", s, problem)
				}
			}
		})
	}
}

// TestRegressionsOfCopies does so for fleets.
func TestRegressionsOfCopies(t *testing.T) {
	for name, schedule := range map[string][]step{
		"a selector and labels that never stood together cost no namespace its copy": {
			{"finish", 0}, {"deliver all", 0}, {"finish", 0}, {"deliver all", 0}, {"select", 0}, {"unlabel", 0}, {"deliver", 4}, {"finish", 0},
		},
		"a copy that had to wait while the authoritative ConfigMap was deleted is made once that is there again": {
			{"finish", 0}, {"tamper", 3},
		},
		"a change of the roots together with another's news leads to no request too many": {
			{"ask", 0}, {"finish", 0}, {"advance", 5}, {"begin", 5}, {"run", 5}, {"run", 2}, {"publish", 2}, {"roots", 1},
		},
		"a second look that has failed is made again": {
			{"finish", 0}, {"select", 0}, {"retire", 1}, {"advance", 2}, {"delete", 1}, {"depose", 0}, {"finish", 0}, {"deliver", 1}, {"mode", int(html)},
			{"tamper", 3}, {"begin", 3}, {"disturb", int(fates) + int(diesAfter)}, {"advance", 5}, {"finish", 0}, {"advance", 3}, {"finish", 0},
		},
		"a copy that a deposed manager makes for an object that was withdrawn is removed": slices.Concat(
			slices.Repeat([]step{{"move", 0}}, 23), []step{{"depose", 0}, {"delete", 0}}, slices.Repeat([]step{{"move", 0}}, 7), []step{{"outlive", 0}, {"finish", 0}},
		),
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range fleetSettings {
				if problem, _ := playFleet(t, s)(schedule); problem != "" {
					t.Errorf("%+v: %s", s, problem)
				}
			}
		})
	}
}
