// archive.go packs files so that the same files give the same archive: in a fixed
// order, owned by nobody in particular, and as old as the commit.

package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// member is a file in an archive.
type member struct {
	name, path string
	executable bool
}

func (m member) mode() os.FileMode {
	if m.executable {
		return 0o755
	}
	return 0o644
}

// legal is what goes with every binary, wherever it goes.
var legal = []string{"LICENSE", licensesFile}

// archiveOf is the name of a target's archive; zip where people have no tar.
func (r *release) archiveOf(t target) string {
	base := t.program
	if base == "manager" {
		base = imageName
	}
	extension := "tar.gz"
	if t.os == "windows" {
		extension = "zip"
	}
	return fmt.Sprintf("%s_%s_%s_%s.%s", base, tag(r.version), t.os, t.arch, extension)
}

// makeArchives packs each binary with the licences.
func (r *release) makeArchives(_ context.Context, work string) error {
	r.say("Packing")
	for _, t := range r.wanted() {
		members := []member{{t.file(), r.binary[t], true}}
		for _, name := range legal {
			members = append(members, member{name: name, path: filepath.Join(work, "source", name)})
		}
		pack := writeTar
		if t.os == "windows" {
			pack = writeZip
		}
		if err := pack(filepath.Join(r.out, r.archiveOf(t)), r.from.time, members); err != nil {
			return err
		}
	}
	return nil
}

// writeTar packs into a .tar.gz.
func writeTar(path string, at time.Time, members []member) (err error) {
	f, err := os.Create(path) //nolint:gosec // a file of this release
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zipped := gzip.NewWriter(f)
	w := tar.NewWriter(zipped)
	for _, m := range members {
		content, err := os.ReadFile(m.path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(header(m.name, m.mode(), int64(len(content)), at)); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), zipped.Close())
}

func header(name string, mode os.FileMode, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: size, ModTime: at, Format: tar.FormatUSTAR}
}

// writeZip packs into a .zip.
func writeZip(path string, at time.Time, members []member) (err error) {
	f, err := os.Create(path) //nolint:gosec // a file of this release
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := zip.NewWriter(f)
	for _, m := range members {
		content, err := os.ReadFile(m.path)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate, Modified: at}
		h.SetMode(m.mode())
		part, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := part.Write(content); err != nil {
			return err
		}
	}
	return w.Close()
}

// settle writes a .tar.gz that another program has made as if writeTar had: Helm
// notes when it packed.
func settle(path string, at time.Time) error {
	from, err := os.Open(path) //nolint:gosec // a file of this release
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // was only read
	zipped, err := gzip.NewReader(from)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	dir, err := os.MkdirTemp("", "settle-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary folder
	var members []member
	in := tar.NewReader(zipped)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if h.Typeflag != tar.TypeReg || strings.Contains(h.Name, "..") {
			return fmt.Errorf("%s holds %s, which is no plain file", path, h.Name)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		m := member{name: h.Name, path: filepath.Join(dir, fmt.Sprint(len(members)))}
		if err := os.WriteFile(m.path, content, 0o600); err != nil {
			return err
		}
		members = append(members, m)
	}
	return writeTar(path, at, members)
}
