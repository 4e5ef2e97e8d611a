// main_test.go runs each command as a user does, on a real API server, with the real
// manager and an issuer.

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// stage is a real API server, the manager, and an issuer with two keys.
type stage struct {
	*WithT
	ctx        context.Context
	kube       client.Client
	issuer     *testissuer.Issuer
	one, two   *testissuer.Key
	dir        string
	kubeconfig string
	// at is the verifier's URL, and ca the file with its authority.
	at, ca string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	g := NewWithT(t)
	s := &stage{WithT: g, ctx: context.Background(), dir: t.TempDir(), one: testissuer.NewKey("key-1", "ES256"), two: testissuer.NewKey("key-2", "RS256")}
	env, err := harness.NewControlPlane(true, nil)
	g.Expect(err).NotTo(HaveOccurred())
	config, err := env.Start()
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = env.Stop() })
	known, err := scheme()
	g.Expect(err).NotTo(HaveOccurred())
	s.kube, err = client.New(config, client.Options{Scheme: known})
	g.Expect(err).NotTo(HaveOccurred())
	for _, ns := range []string{operatorNamespace, "orders"} {
		g.Expect(s.kube.Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})).To(Succeed())
	}
	s.kubeconfig = s.file("kubeconfig", env.KubeConfig)

	s.issuer, err = testissuer.Start()
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(s.issuer.Close)
	s.issuer.Publish(s.one)
	s.startManager(t)
	return s
}

func (s *stage) file(name string, content []byte) string {
	path := filepath.Join(s.dir, name)
	s.Expect(os.WriteFile(path, content, 0o600)).To(Succeed())
	return path
}

// startManager builds the manager, which is quick where it has been built before, and
// starts it.
func (s *stage) startManager(t *testing.T) {
	t.Helper()
	binary := filepath.Join(s.dir, "manager")
	build := exec.CommandContext(s.ctx, "go", "build", "-o", binary, "../manager")
	out, err := build.CombinedOutput()
	s.Expect(err).NotTo(HaveOccurred(), string(out))
	ca, err := harness.NewAuthority("test")
	s.Expect(err).NotTo(HaveOccurred())
	cert, key, err := ca.Issue("verifier")
	s.Expect(err).NotTo(HaveOccurred())
	address, err := harness.FreeAddress()
	s.Expect(err).NotTo(HaveOccurred())
	s.at, s.ca = "https://"+address, s.file("ca.crt", ca.PEM())
	manager, err := harness.StartManager(s.ctx, binary, "the manager", filepath.Join(s.dir, "manager.log"),
		"--kubeconfig", s.kubeconfig, "--leader-elect", "--verifier-bind-address", address, "--mirror-url", s.at,
		"--tls-cert-file", s.file("tls.crt", cert), "--tls-private-key-file", s.file("tls.key", key))
	t.Cleanup(func() {
		if t.Failed() {
			manager.PrintLog()
		}
		manager.Stop()
	})
	s.Expect(err).NotTo(HaveOccurred())
}

// jwks runs `kubectl jwks` with these arguments, and something on standard input.
func (s *stage) jwks(in string, args ...string) result {
	var out, errs bytes.Buffer
	root := newRoot(newCLI(genericiooptions.IOStreams{In: strings.NewReader(in), Out: &out, ErrOut: &errs}))
	root.SetArgs(append(args, "--kubeconfig", s.kubeconfig))
	return result{run(s.ctx, root), out.String(), errs.String()}
}

// trust creates a TrustedIssuer in the namespace orders.
func (s *stage) trust(name string, edits ...edit) *api.TrustedIssuer {
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: name}}
	ti.Spec.IssuerSpec = api.IssuerSpec{Issuer: s.issuer.URL(), Audiences: []string{"orders"}, CABundle: s.issuer.CABundle()}
	for _, e := range edits {
		e(ti)
	}
	s.Expect(s.kube.Create(s.ctx, ti)).To(Succeed())
	return ti
}

func (s *stage) token(k *testissuer.Key, audience string) string {
	return k.Sign(testissuer.Claims(s.issuer.URL(), "alice", audience, time.Now(), time.Hour))
}

// waitFor waits until the output of a command has this text.
func (s *stage) waitFor(text string, args ...string) {
	s.Eventually(func() string { return s.jwks("", args...).out }).WithTimeout(30 * time.Second).WithPolling(200 * time.Millisecond).Should(ContainSubstring(text))
}

func TestCommandsOnARealAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t)
	loopback := []string{"--egress-allow-cidr", "127.0.0.0/8"}
	in := func(args ...string) []string { return append(args, "-n", "orders") }

	// A first issuer, judged in a minute.
	s.trust("auth0")
	s.waitFor("True    Fresh", in("status")...)
	r := s.jwks("", in("describe", "auth0")...)
	s.Expect(r.code).To(Equal(exitOK), r.err)
	s.Expect(r.out).To(MatchRegexp(`(?s)Trouble: none.*key-1 +EC P-256 +ES256 +Active.*Ready +True.*Published`))
	s.Expect(s.jwks(s.token(s.one, "orders"), in("verify", "-")...).code).To(Equal(exitOK))
	s.Expect(s.jwks(s.token(s.one, "billing"), in("verify", "-")...).out).To(ContainSubstring("(AudienceMismatch)"))

	// A new key: unknown, different, refreshed, known.
	s.issuer.Publish(s.one, s.two)
	s.Expect(s.jwks(s.token(s.two, "orders"), in("verify", "-")...).code).To(Equal(exitUndecided))
	r = s.jwks("", append(in("diff", "auth0"), loopback...)...)
	s.Expect(r.code).To(Equal(exitNo), r.err)
	s.Expect(r.out).To(MatchRegexp(`\+ +key-2 +RSA 2048 RS256 .*new`))
	r = s.jwks("", in("refresh", "auth0")...)
	s.Expect(r.code).To(Equal(exitOK), r.err)
	s.Expect(r.out).To(MatchRegexp(`Succeeded: 2 keys were admitted.\n +\+ +key-2`))
	s.Expect(s.jwks(s.token(s.two, "orders"), in("verify", "-")...).code).To(Equal(exitOK))
	s.Expect(s.jwks("", append(in("diff", "auth0"), loopback...)...).code).To(Equal(exitOK))

	s.approval(t)
	s.exports(t)

	// check finds no Deployment, because this manager is a process; all else is well.
	r = s.jwks("", append(in("check", "--verifier-url", s.at, "--verifier-ca", s.ca, "-o", "json"), loopback...)...)
	s.Expect(r.code).To(Equal(exitNo), r.err)
	s.Expect(strings.Count(r.out, `"FAILED"`)).To(Equal(1), r.out)
	s.Expect(r.out).To(ContainSubstring("mirror and forward-auth answer"))
	s.Expect(s.jwks("", in("check")...).out).To(ContainSubstring("Service jwks-trust-system/jwks-trust-manager"), "through the API server's proxy, where there is no Service")
	s.Expect(s.jwks("", in("version")...).code).To(Equal(exitOK))

	// An outage.
	s.issuer.Stop()
	// What another object was answered within the 5 s before counts as an answer, too.
	s.Eventually(func() int {
		r = s.jwks("", in("refresh", "auth0")...)
		return r.code
	}).WithTimeout(30*time.Second).Should(Equal(exitNo), func() string { return r.out + r.err })
	s.Expect(r.out).To(MatchRegexp(`ConnectionFailed: .*\nThe last good keys stay; they expire in 23h.`))
	r = s.jwks("", "status", "-A", "--fail")
	s.Expect(r.code).To(Equal(exitNo))
	s.Expect(strings.Split(r.out, "\n")[1]).To(MatchRegexp(`ti/auth0 .*ConnectionFailed`), "trouble comes first")
	s.Expect(s.jwks(s.token(s.two, "orders"), in("verify", "-", "--by", "auth0")...).code).To(Equal(exitOK), "the last good keys go on")
	s.tenant(t)
}

// approval has a set that waits, is looked at, and approved.
func (s *stage) approval(t *testing.T) {
	t.Helper()
	careful := s.trust("careful", func(i api.Issuer) { i.IssuerSpec().Rotation = &api.RotationSpec{Policy: api.RotationRequireApproval} })
	s.waitFor("ApprovalRequired", "describe", "careful", "-n", "orders")
	r := s.jwks("no\n", "approve", "careful", "-n", "orders")
	s.Expect([]any{r.code, r.err}).To(Equal([]any{exitNo, "\nDid the issuer's owner confirm them? Type yes to trust them: Not approved.\n"}))
	s.Expect(s.jwks("", "diff", "careful", "-n", "orders", "--candidate").out).To(MatchRegexp(`\+ +key-1`))
	r = s.jwks("yes\n", "approve", "careful", "-n", "orders")
	s.Expect(r.code).To(Equal(exitOK), r.err)
	s.Expect(r.out).To(HaveSuffix("Trusted: 2 keys.\n"))
	s.Expect(s.jwks(s.token(s.one, "orders"), "verify", "-", "--by", "careful", "-n", "orders").code).To(Equal(exitOK))
	s.Expect(s.kube.Delete(s.ctx, careful)).To(Succeed())
}

// exports has an API server that logs in with the exported configuration.
func (s *stage) exports(t *testing.T) {
	t.Helper()
	for _, format := range []string{"jwks", "pem", "istio", "envoy-gateway", "nginx"} {
		r := s.jwks("", "export", "auth0", "-n", "orders", "--format", format)
		s.Expect(r.code).To(Equal(exitOK), r.err)
		s.Expect(r.out).NotTo(BeEmpty())
	}
	r := s.jwks("", "export", "auth0", "-n", "orders", "--format", "authn-config", "--verifier-url", s.at, "--verifier-ca", s.ca)
	s.Expect(r.code).To(Equal(exitOK), r.err)
	env, err := harness.NewControlPlane(false, map[string]string{"authentication-config": s.file("authentication.yaml", []byte(r.out))})
	s.Expect(err).NotTo(HaveOccurred())
	admin, err := env.Start()
	s.Expect(err).NotTo(HaveOccurred())
	defer func() { s.Expect(env.Stop()).To(Succeed()) }()
	as := rest.AnonymousClientConfig(admin)
	as.BearerToken = s.token(s.two, "orders")
	alice, err := client.New(as, client.Options{})
	s.Expect(err).NotTo(HaveOccurred())
	s.Eventually(func() (string, error) {
		review := &authenticationv1.SelfSubjectReview{}
		err := alice.Create(s.ctx, review)
		return review.Status.UserInfo.Username, err
	}).WithTimeout(30 * time.Second).WithPolling(500 * time.Millisecond).Should(Equal("auth0:alice"))
}

// tenant has a user who may see their own namespace and nothing else.
func (s *stage) tenant(t *testing.T) {
	t.Helper()
	out, err := s.kubectl("-n", "orders", "create", "role", "tenant", "--verb=get,list,watch", "--resource=trustedissuers.jwks-trust.dev,configmaps,events")
	s.Expect(err).NotTo(HaveOccurred(), out)
	out, err = s.kubectl("-n", "orders", "create", "rolebinding", "tenant", "--role=tenant", "--user=tenant")
	s.Expect(err).NotTo(HaveOccurred(), out)
	as := []string{"-n", "orders", "--as", "tenant"}
	r := s.jwks("", append([]string{"status"}, as...)...)
	s.Expect(r.code).To(Equal(exitOK), r.err)
	s.Expect(r.err).To(Equal("ClusterTrustedIssuers are left out: you may not list them.\n"))
	s.Expect(s.jwks(s.token(s.two, "orders"), append([]string{"verify", "-"}, as...)...).code).To(Equal(exitOK), "with the copy that they may read")
	r = s.jwks("", append([]string{"refresh", "auth0"}, as...)...)
	s.Expect(r.code).To(Equal(exitError))
	s.Expect(r.err).To(ContainSubstring("Ask the cluster's administrator for that right"))
	s.Expect(s.jwks("", append([]string{"check"}, as...)...).out).To(MatchRegexp(`warning +refresh, approve +you may not .*patch trustedissuers.jwks-trust.dev in orders`))
}

func (s *stage) kubectl(args ...string) (string, error) {
	out, err := exec.CommandContext(s.ctx, filepath.Join(harness.Assets(), "kubectl"), append(args, "--kubeconfig", s.kubeconfig)...).CombinedOutput()
	return string(out), err
}

func TestErrorsSayWhatToDo(t *testing.T) {
	g := NewWithT(t)
	var out, errs bytes.Buffer
	nowhere := newRoot(newCLI(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errs}))
	address, err := harness.FreeAddress()
	g.Expect(err).NotTo(HaveOccurred())
	nowhere.SetArgs([]string{"status", "--server", "http://" + address, "--kubeconfig", os.DevNull})
	g.Expect(run(context.Background(), nowhere)).To(Equal(exitError))
	g.Expect(errs.String()).To(MatchRegexp(`(?s)^Error: the API server cannot be reached: .*--context chooses another\.\n$`))
	g.Expect(explained(errors.New("plain"))).To(Equal("plain"))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	errs.Reset()
	stopped := newRoot(newCLI(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errs}))
	stopped.SetArgs([]string{"status", "--server", "http://" + address, "--kubeconfig", os.DevNull})
	g.Expect(run(cancelled, stopped)).To(Equal(exitError))
}
