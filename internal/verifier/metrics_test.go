// metrics_test.go reads the counter.

package verifier

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// counted is the value of the counter.
func counted(p protocol, o Outcome, r Reason) float64 {
	return testutil.ToFloat64(verifications.WithLabelValues(string(p), o.String(), string(r)))
}

func TestMetricIsRegistered(t *testing.T) {
	g := NewWithT(t)
	count(protocolForwardAuth, Verdict{Outcome: Refuse, Reason: TokenMissing})
	problems, err := testutil.GatherAndLint(metrics.Registry, "jwks_trust_verifications_total")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(problems).To(BeEmpty())
	n, err := testutil.GatherAndCount(metrics.Registry, "jwks_trust_verifications_total")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(n).To(BeNumerically(">", 0))
}

// TestTheReferenceHasOurMetrics keeps docs/reference.md complete, labels included.
func TestTheReferenceHasOurMetrics(t *testing.T) {
	g := NewWithT(t)
	descriptions := make(chan *prometheus.Desc, 100)
	verifications.Describe(descriptions)
	mirrored.Describe(descriptions)
	for _, d := range []*prometheus.Desc{acceptedTokens, unknownKeys, unattendedIssuers, certificateExpiry, certificateStart} {
		descriptions <- d
	}
	close(descriptions)
	reference, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference.md"))
	g.Expect(err).NotTo(HaveOccurred())
	parts := regexp.MustCompile(`fqName: "([a-z_]+)".*variableLabels: \{([a-z_,]*)\}`)
	for d := range descriptions {
		p := parts.FindStringSubmatch(d.String())
		g.Expect(p).NotTo(BeNil(), d.String())
		labels := ""
		if p[2] != "" {
			labels = "{" + strings.ReplaceAll(p[2], " ", "") + "}"
		}
		g.Expect(string(reference)).To(ContainSubstring("| `" + p[1] + labels + "` |"))
	}
}
