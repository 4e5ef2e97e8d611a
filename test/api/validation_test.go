// Package api tests what the schema of the two kinds lets in, on a real API
// server: there is no admission webhook.
package api

import (
	"context"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// spec is a good one, with the given lines in place of its own.
func spec(lines ...string) string {
	fields := map[string]string{
		"issuer":    "issuer: https://issuer.example.com/",
		"audiences": "audiences: [orders]",
		"jwksURI":   "jwksURI: https://issuer.example.com/jwks.json?p=b2c",
	}
	var extra []string
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ":")
		if value == "" {
			delete(fields, name)
			continue
		}
		delete(fields, name)
		extra = append(extra, l)
	}
	for _, l := range fields {
		extra = append(extra, l)
	}
	return strings.Join(extra, "\n")
}

func object(kind, name, specText string) *unstructured.Unstructured {
	var content map[string]any
	if err := yaml.Unmarshal([]byte(specText), &content); err != nil {
		panic(err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": content}}
	u.SetGroupVersionKind(api.GroupVersion.WithKind(kind))
	u.SetName(name)
	if kind == api.TrustedIssuerKind {
		u.SetNamespace("default")
	}
	return u
}

func start(t *testing.T) client.Client {
	t.Helper()
	c, _ := startWith(t)
	return c
}

// startWith starts a control plane, and gives the administrator's configuration
// too.
func startWith(t *testing.T) (client.Client, *rest.Config) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	g := NewWithT(t)
	env, err := harness.NewControlPlane(true, nil)
	g.Expect(err).NotTo(HaveOccurred())
	cfg, err := env.Start()
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = env.Stop() })
	scheme := runtime.NewScheme()
	g.Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	g.Expect(api.AddToScheme(scheme)).To(Succeed())
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	return c, cfg
}

func TestSchema(t *testing.T) {
	c := start(t)
	ctx := context.Background()

	t.Run("refuses, with a message that names the fix", func(t *testing.T) {
		for name, tc := range map[string]struct{ kind, spec, message string }{
			"no issuer":                      {spec: spec("issuer"), message: "spec.issuer: Required"},
			"an issuer that is no URI":       {spec: spec(`issuer: "a b:c"`), message: "StringOrURI"},
			"no audiences":                   {spec: spec("audiences"), message: "spec.audiences: Required"},
			"an empty list of audiences":     {spec: spec("audiences: []"), message: "spec.audiences"},
			"an empty audience":              {spec: spec(`audiences: [""]`), message: "spec.audiences[0]"},
			"the same audience twice":        {spec: spec("audiences: [a, a]"), message: "Duplicate"},
			"THREATS 28: http":               {spec: spec("jwksURI: http://issuer.example.com/jwks"), message: "jwksURI must be an https URL"},
			"THREATS 28: user information":   {spec: spec("jwksURI: https://me:pw@issuer.example.com/jwks"), message: "user information"},
			"THREATS 28: a fragment":         {spec: spec("jwksURI: 'https://issuer.example.com/jwks#x'"), message: "fragment"},
			"no host":                        {spec: spec("jwksURI: 'https:///jwks'"), message: "jwksURI must name a host"},
			"no URL at all":                  {spec: spec("jwksURI: jwks.json"), message: "jwksURI must be an https URL"},
			"keys that cannot be discovered": {spec: spec("jwksURI", "issuer: orders"), message: "keys can only be discovered from an issuer that is an https URL"},
			"an issuer with a query":         {spec: spec("jwksURI", "issuer: 'https://issuer.example.com?x=1'"), message: "keys can only be discovered"},
			"a discoveryURL of http":         {spec: spec("jwksURI", "discoveryURL: http://issuer.example.com/meta"), message: "discoveryURL must be an https URL"},
			"a discoveryURL with a password": {spec: spec("jwksURI", "discoveryURL: https://me:pw@issuer.example.com/meta"), message: "user information"},
			"both jwksURI and discoveryURL":  {spec: spec("discoveryURL: https://issuer.example.com/meta"), message: "set at most one of jwksURI"},
			"both jwksURI and jwks":          {spec: spec(`jwks: '{"keys":[]}'`), message: "set at most one of jwksURI"},
			"a CA for inline keys":           {spec: spec("jwksURI", `jwks: '{"keys":[]}'`, "caBundle: '-----BEGIN CERTIFICATE-----'"), message: "apply to fetched keys"},
			"a CA that is no PEM":            {spec: spec("caBundle: abc"), message: "PEM block of type CERTIFICATE"},
			"two CAs":                        {spec: spec("caBundle: '-----BEGIN CERTIFICATE-----'", "caBundleRef: {clusterTrustBundle: {name: x}}"), message: "at most one of caBundle and caBundleRef"},
			"a CA reference to nothing":      {spec: spec("caBundleRef: {}"), message: "exactly one of the fields in [configMap clusterTrustBundle]"},
			"THREATS 43: another namespace":  {spec: spec("caBundleRef: {configMap: {name: x, key: y, namespace: kube-system}}"), message: "unknown field"},
			"cacheTTL too short":             {spec: spec("cacheTTL: 1m"), message: "cacheTTL must be a duration from 2m to 24h"},
			"cacheTTL too long":              {spec: spec("cacheTTL: 25h"), message: "cacheTTL must be a duration from 2m to 24h"},
			"cacheTTL that is no duration":   {spec: spec("cacheTTL: soon"), message: "cacheTTL must be a duration from 2m to 24h"},
			"staleTTL too long":              {spec: spec("staleTTL: 169h"), message: "staleTTL must be a duration from 0s to 168h"},
			"rotation policy":                {spec: spec("rotation: {policy: Trust}"), message: "RequireOverlap"},
			"retirementGrace too long":       {spec: spec("rotation: {retirementGrace: 169h}"), message: "retirementGrace must be a duration from 0s to 168h"},
			"leeway too long":                {spec: spec("verification: {leeway: 11m}"), message: "leeway must be a duration from 0s to 10m"},
			"maxTokenLifetime too short":     {spec: spec("verification: {maxTokenLifetime: 30s}"), message: "maxTokenLifetime must be a duration from 1m to 8760h"},
			"a rule without a value":         {spec: spec("verification: {claimValidationRules: [{claim: a}]}"), message: "claim and requiredValue go together"},
			"a rule of two kinds":            {spec: spec("verification: {claimValidationRules: [{claim: a, requiredValue: b, expression: 'true'}]}"), message: "exactly one of the fields in [claim expression]"},
			"a cookie that is no name":       {spec: spec("verification: {cookie: 'a b'}"), message: "must be the name of a cookie"},
			"a header of HTTP":               {spec: spec("verification: {responseHeaders: [{name: Set-Cookie, claim: a}]}"), message: "name belongs to HTTP"},
			"a header of ours":               {spec: spec("verification: {responseHeaders: [{name: x-auth-subject, claim: a}]}"), message: "name belongs to HTTP"},
			"THREATS 44: a header alias":     {spec: spec("verification: {responseHeaders: [{name: X_Auth_User, claim: a}]}"), message: "letters, digits and hyphens"},
			"a header without a value":       {spec: spec("verification: {responseHeaders: [{name: X-A}]}"), message: "exactly one of the fields in [claim expression]"},
			"the same header twice":          {spec: spec("verification: {responseHeaders: [{name: X-A, claim: a}, {name: X-A, claim: b}]}"), message: "Duplicate"},
			"and in another case":            {spec: spec("verification: {responseHeaders: [{name: X-A, claim: a}, {name: x-a, claim: b}]}"), message: "twice, case aside"},
			"expiredPolicy":                  {spec: spec("snapshot: {expiredPolicy: Delete}"), message: "Remove"},
			"deletionPolicy":                 {spec: spec("snapshot: {deletionPolicy: Keep}"), message: "Retain"},
			"a ConfigMap that cannot be":     {spec: spec("snapshot: {configMapName: 'My_Keys'}"), message: "configMapName must be a DNS subdomain"},
			"a label of ours":                {spec: spec("snapshot: {labels: {jwks-trust.dev/snapshot: 'false'}}"), message: "must not begin with jwks-trust.dev/"},
			"a label that cannot be":         {spec: spec("snapshot: {labels: {team: 'a b'}}"), message: "must be a label value"},
			"an annotation of ours":          {spec: spec("snapshot: {annotations: {jwks-trust.dev/released: x}}"), message: "must not begin with jwks-trust.dev/"},
			"an annotation that cannot be":   {spec: spec("snapshot: {annotations: {'a b': x}}"), message: "must be an annotation name"},
			"an unknown format":              {spec: spec("snapshot: {additionalFormats: [DER]}"), message: "PEM"},
			"staleTTL negative":              {spec: spec("staleTTL: -1s"), message: "staleTTL must be a duration from 0s to 168h"},
			"a symmetric algorithm":          {spec: spec("allowedAlgorithms: [HS256]"), message: "Unsupported value"},
			"algorithm none":                 {spec: spec("allowedAlgorithms: [none]"), message: "Unsupported value"},
			"too many redirects":             {spec: spec("maxRedirects: 4"), message: "spec.maxRedirects"},
			"Kubernetes login for a namespaced kind": {
				spec: spec("kubernetesAuthentication: {usernamePrefix: 'x:'}"), message: "unknown field",
			},
			"Kubernetes login without a prefix": {
				kind: api.ClusterTrustedIssuerKind, spec: spec("kubernetesAuthentication: {}"), message: "usernamePrefix: Required",
			},
			"Kubernetes login as the system": {
				kind: api.ClusterTrustedIssuerKind, spec: spec("kubernetesAuthentication: {usernamePrefix: 'system:x'}"), message: "must not begin with system:",
			},
			"Kubernetes groups without a prefix": {
				kind: api.ClusterTrustedIssuerKind, spec: spec("kubernetesAuthentication: {usernamePrefix: 'x:', claimMappings: {groups: {claim: roles}}}"), message: "claimMappings.groups needs groupsPrefix",
			},
			"Kubernetes attributes of Kubernetes": {
				kind: api.ClusterTrustedIssuerKind, spec: spec("kubernetesAuthentication: {usernamePrefix: 'x:', claimMappings: {extra: [{key: sub.kubernetes.io/x, valueExpression: 'claims.a'}]}}"), message: "are Kubernetes' own",
			},
			"Kubernetes attributes without a domain": {
				kind: api.ClusterTrustedIssuerKind, spec: spec("kubernetesAuthentication: {usernamePrefix: 'x:', claimMappings: {extra: [{key: tenant, valueExpression: 'claims.a'}]}}"), message: "a path with a domain before it",
			},
			"Kubernetes groups of the system": {
				kind: api.ClusterTrustedIssuerKind, spec: spec("kubernetesAuthentication: {usernamePrefix: 'x:', groupsPrefix: 'system:'}"), message: "must not begin with system:",
			},
		} {
			t.Run(name, func(t *testing.T) {
				kind := tc.kind
				if kind == "" {
					kind = api.TrustedIssuerKind
				}
				strict := client.WithFieldValidation(c, metav1.FieldValidationStrict)
				err := strict.Create(ctx, object(kind, "bad", tc.spec), client.DryRunAll)
				g := NewWithT(t)
				g.Expect(err).To(MatchError(ContainSubstring(tc.message)))
				g.Expect(apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)).To(BeTrue())
			})
		}
	})

	t.Run("THREATS 42: refuses a name that leaves no room for the ConfigMap's", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(c.Create(ctx, object(api.TrustedIssuerKind, strings.Repeat("a", 249), spec()), client.DryRunAll)).
			To(MatchError(ContainSubstring("at most 248 characters")))
		g.Expect(c.Create(ctx, object(api.TrustedIssuerKind, strings.Repeat("a", 248), spec()), client.DryRunAll)).To(Succeed())
		g.Expect(c.Create(ctx, object(api.ClusterTrustedIssuerKind, strings.Repeat("a", 253), spec()), client.DryRunAll)).To(Succeed())
	})

	t.Run("fills in the defaults, the status for kstatus included", func(t *testing.T) {
		g := NewWithT(t)
		u := object(api.TrustedIssuerKind, "defaults", spec("rotation: {}", "snapshot: {}", "verification: {cookie: session}"))
		g.Expect(c.Create(ctx, u)).To(Succeed())
		for path, want := range map[string]any{
			"spec.cacheTTL": "10m", "spec.staleTTL": "24h", "spec.maxRedirects": int64(0),
			"spec.verification.leeway": "60s", "spec.rotation.policy": "Automatic", "spec.rotation.retirementGrace": "0s", "spec.snapshot.expiredPolicy": "Keep", "spec.snapshot.deletionPolicy": "Delete", "spec.suspend": false,
			"spec.keyUses": []any{"sig"}, "status.observedGeneration": int64(-1),
		} {
			got, _, err := unstructured.NestedFieldNoCopy(u.Object, strings.Split(path, ".")...)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(want), path)
		}
	})

	t.Run("refuses a change of issuer, and lets everything else change", func(t *testing.T) {
		g := NewWithT(t)
		u := object(api.TrustedIssuerKind, "immutable", spec())
		g.Expect(c.Create(ctx, u)).To(Succeed())
		base := u.DeepCopy()
		g.Expect(unstructured.SetNestedField(u.Object, "https://issuer.example.com", "spec", "issuer")).To(Succeed())
		g.Expect(c.Patch(ctx, u.DeepCopy(), client.MergeFrom(base))).To(MatchError(ContainSubstring("issuer is immutable")))
		u = base.DeepCopy()
		g.Expect(unstructured.SetNestedField(u.Object, "https://other.example.com/jwks", "spec", "jwksURI")).To(Succeed())
		g.Expect(c.Patch(ctx, u, client.MergeFrom(base))).To(Succeed())
	})

	t.Run("keys are discovered where spec does not say where they are", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(c.Create(ctx, object(api.TrustedIssuerKind, "ok", spec("jwksURI")), client.DryRunAll)).To(Succeed())
		g.Expect(c.Create(ctx, object(api.TrustedIssuerKind, "ok", spec("jwksURI", "discoveryURL: https://issuer.example.com/meta")), client.DryRunAll)).To(Succeed())
	})

	t.Run("names that are no URL are good issuers too", func(t *testing.T) {
		for _, issuer := range []string{"orders", "urn:example:issuer", "https://issuer.example.com", "spiffe://example.org"} {
			u := object(api.TrustedIssuerKind, "ok", spec("issuer: '"+issuer+"'"))
			NewWithT(t).Expect(c.Create(ctx, u, client.DryRunAll)).To(Succeed(), issuer)
		}
	})

	t.Run("kubectl get all does not list issuers, and their own category does", func(t *testing.T) {
		g := NewWithT(t)
		for _, name := range []string{"trustedissuers", "clustertrustedissuers"} {
			crd := &unstructured.Unstructured{}
			crd.SetAPIVersion("apiextensions.k8s.io/v1")
			crd.SetKind("CustomResourceDefinition")
			g.Expect(c.Get(ctx, client.ObjectKey{Name: name + "." + api.GroupVersion.Group}, crd)).To(Succeed())
			categories, _, err := unstructured.NestedStringSlice(crd.Object, "spec", "names", "categories")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(categories).To(Equal([]string{"jwks-trust"}))
		}
	})
}
