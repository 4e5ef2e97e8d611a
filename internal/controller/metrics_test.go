package controller

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestAlertRulesAndDocsNameOurMetrics keeps the alert rules and the reference
// from speaking of metrics that do not exist, and the reference complete.
func TestAlertRulesAndDocsNameOurMetrics(t *testing.T) {
	g := NewWithT(t)
	descriptions := make(chan *prometheus.Desc, 100)
	ofIssuers.Describe(descriptions)
	close(descriptions)
	names := regexp.MustCompile(`jwks_trust_issuer_[a-z_]+`)
	var ours []string
	for d := range descriptions {
		ours = append(ours, names.FindString(d.String()))
	}
	for _, path := range []string{"config/prometheus/rules.yaml", "config/prometheus/rules_test.yaml", "docs/reference.md"} {
		text, err := os.ReadFile(filepath.Join(harness.Root(), path))
		g.Expect(err).NotTo(HaveOccurred())
		for _, name := range names.FindAllString(string(text), -1) {
			g.Expect(ours).To(ContainElement(name), path)
		}
		if path == "docs/reference.md" {
			for _, name := range ours {
				g.Expect(string(text)).To(ContainSubstring("`" + name))
			}
		}
	}
}
