// Package version says what a program was built from. A release has it from the
// linker:
//
//	-X github.com/jwks-trust/jwks-trust-manager/internal/version.release=v1.2.3
//	-X github.com/jwks-trust/jwks-trust-manager/internal/version.revision=COMMIT
//
// `make build` tells the commit alone. Any other build has it from Go, which notes the
// commit where it is asked to.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Set by the linker.
var release, revision string

const (
	// devel is the version of what is no release.
	devel = "devel"
	// unknown is a revision that nobody told.
	unknown = "unknown"
)

// Build is what a program was built from.
type Build struct {
	// Version is that of a release, v1.2.3; or a pseudo-version of the commit; or devel.
	Version string
	// Revision is the commit.
	Revision string
}

// Get is what this program was built from.
func Get() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return of(release, revision, info)
}

// of prefers what the linker was told.
func of(release, revision string, info *debug.BuildInfo) Build {
	b := Build{Version: release, Revision: revision}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = devel
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && b.Revision == "" {
			b.Revision = s.Value
		}
	}
	if b.Revision == "" {
		b.Revision = unknown
	}
	return b
}

// String is for people. A pseudo-version has the revision in it.
func (b Build) String() string {
	if b.Revision == unknown || strings.Contains(b.Version, b.Revision[:min(12, len(b.Revision))]) {
		return b.Version
	}
	return fmt.Sprintf("%s (%s)", b.Version, b.Revision)
}

// UserAgent is how a program tells servers who it is. The commit is nobody's business.
func (b Build) UserAgent(program string) string { return program + "/" + b.Version }

// Platform is what this program was compiled with, and for.
func Platform() string {
	return fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
