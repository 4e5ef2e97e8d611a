package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// managerArgs is the variable that makes the test binary a manager, with these
// arguments: one process has one registry of metrics, so that a second verifier needs
// another process.
const managerArgs = "JWKS_TRUST_TEST_MANAGER_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(managerArgs); args != "" {
		os.Args = append(os.Args[:1], strings.Fields(args)...)
		main()
		return
	}
	os.Exit(m.Run())
}

// TestReplicasConverge is THREATS 68: what changes at one replica has changed at the
// others within two seconds, for the better and for the worse.
func TestReplicasConverge(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t)
	replicas := []string{s.at, s.anotherVerifier(t)}
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "auth"}}
	ti.Spec.IssuerSpec = api.IssuerSpec{
		Issuer: s.issuer.URL(), Audiences: []string{"orders"}, JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle(),
	}
	s.Expect(s.api.Create(s.ctx, ti)).To(Succeed())
	token := s.key.Sign(testissuer.Claims(s.issuer.URL(), "alice", "orders", time.Now(), time.Hour))
	all := func(status int, what string) {
		t.Helper()
		// The controller may have to fetch first; that takes as long as it takes.
		within := 20 * time.Second
		for _, at := range replicas {
			s.Eventually(func() (int, error) { return s.answerAt(at, token) }).WithTimeout(within).WithPolling(20*time.Millisecond).Should(Equal(status), what)
			within = 2 * time.Second
		}
	}
	all(http.StatusOK, "the keys are there")

	edit := func(change func(*api.IssuerSpec)) {
		t.Helper()
		before := ti.DeepCopy()
		change(&ti.Spec.IssuerSpec)
		s.Expect(s.api.Patch(s.ctx, ti, client.MergeFrom(before))).To(Succeed())
	}
	edit(func(spec *api.IssuerSpec) { spec.RevokedKeys = []string{s.key.ID} })
	all(http.StatusUnauthorized, "its key is revoked")
	edit(func(spec *api.IssuerSpec) { spec.RevokedKeys = nil })
	all(http.StatusOK, "its key is not revoked any more")
	edit(func(spec *api.IssuerSpec) { spec.Audiences = []string{"billing"} })
	all(http.StatusUnauthorized, "it is meant for others")
	edit(func(spec *api.IssuerSpec) { spec.Audiences = []string{"orders"} })
	all(http.StatusOK, "it is not")
	s.Expect(s.api.Delete(s.ctx, ti)).To(Succeed())
	all(http.StatusServiceUnavailable, "trust has ended")
}

// anotherVerifier starts one in a process of its own, until the end of the test, and
// returns its address once it is ready.
func (s *stage) anotherVerifier(t *testing.T) string {
	t.Helper()
	at, err := harness.FreeAddress()
	s.Expect(err).NotTo(HaveOccurred())
	probes, err := harness.FreeAddress()
	s.Expect(err).NotTo(HaveOccurred())
	cert, key, err := s.authority.Issue("verifier")
	s.Expect(err).NotTo(HaveOccurred())
	args := []string{
		"--components=verifier", "--operator-namespace=" + harness.OperatorNamespace, "--verifier-bind-address=" + at, "--health-probe-bind-address=" + probes,
		"--tls-cert-file=" + s.file("second.crt", cert), "--tls-private-key-file=" + s.file("second.key", key),
	}
	second := exec.CommandContext(s.ctx, os.Args[0])
	second.Env = append(os.Environ(), managerArgs+"="+strings.Join(args, " "))
	s.Expect(second.Start()).To(Succeed())
	t.Cleanup(func() {
		s.Expect(second.Process.Signal(syscall.SIGTERM)).To(Succeed())
		s.Expect(second.Wait()).To(Succeed(), "it ends when it is told to")
	})
	s.Eventually(func() (int, error) {
		resp, err := http.Get(fmt.Sprintf("http://%s/readyz", probes)) //nolint:noctx // a loopback address of ours
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}).WithTimeout(30 * time.Second).Should(Equal(http.StatusOK))
	return at
}
