// sums.go writes SHA256SUMS, as `sha256sum --check` reads it.

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const sumsFile = "SHA256SUMS"

// writeSums sums up all files of the folder.
func writeSums(dir string) error {
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is no file", e.Name())
		}
		if e.Name() == sumsFile {
			continue
		}
		sum, err := digest(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), []byte(text.String()), 0o644) //nolint:gosec // is published
}

// digest is the SHA-256 of a file.
func digest(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // a file of this release
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // was only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
