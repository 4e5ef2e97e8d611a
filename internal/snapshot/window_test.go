package snapshot

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestWindow(t *testing.T) {
	success := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	usual := Window{LastSuccess: success, CacheTTL: 10 * time.Minute, StaleTTL: 24 * time.Hour}
	strict := Window{LastSuccess: success, CacheTTL: 10 * time.Minute}
	static := Window{LastSuccess: success, CacheTTL: 10 * time.Minute, Static: true}

	for name, tc := range map[string]struct {
		window Window
		after  time.Duration
		want   State
	}{
		"never fetched":            {Window{CacheTTL: time.Hour, StaleTTL: time.Hour}, 0, Pending},
		"just fetched":             {usual, 0, Fresh},
		"last moment of freshness": {usual, 10*time.Minute - 1, Fresh},
		"freshness ends":           {usual, 10 * time.Minute, Stale},
		"last moment of trust":     {usual, 24*time.Hour - 1, Stale},
		"trust ends":               {usual, 24 * time.Hour, Expired},
		"staleTTL 0 expires with freshness, and not before": {strict, 10*time.Minute - 1, Fresh},
		"staleTTL 0 never serves stale":                     {strict, 10 * time.Minute, Expired},
		"a clock set back leaves fresh keys fresh":          {usual, -time.Hour, Fresh},
		"static keys are never stale":                       {static, 1000 * time.Hour, Fresh},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(tc.window.State(success.Add(tc.after))).To(Equal(tc.want))
		})
	}
}

func TestWindowCapped(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) Window { return Window{LastSuccess: now.Add(d), CacheTTL: time.Minute} }
	g.Expect(at(-time.Hour).Capped(now)).To(Equal(at(-time.Hour)), "the past stands")
	g.Expect(at(MaxClockAhead).Capped(now)).To(Equal(at(MaxClockAhead)), "clocks differ a little")
	g.Expect(at(MaxClockAhead+1).Capped(now)).To(Equal(at(0)), "trust is not lengthened by a clock that was ahead")
}
