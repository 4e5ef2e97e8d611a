package sim

import (
	"flag"
	"os/exec"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/test/harness/broken"
)

var breaks = flag.Bool("sim.breaks", false, "break the product on purpose, and expect to find that")

// mutants are deliberate breaks of the product. Each one must be found.
var mutants = []struct{ name, file, from, to string }{
	{"announces no set before it is published", "internal/controller/publish.go",
		"if s := issuer.IssuerStatus().Snapshot; want != nil && (s == nil",
		"if s := issuer.IssuerStatus().Snapshot; false && want != nil && (s == nil"},
	{"accepts content with any digest", "internal/verifier/join.go",
		`return digest != "" && (digest == recorded.Digest || digest == recorded.PendingDigest)`, `return digest != ""`},
	{"drops a missing key at once", "internal/controller/rotate.go",
		"m = missing{since: in.now}", "continue"},
	{"forgets the keys when a ConfigMap is gone", "internal/controller/publish.go",
		"for _, key := range []client.ObjectKey{r.authoritativeKey(issuer), r.userKey(issuer)} {\n\t\tlive,", "for _, key := range []client.ObjectKey{} {\n\t\tlive,"},
	{"announces another set before the pending one is settled", "internal/controller/publish.go",
		"if want.Digest() != s.PendingDigest {\n\t\t\tinterrupted", "if false {\n\t\t\tinterrupted"},
	{"writes onto whatever it finds after it has announced a set", "internal/controller/publish.go",
		"	_, err = r.bring(ctx, issuer, live, w)\n	return err", "	live, _ = readConfigMap(ctx, r.Reader, w.key)\n	_, err = r.bring(ctx, issuer, live, w)\n	return err"},
	{"gives a publication up without a fence", "internal/controller/publish.go",
		"if !w.holds(live) {\n\t\tif _, err := r.bring(", "if false {\n\t\tif _, err := r.bring("},
	{"gives up what has come since it looked", "internal/controller/publish.go",
		`s.PendingDigest != "" && digestOf(live) != digestOf(content) {`, `s.PendingDigest != "" && digestOf(live) != digestOf(content) && false {`},
	{"trusts expired keys", "internal/verifier/verify.go",
		"case issuer.usable != nil && state == snapshot.Expired:", "case false:"},
	{"forgets revocations", "internal/verifier/join.go",
		"return !isRevoked(k) && (trusted", "return (trusted"},
	{"fetches whenever it looks", "internal/controller/plan.go",
		"if first.at.After(in.now) {", "if false {"},
}

// TestDeliberateBreaksAreFound builds this test anew with the product broken, and
// expects it to fail. Without -sim.breaks it only sees that each break still fits.
func TestDeliberateBreaksAreFound(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			overlay, err := broken.Line{File: m.file, Sound: m.from, Broken: m.to}.Overlay(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if !*breaks {
				return
			}
			run := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-failfast", "-timeout", "0", "-vet=off", "-overlay", overlay, "-run", "^(TestEveryPointOfDeposition|TestEveryPointOfDisturbance|TestRandomSchedules)$", ".", "-args", "-sim.seeds=600", "-sim.all")
			output, err := run.CombinedOutput()
			if err == nil {
				t.Fatalf("nobody noticed")
			}
			if !strings.Contains(string(output), "steps are needed:") {
				t.Fatalf("it failed in another way:\n%s", output)
			}
			t.Logf("%s", output)
		})
	}
}
