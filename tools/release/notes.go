// notes.go takes the release notes from the changelog.

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// headings are those of versions: ## [1.2.3] - 2026-01-31
var headings = regexp.MustCompile(`(?m)^## \[([^\]\n]+)\](?: - (.*?))?[ \t]*$`)

// notesOf is what the changelog says of a version. While there is no tag, its date may
// be open.
func notesOf(changelog, version string, tagged bool) (string, error) {
	found := headings.FindAllStringSubmatchIndex(changelog, -1)
	for i, h := range found {
		if changelog[h[2]:h[3]] != version {
			continue
		}
		date := ""
		if h[4] >= 0 {
			date = changelog[h[4]:h[5]]
		}
		if err := checkDate(version, date, tagged); err != nil {
			return "", err
		}
		end := len(changelog)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		text := strings.TrimSpace(links.ReplaceAllString(changelog[h[1]:end], ""))
		if text == "" {
			return "", fmt.Errorf("CHANGELOG.md says nothing about %s", version)
		}
		return text, nil
	}
	return "", fmt.Errorf("CHANGELOG.md has no section for %[1]s: give the one of what is unreleased the heading\n\n    ## [%[1]s] - YYYY-MM-DD", version)
}

// links are those at the end of a changelog.
var links = regexp.MustCompile(`(?m)^\[[^\]\n]+\]: \S+\n?`)

func checkDate(version, date string, tagged bool) error {
	if _, err := time.Parse(time.DateOnly, date); err == nil || (!tagged && date == "Unreleased") {
		return nil
	}
	return fmt.Errorf("CHANGELOG.md: the section for %s has no date; write\n\n    ## [%[1]s] - YYYY-MM-DD", version)
}

// makeNotes writes RELEASE_NOTES.md.
func (r *release) makeNotes(context.Context, string) error {
	text := fmt.Sprintf("# jwks-trust-manager %s\n\n%s\n\n## This build\n\n"+
		"Commit %s, compiled with %s, for `IMAGE_REPOSITORY=%s`. `docs/security.md`\nsays how to check the files, and how to make them again.\n",
		tag(r.version), r.notes, r.from.revision, r.goVersion, r.imageRepository)
	return os.WriteFile(filepath.Join(r.out, "RELEASE_NOTES.md"), []byte(text), 0o644) //nolint:gosec // is published
}
