// image.go makes the image for both platforms without a container engine, by the
// Dockerfile that is shipped: buildah takes this release's binaries in place of what its
// first stage would compile, which needs a base image from a registry.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// certificates are the public authorities, as the Dockerfile's first stage has them.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// checkBuildah finds out early that it is not there.
func checkBuildah() error {
	if _, err := exec.LookPath("buildah"); err != nil {
		return errors.New("the image is made with buildah, which is not installed; install it, or leave the image out with IMAGE=no")
	}
	_, err := os.Stat(certificates)
	return err
}

// makeImage writes an OCI archive with the image for each platform that the manager is
// built for.
func (r *release) makeImage(ctx context.Context, work string) error {
	if !r.image {
		r.say("Leaving the image out, as asked for")
		return nil
	}
	r.say("Making the image")
	source, store := filepath.Join(work, "source"), filepath.Join(work, "buildah")
	buildah := func(args ...string) error {
		_, err := output(ctx, source, nil, "buildah", slices.Concat([]string{"--root", store, "--runroot", store + "-run", "--storage-driver", "vfs"}, args)...)
		return err
	}
	name := r.imageRepository + ":" + tag(r.version)
	if err := buildah("manifest", "create", name); err != nil {
		return err
	}
	for _, t := range r.wanted() {
		if t.program != "manager" {
			continue
		}
		stage := filepath.Join(work, "stage-"+t.arch)
		if err := r.makeStage(t, filepath.Join(stage, "out")); err != nil {
			return err
		}
		if err := buildah("bud", "--isolation", "chroot", "--platform", t.os+"/"+t.arch, "--manifest", name,
			"--timestamp", strconv.FormatInt(r.from.time.Unix(), 10), "--build-context", "builder="+stage, "--build-arg", "BASE_IMAGE=scratch",
			"--build-arg", "VERSION="+r.version, "--build-arg", "REVISION="+r.from.revision, source); err != nil {
			return err
		}
	}
	archive := fmt.Sprintf("%s_%s_image.tar", imageName, tag(r.version))
	return buildah("manifest", "push", "--all", name, "oci-archive:"+filepath.Join(r.out, archive)+":"+name)
}

// makeStage makes what the Dockerfile's first stage would have left.
func (r *release) makeStage(t target, out string) error {
	if err := os.MkdirAll(filepath.Join(out, "etc", "ssl", "certs"), 0o755); err != nil { //nolint:gosec // goes into an image
		return err
	}
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{r.binary[t], "manager", 0o755},
		{certificates, "etc/ssl/certs/ca-certificates.crt", 0o644},
	} {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, f.to), content, f.mode); err != nil { //nolint:gosec // likewise
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(out, "etc", "passwd"), []byte("nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"), 0o644), //nolint:gosec // likewise
		os.WriteFile(filepath.Join(out, "etc", "group"), []byte("nonroot:x:65532:\n"), 0o644),                               //nolint:gosec // likewise
	)
}
