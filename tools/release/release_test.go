package main

import (
	"io"
	"testing"

	. "github.com/onsi/gomega"
)

// TestWhatCannotBecomeARelease is said before anything is made.
func TestWhatCannotBecomeARelease(t *testing.T) {
	g := NewWithT(t)
	s := checkout(t, map[string]string{"CHANGELOG.md": changelog})
	check := func(version string, change func(*release)) error {
		r := &release{log: io.Discard, root: s.root, version: version}
		change(r)
		return r.check(t.Context())
	}
	asItIs := func(*release) {}
	short := func(r *release) { r.platforms, r.once = "linux/amd64", true }

	g.Expect(check("1.2.3", asItIs)).To(Succeed())
	g.Expect(check("1.2.3", short)).To(Succeed(), "a rehearsal may be short")
	g.Expect(check("2.0.0", asItIs)).To(Succeed(), "and has no date yet")
	g.Expect(check("9.9.9", asItIs)).To(MatchError(ContainSubstring("CHANGELOG.md has no section for 9.9.9")))
	g.Expect(check("", asItIs)).To(MatchError(ContainSubstring("VERSION=1.2.3")))
	g.Expect(check("1.2.3", func(r *release) { r.platforms = "plan9/mips" })).To(MatchError("nothing is made for plan9/mips"))

	do(t, s, "tag", "--annotate", "--message", "x", "v1.2.3")
	do(t, s, "tag", "--annotate", "--message", "x", "v2.0.0")
	g.Expect(check("1.2.3", asItIs)).To(Succeed())
	g.Expect(check("1.2.3", short)).To(MatchError(ContainSubstring("a release is for all platforms, and built twice")))
	g.Expect(check("2.0.0", asItIs)).To(MatchError(ContainSubstring("has no date")))

	write(t, s.root, map[string]string{"left": "over"})
	g.Expect(check("1.2.3", asItIs)).To(MatchError(ContainSubstring("?? left")))
}

func TestCommandsThatAreNone(t *testing.T) {
	g := NewWithT(t)
	for _, args := range [][]string{nil, {"all"}, {"make", "now"}, {"reproduce", "-version=1"}} {
		g.Expect(run(t.Context(), args, io.Discard)).NotTo(Succeed())
	}
}
