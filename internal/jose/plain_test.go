package jose

import (
	"slices"
	"testing"
)

// Eight bytes at a time find what one at a time does.
func TestPlain(t *testing.T) {
	text := make([]byte, 20)
	for at := range text {
		for b := range 256 {
			for after := range 256 { // bytes above must not disturb
				for i := range text {
					text[i] = 'a'
				}
				text[at] = byte(b)
				if at+1 < len(text) {
					text[at+1] = byte(after)
				}
				want := slices.IndexFunc(text, func(b byte) bool { return b < ' ' || b == '"' || b == '\\' })
				if want < 0 {
					want = len(text)
				}
				if got := plain(text); got != want {
					t.Fatalf("%q: %d, not %d", text, got, want)
				}
			}
		}
	}
}
