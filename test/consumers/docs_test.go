package consumers

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// block is a fenced one of a document, with its language.
var block = regexp.MustCompile("(?s)```(\\w+)\n(.*?)```")

// What the documentation shows is what is tested here, word for word.
func TestDocumentedConfigurations(t *testing.T) {
	const application = "nextjs-better-auth/"
	for document, sources := range map[string]map[string][]string{
		"consume.md":     {"yaml": {application + "kubernetes.yaml"}},
		"better-auth.md": {"yaml": {application + "kubernetes.yaml"}, "js": {application + "lib/verify.mjs", application + "lib/auth.mjs"}},
	} {
		text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", document))
		must(t, err)
		found := 0
		for _, b := range block.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(b[2], "plugins: [jwt(") {
				continue // how the tests' own issuer is configured, with another baseURL
			}
			within := false
			for _, source := range sources[b[1]] {
				content, err := os.ReadFile(example(source))
				must(t, err)
				within = within || strings.Contains(string(content), b[2])
			}
			if found++; !within {
				t.Errorf("docs/%s shows what is in none of %v:\n%s", document, sources[b[1]], b[2])
			}
		}
		if found == 0 {
			t.Errorf("docs/%s shows nothing", document)
		}
	}
}

// documented are the objects that docs/better-auth.md shows.
func documented(t *testing.T) (*api.TrustedIssuer, *appsv1.Deployment) {
	t.Helper()
	text, err := os.ReadFile(example("nextjs-better-auth/kubernetes.yaml"))
	must(t, err)
	parts := strings.Split(string(text), "\n---\n")
	if len(parts) != 2 {
		t.Fatalf("there are %d objects", len(parts))
	}
	ti, deployment := &api.TrustedIssuer{}, &appsv1.Deployment{}
	must(t, yaml.UnmarshalStrict([]byte(parts[0]), ti))
	must(t, yaml.UnmarshalStrict([]byte(parts[1]), deployment))
	return ti, deployment
}

// The API server takes them, and the Deployment mounts what the operator makes of the
// TrustedIssuer. No node runs it here.
func TestDocumentedObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	ti, deployment := documented(t)
	for _, o := range []client.Object{ti, deployment} {
		must(t, world.client.Create(context.Background(), o.DeepCopyObject().(client.Object), client.DryRunAll))
	}
	pod := deployment.Spec.Template.Spec
	if got := pod.Volumes[0].ConfigMap.Name; got != ti.Name+"-jwks" {
		t.Errorf("the Deployment mounts %s", got)
	}
	environment := map[string]string{}
	for _, e := range pod.Containers[0].Env {
		environment[e.Name] = e.Value
	}
	for name, want := range map[string]string{
		"JWKS_SOURCE":    pod.Containers[0].VolumeMounts[0].MountPath + "/jwks.json",
		"TOKEN_ISSUER":   ti.Spec.Issuer,
		"TOKEN_AUDIENCE": ti.Spec.Audiences[0],
	} {
		if environment[name] != want {
			t.Errorf("%s is %q, not %q", name, environment[name], want)
		}
	}
}
