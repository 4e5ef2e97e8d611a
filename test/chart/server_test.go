package chart

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestServerTakesEachCombination shows what the chart makes to a real API server, as
// a dry run with strict validation, in a namespace that enforces the restricted pod
// security standard. Pods are shown on their own, because for a Deployment the
// standard only warns.
func TestServerTakesEachCombination(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	g := NewWithT(t)
	env, err := harness.NewControlPlane(false, nil)
	g.Expect(err).NotTo(HaveOccurred())
	// Pods are asked for without their service accounts being there.
	env.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "ServiceAccount")
	config, err := env.Start()
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	g.Expect(err).NotTo(HaveOccurred())
	c, err := client.New(config, client.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: harness.OperatorNamespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}})).To(Succeed())
	show := func(u *unstructured.Unstructured) error {
		return c.Create(t.Context(), u, client.DryRunAll, client.FieldValidation("Strict"))
	}

	for name, values := range combinations {
		pods := 0
		for key, object := range render(t, values) {
			if strings.HasPrefix(object.GetAPIVersion(), "cert-manager.io/") {
				continue // its kinds are not here
			}
			if err := show(object); err != nil {
				t.Errorf("with %s, %s: %v", name, key, err)
			}
			if object.GetKind() == "Deployment" {
				pods++
				if err := show(podOf(t, object)); err != nil {
					t.Errorf("with %s, the pod of %s: %v", name, key, err)
				}
			}
		}
		g.Expect(pods).To(BeNumerically(">=", 2), name)
	}

	// The server does refuse what the standard forbids.
	loose := podOf(t, render(t, "containerSecurityContext: {allowPrivilegeEscalation: true}").one(t, "Deployment jwks-trust-verifier"))
	g.Expect(show(loose)).To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
}

// podOf is a pod as a Deployment makes it.
func podOf(t *testing.T, deployment *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	template, found, err := unstructured.NestedMap(deployment.Object, "spec", "template")
	if err != nil || !found {
		t.Fatalf("%s has no pods: %v", deployment.GetName(), err)
	}
	pod := &unstructured.Unstructured{Object: template}
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetName(deployment.GetName())
	pod.SetNamespace(deployment.GetNamespace())
	return pod
}
