package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

// TestMetricsSayWhichBuildRuns: by the registry that is served, and in the reference.
func TestMetricsSayWhichBuildRuns(t *testing.T) {
	g := NewWithT(t)
	problems, err := testutil.GatherAndLint(ctrlmetrics.Registry, "jwks_trust_build_info")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(problems).To(BeEmpty())
	served, err := ctrlmetrics.Registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	var labels []string
	for _, family := range served {
		if family.GetName() == "jwks_trust_build_info" {
			g.Expect(family.GetMetric()).To(HaveLen(1))
			g.Expect(family.GetMetric()[0].GetGauge().GetValue()).To(Equal(1.0))
			for _, l := range family.GetMetric()[0].GetLabel() {
				g.Expect(l.GetValue()).NotTo(BeEmpty(), l.GetName())
				labels = append(labels, l.GetName())
			}
		}
	}
	g.Expect(labels).To(ConsistOf("version", "revision", "goversion"))
	reference, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference.md"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(reference)).To(ContainSubstring("`jwks_trust_build_info{version,revision,goversion}`"))
}

// TestBuildInfoHasTheBuildsLabels, to the letter.
func TestBuildInfoHasTheBuildsLabels(t *testing.T) {
	g := NewWithT(t)
	info := buildInfo(version.Build{Version: "v1.2.3", Revision: "abc"})
	labels := map[string]string{}
	registry := prometheus.NewPedanticRegistry()
	g.Expect(registry.Register(info)).To(Succeed())
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	for _, l := range families[0].GetMetric()[0].GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	g.Expect(labels).To(Equal(map[string]string{"version": "v1.2.3", "revision": "abc", "goversion": runtime.Version()}))
}
