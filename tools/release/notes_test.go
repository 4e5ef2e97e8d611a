package main

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

const changelog = `# Changelog

## [Unreleased]

- not yet

## [2.0.0] - Unreleased

- soon

## [1.2.3] - 2026-01-31

### Added

- this, see [a link](x)

## [1.2.2] - 2026-02-30

- on no day

## [1.2.1]

- without a date

## [1.2.0] - 2026-01-01

[1.2.3]: https://example.com/1.2.3
`

func TestNotesAreTheSectionOfTheVersion(t *testing.T) {
	g := NewWithT(t)
	g.Expect(notesOf(changelog, "1.2.3", true)).To(Equal("### Added\n\n- this, see [a link](x)"))
	g.Expect(notesOf(changelog, "2.0.0", false)).To(Equal("- soon"), "a rehearsal needs no date")
	for version, want := range map[string]string{
		"2.0.0": "has no date",
		"1.2.2": "has no date",
		"1.2.1": "has no date",
		"1.2.0": "says nothing about 1.2.0",
		"1.2":   "has no section for 1.2",
		"3.0.0": "## [3.0.0] - YYYY-MM-DD",
	} {
		g.Expect(notesOf(changelog, version, true)).Error().To(MatchError(ContainSubstring(want)), version)
	}
	g.Expect(notesOf(changelog, "1.2.1", false)).Error().To(MatchError(ContainSubstring("has no date")), "an open date is said to be open")
}

// TestTheChangelogHasTheChartsVersion: the chart in the repository says which version
// comes, or came.
func TestTheChangelogHasTheChartsVersion(t *testing.T) {
	g := NewWithT(t)
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "charts", "jwks-trust-manager", "Chart.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var chart struct{ Version, AppVersion string }
	g.Expect(yaml.Unmarshal(text, &chart)).To(Succeed())
	g.Expect(chart.AppVersion).To(Equal(tag(chart.Version)))
	all, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(notesOf(string(all), chart.Version, false)).NotTo(BeEmpty())
}
