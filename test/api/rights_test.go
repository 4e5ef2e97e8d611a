package api

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// owned are the fields of status that the verifier writes.
var owned = map[string]any{
	"refreshRequestedAt": "2026-11-24T12:00:00.000000Z",
	"keyUsage":           []any{map[string]any{"thumbprint": strings.Repeat("t", 43), "lastUsedTime": "2026-11-24T12:00:00Z"}},
}

// applyRights makes the objects of config/rbac.
func applyRights(t *testing.T, c client.Client) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: harness.OperatorNamespace}})).To(Succeed())
	files, err := filepath.Glob(filepath.Join(harness.Root(), "config", "rbac", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	made := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		for _, document := range strings.Split(string(content), "\n---\n") {
			u := &unstructured.Unstructured{}
			g.Expect(yaml.Unmarshal([]byte(document), &u.Object)).To(Succeed())
			if u.GetKind() == "Kustomization" || len(u.Object) == 0 {
				continue
			}
			g.Expect(c.Create(t.Context(), u)).To(Succeed(), file)
			made++
		}
	}
	g.Expect(made).To(BeNumerically(">=", 12))
}

// as is a client of a component's service account.
func as(t *testing.T, config *rest.Config, component string) client.Client {
	t.Helper()
	impersonated := rest.CopyConfig(config)
	impersonated.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + harness.OperatorNamespace + ":jwks-trust-" + component,
		Groups:   []string{"system:serviceaccounts", "system:authenticated"},
	}
	c, err := client.New(impersonated, client.Options{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return c
}

// statusPatch applies fields of the status of an issuer object.
func statusPatch(ctx context.Context, c client.Client, manager client.FieldOwner, kind string, status map[string]any) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(api.GroupVersion.WithKind(kind))
	u.SetName("trusted")
	if kind == api.TrustedIssuerKind {
		u.SetNamespace("default")
	}
	return c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), manager, client.ForceOwnership)
}

// TestRights takes the part of a verifier that somebody has taken over: whatever
// it tries, it cannot make a key trusted.
func TestRights(t *testing.T) {
	c, config := startWith(t)
	applyRights(t, c)
	ctx := t.Context()
	g := NewWithT(t)
	verifier, controller := as(t, config, "verifier"), as(t, config, "controller")
	for _, kind := range []string{api.TrustedIssuerKind, api.ClusterTrustedIssuerKind} {
		g.Expect(c.Create(ctx, object(kind, "trusted", spec()))).To(Succeed())
		g.Expect(statusPatch(ctx, controller, "jwks-trust-controller", kind, map[string]any{
			"snapshot": map[string]any{"digest": "sha256:good"}, "jwksURI": "https://issuer.example.com/jwks.json",
		})).To(Succeed(), "the controller may")

		// The policy takes effect a moment after it was made.
		forge := func() error {
			return statusPatch(ctx, verifier, "jwks-trust-verifier", kind, map[string]any{"snapshot": map[string]any{"digest": "sha256:forged"}})
		}
		g.Eventually(forge).WithTimeout(20 * time.Second).WithPolling(200 * time.Millisecond).Should(MatchError(ContainSubstring("not status.snapshot")))
		g.Expect(statusPatch(ctx, controller, "jwks-trust-controller", kind, map[string]any{"snapshot": map[string]any{"digest": "sha256:good"}})).To(Succeed())

		t.Run(kind+": the verifier writes its own fields", func(t *testing.T) {
			NewWithT(t).Expect(statusPatch(ctx, verifier, "jwks-trust-verifier", kind, owned)).To(Succeed())
		})
		t.Run(kind+": and no other", func(t *testing.T) {
			g := NewWithT(t)
			tried := 0
			fields := reflect.TypeFor[api.IssuerStatus]()
			for i := range fields.NumField() {
				name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
				if _, its := owned[name]; its {
					continue
				}
				value, known := forged[name]
				g.Expect(known).To(BeTrue(), "config/rbac/verifier_policy.yaml and this test have to know status.%s", name)
				g.Expect(statusPatch(ctx, verifier, "jwks-trust-verifier", kind, map[string]any{name: value})).To(MatchError(ContainSubstring("not status." + name)))
				tried++
			}
			g.Expect(tried).To(Equal(len(forged)))
		})
		t.Run(kind+": nor anything else of it", func(t *testing.T) {
			g := NewWithT(t)
			u := object(kind, "trusted", spec())
			for what, err := range map[string]error{
				"spec":   verifier.Patch(ctx, u.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"audiences":["evil"]}}`))),
				"labels": verifier.Patch(ctx, u.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`))),
				"a new":  verifier.Create(ctx, object(kind, "evil", spec())),
				"gone":   verifier.Delete(ctx, u.DeepCopy()),
			} {
				g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
			}
		})
	}
	t.Run("the verifier reads snapshots in the operator's namespace alone, and writes none", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(verifier.List(ctx, &corev1.ConfigMapList{}, client.InNamespace(harness.OperatorNamespace))).To(Succeed())
		for what, err := range map[string]error{
			"another namespace's": verifier.List(ctx, &corev1.ConfigMapList{}, client.InNamespace("default")),
			"a write":             verifier.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: harness.OperatorNamespace, Name: "x"}}),
			"Secrets":             verifier.Get(ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "jwks-trust-manager-ca"}, &corev1.Secret{}),
		} {
			g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
		}
	})
	t.Run("the controller reads no Secret but those that it keeps", func(t *testing.T) {
		g := NewWithT(t)
		for what, err := range map[string]error{
			"another one":         controller.Get(ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "other"}, &corev1.Secret{}),
			"another namespace's": controller.Get(ctx, client.ObjectKey{Namespace: "default", Name: "jwks-trust-manager-ca"}, &corev1.Secret{}),
			"a list":              controller.List(ctx, &corev1.SecretList{}, client.InNamespace(harness.OperatorNamespace)),
		} {
			g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
		}
		g.Expect(apierrors.IsNotFound(controller.Get(ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "jwks-trust-manager-tls"}, &corev1.Secret{}))).To(BeTrue())
	})
}

// forged are values that a verifier has no business to write.
var forged = map[string]any{
	"observedGeneration": int64(7),
	"conditions": []any{map[string]any{
		"type": "Ready", "status": "True", "reason": "Fresh", "message": "", "lastTransitionTime": "2026-11-24T12:00:00Z",
	}},
	"jwksURI":         "https://evil.example.com/jwks.json",
	"snapshot":        map[string]any{"digest": "sha256:forged"},
	"lastAttempt":     map[string]any{"time": "2026-11-24T12:00:00Z", "reason": "Succeeded"},
	"nextRefreshTime": "2026-11-24T12:00:00Z",
	"handledRefresh":  map[string]any{"startTime": "2026-11-24T12:00:00.000000Z", "outcome": "Succeeded"},
	"keys": []any{map[string]any{
		"kid": "k", "kty": "RSA", "thumbprint": strings.Repeat("t", 43), "state": "Active", "firstSeenTime": "2026-11-24T12:00:00Z", "lastSeenTime": "2026-11-24T12:00:00Z",
	}},
	"rotation":        map[string]any{"count": int64(1)},
	"distribution":    map[string]any{"desired": int64(1), "current": int64(1)},
	"compromisedKeys": []any{map[string]any{"thumbprint": strings.Repeat("t", 43), "seenTime": "2026-11-24T12:00:00Z"}},
	"handledClear":    "t",
}
