// krew.go writes the manifest with which krew installs `kubectl jwks`.

package main

import (
	"context"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// plugin is krew's kind, as far as it is used here.
type plugin struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       pluginSpec        `json:"spec"`
}

type pluginSpec struct {
	Version          string           `json:"version"`
	Homepage         string           `json:"homepage"`
	ShortDescription string           `json:"shortDescription"`
	Description      string           `json:"description"`
	Platforms        []pluginPlatform `json:"platforms"`
}

type pluginPlatform struct {
	Selector map[string]map[string]string `json:"selector"`
	URI      string                       `json:"uri"`
	SHA256   string                       `json:"sha256"`
	Bin      string                       `json:"bin"`
}

// makeKrew writes jwks.yaml.
func (r *release) makeKrew(context.Context, string) error {
	r.say("Writing the manifest for krew")
	downloads := r.downloads
	if downloads == "" {
		downloads = "https://" + product + "/releases/download/" + tag(r.version)
	}
	p := plugin{
		APIVersion: "krew.googlecontainertools.github.com/v1alpha2", Kind: "Plugin", Metadata: map[string]string{"name": "jwks"},
		Spec: pluginSpec{
			Version: tag(r.version), Homepage: "https://" + product, ShortDescription: "See and steer which JWT issuers a cluster trusts",
			Description: "Shows the issuers that jwks-trust-manager lets a cluster trust, their keys,\nrotations and troubles; says check by check why a token is refused; refreshes,\napproves and exports key sets.\n",
		},
	}
	for _, t := range r.wanted() {
		if t.program != "kubectl-jwks" {
			continue
		}
		sum, err := digest(filepath.Join(r.out, r.archiveOf(t)))
		if err != nil {
			return err
		}
		p.Spec.Platforms = append(p.Spec.Platforms, pluginPlatform{
			Selector: map[string]map[string]string{"matchLabels": {"os": t.os, "arch": t.arch}},
			URI:      downloads + "/" + r.archiveOf(t), SHA256: sum, Bin: t.file(),
		})
	}
	text, err := yaml.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, "jwks.yaml"), text, 0o644) //nolint:gosec // is published
}
