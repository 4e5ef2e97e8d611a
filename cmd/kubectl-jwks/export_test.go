package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

func TestExport(t *testing.T) {
	g := NewWithT(t)
	both := fixedSet(g, "key-1", "key-2")
	issuer := trustedIssuer("auth0", both, func(i api.Issuer) {
		i.IssuerSpec().Verification = &api.VerificationSpec{ResponseHeaders: []api.ResponseHeader{{Name: "X-Auth-Email", Claim: "email"}, {Name: "X-Auth-Groups", Claim: "groups"}}}
	})
	c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, both), mounted(g, issuer, both))
	r := c.run("export", "auth0", "--format", "jwks")
	c.Expect(r).To(Equal(result{exitOK, string(both.JSON()), ""}), "to the byte: its digest is the one in status")
	c.Expect(keyset.Digest([]byte(r.out))).To(Equal(both.Digest()))
	for _, format := range []string{"pem", "istio", "envoy-gateway", "nginx"} {
		r := c.run("export", "auth0", "--format", format)
		c.Expect(r.code).To(Equal(exitOK), r.err)
		c.golden("export-"+format+".txt", r.out)
	}
	// test/peers runs nginx with these.
	c.golden("export-nginx-cluster.txt", newCluster(t, interceptor.Funcs{}, clusterIssuer("login", both)).run("export", "cti/login", "--format", "nginx").out)
	c.Expect(c.run("export", "auth0", "--format", "envoy-gateway", "--target", "GRPCRoute/x").out).To(ContainSubstring("kind: GRPCRoute\n    name: x\n"))
	c.Expect(c.run("export", "auth0", "--format", "istio", "--use-mirror").out).To(ContainSubstring("jwksUri: https://jwks-trust-manager.jwks-trust-system.svc/mirror/ns/orders/auth0/jwks.json\n"))
	c.Expect(c.run("export", "auth0", "--format", "xml").err).To(ContainSubstring("Choose one of: authn-config, envoy-gateway, istio, jwks, nginx, pem."))
}

func TestNothingIsExportedThatNobodyShouldTrust(t *testing.T) {
	g := NewWithT(t)
	both, other := fixedSet(g, "key-1", "key-2"), fixedSet(g, "key-1")
	for name, tc := range map[string]struct {
		change edit
		holds  *keyset.Set
		want   string
	}{
		"expired": {confirmed(25 * time.Hour), both, "have expired: nobody should trust them\nkubectl jwks refresh ti/auth0 -n orders\n"},
		"expired, and the inline keys cannot be used": {func(i api.Issuer) {
			confirmed(48 * time.Hour)(i)
			inlineInVain(i)
		}, both, "have expired: nobody should trust them\nCorrect spec.jwks.\n"},
		"revoked by thumbprint": {func(i api.Issuer) { i.IssuerSpec().RevokedKeys = []string{both.Keys()[0].Thumbprint()} }, both, "revoked: key-1"},
		"revoked by kid":        {func(i api.Issuer) { i.IssuerSpec().RevokedKeys = []string{"key-2"} }, both, "revoked: key-2"},
		"compromised": {func(i api.Issuer) {
			i.IssuerStatus().CompromisedKeys = []api.CompromisedKey{{Thumbprint: both.Keys()[1].Thumbprint()}}
		}, both, "revoked: key-2"},
		"other keys": {func(api.Issuer) {}, other, "holds other keys"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			issuer := trustedIssuer("auth0", both, tc.change)
			c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, tc.holds), mounted(g, issuer, tc.holds))
			for _, format := range []string{"jwks", "pem", "istio", "envoy-gateway"} {
				r := c.run("export", "auth0", "--format", format)
				c.Expect(r.code).To(Equal(exitError), format)
				c.Expect(r.out).To(BeEmpty(), format)
				c.Expect(r.err).To(ContainSubstring(tc.want), format)
			}
		})
	}
}

// Not its keys, and not where they are: the verifier and the mirror know it no more.
func TestNothingIsExportedOfAnObjectThatIsBeingDeleted(t *testing.T) {
	g := NewWithT(t)
	set := fixedSet(g, "key-1")
	issuer := trustedIssuer("auth0", set, beingDeleted)
	c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set), mounted(g, issuer, set))
	for format := range exporters {
		r := c.run("export", "auth0", "--format", format)
		c.Expect(r.code).To(Equal(exitError), format)
		c.Expect(r.out).To(BeEmpty(), format)
		c.Expect(r.err).To(HavePrefix("Error: TrustedIssuer orders/auth0 is being deleted"), format)
	}
}

func TestExportForEnvoyGatewayNeedsACopy(t *testing.T) {
	g := NewWithT(t)
	set := fixedSet(g, "key-1")
	none, some := clusterIssuer("none", set), clusterIssuer("some", set)
	some.Spec.NamespaceSelector = &metav1.LabelSelector{}
	c := newCluster(t, interceptor.Funcs{}, none, some, published(g, none, set), published(g, some, set))
	c.Expect(c.run("export", "none", "--format", "envoy-gateway").err).To(ContainSubstring("Set spec.namespaceSelector"))
	c.Expect(c.run("export", "some", "--format", "envoy-gateway").err).To(ContainSubstring("the ConfigMap orders/some-jwks, which the policy would read, cannot be read"))
	c.Expect(c.kube.Create(context.Background(), mounted(g, some, set))).To(Succeed())
	c.Expect(c.run("export", "some", "--format", "envoy-gateway").code).To(Equal(exitOK))
}

// Whom the verifier refuses for a rule gets in where keys are all that counts. Who exports
// such an object is told, and who exports one that asks the verifier need not be.
func TestExportNamesTheRulesThatProxiesDoNotKnow(t *testing.T) {
	g := NewWithT(t)
	set := fixedSet(g, "key-1")
	plain, strict := trustedIssuer("plain", set), trustedIssuer("strict", set)
	strict.Spec.AllowedAlgorithms = []api.Algorithm{"ES256"}
	strict.Spec.Verification = &api.VerificationSpec{
		MaxTokenLifetime: &metav1.Duration{Duration: time.Hour}, TokenTypes: []string{"at+jwt"},
		RequiredClaims: []string{"tenant", "x__y:z__"}, ClaimValidationRules: []api.ClaimValidationRule{{Claim: "hd", RequiredValue: "example.com"}},
	}
	c := newCluster(t, interceptor.Funcs{}, plain, strict, published(g, plain, set), published(g, strict, set), mounted(g, plain, set), mounted(g, strict, set))
	const all = "spec.allowedAlgorithms, spec.verification.tokenTypes, spec.verification.maxTokenLifetime, spec.verification.requiredClaims, spec.verification.claimValidationRules.\n"
	for form, want := range map[string]string{
		"istio": "Not in it, because a RequestAuthentication cannot say it: " + all, "istio --use-mirror": "Not in it, because a RequestAuthentication cannot say it: " + all,
		"envoy-gateway": "Not in it, because a JWT provider cannot say it: " + all, "nginx": "",
	} {
		args := strings.Fields(form)
		c.Expect(c.run(append([]string{"export", "plain", "--format"}, args...)...).err).To(BeEmpty(), form)
		r := c.run(append([]string{"export", "strict", "--format"}, args...)...)
		c.Expect(r.code).To(Equal(exitOK), form)
		c.Expect(r.err).To(Equal(want), form)
	}
}

// Envoy Gateway asks for no digest. A ConfigMap that was there before ours is never
// overwritten, so whoever made it would say who gets in.
func TestExportForEnvoyGatewayReadsNobodyElsesConfigMap(t *testing.T) {
	g := NewWithT(t)
	set, other := fixedSet(g, "key-1"), fixedSet(g, "key-2")
	issuer := trustedIssuer("auth0", set)
	foreign, namesake, late, tampered := mounted(g, issuer, other), mounted(g, issuer, set), mounted(g, issuer, other), mounted(g, issuer, set)
	foreign.Labels, namesake.Labels = nil, map[string]string{api.LabelIssuerUID: "another"}
	tampered.Data["jwks"] = string(other.JSON())
	for want, cm := range map[string][]*corev1.ConfigMap{
		"is not of TrustedIssuer orders/auth0: somebody else decides which keys are in it": {foreign, namesake},
		"holds other keys than the trusted ones":                                           {late, tampered},
	} {
		for _, there := range cm {
			r := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set), there).run("export", "auth0", "--format", "envoy-gateway")
			g.Expect(r.code).To(Equal(exitError), want)
			g.Expect(r.out).To(BeEmpty(), want)
			g.Expect(r.err).To(HavePrefix("Error: the ConfigMap orders/auth0-jwks, which the policy would read, " + want))
		}
	}
}

// login is a ClusterTrustedIssuer with all that an AuthenticationConfiguration can
// carry over.
func login(set *keyset.Set) *api.ClusterTrustedIssuer {
	cti := clusterIssuer("login", set)
	cti.Spec.Audiences = []string{"kubernetes", "dashboard"}
	cti.Spec.Verification = &api.VerificationSpec{
		RequiredClaims: []string{"tenant", `odd "name"`, "https://example.com/tenant-id", "a.b-c", "x__y:z__"}, TokenTypes: []string{"at+jwt"},
		ClaimValidationRules: []api.ClaimValidationRule{{Claim: "hd", RequiredValue: "example.com"}, {Expression: "claims.admin == true", Message: "admins only"}},
	}
	cti.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{
		UsernamePrefix: `ext"\:`, GroupsPrefix: "ext:",
		ClaimMappings: &api.ClaimMappings{
			Username: &api.ClaimOrExpression{Expression: "claims.name"}, Groups: &api.ClaimOrExpression{Claim: "roles"}, UID: &api.ClaimOrExpression{Claim: "sub"},
			Extra: []api.ExtraMapping{{Key: "example.com/tenant", ValueExpression: "claims.tenant"}},
		},
		UserValidationRules: []api.UserValidationRule{{Expression: "!user.username.startsWith('system:')", Message: "no system"}},
	}
	return cti
}

// The API server's own code reads and validates what is exported: strictly, every
// expression compiled.
func TestExportForTheAPIServer(t *testing.T) {
	g := NewWithT(t)
	set := fixedSet(g, "key-1")
	ca, err := harness.NewAuthority("test")
	g.Expect(err).NotTo(HaveOccurred())
	authority := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: authorityName}, Data: map[string]string{authorityKey: string(ca.PEM())}}
	verifierDeployment := deployment("jwks-trust-verifier", "--components=verifier", "--mirror-url=https://mirror.example.com")
	plainOne := clusterIssuer("plain", set)
	c := newCluster(t, interceptor.Funcs{}, login(set), plainOne, authority, verifierDeployment)

	r := c.run("export", "cti/login", "--format", "authn-config")
	c.Expect(r.code).To(Equal(exitOK), r.err)
	config := readAuthentication(g, r.out)
	jwt := config.JWT[0]
	c.Expect(jwt.Issuer.URL).To(Equal(issuerURL))
	c.Expect(jwt.Issuer.DiscoveryURL).To(Equal("https://mirror.example.com/mirror/cluster/login/.well-known/openid-configuration"))
	c.Expect(jwt.Issuer.CertificateAuthority).To(Equal(string(ca.PEM())))
	c.Expect(jwt.ClaimMappings.Username.Expression).To(Equal("\"ext\\\"\\\\:\" + (claims.name\n)"), "the prefix always applies")
	c.Expect(jwt.ClaimMappings.Groups.Claim).To(Equal("roles"))
	var expressions []string
	for _, rule := range jwt.ClaimValidationRules {
		expressions = append(expressions, rule.Expression)
	}
	c.Expect(expressions).To(ConsistOf(
		`claims[?"tenant"].hasValue() && claims["tenant"] != null`,
		`claims[?"odd \"name\""].hasValue() && claims["odd \"name\""] != null`,
		`claims[?"https://example.com/tenant-id"].hasValue() && claims["https://example.com/tenant-id"] != null`,
		`claims[?"a__dot__b__dash__c"].hasValue() && claims["a__dot__b__dash__c"] != null`,
		"", "claims.admin == true",
	), "in the API server, claims is no map")
	c.Expect(jwt.UserValidationRules).To(ConsistOf(
		apiserver.UserValidationRule{Expression: "!user.username.startsWith('system:')", Message: "no system"},
		noGroupOfTheSystem, somebody(`"ext\"\\:"`),
	), "each expression once")
	c.Expect(r.err).To(Equal("Not in it, because an AuthenticationConfiguration cannot say it: spec.verification.tokenTypes, spec.verification.requiredClaims (x__y:z__).\n"))

	file := filepath.Join(t.TempDir(), "ca.crt")
	g.Expect(os.WriteFile(file, ca.PEM(), 0o600)).To(Succeed())
	r = c.run("export", "plain", "--format", "authn-config", "--verifier-url", "https://10.0.0.1/", "--verifier-ca", file)
	jwt = readAuthentication(g, r.out).JWT[0]
	c.Expect(jwt.Issuer.DiscoveryURL).To(Equal("https://10.0.0.1/mirror/cluster/plain/.well-known/openid-configuration"))
	c.Expect(jwt.UserValidationRules).To(ConsistOf(noUserOfTheSystem, noGroupOfTheSystem, somebody(`"plain:"`)))
	c.Expect(r.err).To(ContainSubstring(`users are named "plain:" and the token's sub`))
	c.Expect(c.run("export", "plain", "--format", "authn-config", "--verifier-url", "http://x").err).To(ContainSubstring("is not an https URL"))
}

// The rules that stand in every AuthenticationConfiguration. test/schemas has an API server
// that goes by them.
var (
	noUserOfTheSystem  = apiserver.UserValidationRule{Expression: "!user.username.startsWith('system:')", Message: "user names that begin with system: are reserved"}
	noGroupOfTheSystem = apiserver.UserValidationRule{Expression: "user.groups.all(group, !group.startsWith('system:'))", Message: "groups that begin with system: are reserved"}
)

// somebody is the rule that there is a name after the prefix.
func somebody(prefix string) apiserver.UserValidationRule {
	return apiserver.UserValidationRule{Expression: "user.username != " + prefix, Message: "a user has to have a name"}
}

// An issuer object may be called system. Users named after it would be Kubernetes' own.
func TestExportForTheAPIServerMakesUpNoReservedPrefix(t *testing.T) {
	g := NewWithT(t)
	set := fixedSet(g, "key-1")
	c := newCluster(t, interceptor.Funcs{}, clusterIssuer("system", set), trustedIssuer("system", set), clusterIssuer("system.x", set))
	for _, name := range []string{"ti/system", "cti/system"} {
		r := c.run("export", name, "--format", "authn-config")
		c.Expect(r.code).To(Equal(exitError), name)
		c.Expect(r.out).To(BeEmpty(), name)
		c.Expect(r.err).To(ContainSubstring(`would be named "system:" and the token's sub, which is reserved for Kubernetes itself`), name)
	}
	c.Expect(c.run("export", "cti/system.x", "--format", "authn-config").code).To(Equal(exitOK))
	named := clusterIssuer("system", set)
	named.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "ext:"}
	r := newCluster(t, interceptor.Funcs{}, named).run("export", "cti/system", "--format", "authn-config")
	c.Expect(readAuthentication(g, r.out).JWT[0].ClaimMappings.Username.Prefix).To(HaveValue(Equal("ext:")))
}

// An API server that does not take its AuthenticationConfiguration does not start. What the
// verifier goes by has to come out as one that it takes, or not at all.
func TestWhatIsExportedForTheAPIServerIsTaken(t *testing.T) {
	g := NewWithT(t)
	rule := func(expression string) api.ClaimValidationRule {
		return api.ClaimValidationRule{Expression: expression}
	}
	for name, change := range map[string]func(*api.ClusterTrustedIssuerSpec){
		"a user name whose expression ends in a comment": func(s *api.ClusterTrustedIssuerSpec) {
			s.KubernetesAuthentication.ClaimMappings = &api.ClaimMappings{Username: &api.ClaimOrExpression{Expression: "claims.name // as in the directory"}}
		},
		"a claim that is required, and by an expression too": func(s *api.ClusterTrustedIssuerSpec) {
			s.Verification = &api.VerificationSpec{
				RequiredClaims: []string{"a"}, ClaimValidationRules: []api.ClaimValidationRule{rule(`claims[?"a"].hasValue() && claims["a"] != null`)},
			}
		},
		"an expression twice": func(s *api.ClusterTrustedIssuerSpec) {
			s.Verification = &api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{rule("claims.a == 'b'"), rule("claims.a == 'b'")}}
		},
		"a value twice": func(s *api.ClusterTrustedIssuerSpec) {
			same := api.ClaimValidationRule{Claim: "a", RequiredValue: "b"}
			s.Verification = &api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{same, same}}
		},
		"a rule for users twice": func(s *api.ClusterTrustedIssuerSpec) {
			same := api.UserValidationRule{Expression: "user.uid == ''"}
			s.KubernetesAuthentication.UserValidationRules = []api.UserValidationRule{same, same}
		},
	} {
		issuer := clusterIssuer("login", fixedSet(g, "key-1"))
		issuer.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "ext:"}
		change(&issuer.Spec)
		r := newCluster(t, interceptor.Funcs{}, issuer).run("export", "cti/login", "--format", "authn-config")
		g.Expect(r.code).To(Equal(exitOK), name)
		readAuthentication(g, r.out)
	}
	for _, iss := range []string{"https://a.example.com/?tenant=b", "https://a.example.com/#b", "https://a:b@a.example.com/", "https://a b/", "urn:a"} {
		issuer := clusterIssuer("login", fixedSet(g, "key-1"), func(i api.Issuer) { i.IssuerSpec().Issuer = iss })
		r := newCluster(t, interceptor.Funcs{}, issuer).run("export", "cti/login", "--format", "authn-config")
		g.Expect(r.code).To(Equal(exitError), iss)
		g.Expect(r.out).To(BeEmpty(), iss)
		g.Expect(r.err).To(ContainSubstring("needs an https URL without user information, query and fragment as issuer"), iss)
	}
}

// An API server does not start with an authority that is none, and with an empty file it
// would have gone by its own roots.
func TestExportForTheAPIServerTakesNoAuthorityThatIsNone(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, clusterIssuer("login", fixedSet(NewWithT(t), "key-1")))
	for name, content := range map[string]string{"empty": "", "a key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		file := filepath.Join(t.TempDir(), "ca.crt")
		c.Expect(os.WriteFile(file, []byte(content), 0o600)).To(Succeed())
		r := c.run("export", "cti/login", "--format", "authn-config", "--verifier-ca", file)
		c.Expect(r.code).To(Equal(exitError), name)
		c.Expect(r.out).To(BeEmpty(), name)
		c.Expect(r.err).To(ContainSubstring("--verifier-ca: there is no certificate in "+file), name)
	}
}

// The API server can be told how long a token may be good for, so it refuses what the
// verifier refuses. test/schemas asks it.
func TestExportForTheAPIServerBoundsTheLifetime(t *testing.T) {
	g := NewWithT(t)
	issuer := clusterIssuer("login", fixedSet(g, "key-1"))
	issuer.Spec.Verification = &api.VerificationSpec{MaxTokenLifetime: &metav1.Duration{Duration: 90*time.Second + 500*time.Millisecond}}
	r := newCluster(t, interceptor.Funcs{}, issuer).run("export", "cti/login", "--format", "authn-config")
	g.Expect(r.err).NotTo(ContainSubstring("Not in it"))
	rules := readAuthentication(g, r.out).JWT[0].ClaimValidationRules
	g.Expect(rules).To(HaveLen(1))
	same, err := policy.Compile(&api.VerificationSpec{ClaimValidationRules: []api.ClaimValidationRule{{Expression: rules[0].Expression}}}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	for claims, holds := range map[string]bool{
		`{"exp":1795780890,"iat":1795780800}`: true, `{"exp":1795780890.5,"iat":1795780800}`: true,
		`{"exp":1795780891,"iat":1795780800}`: false, `{"exp":1795780890.6,"iat":1795780800}`: false,
		`{"exp":1795780890}`: false, `{"exp":1795780890,"iat":null}`: false,
	} {
		object, err := jose.ReadObject([]byte(claims), 8)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(same.Evaluate(object).CheckRules() == nil).To(Equal(holds), claims)
	}
}

func TestExportForTheAPIServerNamesWhatIsLost(t *testing.T) {
	g := NewWithT(t)
	const says = "Not in it, because an AuthenticationConfiguration cannot say it: "
	all := []api.Algorithm{"ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}
	for name, tc := range map[string]struct {
		change func(*api.IssuerSpec)
		want   string
	}{
		"nothing":                            {func(*api.IssuerSpec) {}, ""},
		"all algorithms that it verifies":    {func(s *api.IssuerSpec) { s.AllowedAlgorithms = all }, ""},
		"one algorithm, and no verification": {func(s *api.IssuerSpec) { s.AllowedAlgorithms = all[3:4] }, says + "spec.allowedAlgorithms.\n"},
		"all algorithms but one, and a leeway": {func(s *api.IssuerSpec) {
			s.AllowedAlgorithms = append([]api.Algorithm{"EdDSA"}, all[1:]...)
			s.Verification = &api.VerificationSpec{Leeway: &metav1.Duration{Duration: time.Second}, MaxTokenLifetime: &metav1.Duration{Duration: time.Hour}}
		}, says + "spec.allowedAlgorithms, spec.verification.leeway.\n"},
	} {
		issuer := clusterIssuer("login", fixedSet(g, "key-1"), func(i api.Issuer) { tc.change(i.IssuerSpec()) })
		issuer.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "ext:"}
		authority := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: authorityName}, Data: map[string]string{authorityKey: "x"}}
		r := newCluster(t, interceptor.Funcs{}, issuer, authority).run("export", "cti/login", "--format", "authn-config")
		g.Expect(r.code).To(Equal(exitOK), name)
		g.Expect(r.err).To(Equal(tc.want), name)
	}
}

// readAuthentication reads an AuthenticationConfiguration as kube-apiserver does.
func readAuthentication(g *WithT, text string) *apiserver.AuthenticationConfiguration {
	s := runtime.NewScheme()
	install.Install(s)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDecoder(), []byte(text))
	g.Expect(err).NotTo(HaveOccurred(), text)
	config, ok := decoded.(*apiserver.AuthenticationConfiguration)
	g.Expect(ok).To(BeTrue())
	g.Expect(validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), config, nil)).To(BeEmpty(), text)
	return config
}

func TestTheAPIServerKnowsNoEdDSA(t *testing.T) {
	g := NewWithT(t)
	ed, ec := testissuer.NewKey("ed", "EdDSA"), testissuer.NewKey("ec", "ES256")
	c := newCluster(t, interceptor.Funcs{}, clusterIssuer("ed", keySet(g, ed)), clusterIssuer("both", keySet(g, ed, ec)))
	c.Expect(c.run("export", "ed", "--format", "authn-config").err).To(ContainSubstring("kube-apiserver's own OIDC knows no EdDSA"))
	r := c.run("export", "both", "--format", "authn-config")
	c.Expect(r.code).To(Equal(exitOK))
	c.Expect(r.err).To(ContainSubstring("Some keys are for EdDSA"))
}

// deployment is one of the manager.
func deployment(name string, args ...string) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "sidecar"}, {Name: "manager", Image: "registry.example.com/jwks-trust-manager:v1", Args: args}}
	d.Status.AvailableReplicas = 1
	return d
}

func TestFlagsOfTheManagerAreReadInAllTheirForms(t *testing.T) {
	g := NewWithT(t)
	d := deployment("x", "--egress-allow-cidr=10.0.0.0/8,fd00::/8", "-egress-allow-cidr", "192.168.0.0/16", "--egress-allow-cidr-not=1", "egress-allow-cidr", "--egress-allow-cidr")
	g.Expect(argumentValues(d, "egress-allow-cidr")).To(Equal([]string{"10.0.0.0/8", "fd00::/8", "192.168.0.0/16"}))
}

// Kubernetes expands variables in arguments, and the shipped Deployments have one.
func TestFlagsOfTheManagerAreReadAsItsPodGetsThem(t *testing.T) {
	g := NewWithT(t)
	d := deployment("x", "--mirror-url=https://jwks-trust-manager.$(POD_NAMESPACE).svc:$(PORT)", "--egress-allow-cidr=$(CIDRS),$$(CIDRS),$(ELSEWHERE)")
	d.Namespace = "auth"
	d.Spec.Template.Spec.Containers[1].Env = []corev1.EnvVar{
		{Name: "POD_NAMESPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}},
		{Name: "PORT", Value: "8443"}, {Name: "CIDRS", Value: "10.0.0.0/8,fd00::/8"},
		{Name: "ELSEWHERE", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{Key: "a"}}},
	}
	g.Expect(argumentValues(d, "mirror-url")).To(Equal([]string{"https://jwks-trust-manager.auth.svc:8443"}))
	g.Expect(argumentValues(d, "egress-allow-cidr")).To(Equal([]string{"10.0.0.0/8", "fd00::/8", "$(CIDRS)", "$(ELSEWHERE)"}))
}

// The controller's policy counts for fetches from this machine too.
func TestDiffTakesTheControllersEgressPolicy(t *testing.T) {
	g := NewWithT(t)
	key := testissuer.NewKey("key-1", "ES256")
	_, at := issuerServer(t, key)
	objects := []client.Object{trustedIssuer("auth0", keySet(g, key), at), deployment("jwks-trust-controller", "--egress-allow-cidr=127.0.0.0/8")}
	c := newCluster(t, interceptor.Funcs{}, objects...)
	c.Expect(c.run("diff", "auth0").code).To(Equal(exitOK))
	var d difference
	c.Expect(json.Unmarshal([]byte(c.run("diff", "auth0", "-o", "json").out), &d)).To(Succeed())
	c.Expect(d.Same).To(BeTrue())
}

func TestVersion(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, deployment("jwks-trust-controller"))
	r := c.run("version")
	c.Expect(r.out).To(HavePrefix("kubectl jwks: "))
	c.Expect(r.out).To(HaveSuffix("jwks-trust-system/jwks-trust-controller: registry.example.com/jwks-trust-manager:v1\n"))
	c.Expect(c.run("version", "-o", "yaml").out).To(ContainSubstring("image: registry.example.com/jwks-trust-manager:v1"))
	c.Expect(strings.Count(c.run("version", "--client").out, "\n")).To(Equal(1))
	c.Expect(newCluster(t, interceptor.Funcs{}).run("version").err).To(ContainSubstring("--operator-namespace names another"))
}
