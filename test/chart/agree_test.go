package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestChartAgreesWithKustomize: with its defaults the chart makes what
// config/default makes, object by object and field by field. What it adds is
// listed here, and nothing else may differ.
func TestChartAgreesWithKustomize(t *testing.T) {
	want := kustomized(t, defaultPath)
	got := render(t, "image: {tag: latest}")

	// Helm makes no namespace; docs/install.md says how, and with which labels.
	want.one(t, "Namespace jwks-trust-system")
	delete(want, "Namespace jwks-trust-system")

	for key := range want {
		if got[key] == nil {
			t.Errorf("the chart has no %s", key)
		}
	}
	for key, object := range got {
		if want[key] == nil {
			t.Errorf("config/default has no %s", key)
			continue
		}
		withoutHelm(object)
		if diff := cmp.Diff(want[key].Object, object.Object); diff != "" {
			t.Errorf("%s differs (-config +chart):\n%s", key, diff)
		}
	}
}

// TestAnotherNamespace: its name stands wherever the usual one did, with kustomize and
// with Helm, and the certificate is for where the Service then is.
func TestAnotherNamespace(t *testing.T) {
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Rel(folder, defaultPath) // kustomize takes no absolute path
	if err != nil {
		t.Fatal(err)
	}
	overlay := "namespace: auth\nresources: [" + base + "]\n"
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, made := range map[string]objects{"kustomize": kustomized(t, folder), "Helm": renderIn(t, "auth", "")} {
		for key, object := range made {
			text, err := object.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), harness.OperatorNamespace) {
				t.Errorf("%s: %s is still about %s", name, key, harness.OperatorNamespace)
			}
		}
		names := "--serving-certificate-names=jwks-trust-manager.auth.svc,jwks-trust-manager.auth.svc.cluster.local,jwks-trust-manager.auth"
		if args := inItsPod(arguments(t, made.one(t, "Deployment jwks-trust-controller")), "auth"); !slices.Contains(args, names) {
			t.Errorf("%s: the certificate has other names: %v", name, args)
		}
		if args := inItsPod(arguments(t, made.one(t, "Deployment jwks-trust-verifier")), "auth"); !slices.Contains(args, "--mirror-url=https://jwks-trust-manager.auth.svc") {
			t.Errorf("%s: the mirror is elsewhere: %v", name, args)
		}
	}
}

// inItsPod are arguments as Kubernetes gives them to the container.
func inItsPod(args []string, namespace string) (got []string) {
	for _, arg := range args {
		got = append(got, strings.ReplaceAll(arg, "$(POD_NAMESPACE)", namespace))
	}
	return got
}

// withoutHelm takes away what belongs to the release.
func withoutHelm(u *unstructured.Unstructured) {
	l := u.GetLabels()
	maps.DeleteFunc(l, func(name, _ string) bool {
		switch name {
		case "helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version":
			return true
		}
		return false
	})
	u.SetLabels(l)
	a := u.GetAnnotations()
	delete(a, "helm.sh/resource-policy")
	u.SetAnnotations(a)
}
