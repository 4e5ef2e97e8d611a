// upgrade_test.go runs what docs/upgrade.md and docs/install.md have for kubectl, in a
// cluster with Kubernetes' own controllers for namespaces and garbage. There is no node
// that would run the pods, and no controller that would let go of an object.

package docs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

func TestInstallAndUpgradeWithKubectl(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	t.Parallel()
	g := NewWithT(t)
	env, err := harness.NewControlPlane(false, nil)
	g.Expect(err).NotTo(HaveOccurred())
	config, err := env.Start()
	t.Cleanup(func() { g.Expect(env.Stop()).To(Succeed()) })
	g.Expect(err).NotTo(HaveOccurred())
	folder := t.TempDir()
	kubeconfig := filepath.Join(folder, "admin.yaml")
	g.Expect(os.WriteFile(kubeconfig, env.KubeConfig, 0o600)).To(Succeed())
	controllers, err := harness.StartControllers(kubeconfig, filepath.Join(folder, "controllers.log"), "namespace-controller", "garbage-collector-controller")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(controllers.Stop)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme} {
		g.Expect(add(scheme)).To(Succeed())
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())

	install := open(t, "docs/install.md", harness.Root(), environment(t, kubeconfig)...)
	d := open(t, "docs/upgrade.md", harness.Root(), environment(t, kubeconfig)...)
	// Helm: test/chart shows its objects to an API server, and `make e2e` installs, upgrades
	// and uninstalls on a real node, where the rollout can be waited for, too.
	install.elsewhere("helm ")
	d.elsewhere("helm ", "kubectl rollout status")
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
	var kinds apiextensionsv1.CustomResourceDefinitionList
	g.Expect(c.List(t.Context(), &kinds)).To(Succeed())
	g.Expect(kinds.Items).To(BeEmpty())
}
