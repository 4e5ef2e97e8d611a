package controller

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestReasonsAreThoseOfTheAPI: the packages below the API name their reasons by
// themselves; they must be the documented ones.
func TestReasonsAreThoseOfTheAPI(t *testing.T) {
	g := NewWithT(t)
	for below, documented := range map[string]string{
		string(fetch.InvalidURL): api.ReasonInvalidURL, string(fetch.InvalidCABundle): api.ReasonInvalidCABundle,
		string(fetch.EgressBlocked): api.ReasonEgressBlocked, string(fetch.DNSLookupFailed): api.ReasonDNSLookupFailed,
		string(fetch.ConnectionFailed): api.ReasonConnectionFailed, string(fetch.TLSFailed): api.ReasonTLSFailed,
		string(fetch.Timeout): api.ReasonTimeout, string(fetch.RedirectRefused): api.ReasonRedirectRefused,
		string(fetch.UnexpectedStatus): api.ReasonUnexpectedStatus, string(fetch.TooManyRequests): api.ReasonTooManyRequests,
		string(fetch.TooLarge): api.ReasonTooLarge, string(fetch.InvalidResponse): api.ReasonInvalidResponse,
		string(fetch.InvalidDiscovery): api.ReasonInvalidDiscovery, string(fetch.IssuerMismatch): api.ReasonIssuerMismatch,
		keyset.ReasonNotAKeySet: api.ReasonNotAKeySet, keyset.ReasonEmptyKeySet: api.ReasonEmptyKeySet,
		keyset.ReasonNoUsableKeys: api.ReasonNoUsableKeys, keyset.ReasonTooManyKeys: api.ReasonTooManyKeys,
		keyset.ReasonPrivateKeyExposed: api.ReasonPrivateKeyExposed,
	} {
		g.Expect(below).To(Equal(documented))
	}
}

// TestEveryReasonIsDocumented keeps docs/reference.md and docs/troubleshooting.md
// complete: a reason of trouble has a heading of its own in the latter.
func TestEveryReasonIsDocumented(t *testing.T) {
	g := NewWithT(t)
	reference, troubleshooting := document(g, "reference.md"), document(g, "troubleshooting.md")
	for _, reason := range reasons(g) {
		g.Expect(reference).To(ContainSubstring("`" + reason + "`"))
		if slices.Contains(reasonsOfHealth, reason) {
			g.Expect(troubleshooting).To(ContainSubstring("`" + reason + "`"))
			continue
		}
		g.Expect(troubleshooting).To(MatchRegexp(`(?m)^### ` + reason + `$`))
	}
}

// TestTroubleshootingNamesReasonsOnly: a heading of that level is a reason that exists.
func TestTroubleshootingNamesReasonsOnly(t *testing.T) {
	g := NewWithT(t)
	for _, heading := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(document(g, "troubleshooting.md"), -1) {
		g.Expect(reasons(g)).To(ContainElement(heading[1]))
	}
}

// reasons are the constants of the API.
func reasons(g Gomega) []string {
	source, err := os.ReadFile(filepath.Join(harness.Root(), "api", "v1alpha1", "conditions.go"))
	g.Expect(err).NotTo(HaveOccurred())
	var out []string
	for _, found := range regexp.MustCompile(`(?m)^\tReason\w+ = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		out = append(out, found[1])
	}
	g.Expect(len(out)).To(BeNumerically(">", 50))
	return out
}

func document(g Gomega, name string) string {
	text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", name))
	g.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// reasonsOfHealth are those of conditions when all is well.
var reasonsOfHealth = []string{
	api.ReasonFresh, api.ReasonNotExpired, api.ReasonNoneRetiring, api.ReasonNotSuspended, api.ReasonNotStalled,
	api.ReasonSucceeded, api.ReasonStatic, api.ReasonPublished, api.ReasonDistributed,
}
