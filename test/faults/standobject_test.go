// standobject_test.go is an issuer object whose spec is changed.

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// standObject is one object with an issuer of its own.
type standObject struct {
	*stand
	kind, name string
	uid        types.UID
	issuer     *testissuer.Issuer
}

func (s *stand) newObject(g Gomega, kind string) *standObject {
	o := &standObject{stand: s, kind: kind, name: fmt.Sprintf("%s-o%d", s.id, s.objects.Add(1)), issuer: newIssuer(g, key1(), key2())}
	ns := s.id + "-system"
	if kind == api.TrustedIssuerKind {
		ns = s.id
	}
	g.Expect(s.w.api.Create(context.Background(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: o.name + "-ca"}, Data: map[string]string{"a": o.issuer.CABundle()},
	})).To(Succeed())
	return o
}

func (o *standObject) close(g Gomega) {
	g.Expect(client.IgnoreNotFound(o.w.api.Delete(context.Background(), o.empty()))).To(Succeed())
	o.issuer.Close()
}

func (o *standObject) empty() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(api.GroupVersion.WithKind(o.kind))
	u.SetName(o.name)
	if o.kind == api.TrustedIssuerKind {
		u.SetNamespace(o.id)
	}
	return u
}

// known is the object by its name and UID.
func (o *standObject) known() *unstructured.Unstructured {
	u := o.empty()
	u.SetUID(o.uid)
	return u
}

// spec is the basic one with a value.
func (o *standObject) spec(g Gomega, v value) map[string]any {
	foreign := newIssuer(g)
	defer foreign.Close()
	quoted := func(s string) string {
		text, err := json.Marshal(s)
		g.Expect(err).NotTo(HaveOccurred())
		return strings.Trim(string(text), `"`)
	}
	names := strings.NewReplacer("$URI", o.issuer.JWKSURI(), "$URL", o.issuer.URL(), "$NAME", o.name,
		"$CA", quoted(o.issuer.CABundle()), "$FOREIGN", quoted(foreign.CABundle()), "$K1", jwk(key1()), "$K2", jwk(key2()))
	base := map[string]any{
		"issuer": o.issuer.URL(), "audiences": []any{"orders"}, "jwksURI": o.issuer.JWKSURI(), "caBundle": o.issuer.CABundle(),
	}
	patch := map[string]any{}
	g.Expect(yaml.Unmarshal([]byte(names.Replace(v.patch)), &patch)).To(Succeed(), v.patch)
	for name, field := range patch {
		if base[name] = field; field == nil {
			delete(base, name)
		}
	}
	return base
}

func (o *standObject) create(g Gomega, v value) {
	u := o.empty()
	u.SetLabels(map[string]string{"stand": o.id})
	u.Object["spec"] = o.spec(g, v)
	g.Expect(o.w.api.Create(context.Background(), u)).To(Succeed(), v.patch)
	o.uid = u.GetUID()
}

// change replaces the spec, though others write meanwhile.
func (o *standObject) change(g Gomega, v value) {
	g.Eventually(func() error { return o.update(g, v) }).WithTimeout(mended).Should(Succeed(), v.patch)
}

func (o *standObject) update(g Gomega, v value) error {
	u := o.empty()
	if err := o.w.api.Get(context.Background(), client.ObjectKeyFromObject(u), u); err != nil {
		return err
	}
	u.Object["spec"] = o.spec(g, v)
	return o.w.api.Update(context.Background(), u)
}

// read is the object in its own type.
func (o *standObject) read() api.Issuer {
	var issuer api.Issuer = &api.ClusterTrustedIssuer{}
	if o.kind == api.TrustedIssuerKind {
		issuer = &api.TrustedIssuer{}
	}
	if err := o.w.api.Get(context.Background(), client.ObjectKeyFromObject(o.empty()), issuer); err != nil {
		return nil
	}
	return issuer
}

// tried: the manager has looked at the spec as it is.
func (o *standObject) tried() bool {
	issuer := o.read()
	return issuer != nil && issuer.IssuerStatus().ObservedGeneration == issuer.GetGeneration()
}

// settled: it has done what there is to do.
func (o *standObject) settled() bool {
	issuer := o.read()
	if issuer == nil {
		return false
	}
	s := issuer.IssuerStatus()
	ready := meta.FindStatusCondition(s.Conditions, api.ConditionReady)
	fetched := meta.FindStatusCondition(s.Conditions, api.ConditionFetched)
	if s.ObservedGeneration != issuer.GetGeneration() || ready == nil || fetched == nil || fetched.Status == metav1.ConditionUnknown ||
		fetched.ObservedGeneration != issuer.GetGeneration() {
		return false
	}
	published := meta.FindStatusCondition(s.Conditions, api.ConditionSnapshotPublished)
	if s.Snapshot != nil && s.Snapshot.Digest != "" && (published == nil || published.Status == metav1.ConditionUnknown) {
		return false // the users' ConfigMap is still to come
	}
	d := s.Distribution
	return issuer.NamespaceSelector() == nil || d != nil && d.Desired != nil && d.Current != nil && *d.Desired == *d.Current
}

// final is the state once it changes no more.
func (o *standObject) final(g Gomega) (state string) {
	g.Eventually(o.settled).WithTimeout(2 * mended).WithPolling(100 * time.Millisecond).Should(BeTrue())
	g.Eventually(func(g Gomega) {
		state = o.state(g)
		g.Consistently(func() string { return o.state(g) }).WithTimeout(time.Second).WithPolling(200 * time.Millisecond).Should(Equal(state))
	}).WithTimeout(mended).Should(Succeed())
	return state
}

func (o *standObject) digest(g Gomega) string {
	return snapshot.Digest(o.w.data(g, client.ObjectKey{Namespace: o.id + "-system", Name: snapshot.AuthoritativeName(o.uid)}))
}

// state is what the object comes to: the published ConfigMaps, which keys are trusted
// and what the conditions say. What tells of the past is left out.
func (o *standObject) state(g Gomega) string {
	issuer := o.read()
	g.Expect(issuer).NotTo(BeNil())
	s := issuer.IssuerStatus()
	out := []any{s.JWKSURI, s.Distribution}
	if s.Snapshot != nil {
		out = append(out, s.Snapshot.Digest, s.Snapshot.PendingDigest, s.Snapshot.Keys, s.Snapshot.ConfigMapName)
	}
	for _, k := range s.Keys {
		out = append(out, fmt.Sprintf("%s %s %s", k.KeyID, k.Thumbprint, k.State))
	}
	slices.SortFunc(s.Conditions, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	for _, c := range s.Conditions {
		out = append(out, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	var list corev1.ConfigMapList
	g.Expect(o.w.api.List(context.Background(), &list, client.MatchingLabels{api.LabelIssuerUID: string(o.uid)})).To(Succeed())
	for _, cm := range list.Items {
		out = append(out, map[string]any{"at": cm.Namespace + "/" + cm.Name, "labels": cm.Labels, "annotations": cm.Annotations, "data": cm.Data})
	}
	text, err := json.MarshalIndent(out, "", " ") // YAML would break lines by the length of names
	g.Expect(err).NotTo(HaveOccurred())
	named := strings.NewReplacer(string(o.uid), "UID", o.name, "NAME", strings.TrimPrefix(o.issuer.URL(), "https://"), "ISSUER").Replace(string(text))
	return moment.ReplaceAllString(named, "TIME")
}
