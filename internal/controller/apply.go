// apply.go writes: status, and the ConfigMaps of an issuer.
//
// Every write carries the resourceVersion of what it was computed from, so that
// a manager with an old view gets a conflict instead of undoing newer work, and
// a ConfigMap that is not ours is never touched.

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// fieldManager is the controller's name in server-side apply.
const fieldManager = "jwks-trust-controller"

// errForeign means that a ConfigMap of the wanted name belongs to someone else.
var errForeign = errors.New("the ConfigMap belongs to someone else")

// saveStatus applies the status, but for the verifier's fields, on condition that
// the issuer is still the one that it was computed from, and brings issuer up to
// date with the result.
func (r *Reconciler) saveStatus(ctx context.Context, issuer api.Issuer, status *api.IssuerStatus, m *memory) (err error) {
	ctx, span := startSpan(ctx, "save status")
	defer func() { endSpan(span, err) }()
	ours := status.DeepCopy()
	ours.RefreshRequestedAt, ours.KeyUsage = nil, nil // the verifier's: applied, they would become ours
	content, err := json.Marshal(ours)
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(content, &fields); err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": fields}}
	u.SetGroupVersionKind(api.GroupVersion.WithKind(issuer.IssuerKind()))
	u.SetName(issuer.GetName())
	u.SetNamespace(issuer.GetNamespace())
	u.SetUID(issuer.GetUID())
	u.SetResourceVersion(issuer.GetResourceVersion())
	err = r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(fieldManager), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("saving the status: %w", err)
	}
	issuer.SetResourceVersion(u.GetResourceVersion())
	*issuer.IssuerStatus() = *status
	m.version, m.saved = u.GetResourceVersion(), status.DeepCopy()
	return nil
}

// wanted is what a ConfigMap has to hold.
type wanted struct {
	key         client.ObjectKey
	labels      map[string]string
	annotations map[string]string
	data        map[string]string
}

// wanted is the ConfigMap of that name for an issuer. Names go into annotations:
// they can be longer than a label's value may be. What spec.snapshot adds is for
// the ConfigMaps that applications read.
func (r *Reconciler) wanted(issuer api.Issuer, key client.ObjectKey, data map[string]string) wanted {
	w := wanted{
		key: key,
		labels: map[string]string{
			api.LabelSnapshot:   "true",
			api.LabelIssuerUID:  string(issuer.GetUID()),
			api.LabelIssuerKind: issuer.IssuerKind(),
		},
		annotations: map[string]string{
			api.AnnotationIssuerName: issuer.GetName(),
			api.AnnotationDigest:     snapshot.Digest(data),
		},
		data: data,
	}
	if ns := issuer.GetNamespace(); ns != "" {
		w.annotations[api.AnnotationIssuerNamespace] = ns
	}
	if spec := issuer.IssuerSpec().Snapshot; spec != nil && (issuer.GetNamespace() == "" || key != r.authoritativeKey(issuer)) {
		w.add(plainMap(spec.Labels), plainMap(spec.Annotations))
	}
	return w
}

func plainMap[V ~string](m map[string]V) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = string(v)
	}
	return out
}

// add adds labels and annotations, and a mark that tells when others were added.
func (w wanted) add(labels, annotations map[string]string) {
	if len(labels)+len(annotations) == 0 {
		return
	}
	maps.Copy(w.labels, labels)
	maps.Copy(w.annotations, annotations)
	w.annotations[api.AnnotationAdded] = sumOf(labels, annotations)[:16]
}

// sum identifies the content of w.
func (w wanted) sum() string { return sumOf(w.labels, w.annotations, w.data) }

func sumOf(content ...map[string]string) string {
	text, _ := json.Marshal(content) // maps of strings always encode
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// holds reports whether cm has all that is wanted.
func (w wanted) holds(cm *corev1.ConfigMap) bool {
	return cm != nil && contains(cm.Labels, w.labels) && contains(cm.Annotations, w.annotations) &&
		cm.Annotations[api.AnnotationAdded] == w.annotations[api.AnnotationAdded] &&
		contains(cm.Data, w.data) && !removable(cm.Data, w.data)
}

// ourKeys are the keys of a ConfigMap's data that are ours.
var ourKeys = snapshot.Keys()

// removable reports that data still has a key of ours that is not wanted.
func removable(data, want map[string]string) bool {
	for _, key := range ourKeys {
		_, has := data[key]
		if _, wants := want[key]; has && !wants {
			return true
		}
	}
	return false
}

func contains(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// ensure brings a copy to what is wanted. It starts from a live read, because a
// cache can be behind. It returns the ConfigMap's resourceVersion, or errForeign where
// it must not write.
func (r *Reconciler) ensure(ctx context.Context, issuer api.Issuer, w wanted) (string, error) {
	live, err := readConfigMap(ctx, r.Reader, w.key)
	switch {
	case err != nil:
		return "", err
	case live != nil && !r.owns(issuer, live):
		return "", errForeign
	}
	return r.converge(ctx, issuer, live, w)
}

// converge does that with one that was read live, nil for none, and may be written.
func (r *Reconciler) converge(ctx context.Context, issuer api.Issuer, live *corev1.ConfigMap, w wanted) (string, error) {
	if w.holds(live) {
		return live.ResourceVersion, nil
	}
	if err := r.confirm(ctx, issuer); err != nil {
		return "", err
	}
	return r.bring(ctx, issuer, live, w)
}

// confirm reports a conflict where the issuer object has gone meanwhile, or names other
// keys: what was read before it must not be written any more.
func (r *Reconciler) confirm(ctx context.Context, issuer api.Issuer) error {
	now, err := r.live(ctx, issuer)
	if err == nil && digests(now) != digests(issuer) {
		err = superseded(issuer)
	}
	return err
}

// live is the issuer object as the API server has it now. That it has gone, or is about
// to, is a conflict.
func (r *Reconciler) live(ctx context.Context, issuer api.Issuer) (api.Issuer, error) {
	now := r.New()
	err := r.Reader.Get(ctx, client.ObjectKeyFromObject(issuer), now)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return nil, fmt.Errorf("reading the issuer: %w", err)
	case err != nil, now.GetUID() != issuer.GetUID(), !now.GetDeletionTimestamp().IsZero():
		return nil, superseded(issuer)
	}
	return now, nil
}

// superseded is the conflict for which a write is not made: another look is needed.
func superseded(issuer api.Issuer) error {
	return apierrors.NewConflict(api.GroupVersion.WithResource(resourceOf(issuer)).GroupResource(), issuer.GetName(), errSuperseded)
}

var errSuperseded = errors.New("the issuer has gone, or other keys are trusted by now")

// bring brings a ConfigMap that was read live, nil for none, to what is wanted. It
// returns the new resourceVersion.
func (r *Reconciler) bring(ctx context.Context, issuer api.Issuer, live *corev1.ConfigMap, w wanted) (_ string, err error) {
	ctx, span := startSpan(ctx, "publish", attribute.String("k8s.namespace.name", w.key.Namespace), attribute.String("k8s.configmap.name", w.key.Name))
	defer func() { endSpan(span, err) }()
	if live == nil {
		return r.create(ctx, w)
	}
	tampered := changedByOthers(live)
	version, err := r.mend(ctx, live, w)
	if err == nil && tampered {
		r.send(issuer, event{corev1.EventTypeWarning, api.ReasonSnapshotRepaired, "Publish", fmt.Sprintf(
			"ConfigMap %s had been changed by someone else and was put right.", w.key)})
	}
	return version, err
}

// mend brings a ConfigMap that is ours to what is wanted. One that someone made
// immutable is replaced.
func (r *Reconciler) mend(ctx context.Context, live *corev1.ConfigMap, w wanted) (_ string, err error) {
	if ptr.Deref(live.Immutable, false) {
		if err := r.remove(ctx, live); err != nil {
			return "", err
		}
		return r.create(ctx, w)
	}
	if live, err = r.retake(ctx, live, w); err != nil {
		return "", err
	}
	if live, err = r.dropData(ctx, live, w); err != nil {
		return "", err
	}
	return r.applyData(ctx, live, w)
}

// changedByOthers reports whether the data are not those that we wrote. Where there
// are none, nobody has forged any.
func changedByOthers(cm *corev1.ConfigMap) bool {
	return len(cm.Data) > 0 && cm.Annotations[api.AnnotationDigest] != snapshot.Digest(cm.Data)
}

// create makes the ConfigMap. Create, in contrast to apply, never adopts what is
// already there. The labels and annotations that spec adds follow by apply, so that
// apply can take them away again; our own stay, and dropData knows our data.
func (r *Reconciler) create(ctx context.Context, w wanted) (string, error) {
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: w.key.Name, Labels: ours(w.labels), Annotations: ours(w.annotations)},
		Data:       w.data,
	}
	if err := r.Client.Create(ctx, cm, client.FieldOwner(fieldManager)); err != nil {
		return "", fmt.Errorf("creating ConfigMap %s: %w", w.key, err)
	}
	if len(cm.Labels)+len(cm.Annotations) == len(w.labels)+len(w.annotations) {
		return cm.ResourceVersion, nil
	}
	return r.applyData(ctx, cm, w)
}

// ours are the labels or annotations that every ConfigMap of ours has.
func ours(all map[string]string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(name, _ string) bool { return !strings.HasPrefix(name, api.Prefix) || name == api.AnnotationAdded })
	return out
}

// applyData applies labels, annotations and data onto the ConfigMap as read. It
// returns the new resourceVersion.
func (r *Reconciler) applyData(ctx context.Context, live *corev1.ConfigMap, w wanted) (string, error) {
	ac := corev1ac.ConfigMap(w.key.Name, w.key.Namespace).
		WithUID(live.UID).WithResourceVersion(live.ResourceVersion).
		WithLabels(w.labels).WithAnnotations(w.annotations).WithData(w.data)
	if err := r.Client.Apply(ctx, ac, client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
		return "", fmt.Errorf("applying ConfigMap %s: %w", w.key, err)
	}
	return ptr.Deref(ac.ResourceVersion, ""), nil
}

// retake takes off the mark of a ConfigMap that was kept when an earlier issuer object
// went. With that it passes to the new one, in the same write: unmarked, and the earlier
// one's, it would be taken for something that was made too late.
func (r *Reconciler) retake(ctx context.Context, live *corev1.ConfigMap, w wanted) (*corev1.ConfigMap, error) {
	if _, released := live.Annotations[api.AnnotationReleased]; !released {
		return live, nil
	}
	base := live.DeepCopy()
	delete(live.Annotations, api.AnnotationReleased)
	metav1.SetMetaDataLabel(&live.ObjectMeta, api.LabelIssuerUID, w.labels[api.LabelIssuerUID])
	err := r.Client.Patch(ctx, live, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager))
	if err != nil {
		return nil, fmt.Errorf("taking over ConfigMap %s: %w", client.ObjectKeyFromObject(live), err)
	}
	return live, nil
}

// dropData takes away the keys of ours that are not wanted. Apply would leave those
// that came with the creation, and those that somebody else has applied as well, a
// backup or a GitOps tool.
func (r *Reconciler) dropData(ctx context.Context, live *corev1.ConfigMap, w wanted) (*corev1.ConfigMap, error) {
	if !removable(live.Data, w.data) {
		return live, nil
	}
	base := live.DeepCopy()
	for _, key := range ourKeys {
		if _, wants := w.data[key]; !wants {
			delete(live.Data, key)
		}
	}
	err := r.Client.Patch(ctx, live, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager))
	if err != nil {
		return nil, fmt.Errorf("taking keys out of ConfigMap %s: %w", w.key, err)
	}
	return live, nil
}

// remove deletes exactly the ConfigMap that was read.
func (r *Reconciler) remove(ctx context.Context, live *corev1.ConfigMap) error {
	err := r.Client.Delete(ctx, live, client.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting ConfigMap %s: %w", client.ObjectKeyFromObject(live), err)
	}
	return nil
}

// owns reports whether a ConfigMap may be written for the issuer: the
// authoritative one, whose name holds the UID, in the operator's own namespace;
// one with the issuer's UID; or one that an earlier object of the same name
// left behind.
func (r *Reconciler) owns(issuer api.Issuer, cm *corev1.ConfigMap) bool {
	if client.ObjectKeyFromObject(cm) == r.authoritativeKey(issuer) {
		return true
	}
	if cm.Labels[api.LabelIssuerUID] == string(issuer.GetUID()) {
		return true
	}
	if writtenByUs(cm) && cm.Labels[api.LabelIssuerUID] == "" {
		return true // our label was taken off
	}
	return cm.Labels[api.LabelSnapshot] == "true" &&
		cm.Labels[api.LabelIssuerKind] == issuer.IssuerKind() &&
		cm.Annotations[api.AnnotationIssuerName] == issuer.GetName() &&
		cm.Annotations[api.AnnotationIssuerNamespace] == issuer.GetNamespace()
}

// writtenByUs reports whether we have created a ConfigMap, or applied to it.
func writtenByUs(cm *corev1.ConfigMap) bool {
	return slices.ContainsFunc(cm.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == fieldManager })
}
