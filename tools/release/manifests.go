// manifests.go makes what is applied or installed: the manifests that kustomize makes
// of config/, and the chart; both with the image of this version.

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// imageName is what the image is called where no registry is named.
const imageName = "jwks-trust-manager"

// overlay is config/default with the image of the release.
const overlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../default]
images: [{name: %q, newName: %q, newTag: %q}]
`

// makeManifests writes install.yaml and crds.yaml.
func (r *release) makeManifests(ctx context.Context, work string) error {
	r.say("Writing manifests")
	config := filepath.Join(work, "source", "config")
	release := filepath.Join(config, "release")
	if err := os.Mkdir(release, 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf(overlay, imageName, r.imageRepository, tag(r.version))
	if err := os.WriteFile(filepath.Join(release, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	for name, m := range map[string]struct{ folder, what string }{
		"install.yaml": {release, "jwks-trust-manager"},
		"crds.yaml":    {filepath.Join(config, "crd"), "the kinds of jwks-trust-manager"},
	} {
		made, err := output(ctx, m.folder, nil, absolute(r.kustomize), "build", m.folder)
		if err != nil {
			return err
		}
		if name == "install.yaml" {
			if err := checkImages([]byte(made), r.imageRepository+":"+tag(r.version)); err != nil {
				return err
			}
		}
		made = fmt.Sprintf("# %s, %s:\n#   kubectl apply --server-side -f %s\n%s\n", m.what, tag(r.version), name, made)
		if err := os.WriteFile(filepath.Join(r.out, name), []byte(made), 0o644); err != nil { //nolint:gosec // is published
			return err
		}
	}
	return nil
}

var imageLines = regexp.MustCompile(`(?m)^\s*(?:- )?image: (.*)$`)

// checkImages wants all containers to run the release's image.
func checkImages(manifests []byte, want string) error {
	found := imageLines.FindAllSubmatch(manifests, -1)
	if len(found) == 0 {
		return fmt.Errorf("no container runs %s", want)
	}
	for _, m := range found {
		if string(m[1]) != want {
			return fmt.Errorf("a container runs %s, not %s", m[1], want)
		}
	}
	return nil
}

// makeChart packages the chart.
func (r *release) makeChart(ctx context.Context, work string) error {
	r.say("Packaging the chart")
	chart := filepath.Join(work, "source", "charts", "jwks-trust-manager")
	values := filepath.Join(chart, "values.yaml")
	before, err := os.ReadFile(values) //nolint:gosec // a file of this release
	if err != nil {
		return err
	}
	after, err := withRepository(before, r.imageRepository)
	if err != nil {
		return err
	}
	if err := os.WriteFile(values, after, 0o600); err != nil { //nolint:gosec // a file of this release
		return err
	}
	if _, err := output(ctx, work, nil, absolute(r.helm), "package", chart, "--version", r.version, "--app-version", tag(r.version), "--destination", r.out); err != nil {
		return err
	}
	return settle(filepath.Join(r.out, fmt.Sprintf("jwks-trust-manager-%s.tgz", r.version)), r.from.time)
}

// withRepository has the chart's values name where the image is.
func withRepository(values []byte, repository string) ([]byte, error) {
	before := []byte("\n  repository: " + imageName + "\n")
	if bytes.Count(values, before) != 1 {
		return nil, fmt.Errorf("the chart's values do not have image.repository: %s once", imageName)
	}
	return bytes.Replace(values, before, []byte("\n  repository: "+repository+"\n"), 1), nil
}

// absolute is a path that is the same in all folders; a name without one is found in
// $PATH.
func absolute(program string) string {
	if filepath.Base(program) == program {
		return program
	}
	if abs, err := filepath.Abs(program); err == nil {
		return abs
	}
	return program
}
