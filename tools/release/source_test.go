package main

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestVersionsThatCannotBeReleased(t *testing.T) {
	for version, want := range map[string]string{
		"":             "which version?",
		"v1.2.3":       "without the v",
		"1.2":          "not of the form",
		"1.2.3.4":      "not of the form",
		"01.2.3":       "not of the form",
		"latest":       "not of the form",
		"1.2.3+build1": "no build metadata",
		"1.2.3 ":       "not of the form",
	} {
		NewWithT(t).Expect(checkVersion(version)).To(MatchError(ContainSubstring(want)), version)
	}
	for _, version := range []string{"0.1.0", "1.2.3", "1.2.3-rc.1"} {
		NewWithT(t).Expect(checkVersion(version)).To(Succeed(), version)
	}
}

// write writes files below a folder.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// do runs git in a checkout.
func do(t *testing.T, s source, args ...string) {
	t.Helper()
	if _, err := s.git(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// checkout is a repository with one commit, which has these files.
func checkout(t *testing.T, files map[string]string) source {
	t.Helper()
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
		"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com",
	} {
		t.Setenv(name, value)
	}
	dir := t.TempDir()
	write(t, dir, files)
	s := source{root: dir}
	do(t, s, "init", "--quiet")
	do(t, s, "add", "--all")
	do(t, s, "commit", "--quiet", "--message", "first")
	s, err := readSource(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOnlyWhatIsCommittedIsReleased(t *testing.T) {
	g := NewWithT(t)
	s := checkout(t, map[string]string{"a": "committed", "folder/b": "too", ".gitignore": "/dist/\n"})
	g.Expect(s.checkClean(t.Context())).To(Succeed())
	write(t, s.root, map[string]string{"dist/ignored": ""})
	g.Expect(s.checkClean(t.Context())).To(Succeed())

	to := filepath.Join(t.TempDir(), "export")
	g.Expect(s.export(t.Context(), to)).To(Succeed())
	g.Expect(os.ReadFile(filepath.Join(to, "folder", "b"))).To(BeEquivalentTo("too"))
	g.Expect(filepath.Join(to, "dist")).NotTo(BeADirectory())

	write(t, s.root, map[string]string{"a": "changed", "new": ""})
	g.Expect(s.checkClean(t.Context())).To(MatchError(And(ContainSubstring(" M a"), ContainSubstring("?? new"))))
	g.Expect(readSource(t.Context(), t.TempDir())).Error().To(MatchError(ContainSubstring("made from a git checkout")))
}

func TestATagOfAnotherCommitIsRefused(t *testing.T) {
	g := NewWithT(t)
	s := checkout(t, map[string]string{"a": "1"})
	g.Expect(s.checkTag(t.Context(), "v1.2.3")).To(BeFalse(), "there is none")
	do(t, s, "tag", "--annotate", "--message", "1.2.3", "v1.2.3")
	g.Expect(s.checkTag(t.Context(), "v1.2.3")).To(BeTrue())

	do(t, s, "commit", "--quiet", "--allow-empty", "--message", "second")
	later, err := readSource(t.Context(), s.root)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = later.checkTag(t.Context(), "v1.2.3")
	g.Expect(err).To(MatchError(ContainSubstring("check the tag out")))
}
