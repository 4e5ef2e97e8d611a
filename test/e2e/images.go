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

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// The images. The manager's has two tags, so that there is something to upgrade
// from.
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

// archives are where buildImages leaves the images.
func archives(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, "image-*.tar")) }

// buildImages builds all images into docker archives, and the kubectl plugin.
func buildImages(ctx context.Context, dir string) error {
	stage, app := filepath.Join(dir, "stage"), filepath.Join(dir, "app")
	certificates := filepath.Join(stage, "out", "etc", "ssl", "certs")
	if err := errors.Join(os.MkdirAll(certificates, 0o755), os.MkdirAll(app, 0o755)); err != nil { //nolint:gosec // goes into an image
		return err
	}
	public, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(certificates, "ca-certificates.crt"), public, 0o644), //nolint:gosec // likewise
		os.WriteFile(filepath.Join(app, "Dockerfile"), []byte(appDockerfile), 0o600),
		compile(ctx, harness.Root(), filepath.Join(stage, "out", "manager"), "./cmd/manager"),
		compile(ctx, filepath.Join(harness.Root(), "test", "e2e"), filepath.Join(app, "app"), "./app"),
		compile(ctx, harness.Root(), filepath.Join(dir, "plugins", "kubectl-jwks"), "./cmd/kubectl-jwks"),
	); err != nil {
		return err
	}
	manager := []string{"--build-context", "builder=" + stage, "--build-arg", "BASE_IMAGE=scratch"}
	for i, image := range []struct {
		name, context string
		args          []string
	}{
		{managerImage + ":" + oldTag, harness.Root(), manager},
		{managerImage + ":" + newTag, harness.Root(), manager},
		{appImage, app, nil},
	} {
		archive := filepath.Join(dir, fmt.Sprintf("image-%d.tar", i))
		if err := buildImage(ctx, dir, image.name, image.context, archive, image.args...); err != nil {
			return err
		}
	}
	return nil
}

// buildImage builds an image from the Dockerfile in a folder into a docker archive.
func buildImage(ctx context.Context, dir, name, folder, archive string, args ...string) error {
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
