// breaks_test.go breaks guarantees on purpose, and sees the suite fail.

package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/jwks-trust/jwks-trust-manager/test/harness/broken"
)

// TestDeliberateBreaksAreCaught only sees that each break still fits, where not all is
// asked for.
func TestDeliberateBreaksAreCaught(t *testing.T) {
	for name, tc := range map[string]struct {
		file, sound, broken string
		test, caught        string
	}{
		"a set is published before status names it": {
			file:   "internal/controller/publish.go",
			sound:  `if s := issuer.IssuerStatus().Snapshot; want != nil && (s == nil || want.Digest() != s.Digest && want.Digest() != s.PendingDigest) {`,
			broken: `if s := issuer.IssuerStatus().Snapshot; false && (s == nil || want.Digest() != s.Digest) {`,
			test:   "^TestCrashAtEveryWrite$", caught: "a verifier that starts would find no trusted keys",
		},
		"who loses the lease goes on writing": {
			file:   "cmd/manager/main.go",
			sound:  `LeaderElection:                o.leaderElect && o.runs(componentController),`,
			broken: `LeaderElection:                false,`,
			test:   "^TestLeaderLosesTheLeaseInTheMiddleOfAFetch$", caught: "who loses the lease ends",
		},
		"not ready is a no": {
			file:   "internal/verifier/forwardauth.go",
			sound:  `return Verdict{Outcome: CannotDecide, Reason: NotReady}`,
			broken: `return Verdict{Outcome: Refuse, Reason: NotReady}`,
			test:   "^TestVerifierUnderFault$", caught: "503",
		},
		"a name is judged once and dialled anew": {
			file:   "internal/fetch/dial.go",
			sound:  `conn, err := f.dialFirst(ctx, network, addrs, port)`,
			broken: `_, _ = addrs, port; conn, err := f.connect(ctx, network, hostPort)`,
			test:   "^TestNameServerLies$", caught: "rebinds",
		},
		"a copy is written without a look at the issuer": {
			file:   "internal/controller/apply.go",
			sound:  `if err := r.confirm(ctx, issuer); err != nil {`,
			broken: `if err := r.confirm(ctx, issuer); false && err != nil {`,
			test:   "^TestStaleViews$", caught: "FAIL: TestStaleViews/reads_from_the_past,_writes_to_the_present",
		},
		"something is kept of each rotation": {
			file:   "internal/controller/reconcile.go",
			sound:  `	m.trusted, m.success = want, success`,
			broken: `	go func() { <-make(chan struct{}); _ = want }(); m.trusted, m.success = want, success`,
			test:   "^TestSoak$", caught: "goroutines are left",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			dir := t.TempDir()
			overlay, err := broken.Line{File: tc.file, Sound: tc.sound, Broken: tc.broken}.Overlay(dir)
			g.Expect(err).NotTo(HaveOccurred())
			if !*full {
				return
			}
			needsControlPlane(t)
			manager := filepath.Join(dir, "manager")
			g.Expect(build(manager, "-overlay", overlay)).To(Succeed())

			cmd := exec.Command(os.Args[0], "-test.run", tc.test, "-manager", manager)
			out, err := cmd.CombinedOutput()
			g.Expect(err).To(HaveOccurred(), "the suite passes, though %s:\n%s", name, out)
			g.Expect(string(out)).To(ContainSubstring(tc.caught))
			figures.add("deliberate break: "+name, "the suite fails", "%s: %q", strings.Trim(tc.test, "^$"), tc.caught)
		})
	}
}
