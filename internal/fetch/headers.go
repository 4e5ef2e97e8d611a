// headers.go reads the headers that say how long a document is fresh, and when
// to come back. Servers send nonsense in them: it counts as nothing said, or as
// zero, never as a long time.

package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxValidator bounds a validator that is sent back, in bytes.
	maxValidator = 512
	// maxLifetime keeps an absurd lifetime from overflowing.
	maxLifetime = 365 * 24 * time.Hour
)

// validator is an ETag or Last-Modified fit to be sent back; empty for one that
// is not. One that no request may carry would fail each fetch from then on.
func validator(v string) string {
	unfit := func(r rune) bool { return r < ' ' || r > '~' }
	if len(v) > maxValidator || strings.ContainsFunc(v, unfit) {
		return ""
	}
	return v
}

// lifetime is the freshness lifetime less the age (RFC 9111 sections 4.2.1 and
// 4.2.3); ok is false where the headers say nothing about it. s-maxage is for
// shared caches that serve strangers, and ignored.
func lifetime(h http.Header, now time.Time) (d time.Duration, ok bool) {
	age := seconds(h.Get("Age"))
	for _, directive := range directives(h) {
		name, value, _ := strings.Cut(directive, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "no-store", "no-cache":
			return 0, true
		case "max-age":
			if !ok { // RFC 9111 section 4.2.1: the first counts
				d, ok = seconds(strings.Trim(strings.TrimSpace(value), `"`)), true
			}
		}
	}
	if ok {
		return max(d-age, 0), true
	}
	expires := h.Get("Expires")
	if expires == "" {
		return 0, false
	}
	at, err := http.ParseTime(expires)
	if err != nil {
		return 0, true // RFC 9111 section 5.3: an invalid date means already expired
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now)-age, 0), maxLifetime), true
}

func directives(h http.Header) []string {
	var out []string
	for _, line := range h.Values("Cache-Control") {
		for _, d := range strings.Split(line, ",") {
			out = append(out, strings.TrimSpace(d))
		}
	}
	return out
}

// seconds reads a delta-seconds (RFC 9111 section 1.2.2); 0 for nonsense.
func seconds(s string) time.Duration {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil {
		return 0
	}
	return min(time.Duration(min(n, uint64(maxLifetime/time.Second)))*time.Second, maxLifetime)
}

// retryAfter is when to come back (RFC 9110 section 10.2.3), at most 15 minutes
// from now; 0 for never said, in the past, or nonsense.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	d := seconds(value)
	if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
