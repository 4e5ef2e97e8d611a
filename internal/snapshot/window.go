package snapshot

import "time"

// MaxClockAhead is how far a recorded success may lie ahead of the reader's
// clock before it counts as nonsense: the clocks of two nodes differ, and one
// of them may have jumped.
const MaxClockAhead = 60 * time.Second

// State is the freshness of a snapshot.
type State int

// The states, in the order in which an issuer that goes silent passes them.
const (
	// Pending: the issuer has never answered.
	Pending State = iota
	// Fresh: the last success is at most cacheTTL ago, or the keys are static.
	Fresh
	// Stale: past cacheTTL, still trusted.
	Stale
	// Expired: past the longer of cacheTTL and staleTTL; not trusted.
	Expired
)

// String is the state's name.
func (s State) String() string {
	switch s {
	case Fresh:
		return "Fresh"
	case Stale:
		return "Stale"
	case Expired:
		return "Expired"
	case Pending:
		return "Pending"
	}
	return "Unknown"
}

// Window is the time during which a snapshot is trusted.
type Window struct {
	// LastSuccess is when the issuer last confirmed the keys; zero for never.
	LastSuccess time.Time
	// CacheTTL and StaleTTL are both counted from LastSuccess.
	CacheTTL, StaleTTL time.Duration
	// Static keys are never stale.
	Static bool
}

// FreshUntil is when the snapshot becomes stale; zero for static and pending
// ones.
func (w Window) FreshUntil() time.Time {
	if w.Static || w.LastSuccess.IsZero() {
		return time.Time{}
	}
	return w.LastSuccess.Add(w.CacheTTL)
}

// ExpiresAt is when the snapshot is no longer trusted; zero for static and
// pending ones. A staleTTL shorter than cacheTTL never cuts freshness short.
func (w Window) ExpiresAt() time.Time {
	if w.Static || w.LastSuccess.IsZero() {
		return time.Time{}
	}
	return w.LastSuccess.Add(max(w.CacheTTL, w.StaleTTL))
}

// State is the state at the time now. The ends of the window belong to the
// later state.
func (w Window) State(now time.Time) State {
	switch {
	case w.Static && !w.LastSuccess.IsZero():
		return Fresh
	case w.LastSuccess.IsZero():
		return Pending
	case now.Before(w.FreshUntil()):
		return Fresh
	case now.Before(w.ExpiresAt()):
		return Stale
	default:
		return Expired
	}
}

// Capped is the window with a LastSuccess that lies more than MaxClockAhead
// after now brought back to now, so that a clock that was ahead when it was
// written cannot lengthen trust without limit. Apply it once, when a record is
// first read: applied at each use it would move along with the clock.
func (w Window) Capped(now time.Time) Window {
	if w.LastSuccess.After(now.Add(MaxClockAhead)) {
		w.LastSuccess = now
	}
	return w
}
