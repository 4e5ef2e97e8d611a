package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// programs is a small product: it tells its stamp, and what it was compiled with.
var programs = map[string]string{
	"go.mod":                      "module " + product + "\n\ngo 1.26\n",
	"internal/version/version.go": "package version\n\nvar release, revision string\n\nfunc String() string { return release + \" \" + revision }\n",
	"cmd/manager/main.go":         "package main\n\nimport (\n\t\"" + product + "/internal/version\"\n\t\"runtime\"\n)\n\nfunc main() {\n\t_, file, _, _ := runtime.Caller(0)\n\tprintln(version.String(), file, extra)\n}\n",
	"cmd/manager/with.go":         "//go:build different\n\npackage main\n\nconst extra = \"with\"\n",
	"cmd/manager/without.go":      "//go:build !different\n\npackage main\n\nconst extra = \"without\"\n",
}

// mine is the program for this machine.
var mine = target{"manager", runtime.GOOS, runtime.GOARCH}

// buildIn builds the small product in a folder.
func buildIn(t *testing.T, dir string, env []string) string {
	t.Helper()
	write(t, dir, programs)
	b := builder{log: io.Discard, source: dir, out: filepath.Join(dir, "out"), env: env, stamp: stamp{"1.2.3", "abc"}}
	made, err := b.build(t.Context(), []target{mine})
	if err != nil {
		t.Fatal(err)
	}
	return made[mine]
}

// TestABuildDependsOnItsSourceAlone: not on the folder, and not on what somebody has
// set for Go.
func TestABuildDependsOnItsSourceAlone(t *testing.T) {
	g := NewWithT(t)
	env, err := environment(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	first := buildIn(t, t.TempDir(), env)

	settings := filepath.Join(t.TempDir(), "goenv")
	g.Expect(os.WriteFile(settings, []byte("GOAMD64=v3\nGOFLAGS=-tags=different\n"), 0o600)).To(Succeed())
	for name, value := range map[string]string{"GOENV": settings, "CGO_ENABLED": "1", "GOARM64": "v9.0", "GODEBUG": "http2client=0", "GOWORK": "off"} {
		t.Setenv(name, value)
	}
	env, err = environment(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	second := buildIn(t, filepath.Join(t.TempDir(), "a", "longer", "path"), env)

	sum, err := digest(first)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(digest(second)).To(Equal(sum))
	said, err := exec.CommandContext(t.Context(), second).CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.TrimSpace(string(said))).To(Equal("v1.2.3 abc " + product + "/cmd/manager/main.go without"))
}

// TestADifferenceIsSeen, and names the program.
func TestADifferenceIsSeen(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "b": "1", "c": "2"})
	at := func(name string) map[target]string { return map[target]string{targets[0]: filepath.Join(dir, name)} }
	r := &release{log: io.Discard}
	g.Expect(r.compare(at("a"), at("b"))).To(Succeed())
	g.Expect(r.compare(at("a"), at("c"))).To(MatchError(And(ContainSubstring("differ"), ContainSubstring("manager for linux/amd64: sha256 6b86"))))
	g.Expect(r.compare(at("a"), at("gone"))).NotTo(Succeed())
	g.Expect(r.compare(at("a"), nil)).To(MatchError("nothing was built twice"), "that proves nothing")
}

// TestTheSecondBuildSharesNothing but the modules that were downloaded.
func TestTheSecondBuildSharesNothing(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	env, err := strange(dir, []string{"HOME=/home/me", "GOCACHE=/c", "GOMODCACHE=/m", "GOPROXY=https://proxy.example.com", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0"})
	g.Expect(err).NotTo(HaveOccurred())
	values := map[string]string{} // the last one counts
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		values[name] = value
	}
	for _, name := range []string{"HOME", "TMPDIR", "GOCACHE", "GOMODCACHE"} {
		g.Expect(values[name]).To(HavePrefix(dir), name)
	}
	g.Expect(values).To(HaveKeyWithValue("GOPROXY", "file:///m/cache/download,https://proxy.example.com"))
	g.Expect(values).To(HaveKeyWithValue("GOFLAGS", "-mod=readonly -modcacherw"))
	g.Expect(values).To(HaveKeyWithValue("CGO_ENABLED", "0"))
}

// TestTheDockerfileBuildsLikeARelease: the same flags, so the same binary.
func TestTheDockerfileBuildsLikeARelease(t *testing.T) {
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "Dockerfile"))
	g.Expect(err).NotTo(HaveOccurred())
	filled := strings.NewReplacer("$stamped", product+"/internal/version", "${VERSION:+v$VERSION}", "v1.2.3", "${REVISION}", "abc").Replace(string(text))
	g.Expect(filled).To(ContainSubstring("stamped=" + product + "/internal/version"))
	g.Expect(filled).To(ContainSubstring(`-ldflags "` + stamp{"1.2.3", "abc"}.ldflags() + `"`))
	g.Expect(filled).To(ContainSubstring("CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false"))
}
