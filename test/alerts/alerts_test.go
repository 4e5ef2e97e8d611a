// Package alerts tests the alert rules of config/prometheus with Prometheus' own
// tool.
package alerts

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool: install Prometheus, for instance with apt-get install prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Join(harness.Root(), "config", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
