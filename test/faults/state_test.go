// state_test.go compares what is left in the API server with what should be, apart
// from what differs between any two runs: names, times, versions.

package faults

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// moment matches a time as Kubernetes and our messages write it.
var moment = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// state is an issuer object and all that was published for it, as text. names are
// replaced: what is peculiar to this run, and what to call it.
func (w *world) state(issuer api.Issuer, names ...string) (string, error) {
	var out []map[string]any
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(api.GroupVersion.WithKind(issuer.IssuerKind()))
	switch err := w.api.Get(context.Background(), client.ObjectKeyFromObject(issuer), o); {
	case err == nil:
		out = append(out, plain(o.Object))
	case client.IgnoreNotFound(err) != nil:
		return "", err
	}
	var list corev1.ConfigMapList
	if err := w.api.List(context.Background(), &list, client.MatchingLabels{api.LabelIssuerUID: string(issuer.GetUID())}); err != nil {
		return "", err
	}
	slices.SortFunc(list.Items, func(a, b corev1.ConfigMap) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for i := range list.Items {
		content, err := json.Marshal(list.Items[i])
		if err != nil {
			return "", err
		}
		var fields map[string]any
		if err := json.Unmarshal(content, &fields); err != nil {
			return "", err
		}
		out = append(out, plain(fields))
	}
	text, err := json.MarshalIndent(out, "", " ") // YAML would break lines by the length of names
	if err != nil {
		return "", err
	}
	names = append(names, string(issuer.GetUID()), "UID")
	return moment.ReplaceAllString(strings.NewReplacer(names...).Replace(string(text)), "TIME"), nil
}

// plain takes away what differs between any two runs.
func plain(o map[string]any) map[string]any {
	if spec, ok := o["spec"].(map[string]any); ok && spec["caBundle"] != nil {
		spec["caBundle"] = "CA" // each issuer has its own
	}
	meta, ok := o["metadata"].(map[string]any)
	if !ok {
		return o
	}
	withoutField(o, "lastAbsentTime", "f:lastAbsentTime") // docs/reliability.md: it may be lost
	for _, name := range []string{"resourceVersion", "uid", "creationTimestamp"} {
		delete(meta, name)
	}
	// Who owns which fields counts; the order of the entries does not.
	if fields, ok := meta["managedFields"].([]any); ok {
		slices.SortFunc(fields, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	}
	return o
}

// withoutField takes fields of these names away, wherever they are.
func withoutField(v any, names ...string) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range names {
			delete(v, name)
		}
		for _, field := range v {
			withoutField(field, names...)
		}
	case []any:
		for _, item := range v {
			withoutField(item, names...)
		}
	}
}

func text(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	delete(m, "time")
	out, err := json.Marshal(m)
	if err != nil {
		return ""
	}
	return string(out)
}

// difference is what two states do not share, line by line; empty where they are
// the same.
func difference(is, want string) string {
	if is == want {
		return ""
	}
	out := append(without(is, want, "is:     "), without(want, is, "wanted: ")...)
	return strings.Join(append(out, "or the order differs"), "\n")
}

// without are the lines of a that b lacks.
func without(a, b, mark string) (out []string) {
	left := map[string]int{}
	for _, line := range strings.Split(b, "\n") {
		left[line]++
	}
	for _, line := range strings.Split(a, "\n") {
		if left[line]--; left[line] < 0 {
			out = append(out, mark+line)
		}
	}
	return out
}
