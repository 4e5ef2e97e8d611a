// runbooks_test.go runs the runbooks: each command that they have, against a real API
// server, the real controller and verifier, and an issuer that does what is said there.

package docs

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const audience = "https://orders.example.com"

// world is what the runbooks speak of.
type world struct {
	*WithT

	cluster    *harness.Cluster
	issuer     *testissuer.Issuer
	controller *harness.Manager
	verifier   string // address, plain HTTP
	folder     string // where commands run
	env        []string
	keys       map[string]*testissuer.Key
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	w := &world{WithT: NewWithT(t), folder: t.TempDir(), keys: map[string]*testissuer.Key{}}
	w.SetDefaultEventuallyTimeout(time.Minute)
	folder, err := binaries()
	w.Expect(err).NotTo(HaveOccurred())
	manager := filepath.Join(folder, "manager")
	w.cluster, err = harness.StartCluster(t.Context(), "orders")
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(w.cluster.Close)
	w.issuer, err = testissuer.Start()
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(w.issuer.Close)
	w.publish("key-1")
	w.controller, err = w.cluster.StartManager(t.Context(), manager, harness.Controller, "controller")
	w.Expect(err).NotTo(HaveOccurred())
	w.verifier, err = harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	_, err = w.cluster.StartManager(t.Context(), manager, harness.Verifier, "verifier", "--verifier-http-bind-address", w.verifier)
	w.Expect(err).NotTo(HaveOccurred())
	w.env = environment(t, w.cluster.Path("admin.yaml"))
	auth0 := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: "auth0"}}
	auth0.Spec.IssuerSpec = api.IssuerSpec{Issuer: w.issuer.URL(), Audiences: []string{audience}, JWKSURI: w.issuer.JWKSURI(), CABundle: w.issuer.CABundle()}
	w.Expect(w.cluster.Client.Create(t.Context(), auth0)).To(Succeed())
	w.accepts("key-1")
	w.Eventually(func() *api.AttemptStatus { return w.object().Status.LastAttempt }).ShouldNot(BeNil(), "what is published has been settled")
	return w
}

// publish has the issuer publish these keys, and no others.
func (w *world) publish(kids ...string) {
	var keys []*testissuer.Key
	for _, kid := range kids {
		if w.keys[kid] == nil {
			w.keys[kid] = testissuer.NewKey(kid, "ES256")
		}
		keys = append(keys, w.keys[kid])
	}
	w.issuer.Publish(keys...)
}

func (w *world) token(kid string) string {
	return w.keys[kid].Sign(testissuer.Claims(w.issuer.URL(), "alice", audience, time.Now(), time.Hour))
}

// says is how forward-auth answers a token of the key.
func (w *world) says(kid string) (string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+w.verifier+"/forward-auth/ns/orders/auth0", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+w.token(kid))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Jwks-Trust-Reason")), resp.Body.Close()
}

func (w *world) accepts(kid string) { w.answers(kid, "200 ") }

func (w *world) answers(kid, want string) {
	w.Eventually(func() (string, error) { return w.says(kid) }).Should(Equal(want), "a token of %s", kid)
}

// object is the issuer object as it is now.
func (w *world) object() *api.TrustedIssuer {
	ti := &api.TrustedIssuer{}
	w.Expect(w.cluster.Client.Get(context.Background(), client.ObjectKey{Namespace: "orders", Name: "auth0"}, ti)).To(Succeed())
	return ti
}

func (w *world) patch(json string) {
	w.Expect(w.cluster.Client.Patch(context.Background(), w.object(), client.RawPatch("application/merge-patch+json", []byte(json)))).To(Succeed())
}

// thumbprint is that of a key that status lists.
func (w *world) thumbprint(kid string) string {
	for _, k := range w.object().Status.Keys {
		if k.KeyID == kid {
			return k.Thumbprint
		}
	}
	w.Fail("status does not list " + kid)
	return ""
}

func (w *world) write(name, content string) {
	w.Expect(os.WriteFile(filepath.Join(w.folder, name), []byte(content), 0o600)).To(Succeed())
}

func TestRotationRunbook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := open(t, "docs/rotation.md", w.folder, w.env...)

	// Planned.
	w.publish("key-1", "key-2")
	expect(t, d.run(t, 0, "", "kubectl jwks refresh auth0"), "Asked for a refresh of TrustedIssuer orders/auth0", "Succeeded: 2 keys were admitted.", "+   key-2   "+w.thumbprint("key-2")+"   new")
	w.accepts("key-2")
	w.publish("key-2")
	d.run(t, 0, "", "kubectl jwks refresh auth0")
	out := d.run(t, 0, "", "kubectl jwks describe auth0")
	expect(t, out, "LAST USED")
	w.Expect(out).To(Or(ContainSubstring("Active (missing"), ContainSubstring("Keys that were trusted once:")), "missing, or gone after the second look")

	// Planned, with approval.
	w.patch(`{"spec":{"rotation":{"policy":"RequireApproval"}}}`)
	w.publish("key-2", "key-4")
	expect(t, d.run(t, 2, "", "kubectl jwks refresh auth0"), "Quarantined: ")
	expect(t, d.run(t, 2, "", "kubectl jwks diff auth0", "--candidate"), "+   key-4", "Nothing of it is trusted until somebody approves it: kubectl jwks approve ti/auth0 -n orders", "Digest of the published set: sha256:")
	expect(t, d.run(t, 0, "yes\n", "kubectl jwks approve auth0"), "Did the issuer's owner confirm them? Type yes to trust them:", "Approved; waiting", "Trusted: ")
	w.accepts("key-4")

	// A key has leaked.
	d.stand["se4BPxAC0kjXa1iDVSIq7fhD3ABWEoCnir3w1x5TqUk"] = w.thumbprint("key-2")
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", `"revokedKeys":["se4`)
	w.answers("key-2", "401 KeyRevoked")
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", "--type=json")
	w.Expect(w.object().Spec.RevokedKeys).To(HaveLen(2))
	w.write("token.txt", w.token("key-2"))
	expect(t, d.run(t, 2, "", "kubectl jwks verify -"), "FAILED   revocation        it names no revoked key", "Refused: the key is revoked (KeyRevoked).")

	// The endpoint is hijacked: with approval, and without.
	w.publish("foreign")
	d.run(t, 2, "", "kubectl jwks refresh auth0")
	expect(t, d.run(t, 0, "", "kubectl jwks status -A"), "ApprovalRequired: The issuer publishes 1 key, 1 of them not approved yet.")
	w.patch(`{"spec":{"rotation":{"policy":"Automatic"}}}`)
	w.accepts("foreign")
	d.stand["<foreign thumbprint>"] = w.thumbprint("foreign")
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", `"suspend":true`)
	w.answers("foreign", "401 KeyRevoked")
	good, err := w.keySet("key-4")
	w.Expect(err).NotTo(HaveOccurred())
	w.write("good.json", good)
	d.run(t, 0, "", "cat > inline.yaml")
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", "--patch-file inline.yaml")
	w.accepts("key-4")
	w.Eventually(func() *metav1.Time { return w.object().Status.Snapshot.ExpiresAt }).Should(BeNil(), "inline keys never grow old")
	w.publish("key-4")
	d.stand["https://login.example.com/jwks.json"] = w.issuer.JWKSURI()
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", `"jwks":null`)
	w.patch(`{"spec":{"caBundle":` + jsonOf(w.issuer.CABundle()) + `}}`)
	w.Eventually(func() *metav1.Time { return w.object().Status.Snapshot.ExpiresAt }).ShouldNot(BeNil(), "they are fetched again")
	w.accepts("key-4")

	// A private key was published.
	w.issuer.Respond(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"keys":[%s]}`, jsonOf(w.keys["key-4"].PrivateJWK()))
	})
	d.run(t, 2, "", "kubectl jwks refresh auth0")
	w.answers("key-4", "401 KeyRevoked")
	expect(t, d.run(t, 0, "", "kubectl jwks status -A"), "PrivateKeyExposed: ")
	d.stand["<thumbprint>"] = w.object().Status.CompromisedKeys[0].Thumbprint
	w.issuer.Respond(nil)
	d.run(t, 0, "", "kubectl annotate trustedissuer auth0", "clear-compromised")
	w.Eventually(func() []api.CompromisedKey { return w.object().Status.CompromisedKeys }).Should(BeEmpty())
}

func TestOutageRunbook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := open(t, "docs/outage.md", w.folder, w.env...)
	help := open(t, "docs/troubleshooting.md", w.folder, w.env...)

	w.issuer.Stop()
	w.patch(`{"metadata":{"annotations":{"jwks-trust.dev/refresh":"now"}}}`)
	w.Eventually(func() *api.AttemptStatus { return w.object().Status.LastAttempt }).Should(HaveValue(HaveField("Reason", api.ReasonConnectionFailed)))
	w.controller.Stop()
	// A day passes; the controller that would write it down does not run.
	old := w.object()
	base := old.DeepCopy()
	old.Status.Snapshot.LastSuccessTime = &metav1.Time{Time: time.Now().Add(-25 * time.Hour)}
	w.Expect(w.cluster.Client.Status().Patch(t.Context(), old, client.MergeFrom(base))).To(Succeed())
	w.answers("key-1", "503 SnapshotExpired")
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", "staleTTL")
	w.accepts("key-1")
	for _, status := range []*document{d, help} {
		expect(t, status.run(t, 0, "", "kubectl jwks status -A -o wide"), "orders ti/auth0\n  ServingStale (degraded)\n    ConnectionFailed: ",
			"connection refused; check that it is up", "    Mend that, then: kubectl jwks refresh ti/auth0 -n orders")
	}
	expect(t, help.run(t, 0, "", "kubectl jwks describe auth0"), "Conditions:", "ConnectionFailed", "Events:")
	expect(t, help.run(t, 2, "", "kubectl jwks check -A"), "Installation", "Your rights", "Issuers, from this machine")
	d.run(t, 0, "", "kubectl get configmap auth0-jwks")
	good, err := os.ReadFile(filepath.Join(w.folder, "good.json"))
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(string(good)).To(ContainSubstring(`"kid":"key-1"`))
}

// keySet is a key set of these keys.
func (w *world) keySet(kids ...string) (string, error) {
	keys := make([]any, len(kids))
	for i, kid := range kids {
		keys[i] = w.keys[kid].JWK()
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	return string(text), err
}

func jsonOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings alone
	}
	return string(text)
}
