package api

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// TestTenancy takes the part of somebody who may write TrustedIssuers in one
// namespace, and nothing else: what docs/security.md says they cannot do.
func TestTenancy(t *testing.T) {
	c, config := startWith(t)
	applyRights(t, c)
	ctx := t.Context()
	g := NewWithT(t)
	const tenant = "tenant@example.com"
	g.Expect(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"}})).To(Succeed())
	g.Expect(c.Create(ctx, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tenant"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{api.GroupVersion.Group}, Resources: []string{"trustedissuers"}, Verbs: []string{"*"}}},
	})).To(Succeed())
	g.Expect(c.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tenant"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tenant"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: tenant}},
	})).To(Succeed())
	impersonated := rest.CopyConfig(config)
	impersonated.Impersonate = rest.ImpersonationConfig{UserName: tenant, Groups: []string{"system:authenticated"}}
	they, err := client.New(impersonated, client.Options{FieldValidation: metav1.FieldValidationStrict})
	g.Expect(err).NotTo(HaveOccurred())

	g.Eventually(func() error { return they.Create(ctx, object(api.TrustedIssuerKind, "trusted", spec())) }).Should(Succeed(), "they may trust an issuer")

	elsewhere := object(api.TrustedIssuerKind, "x", spec())
	elsewhere.SetNamespace("elsewhere")
	inOurs := object(api.TrustedIssuerKind, "x", spec())
	inOurs.SetNamespace("jwks-trust-system")
	for what, err := range map[string]error{
		"trust for another namespace":   they.Create(ctx, elsewhere),
		"trust for the operator's":      they.Create(ctx, inOurs),
		"trust for the cluster":         they.Create(ctx, object(api.ClusterTrustedIssuerKind, "x", spec())),
		"a forged status (THREATS 41)":  statusPatch(ctx, they, "tenant", api.TrustedIssuerKind, map[string]any{"snapshot": map[string]any{"digest": "sha256:forged"}}),
		"reading the operator's things": they.List(ctx, &corev1.ConfigMapList{}, client.InNamespace("jwks-trust-system")),
	} {
		g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
	}

	for what, more := range map[string]string{
		"a login to the cluster":                      "kubernetesAuthentication: {usernamePrefix: 'x:'}",
		"copies in other namespaces":                  "namespaceSelector: {}",
		"a reference elsewhere (THREATS 43)":          "caBundleRef: {configMap: {namespace: elsewhere, name: a, key: b}}",
		"a reference to a Secret":                     "caBundleRef: {secret: {name: a, key: b}}",
		"a ConfigMap elsewhere":                       "snapshot: {configMapNamespace: elsewhere}",
		"a ConfigMap that claims to be another's":     "snapshot: {labels: {jwks-trust.dev/issuer-uid: 'abc'}}",
		"a ConfigMap that claims to be authoritative": "snapshot: {annotations: {jwks-trust.dev/digest: 'sha256:abc'}}",
	} {
		err := they.Create(ctx, object(api.TrustedIssuerKind, "x", spec(more)))
		g.Expect(apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)).To(BeTrue(), "%s: %v", what, err)
	}
}
