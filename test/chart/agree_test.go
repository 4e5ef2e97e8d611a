package chart

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestChartAgreesWithKustomize: with its defaults the chart makes what
// config/default makes, object by object and field by field. What it adds is
// listed here, and nothing else may differ.
func TestChartAgreesWithKustomize(t *testing.T) {
	want := kustomized(t, "default")
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
