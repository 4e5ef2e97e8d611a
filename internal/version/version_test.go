package version

import (
	"runtime/debug"
	"testing"

	. "github.com/onsi/gomega"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

func info(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
	return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
}

func TestWhatAProgramWasBuiltFrom(t *testing.T) {
	vcs := debug.BuildSetting{Key: "vcs.revision", Value: commit}
	pseudo := "v0.0.0-20261127203029-0123456789ab+dirty"
	for name, tc := range map[string]struct {
		release, revision string
		info              *debug.BuildInfo
		want              Build
		text              string
	}{
		"a release, by the linker":                  {"v1.2.3", commit, info("(devel)"), Build{"v1.2.3", commit}, "v1.2.3 (" + commit + ")"},
		"the linker goes before what Go has noted":  {"v1.2.3", "abc", info(pseudo, vcs), Build{"v1.2.3", "abc"}, "v1.2.3 (abc)"},
		"a release whose commit nobody told":        {"v1.2.3", "", info(""), Build{"v1.2.3", "unknown"}, "v1.2.3"},
		"make build tells the commit alone":         {"", commit + "-dirty", info("(devel)"), Build{"devel", commit + "-dirty"}, "devel (" + commit + "-dirty)"},
		"a build in a checkout":                     {"", "", info(pseudo, vcs), Build{pseudo, commit}, pseudo},
		"go install of a version":                   {"", "", info("v1.2.3"), Build{"v1.2.3", "unknown"}, "v1.2.3"},
		"a build without version control, untagged": {"", "", info("(devel)"), Build{"devel", "unknown"}, "devel"},
		"a binary without build information":        {"", "", &debug.BuildInfo{}, Build{"devel", "unknown"}, "devel"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := of(tc.release, tc.revision, tc.info)
			g.Expect(got).To(Equal(tc.want))
			g.Expect(got.String()).To(Equal(tc.text))
		})
	}
}

func TestUserAgentIsAProductWithItsVersion(t *testing.T) {
	NewWithT(t).Expect(Build{"v1.2.3", commit}.UserAgent("jwks-trust-manager")).To(Equal("jwks-trust-manager/v1.2.3"))
}
