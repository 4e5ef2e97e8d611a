// drain.go lets clients go before the server does. A connection that stays open must
// not be closed while its client is sending the next request, and only the client
// knows when that is. So it is asked to: "Connection: close" stands in each answer
// (RFC 9112 section 9.6), while the server still takes whatever comes.

package verifier

import (
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// drainTimeout is how long clients have to go. Connections that were not used in
	// that time are closed then.
	drainTimeout = 3 * time.Second
	// drainTick is how often it is looked at whether they all have.
	drainTick = 20 * time.Millisecond
)

// drain is what one HTTP server knows of its connections.
type drain struct {
	open  atomic.Int64
	begun atomic.Bool
}

// count keeps count of the open connections; it is a server's ConnState.
func (d *drain) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		d.open.Add(-1)
	case http.StateActive, http.StateIdle:
	}
}

// handler asks clients to go, once that has begun.
func (d *drain) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// wait begins, and waits until no connection is left, but not longer than limit.
func (d *drain) wait(limit time.Duration) {
	d.begun.Store(true)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for d.open.Load() > 0 {
		select {
		case <-tick.C:
		case <-timeout.C:
			return
		}
	}
}
