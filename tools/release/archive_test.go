package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

var commitTime = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func TestArchivesOfTheSameFilesAreTheSame(t *testing.T) {
	for name, pack := range map[string]func(string, time.Time, []member) error{"tar": writeTar, "zip": writeZip} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var sums []string
			for range 2 { // files of another folder, and of another time
				dir := t.TempDir()
				write(t, dir, map[string]string{"program": "binary", "LICENSE": "text"})
				g.Expect(os.Chtimes(filepath.Join(dir, "program"), time.Time{}, commitTime.Add(time.Duration(len(sums))*time.Hour))).To(Succeed())
				archive := filepath.Join(dir, "archive")
				g.Expect(pack(archive, commitTime, []member{{"program", filepath.Join(dir, "program"), true}, {"LICENSE", filepath.Join(dir, "LICENSE"), false}})).To(Succeed())
				sum, err := digest(archive)
				g.Expect(err).NotTo(HaveOccurred())
				sums = append(sums, sum)
			}
			g.Expect(sums[0]).To(Equal(sums[1]))
			g.Expect(pack(filepath.Join(t.TempDir(), "archive"), commitTime, []member{{name: "gone", path: "gone"}})).NotTo(Succeed())
		})
	}
}

func TestAnArchivesProgramCanBeRun(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"p": "binary", "l": "text"})
	members := []member{{"program", filepath.Join(dir, "p"), true}, {"LICENSE", filepath.Join(dir, "l"), false}}
	g.Expect(writeTar(filepath.Join(dir, "a.tar.gz"), commitTime, members)).To(Succeed())
	headers, contents := unpack(t, filepath.Join(dir, "a.tar.gz"))
	g.Expect(contents).To(Equal([]string{"binary", "text"}))
	g.Expect(headers[0].FileInfo().Mode()).To(Equal(os.FileMode(0o755)))
	g.Expect(headers[1].FileInfo().Mode()).To(Equal(os.FileMode(0o644)))

	g.Expect(writeZip(filepath.Join(dir, "a.zip"), commitTime, members)).To(Succeed())
	zipped, err := zip.OpenReader(filepath.Join(dir, "a.zip"))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(zipped.Close()).To(Succeed()) }()
	g.Expect(zipped.File[0].Mode()).To(Equal(os.FileMode(0o755)))
	g.Expect(zipped.File[0].Modified.UTC()).To(Equal(commitTime))
}

// unpack reads a .tar.gz.
func unpack(t *testing.T, path string) (headers []*tar.Header, contents []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	in := tar.NewReader(zipped)
	for {
		h, err := in.Next()
		if err == io.EOF { //nolint:errorlint // as the library says
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		headers, contents = append(headers, h), append(contents, string(text))
	}
}

// TestAChartDoesNotTellWhenItWasPacked: Helm notes the time, and who ran it may show.
func TestAChartDoesNotTellWhenItWasPacked(t *testing.T) {
	g := NewWithT(t)
	packed := func(at time.Time, typeflag byte) string {
		path := filepath.Join(t.TempDir(), "chart.tgz")
		f, err := os.Create(path)
		g.Expect(err).NotTo(HaveOccurred())
		zipped := gzip.NewWriter(f)
		zipped.ModTime = at
		w := tar.NewWriter(zipped)
		g.Expect(w.WriteHeader(&tar.Header{Typeflag: typeflag, Name: "chart/Chart.yaml", Linkname: "x", Size: 4, ModTime: at, Uname: "someone", Mode: 0o600})).To(Succeed())
		_, err = w.Write([]byte("name"))
		g.Expect(err == nil || typeflag == tar.TypeSymlink).To(BeTrue())
		_, _ = w.Close(), zipped.Close()
		g.Expect(f.Close()).To(Succeed())
		return path
	}
	a, b := packed(commitTime.Add(time.Hour), tar.TypeReg), packed(commitTime.Add(2*time.Hour), tar.TypeReg)
	g.Expect(settle(a, commitTime)).To(Succeed())
	g.Expect(settle(b, commitTime)).To(Succeed())
	first, err := digest(a)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(digest(b)).To(Equal(first))
	headers, contents := unpack(t, a)
	g.Expect(contents).To(Equal([]string{"name"}))
	g.Expect(headers[0].Name).To(Equal("chart/Chart.yaml"))
	g.Expect(headers[0].ModTime.UTC()).To(Equal(commitTime))
	g.Expect(headers[0].Uname).To(BeEmpty())

	g.Expect(settle(packed(commitTime, tar.TypeSymlink), commitTime)).To(MatchError(ContainSubstring("no plain file")))
}

func TestSumsAreThoseThatSha256sumChecks(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"b": "", "a": "abc", sumsFile: "old"})
	g.Expect(writeSums(dir)).To(Succeed())
	g.Expect(os.ReadFile(filepath.Join(dir, sumsFile))).To(BeEquivalentTo(
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n" +
			"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n"))
	write(t, dir, map[string]string{"folder/c": ""})
	g.Expect(writeSums(dir)).To(MatchError("folder is no file"))
}
