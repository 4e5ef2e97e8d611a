// images.go builds the images without a container engine: the manager's by the
// Dockerfile that is shipped, except that its first stage (which compiles, and needs
// a base image from a registry) is replaced by what it would have made.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// The images. The manager's has two tags: what is upgraded from, and what is upgraded
// to.
const (
	managerImage = "localhost/jwks-trust-manager"
	oldTag       = "before"
	newTag       = "now"
	// appImage is the application's, and holds the namespaces of all pods.
	appImage = "localhost/e2e-app:1"
)

const appDockerfile = `FROM scratch
COPY app /app
USER 65532:65532
ENTRYPOINT ["/app"]
CMD ["pause"]
`

// sources are those of a version of the product, by its tag.
func sources(dir, tag string) string {
	if before := filepath.Join(dir, oldTag); tag == oldTag && isFolder(before) {
		return before
	}
	return harness.Root()
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// checkOut lays the sources of the version to upgrade from beside the images.
func checkOut(ctx context.Context, dir, from string) error {
	if from == "" {
		fmt.Println("   (upgrading from the same sources, as another image)")
		return nil
	}
	before, archive := filepath.Join(dir, oldTag), filepath.Join(dir, oldTag+".tar")
	return errors.Join(
		os.Mkdir(before, 0o700),
		quietly(ctx, "git", "-C", harness.Root(), "archive", "--output", archive, from),
		quietly(ctx, "tar", "-xf", archive, "-C", before),
	)
}

// archives are where buildImages leaves the images.
func archives(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, "image-*.tar")) }

// buildImages builds all images into docker archives, and the kubectl plugin.
func buildImages(ctx context.Context, dir string) error {
	app := filepath.Join(dir, "app")
	if err := errors.Join(
		os.MkdirAll(app, 0o755), //nolint:gosec // goes into an image
		os.WriteFile(filepath.Join(app, "Dockerfile"), []byte(appDockerfile), 0o600),
		compile(ctx, filepath.Join(harness.Root(), "test", "e2e"), filepath.Join(app, "app"), "./app"),
		compile(ctx, harness.Root(), filepath.Join(dir, "plugins", "kubectl-jwks"), "./cmd/kubectl-jwks"),
	); err != nil {
		return err
	}
	for _, tag := range []string{oldTag, newTag} {
		stage, err := compileManager(ctx, dir, tag)
		if err != nil {
			return err
		}
		if err := buildImage(ctx, dir, managerImage+":"+tag, sources(dir, tag), "--build-context", "builder="+stage, "--build-arg", "BASE_IMAGE=scratch"); err != nil {
			return err
		}
	}
	return buildImage(ctx, dir, appImage, app)
}

// compileManager makes what the first stage of the Dockerfile would.
func compileManager(ctx context.Context, dir, tag string) (stage string, err error) {
	stage = filepath.Join(dir, "stage-"+tag)
	certificates := filepath.Join(stage, "out", "etc", "ssl", "certs")
	public, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return "", err
	}
	return stage, errors.Join(
		os.MkdirAll(certificates, 0o755),                                                //nolint:gosec // goes into an image
		os.WriteFile(filepath.Join(certificates, "ca-certificates.crt"), public, 0o644), //nolint:gosec // likewise
		compile(ctx, sources(dir, tag), filepath.Join(stage, "out", "manager"), "./cmd/manager"),
	)
}

// buildImage builds an image from the Dockerfile in a folder into a docker archive.
func buildImage(ctx context.Context, dir, name, folder string, args ...string) error {
	archive := filepath.Join(dir, "image-"+filepath.Base(strings.ReplaceAll(name, ":", "-"))+".tar")
	buildah := []string{"buildah", "--root", filepath.Join(dir, "buildah"), "--runroot", filepath.Join(dir, "buildah-run"), "--storage-driver", "vfs"}
	build := slices.Concat(buildah, []string{"bud", "--isolation", "chroot", "--tag", name}, args, []string{folder})
	if err := quietly(ctx, build...); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	return quietly(ctx, slices.Concat(buildah, []string{"push", name, "docker-archive:" + archive + ":" + name})...)
}

func compile(ctx context.Context, module, out, pkg string) error {
	return quietly(ctx, "env", "CGO_ENABLED=0", "go", "-C", module, "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
}
