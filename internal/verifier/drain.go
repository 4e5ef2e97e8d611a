// drain.go lets clients go before the server does. A connection that stays open must
// not be closed while its client is sending the next request, and only the client
// knows when that is. So it is asked to: "Connection: close" stands in each answer
// (RFC 9112 section 9.6), while the server still takes whatever comes.
//
// New connections are whatever comes, too, for all of that time: those who send them
// learn only after a while that this replica is no more. That nobody is there just now
// says nothing about who is on the way.

package verifier

import (
	"net/http"
	"sync/atomic"
	"time"
)

// drainTimeout is how long clients have to go. Connections that were not used in that
// time are closed then.
const drainTimeout = 3 * time.Second

// drain is one HTTP server's asking clients to go.
type drain struct{ begun atomic.Bool }

// handler asks clients to go, once that has begun.
func (d *drain) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// wait begins, and gives them that long.
func (d *drain) wait(grace time.Duration) {
	d.begun.Store(true)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	<-timer.C
}
