// sbom.go says what each binary contains, in CycloneDX, by what the binary itself
// tells: modules, versions and sums that the compiler has noted in it.

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/generate/bin"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
)

// makeSBOMs writes one for each binary, named as its archive.
func (r *release) makeSBOMs(context.Context, string) error {
	r.say("Writing SBOMs")
	for _, t := range r.wanted() {
		name, _, _ := strings.Cut(r.archiveOf(t), ".tar.gz")
		if err := r.writeSBOM(t, filepath.Join(r.out, strings.TrimSuffix(name, ".zip")+".cdx.json")); err != nil {
			return fmt.Errorf("the SBOM of %s: %w", t, err)
		}
	}
	return nil
}

func (r *release) writeSBOM(t target, path string) error {
	generator, err := bin.NewGenerator(r.binary[t], bin.WithLogger(zerolog.Nop()), bin.WithIncludeStdlib(true), bin.WithVersionOverride(tag(r.version)))
	if err != nil {
		return err
	}
	bom, err := generator.Generate()
	if err != nil {
		return err
	}
	sum, err := digest(r.binary[t])
	if err != nil {
		return err
	}
	// Neither random nor of today, so that it can be made again.
	bom.SerialNumber = uuid.NewSHA1(uuid.NameSpaceURL, []byte(bom.Metadata.Component.PackageURL+"#"+sum)).URN()
	bom.Metadata.Timestamp = r.from.time.Format(time.RFC3339)
	bom.Metadata.Tools = &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: generatorPath, Version: generatorVersion()}}}
	bom.Metadata.Component.Licenses = licensed("Apache-2.0")
	if err := r.addLicenses(*bom.Components); err != nil {
		return err
	}
	f, err := os.Create(path) //nolint:gosec // a file of this release
	if err != nil {
		return err
	}
	if err := cdx.NewBOMEncoder(f, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		_ = f.Close() // the first error counts
		return err
	}
	return f.Close()
}

// addLicenses says under which licences each module is.
func (r *release) addLicenses(components []cdx.Component) error {
	of := map[string][]string{}
	for _, l := range r.libs {
		of[l.module] = append(of[l.module], l.licenses...)
	}
	for i := range components {
		c := &components[i]
		kinds := of[c.Name]
		if len(kinds) == 0 {
			return fmt.Errorf("the licence of %s is not known", c.Name)
		}
		c.Licenses = licensed(kinds...)
	}
	return nil
}

// licensed names licences, each once.
func licensed(kinds ...string) *cdx.Licenses {
	var all cdx.Licenses
	seen := map[string]bool{}
	for _, kind := range kinds {
		if !seen[kind] {
			all = append(all, cdx.LicenseChoice{License: &cdx.License{ID: kind}})
		}
		seen[kind] = true
	}
	return &all
}

const generatorPath = "github.com/CycloneDX/cyclonedx-gomod"

// generatorVersion is the one that was compiled in.
func generatorVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == generatorPath {
				return m.Version
			}
		}
	}
	return "unknown"
}
