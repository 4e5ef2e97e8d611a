package main

import (
	"debug/buildinfo"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

func TestEveryContainerRunsTheReleasesImage(t *testing.T) {
	g := NewWithT(t)
	const image = "registry.example.com/jwks-trust-manager:v1.2.3"
	g.Expect(checkImages([]byte("a:\n  - image: "+image+"\n    image: "+image+"\n"), image)).To(Succeed())
	g.Expect(checkImages([]byte("image: "+image+"\nimage: jwks-trust-manager:latest\n"), image)).To(MatchError(ContainSubstring("runs jwks-trust-manager:latest")))
	g.Expect(checkImages([]byte("kind: Namespace\n"), image)).To(MatchError(ContainSubstring("no container")))
}

// TestTheChartNamesTheReleasesImage, by the values that it has now.
func TestTheChartNamesTheReleasesImage(t *testing.T) {
	g := NewWithT(t)
	before, err := os.ReadFile(filepath.Join("..", "..", "charts", "jwks-trust-manager", "values.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	after, err := withRepository(before, "registry.example.com/ours")
	g.Expect(err).NotTo(HaveOccurred())
	var values struct {
		Image struct{ Repository, Tag string }
	}
	g.Expect(yaml.Unmarshal(after, &values)).To(Succeed())
	g.Expect(values.Image.Repository).To(Equal("registry.example.com/ours"))
	g.Expect(values.Image.Tag).To(BeEmpty(), "it is that of the chart's appVersion")
	g.Expect(withRepository([]byte("image: {}\n"), "x")).Error().To(HaveOccurred())
}

func TestARehearsalCanBeForFewerPlatforms(t *testing.T) {
	g := NewWithT(t)
	g.Expect((&release{}).wanted()).To(HaveLen(8))
	g.Expect((&release{platforms: "linux/amd64,windows/arm64"}).wanted()).To(ConsistOf(
		target{"manager", "linux", "amd64"}, target{"kubectl-jwks", "linux", "amd64"}, target{"kubectl-jwks", "windows", "arm64"}))
	g.Expect((&release{platforms: "linux"}).wanted()).To(BeEmpty())
	g.Expect((&release{}).repeated()).To(HaveLen(2), "both programs")
}

// TestKrewFindsEachArchive of kubectl-jwks, under its URL and with its sum.
func TestKrewFindsEachArchive(t *testing.T) {
	g := NewWithT(t)
	r := &release{log: io.Discard, version: "1.2.3", out: t.TempDir(), downloads: "https://downloads.example.com/v1.2.3"}
	for _, target := range targets {
		write(t, r.out, map[string]string{r.archiveOf(target): target.String()})
	}
	g.Expect(r.makeKrew(t.Context(), "")).To(Succeed())
	text, err := os.ReadFile(filepath.Join(r.out, "jwks.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var p plugin
	g.Expect(yaml.UnmarshalStrict(text, &p)).To(Succeed())
	g.Expect(p.Spec.Version).To(Equal("v1.2.3"))
	g.Expect(p.Spec.Platforms).To(HaveLen(6))
	for _, platform := range p.Spec.Platforms {
		file, found := strings.CutPrefix(platform.URI, "https://downloads.example.com/v1.2.3/kubectl-jwks_v1.2.3_")
		g.Expect(found).To(BeTrue(), platform.URI)
		labels := platform.Selector["matchLabels"]
		windows := labels["os"] == "windows"
		g.Expect(strings.HasSuffix(platform.Bin, ".exe")).To(Equal(windows))
		g.Expect(strings.HasSuffix(file, ".zip")).To(Equal(windows))
		g.Expect(file).To(HavePrefix(labels["os"] + "_" + labels["arch"] + "."))
		g.Expect(digest(filepath.Join(r.out, filepath.Base(platform.URI)))).To(Equal(platform.SHA256))
	}

	r.downloads = ""
	g.Expect(r.makeKrew(t.Context(), "")).To(Succeed())
	g.Expect(os.ReadFile(filepath.Join(r.out, "jwks.yaml"))).To(ContainSubstring("/" + product[len("github.com/"):] + "/releases/download/v1.2.3/kubectl-jwks_"))
}

// modulesOf are those that a binary says it contains.
func modulesOf(t *testing.T, path string) []string {
	t.Helper()
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"std"}
	for _, m := range info.Deps {
		all = append(all, m.Path)
	}
	return all
}

// TestAnSBOMHasEveryModuleWithItsLicence, of a binary that is at hand: this test's.
func TestAnSBOMHasEveryModuleWithItsLicence(t *testing.T) {
	g := NewWithT(t)
	self, err := os.Executable()
	g.Expect(err).NotTo(HaveOccurred())
	r := &release{log: io.Discard, version: "1.2.3", out: t.TempDir(), binary: map[target]string{}, from: source{time: commitTime}}
	for _, target := range targets {
		r.binary[target] = self
	}
	g.Expect(r.makeSBOMs(t.Context(), "")).To(MatchError(ContainSubstring("is not known")), "a module whose licence nobody has found")

	for _, module := range modulesOf(t, self) {
		r.libs = append(r.libs, library{module: module, licenses: []string{"MIT"}}, library{module: module, folder: "forked", licenses: []string{"ISC", "MIT"}})
	}
	g.Expect(r.makeSBOMs(t.Context(), "")).To(Succeed())
	path := filepath.Join(r.out, "jwks-trust-manager_v1.2.3_linux_amd64.cdx.json")
	once, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	var bom cdx.BOM
	g.Expect(cdx.NewBOMDecoder(strings.NewReader(string(once)), cdx.BOMFileFormatJSON).Decode(&bom)).To(Succeed())
	g.Expect(bom.Metadata.Component.Version).To(Equal("v1.2.3"))
	g.Expect(bom.Metadata.Timestamp).To(Equal("2026-01-31T12:00:00Z"))
	names := map[string]bool{}
	for _, c := range *bom.Components {
		names[c.Name] = true
		g.Expect(*c.Licenses).To(HaveLen(2), c.Name)
	}
	g.Expect(names).To(And(HaveKey("std"), HaveKey("github.com/google/uuid")))

	g.Expect(r.makeSBOMs(t.Context(), "")).To(Succeed())
	g.Expect(os.ReadFile(path)).To(BeEquivalentTo(once), "made again, it is the same")
}
