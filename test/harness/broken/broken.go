// Package broken breaks the product on purpose, for tests that have to notice. What is
// broken is a build of it: `go build -overlay` replaces a source, and no file changes.
package broken

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Line is a piece of one of the product's sources, and what takes its place.
type Line struct {
	// File is the source, from the root of the repository.
	File string
	// Sound is there exactly once.
	Sound, Broken string
}

// Overlay writes what `go build -overlay` needs into a folder, and returns its path. It
// is an error when the product has changed, so that the break does not fit any more.
func (l Line) Overlay(folder string) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(here), "..", "..", "..", filepath.FromSlash(l.File))
	content, err := os.ReadFile(source) //nolint:gosec // our own sources
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(content), l.Sound); n != 1 {
		return "", fmt.Errorf("%s holds %q %d times: write the break anew", l.File, l.Sound, n)
	}
	replaced, overlay := filepath.Join(folder, "replaced.go"), filepath.Join(folder, "overlay.json")
	table, err := json.Marshal(map[string]map[string]string{"Replace": {source: replaced}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(replaced, []byte(strings.Replace(string(content), l.Sound, l.Broken, 1)), 0o600); err != nil { //nolint:gosec // likewise
		return "", err
	}
	return overlay, os.WriteFile(overlay, table, 0o600)
}
