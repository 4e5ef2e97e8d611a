// misbehave.go scripts the answers of issuers that are broken or hostile.

package testissuer

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"sync"
	"time"
)

// Status answers with a status code and an error page.
func Status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<h1>no</h1>", code) }
}

// HTML answers 200 with a web page, as captive portals and login pages do.
func HTML() http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>Log in</title>")) // the client may hang up
	}
}

// Redirect answers 302.
func Redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// GzipBomb answers with 16 MiB of zeros that compress to almost nothing.
func GzipBomb() http.HandlerFunc {
	body := bomb()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(body) // the client hangs up
	}
}

// bomb is made once: with -race it takes a while.
var bomb = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	for range 16 {
		_, _ = z.Write(make([]byte, 1<<20)) // a buffer takes everything
	}
	_ = z.Close() // likewise
	return out.Bytes()
})

// Drip answers one byte at a time, until the client hangs up.
func Drip(every time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
				if _, err := w.Write([]byte(" ")); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush() // seen by the next write
			}
		}
	}
}
