package controller

import (
	"os"
	"path/filepath"
	"regexp"
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

// TestEveryReasonIsInTheReference keeps docs/reference.md complete.
func TestEveryReasonIsInTheReference(t *testing.T) {
	g := NewWithT(t)
	source, err := os.ReadFile(filepath.Join(harness.Root(), "api", "v1alpha1", "conditions.go"))
	g.Expect(err).NotTo(HaveOccurred())
	reference, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "reference.md"))
	g.Expect(err).NotTo(HaveOccurred())
	reasons := regexp.MustCompile(`(?m)^\tReason\w+ = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	g.Expect(len(reasons)).To(BeNumerically(">", 30))
	for _, reason := range reasons {
		g.Expect(string(reference)).To(ContainSubstring("`" + reason[1] + "`"))
	}
}
