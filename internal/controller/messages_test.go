// messages_test.go plays a scene for each reason, and compares what status and events
// say with what docs/troubleshooting.md quotes.

package controller

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// quoted are the messages that docs/troubleshooting.md has, by reason: the block
// quotes below the reason's heading.
func quoted() (map[string][]string, error) {
	text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "troubleshooting.md"))
	if err != nil {
		return nil, err
	}
	out, reason, quote := map[string][]string{}, "", []string(nil)
	for line := range strings.SplitSeq(string(text), "\n") {
		if part, is := strings.CutPrefix(line, "> "); is {
			quote = append(quote, part)
			continue
		}
		if quote != nil {
			out[reason], quote = append(out[reason], strings.Join(quote, " ")), nil
		}
		if title, is := strings.CutPrefix(line, "#"); is {
			reason = strings.TrimLeft(title, "# ")
		}
	}
	return out, nil
}

// said are the messages that scenes have led to, by reason.
type said map[string]map[string]bool

// variable is what differs from run to run, and what the document has in its place.
var variable = []struct {
	is  *regexp.Regexp
	say string
}{
	{regexp.MustCompile(`now name 127\.0\.0\.1:\d+`), "now name keys.example.com"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "login.example.com"},
	{regexp.MustCompile(`team-\w+-\w+`), "login"},
	{regexp.MustCompile(`\bteam-\w+\b`), "orders"},
	{regexp.MustCompile(`\bapp-\w+\b`), "shop"},
	{regexp.MustCompile(`\bauth\b`), "auth0"},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:…"},
	{regexp.MustCompile(`thumbprint [\w-]{43}`), "thumbprint …"},
	{regexp.MustCompile(`\b` + hasty.String() + `\b`), "10s"},
}

func (m said) note(reason, message string) {
	for _, n := range variable {
		message = n.is.ReplaceAllString(message, n.say)
	}
	message = strings.Join(strings.Fields(message), " ") // compilers show where, on lines of their own
	if m[reason] == nil {
		m[reason] = map[string]bool{}
	}
	m[reason][message] = true
}

// hear notes the conditions and the events.
func (m said) hear(s api.IssuerStatus, events []string) {
	for _, c := range s.Conditions {
		m.note(c.Reason, c.Message)
	}
	for _, e := range events {
		if parts := strings.SplitN(e, " ", 3); len(parts) == 3 { // type, reason, note
			m.note(parts[1], parts[2])
		}
	}
}

// hasty is the timeout of a fetch that shall not take the usual 10 s.
const hasty = 251 * time.Millisecond

// nowhere is a resolver that finds nothing.
type nowhere struct{}

func (nowhere) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// fetchWith makes the scene fetch with other options.
func (s *scene) fetchWith(o fetch.Options) {
	o.Egress = fetch.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	fetcher := fetch.New(o)
	DeferCleanup(fetcher.Close)
	shared := fetch.Share(fetcher, s.clock.Now, nil)
	DeferCleanup(shared.Close)
	s.r.Fetcher = shared
}

// answers makes the issuer misbehave from the second fetch on.
func answers(h http.HandlerFunc) func(*scene) {
	return func(s *scene) { s.issuer.Respond(h); s.after(8 * time.Minute) }
}

func keySet(keys ...map[string]any) http.HandlerFunc {
	return body(jsonOf(map[string]any{"keys": keys}))
}

func manyKeys(n int) []map[string]any {
	out := make([]map[string]any, n)
	for i := range out {
		out[i] = map[string]any{"kid": fmt.Sprint(i), "kty": "oct"}
	}
	return out
}

// tale is a scene with one TrustedIssuer: how its spec differs, and what happens once
// it has been reconciled.
type tale struct {
	edit func(*api.IssuerSpec)
	then func(*scene)
}

func told() []tale {
	return []tale{
		{nil, nil},
		{func(s *api.IssuerSpec) { s.Suspend = ptr.To(true) }, nil},
		{func(s *api.IssuerSpec) { s.JWKSURI = "https://2130706433/jwks.json" }, nil},
		{func(s *api.IssuerSpec) { s.JWKSURI = "https://10.1.2.3/jwks.json" }, nil},
		{func(s *api.IssuerSpec) { s.CABundle = "" }, nil},
		{func(s *api.IssuerSpec) { s.CABundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" }, nil},
		{func(s *api.IssuerSpec) {
			s.CABundle, s.CABundleRef = "", &api.CABundleReference{ConfigMap: &api.ConfigMapKeyReference{Name: "roots", Key: "ca.crt"}}
		}, nil},
		{nil, func(s *scene) {
			s.issuer.Stop()
			s.after(10 * time.Minute)
			s.after(23 * time.Hour)
			s.after(time.Hour)
		}},
		{expires(api.ExpiredRemove), func(s *scene) { s.issuer.Stop(); s.after(25 * time.Hour) }},
		{nil, func(s *scene) {
			s.issuer.Stop()
			Expect(server.Delete(s.ctx, configMap(s.ctx, s.copyKey()))).To(Succeed())
			Expect(server.Delete(s.ctx, configMap(s.ctx, s.authoritativeKey()))).To(Succeed())
			s.restart()
			s.after(time.Minute)
			Expect(s.status()).To(isNotReady(api.ReasonKeysLost))
			Expect(s.issuer.Restart()).To(Succeed())
			s.after(10 * time.Minute)
			Expect(s.status()).To(isReady(api.ReasonFresh))
		}},
		{nil, func(s *scene) {
			s.issuer.Stop()
			s.after(8 * time.Minute)
			Expect(s.issuer.Restart()).To(Succeed())
			s.after(8 * time.Minute)
		}},
		{nil, func(s *scene) { s.fetchWith(fetch.Options{Resolver: nowhere{}}); s.renamed("login.example.com") }},
		{nil, func(s *scene) {
			s.fetchWith(fetch.Options{Timeout: hasty})
			answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })(s)
		}},
		{nil, answers(testissuer.Redirect("https://elsewhere.example.com/"))},
		{nil, answers(testissuer.Status(http.StatusNotFound))},
		{nil, answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
		})},
		{nil, answers(testissuer.GzipBomb())},
		{nil, answers(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "br") })},
		{nil, answers(testissuer.HTML())},
		{nil, answers(body(`{"keys":[]}`))},
		{nil, answers(keySet(map[string]any{"kid": "k9", "kty": "oct", "k": "AAAA"}))},
		{nil, func(s *scene) { answers(keySet(manyKeys(101)...))(s) }},
		{nil, func(s *scene) { answers(keySet(key1().PrivateJWK()))(s) }},
		{nil, func(s *scene) {
			answers(keySet(key1().JWK(), map[string]any{"kid": "k9", "kty": "oct", "k": "AAAA"}))(s)
		}},
		{withDiscovery, func(s *scene) {
			s.issuer.RespondDiscovery(body(`{"issuer":"https://other.example.com","jwks_uri":"https://other.example.com/keys"}`))
			s.after(2 * time.Hour)
		}},
		{func(s *api.IssuerSpec) {
			s.JWKSURI = ""
			s.DiscoveryURL = s.Issuer + "/.well-known/openid-configuration"
		}, func(s *scene) {
			s.issuer.RespondDiscovery(testissuer.HTML())
			s.restart()
			s.edit(func(ti *api.TrustedIssuer) { ti.Spec.DiscoveryURL += "?again" })
			s.after(2 * time.Hour)
		}},
		{withDiscovery, func(s *scene) { s.keysElsewhere() }},
		{func(s *api.IssuerSpec) { s.Rotation = &api.RotationSpec{Policy: api.RotationRequireApproval} }, nil},
		{func(s *api.IssuerSpec) { s.Rotation = &api.RotationSpec{Policy: api.RotationRequireOverlap} }, answers(keySet(key2().JWK()))},
		{withGrace(time.Hour), func(s *scene) {
			s.issuer.Publish(key1(), key2())
			s.after(8 * time.Minute)
			s.issuer.Publish(key2())
			s.after(8 * time.Minute)
			s.after(30 * time.Second)
			s.verifierReports("k1", s.clock.Now(), nil)
			s.after(time.Second)
		}},
		{nil, func(s *scene) {
			s.issuer.Publish(key1(), key2())
			s.after(8 * time.Minute)
			s.verifierReports("k2", s.clock.Now(), ptr.To(noon.Add(-10*time.Minute)))
			s.after(time.Second)
		}},
		{nil, func(s *scene) { s.issuer.Publish(testissuer.NewKey("k1", "ES384")); s.after(8 * time.Minute) }},
		{nil, func(s *scene) { s.issuer.Publish(key2()); s.after(8 * time.Minute) }},
		{nil, func(s *scene) {
			s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1"} })
			s.after(10 * time.Second)
		}},
		{func(s *api.IssuerSpec) {
			s.Verification = &api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: "claims.tenant =="}}}
		}, nil},
		{nil, func(s *scene) {
			cm := configMap(s.ctx, s.copyKey())
			cm.Data["jwks.json"] = "{}"
			Expect(server.Update(s.ctx, cm)).To(Succeed())
			s.after(time.Minute)
		}},
		{snapshotOf(func(sn *api.SnapshotSpec) { sn.DeletionPolicy = api.DeletionRetain }), func(s *scene) {
			Expect(server.Delete(s.ctx, s.get())).To(Succeed())
			s.reconcile()
		}},
	}
}

func expires(p api.ExpiredPolicy) func(*api.IssuerSpec) {
	return snapshotOf(func(sn *api.SnapshotSpec) { sn.ExpiredPolicy = p })
}

func withDiscovery(s *api.IssuerSpec) { s.JWKSURI = "" }

// renamed has the keys at a host of that name.
func (s *scene) renamed(host string) {
	s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI = "https://" + host + "/jwks.json" })
	s.after(time.Minute)
}

// keysElsewhere has the metadata name another host, and back.
func (s *scene) keysElsewhere() {
	other, err := testissuer.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(other.Close)
	other.Publish(key1())
	s.issuer.RespondDiscovery(body(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, s.issuer.URL(), other.JWKSURI())))
	s.edit(func(ti *api.TrustedIssuer) { ti.Spec.CABundle += other.CABundle() })
	s.after(time.Minute)
	s.issuer.RespondDiscovery(nil)
	s.after(61 * time.Minute)
}

var _ = Describe("docs/troubleshooting.md", func() {
	It("quotes what status and events say, and says something to each reason", func(ctx context.Context) {
		heard := said{}
		hear := func(s *scene) {
			GinkgoHelper()
			ti := &api.TrustedIssuer{}
			Expect(client.IgnoreNotFound(server.Get(s.ctx, s.key, ti))).To(Succeed())
			heard.hear(ti.Status, s.events())
		}
		for _, scene := range told() {
			s := newScene(ctx)
			if scene.edit != nil {
				s.create(scene.edit)
			} else {
				s.create()
			}
			s.reconcile()
			hear(s)
			if scene.then != nil {
				scene.then(s)
				hear(s)
			}
			s.issuer.Close()
		}
		hearConfigMaps(ctx, heard)
		hearCluster(ctx, heard)

		quotes, err := quoted()
		Expect(err).NotTo(HaveOccurred())
		for reason, messages := range quotes {
			for _, q := range messages {
				Expect(heard[reason]).To(HaveKey(q), "the document quotes under %s what nobody says", reason)
			}
		}
		for reason, messages := range heard {
			delete(messages, "") // "all is well" has no message
			said := slices.Sorted(maps.Keys(messages))
			if len(said) > 0 && !slices.Contains(reasonsOfHealth, reason) {
				Expect(quotes[reason]).NotTo(BeEmpty(), "the document quotes nothing under %s, such as %q", reason, said)
			}
		}
	})
})

// hearConfigMaps are the scenes in which a ConfigMap cannot be written.
func hearConfigMaps(ctx context.Context, heard said) {
	GinkgoHelper()
	taken := newScene(ctx)
	Expect(server.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: taken.key.Namespace, Name: "auth-jwks"}})).To(Succeed())
	taken.create()
	taken.reconcile()
	heard.hear(taken.status(), taken.events())

	full := newScene(ctx)
	full.noConfigMaps(full.key.Namespace)
	full.create()
	full.keepReconciling(3, 5*time.Second)
	heard.hear(full.status(), full.events())

	large := failedPublication(full.copyKey(), snapshot.ErrTooLarge)
	heard.note(large.reason, large.message)
}

// hearCluster are the scenes with ClusterTrustedIssuers.
func hearCluster(ctx context.Context, heard said) {
	GinkgoHelper()
	f, selected := newFleet(ctx, 2)
	f.distribute()
	heard.hear(f.status(), f.events())
	f.issuer.Publish(key1(), key2())
	f.after(8 * time.Minute)
	heard.hear(f.status(), f.events())
	Expect(server.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace(f.label), Name: f.key.Name + "-jwks"}})).To(Succeed())
	Expect(f.distribute()).To(HaveLen(1))
	heard.hear(f.status(), f.events())
	f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
		spec.NamespaceSelector.MatchLabels = map[string]string{"none": selected[0]}
	})
	f.distribute()
	heard.hear(f.status(), f.events())
	f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
		spec.NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}
	})
	f.distribute()
	heard.hear(f.status(), f.events())

	s := newScene(ctx)
	s.r.New = func() api.Issuer { return &api.ClusterTrustedIssuer{} }
	for _, name := range []string{s.key.Namespace + "-a", s.key.Namespace + "-b"} {
		o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
		o.Spec.IssuerSpec = s.spec()
		o.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "x:"}
		Expect(server.Create(ctx, o)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { s.remove(ctx, name) })
		_, err := s.r.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		Expect(err).NotTo(HaveOccurred())
		Expect(server.Get(ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
		heard.hear(o.Status, s.events())
	}
}
