package verifier

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"
)

// TestEveryReasonIsDocumented keeps docs/verification.md complete.
func TestEveryReasonIsDocumented(t *testing.T) {
	g := NewWithT(t)
	page, err := os.ReadFile("../../docs/verification.md")
	g.Expect(err).NotTo(HaveOccurred())
	for reason := range texts {
		if reason != Accepted {
			g.Expect(string(page)).To(ContainSubstring("`"+string(reason)+"`"), "docs/verification.md")
		}
	}
}
