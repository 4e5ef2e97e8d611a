// release.go puts the steps together.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// release is what is published, from what, and with what.
type release struct {
	log io.Writer

	// root is the checkout, out the folder that everything goes to.
	root, out string
	version   string
	// imageRepository is where the image will be, as manifests and chart name it.
	imageRepository string
	// downloads is the URL under which the archives will be; for krew.
	downloads string
	image     bool
	// platforms are os/arch with commas between them; all if empty. For rehearsals.
	platforms string
	// once: nothing is built a second time. Likewise.
	once            bool
	allTargets      bool
	helm, kustomize string

	from  source
	libs  []library
	notes string
	// goVersion is what the programs are compiled with.
	goVersion string
	binary    map[target]string // the path of each
}

func (r *release) register(f *flag.FlagSet) {
	f.StringVar(&r.version, "version", "", "the version, such as 1.2.3")
	f.StringVar(&r.out, "out", "dist", "folder for what is made; what is in it is deleted")
	f.StringVar(&r.imageRepository, "image-repository", imageName, "where the image will be")
	f.StringVar(&r.downloads, "downloads", "", "URL under which the archives will be; that of a GitHub release if empty")
	f.BoolVar(&r.image, "image", true, "make the image too, with buildah")
	f.StringVar(&r.platforms, "platforms", "", "for these alone, such as linux/amd64,linux/arm64; not for a version that is tagged")
	f.BoolVar(&r.once, "once", false, "do not build a second time; not for a version that is tagged either")
	f.BoolVar(&r.allTargets, "reproduce-all", false, "build for all platforms twice, not only for linux/amd64")
	f.StringVar(&r.helm, "helm", "bin/tools/helm", "the program")
	f.StringVar(&r.kustomize, "kustomize", "bin/tools/kustomize", "the program")
}

// say tells what is being done.
func (r *release) say(format string, args ...any) { fmt.Fprintf(r.log, "==> "+format+"\n", args...) }

// make makes everything. What can be wrong with the request is looked at first, then
// what takes no time, and the folder is touched last.
func (r *release) make(ctx context.Context) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // a temporary folder
	if err := r.from.export(ctx, filepath.Join(work, "source")); err != nil {
		return err
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(r.out), os.MkdirAll(r.out, 0o755)); err != nil { //nolint:gosec // is published
		return err
	}
	for _, step := range []func(context.Context, string) error{
		r.makeLicenses, r.makeBinaries, r.proveReproducible, r.makeSBOMs, r.makeArchives, r.makeKrew,
		r.makeManifests, r.makeChart, r.makeImage, r.makeNotes, r.makeSums,
	} {
		if err := step(ctx, work); err != nil {
			return err
		}
	}
	r.say("All of %s is in %s", tag(r.version), r.out)
	return nil
}

// check refuses what cannot become a release.
func (r *release) check(ctx context.Context) error {
	if err := checkVersion(r.version); err != nil {
		return err
	}
	var err error
	if r.from, err = readSource(ctx, r.root); err != nil {
		return err
	}
	if err := r.from.checkClean(ctx); err != nil {
		return err
	}
	tagged, err := r.from.checkTag(ctx, tag(r.version))
	if err != nil {
		return err
	}
	switch {
	case !tagged:
		r.say("There is no tag %s yet: this is a rehearsal", tag(r.version))
	case r.platforms != "" || r.once:
		return fmt.Errorf("%s is tagged, and a release is for all platforms, and built twice", tag(r.version))
	case r.imageRepository == imageName:
		return fmt.Errorf("%s is tagged, and its manifests have to name an image that clusters can pull: IMAGE_REPOSITORY=registry.example.com/%s", tag(r.version), imageName)
	}
	if len(r.wanted()) == 0 {
		return fmt.Errorf("nothing is made for %s", r.platforms)
	}
	changelog, err := os.ReadFile(filepath.Join(r.from.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if r.notes, err = notesOf(string(changelog), r.version, tagged); err != nil {
		return err
	}
	if r.image {
		return checkBuildah()
	}
	return nil
}

// makeBinaries builds all programs for all their platforms.
func (r *release) makeBinaries(ctx context.Context, work string) error {
	env, err := environment(ctx)
	if err != nil {
		return err
	}
	if r.goVersion, err = output(ctx, work, env, "go", "env", "GOVERSION"); err != nil {
		return err
	}
	r.say("Building with %s", r.goVersion)
	b := builder{log: r.log, source: filepath.Join(work, "source"), out: filepath.Join(work, "binaries"), env: env, stamp: stamp{r.version, r.from.revision}}
	r.binary, err = b.build(ctx, r.wanted())
	return err
}

// proveReproducible builds again elsewhere.
func (r *release) proveReproducible(ctx context.Context, work string) error {
	if r.once {
		r.say("Not building again, as asked for")
		return nil
	}
	return r.reproduce(ctx, work, stamp{r.version, r.from.revision}, r.binary)
}

// makeSums sums up all files; it comes last.
func (r *release) makeSums(context.Context, string) error { return writeSums(r.out) }
