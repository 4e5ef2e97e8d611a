// reproduce.go proves that a build can be repeated: it builds again in another folder,
// with caches, home and time zone of its own, and compares.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// reproduceOnly builds the checkout's commit twice.
func (r *release) reproduceOnly(ctx context.Context) error {
	var err error
	if r.from, err = readSource(ctx, r.root); err != nil {
		return err
	}
	if err := r.from.checkClean(ctx); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "reproduce-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // a temporary folder
	env, err := environment(ctx)
	if err != nil {
		return err
	}
	b := builder{log: r.log, source: filepath.Join(work, "source"), out: filepath.Join(work, "binaries"), env: env, stamp: stamp{"", r.from.revision}}
	if err := r.from.export(ctx, b.source); err != nil {
		return err
	}
	r.say("Building %s", r.from.revision)
	first, err := b.build(ctx, r.repeated())
	if err != nil {
		return err
	}
	return r.reproduce(ctx, work, b.stamp, first)
}

// repeated are the targets that are built twice. What could differ, differs for any of
// them; the others take time.
func (r *release) repeated() []target {
	if r.allTargets {
		return r.wanted()
	}
	twice := slices.DeleteFunc(r.wanted(), func(t target) bool { return t.os != "linux" || t.arch != "amd64" })
	if len(twice) == 0 {
		return r.wanted()
	}
	return twice
}

// reproduce builds the commit again, and compares with what was built first.
func (r *release) reproduce(ctx context.Context, work string, stamp stamp, first map[target]string) error {
	r.say("Building again in another folder, with empty caches")
	elsewhere := filepath.Join(work, "somewhere", "else", "with a longer name")
	env, err := environment(ctx)
	if err != nil {
		return err
	}
	if env, err = strange(elsewhere, env); err != nil {
		return err
	}
	b := builder{log: r.log, source: filepath.Join(elsewhere, "source"), out: filepath.Join(elsewhere, "binaries"), env: env, stamp: stamp}
	if err := r.from.export(ctx, b.source); err != nil {
		return err
	}
	second, err := b.build(ctx, r.repeated())
	if err != nil {
		return err
	}
	return r.compare(first, second)
}

// strange is an environment in which everything lies elsewhere; the caches are empty,
// and modules come from those that the first build used.
func strange(dir string, env []string) ([]string, error) {
	values := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		values[name] = value
	}
	for _, folder := range []string{"home", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			return nil, err
		}
	}
	return append(slices.Clone(env),
		"HOME="+filepath.Join(dir, "home"), "TMPDIR="+filepath.Join(dir, "tmp"), "TZ=Pacific/Chatham", "LC_ALL=C",
		"GOCACHE="+filepath.Join(dir, "cache"), "GOMODCACHE="+filepath.Join(dir, "modules"),
		"GOPROXY=file://"+filepath.ToSlash(filepath.Join(values["GOMODCACHE"], "cache", "download"))+","+values["GOPROXY"],
		"GOFLAGS="+values["GOFLAGS"]+" -modcacherw", // so that it can be deleted
	), nil
}

// compare wants the files of both builds to be the same.
func (r *release) compare(first, second map[target]string) error {
	if len(second) == 0 {
		return errors.New("nothing was built twice")
	}
	var differ []error
	for _, t := range targets {
		if second[t] == "" {
			continue
		}
		a, err := digest(first[t])
		if err != nil {
			return err
		}
		b, err := digest(second[t])
		if err != nil {
			return err
		}
		if a != b {
			differ = append(differ, fmt.Errorf("%s: sha256 %s, and then %s", t, a, b))
			continue
		}
		fmt.Fprintf(r.log, "    the same: %s, sha256 %s\n", t, a)
	}
	if len(differ) > 0 {
		return fmt.Errorf("two builds of one commit differ:\n%w", errors.Join(differ...))
	}
	return nil
}
