// upgrade_test.go runs what docs/install.md and docs/upgrade.md have, on an API server.
// There is no node that would run the pods, and no controller that would let go of an
// object.

package docs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// bare is a cluster without us: a client of it, and a kubeconfig.
func bare(t *testing.T) (client.Client, string) {
	t.Helper()
	g := NewWithT(t)
	env, err := harness.NewControlPlane(false, nil)
	g.Expect(err).NotTo(HaveOccurred())
	config, err := env.Start()
	t.Cleanup(func() { g.Expect(env.Stop()).To(Succeed()) })
	g.Expect(err).NotTo(HaveOccurred())
	folder := t.TempDir()
	kubeconfig := filepath.Join(folder, "admin.yaml")
	g.Expect(os.WriteFile(kubeconfig, env.KubeConfig, 0o600)).To(Succeed())
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme} {
		g.Expect(add(scheme)).To(Succeed())
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	letNamespacesGo(t, c)
	return c, kubeconfig
}

// letNamespacesGo does what Kubernetes' own controller does at last: namespaces that are
// deleted go. It does not empty them first.
func letNamespacesGo(t *testing.T, c client.WithWatch) {
	t.Helper()
	all, err := c.Watch(t.Context(), &corev1.NamespaceList{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(all.Stop)
	go func() {
		for e := range all.ResultChan() {
			if ns, is := e.Object.(*corev1.Namespace); is && ns.DeletionTimestamp != nil {
				ns.Spec.Finalizers = nil
				_ = c.SubResource("finalize").Update(t.Context(), ns) // another event comes after a conflict
			}
		}
	}()
}

// kinds are those of ours that are there.
func kinds(t *testing.T, c client.Client) int {
	t.Helper()
	var list apiextensionsv1.CustomResourceDefinitionList
	NewWithT(t).Expect(c.List(t.Context(), &list)).To(Succeed())
	return len(list.Items)
}

func TestInstallAndUpgradeWithKubectl(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	t.Parallel()
	g := NewWithT(t)
	c, kubeconfig := bare(t)
	install := open(t, "docs/install.md", harness.Root(), environment(t, kubeconfig)...)
	d := open(t, "docs/upgrade.md", harness.Root(), environment(t, kubeconfig)...)
	install.elsewhere("helm ", "skopeo ", "kubectl krew ") // below; the files of a release that is published
	d.elsewhere("helm ", "kubectl rollout status")         // there are no pods; make e2e waits for them
	d.stand["-n orders"] = "-n default"

	install.run(t, 0, "", "kubectl create namespace")
	install.run(t, 0, "", "kubectl label namespace")
	install.run(t, 0, "", "kubectl apply --server-side -k config/default")
	expect(t, d.run(t, 0, "", "kubectl apply --server-side -k config/default"), "customresourcedefinition.apiextensions.k8s.io/trustedissuers.jwks-trust.dev serverside-applied")

	// The controller is gone, and an object waits for its finalizer.
	d.run(t, 0, "", "kubectl delete deployment")
	auth0 := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "auth0", Finalizers: []string{api.FinalizerWithdraw}}}
	auth0.Spec.IssuerSpec = api.IssuerSpec{Issuer: "https://login.example.com/", Audiences: []string{audience}}
	g.Eventually(func() error { return c.Create(t.Context(), auth0) }).WithTimeout(30*time.Second).Should(Succeed(), "the kind is served")
	g.Expect(c.Delete(t.Context(), auth0)).To(Succeed())
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(auth0), auth0)).To(Succeed(), "it does not go by itself")
	d.run(t, 0, "", "kubectl patch trustedissuer auth0", "finalizers")
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(auth0), auth0)).To(Satisfy(apierrors.IsNotFound))

	// Installed again, and nothing left: by kustomize, and by hand.
	d.run(t, 0, "", "kubectl apply --server-side -k config/default")
	d.run(t, 0, "", "kubectl delete trustedissuers --all")
	d.run(t, 0, "", "kubectl delete clustertrustedissuers --all")
	d.run(t, 0, "", "kubectl delete -k config/default")
	d.run(t, 0, "", "kubectl apply --server-side -k config/default")
	d.run(t, 0, "", "kubectl delete crd")
	d.run(t, 0, "", "kubectl delete namespace")
	g.Expect(kinds(t, c)).To(BeZero())
}

func TestInstallAndUpgradeWithHelm(t *testing.T) {
	tools := filepath.Join(harness.Root(), "bin", "tools")
	if _, err := os.Stat(filepath.Join(tools, "helm")); testing.Short() || err != nil {
		t.Skip("needs a control plane, and Helm, which `make e2e` and `make chart-package` build")
	}
	t.Parallel()
	g := NewWithT(t)
	c, kubeconfig := bare(t)
	env := environment(t, kubeconfig)
	env[len(env)-1] += string(filepath.ListSeparator) + tools
	install := open(t, "docs/install.md", harness.Root(), env...)
	d := open(t, "docs/upgrade.md", harness.Root(), env...)
	install.elsewhere("kubectl apply", "skopeo ", "kubectl krew ")
	d.elsewhere("kubectl ")
	tag := func() string {
		verifier := &appsv1.Deployment{}
		g.Expect(c.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "jwks-trust-verifier"}, verifier)).To(Succeed())
		return verifier.Spec.Template.Spec.Containers[0].Image
	}

	install.run(t, 0, "", "kubectl create namespace")
	install.run(t, 0, "", "kubectl label namespace")
	install.run(t, 0, "", "helm install")
	g.Expect(tag()).To(Equal("registry.example.com/jwks-trust-manager:v0.1.0"))
	d.run(t, 0, "", "helm upgrade")
	g.Expect(tag()).To(Equal("registry.example.com/jwks-trust-manager:v0.2.0"), "the values of before stay")
	d.run(t, 0, "", "helm rollback")
	g.Expect(tag()).To(Equal("registry.example.com/jwks-trust-manager:v0.1.0"))
	expect(t, d.run(t, 0, "", "helm uninstall"), "These resources were kept due to the resource policy:")
	g.Expect(kinds(t, c)).To(Equal(2))
	d.run(t, 0, "", "kubectl delete crd")
	d.run(t, 0, "", "kubectl delete namespace")
	g.Expect(kinds(t, c)).To(BeZero())
}
