package sim

import (
	"flag"
	"os/exec"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/test/harness/broken"
)

var breaks = flag.Bool("sim.breaks", false, "break the product on purpose, and expect to find that")

// The tests that have to find a break: those of one issuer object, or of a fleet, or
// all small scenarios of a fleet.
const (
	ofOne    = "^(TestEveryPointOfDeposition|TestEveryPointOfDisturbance|TestRandomSchedules)$"
	ofFleets = "^(TestEveryPointOfCopies|TestRandomSchedulesOfCopies)$"
	ofSmall  = "^TestEveryPointOfCopies$"
)

// mutants are deliberate breaks of the product. Each one must be found.
var mutants = []struct{ name, file, from, to, by string }{
	{"announces no set before it is published", "internal/controller/publish.go",
		"if s := issuer.IssuerStatus().Snapshot; want != nil && (s == nil",
		"if s := issuer.IssuerStatus().Snapshot; false && want != nil && (s == nil", ofOne},
	{"accepts content with any digest", "internal/verifier/join.go",
		`return digest != "" && (digest == recorded.Digest || digest == recorded.PendingDigest)`, `return digest != ""`, ofOne},
	{"drops a missing key at once", "internal/controller/rotate.go",
		"m = missing{since: in.now}", "continue", ofOne},
	{"forgets the keys when a ConfigMap is gone", "internal/controller/publish.go",
		"for _, key := range []client.ObjectKey{r.authoritativeKey(issuer), r.userKey(issuer)} {\n\t\tlive,", "for _, key := range []client.ObjectKey{} {\n\t\tlive,", ofOne},
	{"announces another set before the pending one is settled", "internal/controller/publish.go",
		"if want.Digest() != s.PendingDigest {\n\t\t\tinterrupted", "if false {\n\t\t\tinterrupted", ofOne},
	{"writes onto whatever it finds after it has announced a set", "internal/controller/publish.go",
		"	_, err = r.bring(ctx, issuer, live, w)\n	return err", "	live, _ = readConfigMap(ctx, r.Reader, w.key)\n	_, err = r.bring(ctx, issuer, live, w)\n	return err", ofOne},
	{"gives a publication up without a fence", "internal/controller/publish.go",
		"if !w.holds(live) {\n\t\tif _, err := r.bring(", "if false {\n\t\tif _, err := r.bring(", ofOne},
	{"gives up what has come since it looked", "internal/controller/publish.go",
		`s.PendingDigest != "" && digestOf(live) != digestOf(content) {`, `s.PendingDigest != "" && digestOf(live) != digestOf(content) && false {`, ofOne},
	{"remembers what has been withdrawn", "internal/controller/publish.go",
		"	if out.withdrawn {\n\t\tm.trusted = nil", "	if false {\n\t\tm.trusted = nil", ofOne},
	{"trusts expired keys", "internal/verifier/verify.go",
		"case issuer.usable != nil && state == snapshot.Expired:", "case false:", ofOne},
	{"forgets revocations", "internal/verifier/join.go",
		"return !isRevoked(k) && (trusted", "return (trusted", ofOne},
	{"fetches whenever it looks", "internal/controller/plan.go",
		"if first.at.After(in.now) {", "if false {", ofOne},
	{"copies a set that is not trusted yet", "internal/controller/distribute.go",
		"|| s.PendingDigest != \"\" {\n\t\treturn out, false, err\n\t}", "{\n\t\treturn out, false, err\n\t}\n\tif s.PendingDigest != \"\" {\n\t\tout, err = t.encode(issuer, content, s.PendingDigest, func(data map[string]string) string { return d.wantedCopy(issuer, \"\", data).sum() })\n\t\treturn out, err == nil, err\n\t}", ofFleets},
	{"copies onto what is somebody else's", "internal/controller/apply.go",
		"case live != nil && !r.owns(issuer, live):", "case false:", ofFleets},
	{"leaves the copy where the namespace is no longer selected", "internal/controller/distribute.go",
		"return d.letGoOf(ctx, issuer, left)", "return nil", ofFleets},
	{"takes copies back on the word of two caches", "internal/controller/distribute.go",
		"if err := d.confirmBoth(ctx, issuer, ns); err != nil {", "if err := error(nil); err != nil {", ofFleets},
	{"lets copies wait for a ConfigMap that was deleted", "internal/controller/distribute_setup.go",
		"if !e.IsInInitialList {", "if false {", ofFleets},
	{"copies without another look at the issuer object", "internal/controller/apply.go",
		"	if err := r.confirm(ctx, issuer); err != nil {\n\t\treturn \"\", err\n\t}\n\treturn r.bring(", "	return r.bring(", ofFleets},
	{"takes requests under other roots for the same", "internal/fetch/share.go",
		"if r.CABundle == nil {", "r.CABundle = nil\n\th.Reset()\n\th.Write([]byte(r.URL))\n\tif r.CABundle == nil {", ofFleets},
	{"gives what a cache may have given to who wants a fresh copy", "internal/fetch/share.go",
		"case age < 0, w.NoCache && !a.Afresh:", "case age < 0:", ofFleets},
	{"asks for each object", "internal/fetch/share.go",
		"	f := s.flights[key]\n	if f == nil {", "	var f *flight\n	if f == nil {", ofFleets},
	{"does not look for copies that were made too late", "internal/controller/distribute_setup.go",
		"len(d.graves.of(key, d.Clock.Now())) > 0", "key.Name == \"\"", ofSmall},
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
			run := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-failfast", "-timeout", "0", "-vet=off", "-overlay", overlay, "-run", m.by, ".", "-args", "-sim.seeds=2000")
			if m.by != ofFleets {
				run.Args = append(run.Args, "-sim.seeds=600", "-sim.all")
			}
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
