package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestScale keeps the benchmark alive, on a small scale: it must run, and must find no
// write and no request too many.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	g := NewWithT(t)
	log.SetLogger(logr.Discard())
	manager := filepath.Join(t.TempDir(), "manager")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", manager, "./cmd/manager")
	build.Dir, build.Env = harness.Root(), append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	for _, what := range []string{"issuers", "copies"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			o := options{
				manager: manager, only: list{what}, limit: 3 * time.Minute, rest: time.Second,
				issuers: list{"8"}, servers: 2, cacheTTL: 2 * time.Minute,
				namespaces: 6, rotations: 1, failover: 2,
			}
			g.Expect(run(t.Context(), &o)).To(Equal(0))
		})
	}
}

func TestCommandLine(t *testing.T) {
	g := NewWithT(t)
	good := func() *options {
		return &options{issuers: list{"1"}, servers: 1, namespaces: 1, rotations: 1, failover: 2}
	}
	g.Expect(good().check()).To(Succeed())
	for what, spoil := range map[string]func(*options){
		`no measurement "copy"`:             func(o *options) { o.only = list{"copy"} },
		`"many" is not a number of issuers`: func(o *options) { o.issuers = list{"many"} },
		`too small a number`:                func(o *options) { o.namespaces = 0 },
		`96 -extra-keys`:                    func(o *options) { o.extraKeys = 97 },
	} {
		o := good()
		spoil(o)
		g.Expect(o.check()).To(MatchError(ContainSubstring(what)))
	}
}

func TestCounts(t *testing.T) {
	g := NewWithT(t)
	g.Expect(samples("# TYPE a counter\na{x=\"1\",y=\"b c\"} 3\nab 4\na 5e+06\na_total 6\n", "a")).To(Equal([]sample{
		{map[string]string{"x": "1", "y": "b c"}, 3}, {map[string]string{}, 5e6},
	}))
	before := writes{"configmaps APPLY": 2, "events POST": 1}
	after := writes{"configmaps APPLY": 5, "configmaps POST": 1, "events POST": 1, "trustedissuers/status APPLY": 7}
	g.Expect(after.since(before)).To(Equal(writes{"configmaps APPLY": 3, "configmaps POST": 1, "trustedissuers/status APPLY": 7}))
	g.Expect(after.since(before).of("configmaps")).To(Equal(4))
	g.Expect(after.status()).To(Equal(7))
}
