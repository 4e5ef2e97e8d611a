// metrics_test.go reads the counter.

package verifier

import (
	"testing"

	. "github.com/onsi/gomega"
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
