// metrics.go counts verdicts. No label holds anything that an issuer or a token
// can choose.

package verifier

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// protocol is the label of the way in which a verification was asked for.
type protocol string

const (
	protocolForwardAuth protocol = "forward_auth"
	protocolTokenReview protocol = "token_review"
	protocolExtAuthz    protocol = "ext_authz"
)

var verifications = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "jwks_trust_verifications_total",
	Help: "Verified tokens by protocol (forward_auth, ext_authz, token_review), outcome (accept, refuse, cannot_decide) and reason.",
}, []string{"protocol", "outcome", "reason"})

var mirrored = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "jwks_trust_mirror_requests_total",
	Help: "Requests to the mirror by result (served, not_found, unavailable).",
}, []string{"result"})

func init() { metrics.Registry.MustRegister(verifications, mirrored) }

// accepts are the counters of accepted tokens: most are, and finding a counter by its
// labels takes a while.
var accepts = map[protocol]prometheus.Counter{}

func init() {
	for _, p := range []protocol{protocolForwardAuth, protocolExtAuthz, protocolTokenReview} {
		accepts[p] = verifications.WithLabelValues(string(p), Accept.String(), string(Accepted))
	}
}

// count counts a verdict.
func count(p protocol, v Verdict) {
	if v.Outcome == Accept {
		accepts[p].Inc()
		return
	}
	verifications.WithLabelValues(string(p), v.Outcome.String(), string(v.Reason)).Inc()
}
