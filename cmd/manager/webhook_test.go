package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	apiAudience    = "https://api.example.com" // the API server's own
	keylessIssuer  = "https://keyless.example.com/"
	tenantsIssuer  = "https://tenant.example.com/"
	loginsAudience = "kubernetes"
)

// TestWebhook lets real API servers ask the verifier, in both versions, while the
// issuer is down.
func TestWebhook(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	s := newStage(t)
	s.trustForWebhook()
	s.issuer.Stop()
	for _, version := range []string{"v1", "v1beta1"} {
		t.Run(version, func(t *testing.T) { s.asks(t, version) })
	}
}

// trustForWebhook makes an issuer that may log in, one without keys, and one that
// a namespace alone trusts.
func (s *stage) trustForWebhook() {
	cluster := func(name string, spec api.IssuerSpec) *api.ClusterTrustedIssuer {
		o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
		spec.Audiences = []string{loginsAudience}
		o.Spec.IssuerSpec = spec
		o.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "login:", GroupsPrefix: "login:"}
		s.Expect(s.api.Create(s.ctx, o)).To(Succeed())
		return o
	}
	login := cluster("login", api.IssuerSpec{Issuer: s.issuer.URL(), JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle()})
	cluster("keyless", api.IssuerSpec{Issuer: keylessIssuer, JWKSURI: "https://127.0.0.1:1/jwks.json"})
	jwks, err := json.Marshal(map[string]any{"keys": []any{s.key.JWK()}})
	s.Expect(err).NotTo(HaveOccurred())
	tenants := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tenant"}}
	tenants.Spec.IssuerSpec = api.IssuerSpec{Issuer: tenantsIssuer, Audiences: []string{loginsAudience}, JWKS: string(jwks)}
	s.Expect(s.api.Create(s.ctx, tenants)).To(Succeed())
	s.Eventually(func() ([]api.KeyStatus, error) {
		err := s.api.Get(s.ctx, client.ObjectKeyFromObject(login), login)
		return login.Status.Keys, err
	}).WithTimeout(10 * time.Second).Should(HaveLen(1))
}

// asks starts an API server with the webhook, and logs in.
func (s *stage) asks(t *testing.T, version string) {
	g := NewWithT(t)
	env, err := harness.NewControlPlane(false, map[string]string{
		"authentication-token-webhook-config-file": s.webhookConfiguration(g),
		"authentication-token-webhook-version":     version,
		"authentication-token-webhook-cache-ttl":   "1h",
		"api-audiences":                            apiAudience,
	})
	g.Expect(err).NotTo(HaveOccurred())
	admin, err := env.Start()
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(env.Stop()).To(Succeed()) }()

	token := func(issuer string, change map[string]any) string {
		claims := testissuer.Claims(issuer, "alice", loginsAudience, time.Now(), time.Hour)
		claims["groups"] = []string{"staff"}
		claims["jti"] = version // each server is asked about tokens of its own
		for name, value := range change {
			claims[name] = value
		}
		return s.key.Sign(claims)
	}
	whoAmI := func(token string) (authenticationv1.UserInfo, error) {
		as := rest.AnonymousClientConfig(admin)
		as.BearerToken = token
		clients, err := kubernetes.NewForConfig(as)
		if err != nil {
			return authenticationv1.UserInfo{}, err
		}
		review, err := clients.AuthenticationV1().SelfSubjectReviews().Create(s.ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return review.Status.UserInfo, err
	}

	good := token(s.issuer.URL(), nil)
	user, err := whoAmI(good)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(user.Username).To(Equal("login:alice"))
	g.Expect(user.Groups).To(ConsistOf("login:staff", "system:authenticated"))

	for name, tc := range map[string]struct {
		token  string
		asked  float64 // how often, in two attempts
		reason string
	}{
		"a definite no is kept":       {token(s.issuer.URL(), map[string]any{"aud": "elsewhere"}), 1, "AudienceMismatch"},
		"a namespace's issuer":        {token(tenantsIssuer, nil), 1, "UnknownIssuer"},
		"another's key of that name":  {testissuer.NewKey("k1", "ES256").Sign(testissuer.Claims(s.issuer.URL(), "alice", loginsAudience, time.Now(), time.Hour)), 1, "SignatureInvalid"},
		"cannot decide is asked anew": {token(keylessIssuer, nil), 2, "NoSnapshot"},
		"no name":                     {token(s.issuer.URL(), map[string]any{"sub": ""}), 1, "SubjectMissing"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := reviews(g, tc.reason)
			for range 2 {
				_, err := whoAmI(tc.token)
				g.Expect(err).To(MatchError(apierrors.IsUnauthorized, "Unauthorized"))
			}
			g.Expect(reviews(g, tc.reason)-before).To(Equal(tc.asked), "reviews in two attempts")
		})
	}
}

// webhookConfiguration is the file of the API server's flag, as in
// docs/kubernetes.md.
func (s *stage) webhookConfiguration(g *WithT) string {
	cert, key, err := s.authority.Issue("api-server")
	g.Expect(err).NotTo(HaveOccurred())
	webhook := clientcmdapi.NewConfig()
	webhook.Clusters["verifier"] = &clientcmdapi.Cluster{Server: fmt.Sprintf("https://%s/tokenreview", s.at), CertificateAuthorityData: s.authority.PEM()}
	webhook.AuthInfos["api-server"] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	webhook.Contexts["webhook"] = &clientcmdapi.Context{Cluster: "verifier", AuthInfo: "api-server"}
	webhook.CurrentContext = "webhook"
	text, err := clientcmd.Write(*webhook)
	g.Expect(err).NotTo(HaveOccurred())
	return s.file("webhook.yaml", text)
}

// reviews is how many TokenReviews were answered for that reason.
func reviews(g *WithT, reason string) (n float64) {
	families, err := metrics.Registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "jwks_trust_verifications_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["protocol"] == "token_review" && labels["reason"] == reason {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}
