// source.go is what a release is made from: a commit, and nothing that lies around.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// checkVersion wants x.y.z, or x.y.z-rc.1.
func checkVersion(v string) error {
	switch {
	case v == "":
		return errors.New("which version? Say VERSION=1.2.3")
	case strings.HasPrefix(v, "v"):
		return fmt.Errorf("VERSION=%s: without the v, please; tags get it", v)
	case semver.Canonical("v"+v) != "v"+v:
		return fmt.Errorf("VERSION=%s is not of the form 1.2.3 or 1.2.3-rc.1 (semver.org; no build metadata, which image tags cannot have)", v)
	}
	return nil
}

// tag is the name of the version in git, of the image, and as programs tell it.
func tag(version string) string { return "v" + version }

// source is a commit in a checkout.
type source struct {
	root, revision string
	// time is the commit's. It stands wherever a time has to.
	time time.Time
}

func readSource(ctx context.Context, root string) (source, error) {
	s := source{root: root}
	var err error
	if s.root, err = s.git(ctx, "rev-parse", "--show-toplevel"); err != nil {
		return s, fmt.Errorf("a release is made from a git checkout: %w", err)
	}
	if s.revision, err = s.git(ctx, "rev-parse", "HEAD"); err != nil {
		return s, err
	}
	seconds, err := s.git(ctx, "show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return s, err
	}
	at, err := strconv.ParseInt(seconds, 10, 64)
	s.time = time.Unix(at, 0).UTC()
	return s, err
}

// checkClean wants the checkout to be what is committed.
func (s source) checkClean(ctx context.Context) error {
	dirty, err := s.git(ctx, "status", "--porcelain", "--untracked-files=all")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("the checkout differs from its commit; commit or remove:\n%s", dirty)
	}
	return nil
}

// checkTag reports whether the version is tagged, and refuses another commit's tag.
func (s source) checkTag(ctx context.Context, name string) (bool, error) {
	tags, err := s.git(ctx, "tag", "--list", name)
	if err != nil || tags == "" {
		return false, err
	}
	tagged, err := s.git(ctx, "rev-parse", "refs/tags/"+name+"^{commit}")
	if err != nil {
		return false, err
	}
	if tagged != s.revision {
		return false, fmt.Errorf("the tag %s is on %s, and this checkout is at %s: check the tag out", name, tagged, s.revision)
	}
	return true, nil
}

// export writes the files of the commit into a new folder. The index is the commit,
// since the checkout is clean.
func (s source) export(ctx context.Context, to string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	_, err = s.git(ctx, "checkout-index", "--all", "--prefix="+to+string(os.PathSeparator))
	return err
}

func (s source) git(ctx context.Context, args ...string) (string, error) {
	return output(ctx, s.root, nil, "git", args...)
}

// output runs a program and returns what it prints; what it complains of becomes the
// error. env is our own if nil.
func output(ctx context.Context, dir string, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // programs of this release
	var out, complaints bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &complaints
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
