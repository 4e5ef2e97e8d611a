package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestSmoke installs the chart on a real node, has an issuer trusted, and a token
// verified by an application in a pod. `make e2e` has the rest of the story.
func TestSmoke(t *testing.T) {
	g, root := NewWithT(t), harness.Root()
	programs, helm := filepath.Join(root, "bin", "node"), filepath.Join(root, "bin", "tools", "helm")
	for _, needed := range []string{filepath.Join(programs, "kubelet"), helm} {
		if _, err := os.Stat(needed); err != nil {
			t.Skipf("%s is missing: hack/e2e.sh builds it", needed)
		}
	}
	e2e := filepath.Join(t.TempDir(), "e2e")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", e2e, ".").CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	cmd := exec.CommandContext(t.Context(), e2e, "-smoke", "-node-programs", programs, "-helm", helm)
	cmd.Dir = root
	out, err = cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == exitNoNode {
		t.Skip(string(out))
	}
	g.Expect(err).NotTo(HaveOccurred(), string(out))
}
