// render_test.go makes objects of the chart, with Helm's own library, and of
// config/, with kustomize's.
package chart

import (
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	commonutil "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// chartPath is the chart's folder.
var chartPath = filepath.Join(harness.Root(), "charts", "jwks-trust-manager")

// defaultPath is the folder of what kustomize makes by default.
var defaultPath = filepath.Join(harness.Root(), "config", "default")

// objects are what is rendered, by kind and name.
type objects map[string]*unstructured.Unstructured

func (o objects) add(t *testing.T, where, text string) {
	t.Helper()
	for document := range strings.SplitSeq("\n"+text, "\n---") {
		u := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), &u.Object); err != nil {
			t.Fatalf("%s is no YAML: %v\n%s", where, err, document)
		}
		if len(u.Object) == 0 {
			continue
		}
		key := u.GetKind() + " " + u.GetName()
		if o[key] != nil {
			t.Fatalf("%s is rendered twice", key)
		}
		o[key] = u
	}
}

// one is the object of that kind and name.
func (o objects) one(t *testing.T, key string) *unstructured.Unstructured {
	t.Helper()
	if o[key] == nil {
		t.Fatalf("there is no %s", key)
	}
	return o[key]
}

// tryRender renders the chart with these values, which are YAML; the notes come
// with the files.
func tryRender(values, namespace string) (map[string]string, error) {
	loaded, err := loader.LoadDir(chartPath)
	if err != nil {
		return nil, err
	}
	given := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		return nil, err
	}
	// A name of digits is one, too, and a label has to be a string.
	release := common.ReleaseOptions{Name: "42", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := commonutil.ToRenderValues(loaded, given, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(loaded, all)
}

// render is the chart's objects with these values.
func render(t *testing.T, values string) objects {
	t.Helper()
	return renderIn(t, harness.OperatorNamespace, values)
}

// renderIn is the same in a namespace.
func renderIn(t *testing.T, namespace, values string) objects {
	t.Helper()
	files, err := tryRender(values, namespace)
	if err != nil {
		t.Fatalf("rendering with %q: %v", values, err)
	}
	made := objects{}
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") {
			made.add(t, name, text)
		}
	}
	return made
}

// notes is what Helm shows after an installation with these values.
func notes(t *testing.T, values string) string {
	t.Helper()
	files, err := tryRender(values, harness.OperatorNamespace)
	if err != nil {
		t.Fatalf("rendering with %q: %v", values, err)
	}
	return files["jwks-trust-manager/templates/NOTES.txt"]
}

// kustomized is what `kubectl kustomize` makes of a folder.
func kustomized(t *testing.T, folder string) objects {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := made.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	found := objects{}
	found.add(t, folder, string(text))
	return found
}
