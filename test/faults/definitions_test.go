// definitions_test.go takes away what the objects stand on, and brings it back: the
// CustomResourceDefinitions, fields of them, and namespaces.

package faults

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// ground is a world with an object of each kind, and Kubernetes' namespace controller.
type ground struct {
	*WithT
	w       *world
	manager *instance
	issuer  *testissuer.Issuer
	mine    *api.TrustedIssuer
	all     *api.ClusterTrustedIssuer
	mounted map[client.ObjectKey]map[string]string // what applications read
}

// apps is the namespace of the applications, which has what they mount.
const apps = "apps"

func TestDefinitionsAndNamespacesComeAndGo(t *testing.T) {
	needsTime(t)
	t.Parallel()
	s := &ground{WithT: NewWithT(t), w: ownWorld(t, nil)}
	file := filepath.Join(s.w.dir, "controllers.yaml")
	s.Expect(os.WriteFile(file, s.w.env.KubeConfig, 0o600)).To(Succeed())
	controllers, err := harness.StartControllers(file, filepath.Join(s.w.dir, "controllers.txt"), "namespace-controller")
	if errors.Is(err, harness.ErrNoAssets) {
		t.Skip("there is no kube-controller-manager in KUBEBUILDER_ASSETS")
	}
	s.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(controllers.Stop)
	s.issuer = newIssuer(s, key1())
	t.Cleanup(s.issuer.Close)
	s.manager = s.w.run(s, "manager", "--components=controller")
	t.Cleanup(s.manager.end)
	s.Expect(s.w.namespace(apps, map[string]string{"apps": "yes"})).To(Succeed())
	s.apply()
	s.comesUp()
	s.remember()

	part := func(name string, do func()) {
		t.Run(name, func(t *testing.T) {
			s.WithT = NewWithT(t)
			do()
			s.Expect(s.manager.Ended()).To(BeFalse())
		})
	}
	part("definitions", s.definitions)
	part("fields", s.fields)
	part("namespace", s.namespace)
}

// apply makes both objects, as a GitOps tool would from its files.
func (s *ground) apply() {
	s.mine = &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: apps, Name: "mine"}}
	s.mine.Spec.IssuerSpec = specFor(s.issuer)
	s.all = &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	s.all.Spec.IssuerSpec = specFor(s.issuer)
	s.all.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"apps": "yes"}}
	for _, o := range []client.Object{s.mine, s.all} {
		s.Eventually(func() error { return client.IgnoreAlreadyExists(s.w.api.Create(context.Background(), o)) }).WithTimeout(mended).Should(Succeed())
	}
}

// comesUp waits until both are Ready, and the applications have their keys.
func (s *ground) comesUp() {
	s.Eventually(func(g Gomega) {
		g.Expect(s.w.api.Get(context.Background(), client.ObjectKeyFromObject(s.mine), s.mine)).To(Succeed())
		g.Expect(s.w.api.Get(context.Background(), client.ObjectKeyFromObject(s.all), s.all)).To(Succeed())
		g.Expect(meta.IsStatusConditionTrue(s.mine.Status.Conditions, api.ConditionReady)).To(BeTrue())
		g.Expect(meta.IsStatusConditionTrue(s.all.Status.Conditions, api.ConditionReady)).To(BeTrue())
		for _, key := range keysOfApps {
			g.Expect(s.w.data(g, key)).To(HaveKey(snapshot.KeyJWKS), key.String())
		}
	}).WithTimeout(mended).Should(Succeed())
}

// keysOfApps are the ConfigMaps that applications mount.
var keysOfApps = []client.ObjectKey{{Namespace: apps, Name: "mine-jwks"}, {Namespace: apps, Name: "all-jwks"}}

func (s *ground) remember() {
	s.mounted = map[client.ObjectKey]map[string]string{}
	for _, key := range keysOfApps {
		s.mounted[key] = s.w.data(s, key)
	}
}

// unchanged: applications read what they read before, to the byte.
func (s *ground) unchanged(g Gomega) {
	for key, want := range s.mounted {
		g.Expect(s.w.data(g, key)).To(Equal(want), key.String())
	}
}

// definitions deletes both definitions, objects included, and installs them again. The
// issuer is down until after the objects have been applied again, and the manager knows
// nothing of before: the keys stay where they are all the time, and the objects take the
// ConfigMaps over.
func (s *ground) definitions() {
	versions := s.w.versionsIn(s, apps)
	defer versions.Stop()
	names := []string{"trustedissuers.jwks-trust.dev", "clustertrustedissuers.jwks-trust.dev"}
	for _, name := range names {
		s.Expect(s.w.api.Delete(context.Background(), &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	}
	for _, name := range names {
		s.Eventually(func() error {
			return s.w.api.Get(context.Background(), client.ObjectKey{Name: name}, &apiextensionsv1.CustomResourceDefinition{})
		}).WithTimeout(mended).Should(Satisfy(apierrors.IsNotFound), "nothing holds it")
	}
	s.unchanged(s)
	s.issuer.Stop()
	s.manager.Kill()
	_, err := envtest.InstallCRDs(s.w.config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(harness.Root(), "config", "crd", "bases")}})
	s.Expect(err).NotTo(HaveOccurred())
	before := s.mine.UID
	s.apply()
	s.manager.start(s)
	s.manager.ready(s)
	s.Eventually(func(g Gomega) {
		g.Expect(s.w.read(g, s.mine).Status.LastAttempt).To(HaveValue(HaveField("Reason", api.ReasonConnectionFailed)))
	}).WithTimeout(2 * mended).Should(Succeed())
	s.Expect(s.mine.UID).NotTo(Equal(before))
	s.unchanged(s)
	s.Expect(s.issuer.Restart()).To(Succeed())
	s.w.ask(s, s.mine, "now")
	s.Eventually(func(g Gomega) {
		cm := &corev1.ConfigMap{}
		g.Expect(s.w.api.Get(context.Background(), keysOfApps[0], cm)).To(Succeed())
		g.Expect(cm.Labels).To(HaveKeyWithValue(api.LabelIssuerUID, string(s.mine.UID)))
	}).WithTimeout(mended).Should(Succeed(), "the new object has taken its ConfigMap over")
	s.comesUp()
	s.unchanged(s)
	judged := 0
	for _, cm := range versions.all() {
		if want, ours := s.mounted[client.ObjectKeyFromObject(cm)]; ours {
			judged++
			s.Expect(cm.Data).To(Equal(want), "a version in between")
		}
	}
	s.Expect(judged).To(BeNumerically(">", len(keysOfApps)), "the ConfigMaps have been taken over")
	figures.add("CustomResourceDefinitions deleted, and installed again", "mounted keys stay, to the byte, in all versions; objects applied again take them over", "%d versions judged; the issuer down meanwhile", judged)
}

// fields gives the objects a definition that is older, then newer than the manager.
func (s *ground) fields() {
	edit := func(do func(spec, status map[string]apiextensionsv1.JSONSchemaProps)) {
		for _, name := range []string{"trustedissuers.jwks-trust.dev", "clustertrustedissuers.jwks-trust.dev"} {
			s.Eventually(func() error {
				crd := &apiextensionsv1.CustomResourceDefinition{}
				if err := s.w.api.Get(context.Background(), client.ObjectKey{Name: name}, crd); err != nil {
					return err
				}
				schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties
				do(schema["spec"].Properties, schema["status"].Properties)
				return s.w.api.Update(context.Background(), crd)
			}).WithTimeout(mended).Should(Succeed())
		}
	}
	// Older: it does not know fields that the manager writes.
	lacks := map[string]apiextensionsv1.JSONSchemaProps{}
	edit(func(_, status map[string]apiextensionsv1.JSONSchemaProps) {
		for _, name := range []string{"rotation", "handledRefresh"} {
			lacks[name] = status[name]
			delete(status, name)
		}
	})
	s.issuer.Publish(key1(), key2())
	requests := s.issuer.Requests()
	s.w.ask(s, s.mine, "under an older definition")
	s.Eventually(s.issuer.Requests).WithTimeout(mended).Should(BeNumerically(">", requests))
	s.Consistently(func(g Gomega) {
		for _, key := range keysOfApps {
			g.Expect(kidsOf(s.w.data(g, key))).To(HavePrefix("k1"), "the last good keys, at the least")
		}
	}).WithTimeout(2 * time.Second).Should(Succeed())
	edit(func(_, status map[string]apiextensionsv1.JSONSchemaProps) { maps.Copy(status, lacks) })
	s.Eventually(func(g Gomega) {
		for _, key := range keysOfApps {
			g.Expect(kidsOf(s.w.data(g, key))).To(Equal("k1 k2"), key.String())
		}
	}).WithTimeout(mended).Should(Succeed(), "with the definition that it knows all goes on")

	// Newer: it has a field that the manager does not know, and does not take away.
	edit(func(spec, _ map[string]apiextensionsv1.JSONSchemaProps) {
		spec["ofTomorrow"] = apiextensionsv1.JSONSchemaProps{Type: "string"}
	})
	tomorrow := func() (string, error) {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(api.GroupVersion.WithKind(api.TrustedIssuerKind))
		err := s.w.api.Get(context.Background(), client.ObjectKeyFromObject(s.mine), u)
		value, _, _ := unstructured.NestedString(u.Object, "spec", "ofTomorrow")
		return value, err
	}
	s.Eventually(func() (string, error) { // until the server goes by the new definition
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(api.GroupVersion.WithKind(api.TrustedIssuerKind))
		u.SetNamespace(apps)
		u.SetName("mine")
		if err := s.w.api.Patch(context.Background(), u, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"ofTomorrow":"yes"}}`))); err != nil {
			return "", err
		}
		return tomorrow()
	}).WithTimeout(mended).Should(Equal("yes"))
	s.issuer.Publish(key1(), key2(), key3())
	s.w.ask(s, s.mine, "under a newer definition")
	s.Eventually(func(g Gomega) string { return kidsOf(s.w.data(g, keysOfApps[0])) }).WithTimeout(mended).Should(Equal("k1 k2 k3"))
	s.Expect(tomorrow()).To(Equal("yes"), "what it does not know it leaves alone")
	edit(func(spec, _ map[string]apiextensionsv1.JSONSchemaProps) { delete(spec, "ofTomorrow") })
	s.w.ask(s, s.mine, "after the downgrade")
	s.Eventually(func(g Gomega) *api.HandledRefresh { return s.w.read(g, s.mine).Status.HandledRefresh }).
		WithTimeout(mended).Should(HaveValue(HaveField("Request", "after the downgrade")))
	s.remember()
	figures.add("definitions older and newer than the manager", "keys stay; a rotation is taken over once the definition fits; unknown fields are left alone",
		"%d fields less, 1 more, and back", len(lacks))
}

// namespace deletes the applications' namespace with all that is in it, and makes it
// again.
func (s *ground) namespace() {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: apps}}
	s.Expect(s.w.api.Delete(context.Background(), ns)).To(Succeed())
	s.Eventually(func() error {
		return s.w.api.Get(context.Background(), client.ObjectKey{Name: apps}, &corev1.Namespace{})
	}).WithTimeout(2*mended).Should(Satisfy(apierrors.IsNotFound), "nothing holds it")
	old := s.mine.UID
	s.Eventually(func(g Gomega) map[string]string {
		return s.w.data(g, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(old)})
	}).WithTimeout(mended).Should(BeNil(), "the trust went with it")
	s.Expect(s.w.namespace(apps, map[string]string{"apps": "yes"})).To(Succeed())
	began := time.Now()
	s.Eventually(func(g Gomega) map[string]string { return s.w.data(g, keysOfApps[1]) }).WithTimeout(mended).Should(Equal(s.mounted[keysOfApps[1]]), "the copy comes by itself")
	s.apply()
	s.comesUp()
	s.unchanged(s)
	figures.add("a namespace deleted, and made again", "gone with all that was trusted in it; afterwards the same keys are there, to the byte", "after %s", time.Since(began).Round(100*time.Millisecond))
}
