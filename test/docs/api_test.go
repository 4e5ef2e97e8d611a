package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// The generated reference has each field of both kinds, and what the API server says
// where a rule is broken: the templates leave nothing out.
func TestTheAPIReferenceIsComplete(t *testing.T) {
	reference := read(t, "docs/api.md")
	kinds, err := filepath.Glob(filepath.Join(harness.Root(), "config", "crd", "bases", "*.yaml"))
	if err != nil || len(kinds) != 2 {
		t.Fatal(kinds, err)
	}
	fields, rules := 0, 0
	for _, file := range kinds {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var kind apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &kind); err != nil {
			t.Fatal(err)
		}
		walk(*kind.Spec.Versions[0].Schema.OpenAPIV3Schema, "", func(path string, s apiextensionsv1.JSONSchemaProps) {
			if foreign(path) {
				return
			}
			name := path[strings.LastIndex(path, ".")+1:]
			if name != "" {
				fields++
				if !strings.Contains(section(reference, path), "- **`"+name+"`** (") {
					t.Errorf("docs/api.md does not have %s", path)
				}
			}
			for _, rule := range s.XValidations {
				rules++
				if !strings.Contains(strings.ReplaceAll(reference, `\`, ""), "“"+rule.Message+"”") && rule.Message != exactlyOne(rule) {
					t.Errorf("docs/api.md does not have what %s is refused with: %s", path, rule.Message)
				}
			}
		})
	}
	if fields < 150 || rules < 50 {
		t.Errorf("only %d fields and %d rules were found", fields, rules)
	}
}

// section is the part of the reference in which a field has to be: that of the spec or
// of the status, or, for what is below, all of it.
func section(reference, path string) string {
	title := map[string]string{".spec": "\n### IssuerSpec\n", ".status": "\n### IssuerStatus\n"}[path[:max(strings.LastIndex(path, "."), 0)]]
	if strings.HasSuffix(path, ".kubernetesAuthentication") || strings.HasSuffix(path, ".namespaceSelector") {
		title = "\n### ClusterTrustedIssuerSpec\n"
	}
	_, rest, found := strings.Cut(reference, title)
	if title == "" || !found {
		return reference
	}
	own, _, _ := strings.Cut(rest, "\n### ")
	return own
}

// foreign reports what is Kubernetes' own, and documented there.
func foreign(path string) bool {
	for _, prefix := range []string{".apiVersion", ".kind", ".metadata.", ".spec.namespaceSelector.", ".status.conditions."} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// exactlyOne is the message that controller-gen gives to "exactly one of", which the
// reference says in its own words.
func exactlyOne(rule apiextensionsv1.ValidationRule) string {
	if strings.HasPrefix(rule.Message, "exactly one of the fields in [") {
		return rule.Message
	}
	return ""
}

func walk(s apiextensionsv1.JSONSchemaProps, path string, see func(string, apiextensionsv1.JSONSchemaProps)) {
	see(path, s)
	for name, p := range s.Properties {
		walk(p, path+"."+name, see)
	}
	if s.Items != nil && s.Items.Schema != nil {
		for name, p := range s.Items.Schema.Properties {
			walk(p, path+"."+name, see)
		}
		for _, rule := range s.Items.Schema.XValidations {
			see(path, apiextensionsv1.JSONSchemaProps{XValidations: apiextensionsv1.ValidationRules{rule}})
		}
	}
}
