// withdraw.go ends the trust in an issuer whose object is being deleted.

package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// withdraw removes the ConfigMaps of a deleted issuer, then lets the object go.
// It never talks to the issuer's server. What applications read is kept where
// spec.snapshot.deletionPolicy says so; and all of it when the whole
// CustomResourceDefinition is being deleted: production may be running on it.
func (r *Reconciler) withdraw(ctx context.Context, issuer api.Issuer, key types.NamespacedName) error {
	if !controllerutil.ContainsFinalizer(issuer, api.FinalizerWithdraw) {
		r.gone(key, issuer)
		return nil
	}
	retain, why := issuer.IssuerSpec().RetainsSnapshots(), "spec.snapshot.deletionPolicy is Retain"
	ending, err := r.definitionTerminating(ctx, issuer)
	if err != nil {
		return err
	}
	if ending {
		retain, why = true, "The CustomResourceDefinition is being deleted"
	}
	ours, users := r.authoritativeKey(issuer), r.userKey(issuer)
	kept, err := r.letGoOthers(ctx, issuer, retain)
	if err != nil {
		return err
	}
	switch was, err := r.letGo(ctx, issuer, users, retain); {
	case err != nil:
		return err
	case was:
		kept = slices.Insert(kept, 0, users)
	}
	if ours != users {
		if _, err := r.letGo(ctx, issuer, ours, ending); err != nil {
			return err
		}
	}
	if retain {
		r.tellKept(issuer, why, kept)
	}
	if err := r.removeFinalizer(ctx, issuer); err != nil {
		return err
	}
	if !ending {
		r.graves.dig(key, issuer.GetUID(), r.Clock.Now())
	}
	r.gone(key, issuer)
	r.distributor.forgetTally(issuer.GetName())
	return nil
}

// gone forgets an issuer but for the version that it ended with. The cache may show
// it as it was before for a while: then it must not be taken for a new one, and its
// ConfigMaps made again. Once it is gone from the cache too, that is forgotten.
func (r *Reconciler) gone(key types.NamespacedName, issuer api.Issuer) {
	r.forget(key)
	r.memories.of(key, issuer.GetUID()).version = issuer.GetResourceVersion()
}

// tellKept says which ConfigMaps applications can go on reading.
func (r *Reconciler) tellKept(issuer api.Issuer, why string, kept []client.ObjectKey) {
	var what string
	switch len(kept) {
	case 0:
		return
	case 1:
		what = fmt.Sprintf("ConfigMap %s is kept.", kept[0])
	default:
		what = fmt.Sprintf("ConfigMap %s and %d more are kept.", kept[0], len(kept)-1)
	}
	r.send(issuer, event{corev1.EventTypeNormal, api.ReasonSnapshotReleased, "Withdraw", why + ": " + what})
}

// withdrawers is how many ConfigMaps are removed at a time.
const withdrawers = 16

// letGoOthers deletes, or marks as released, the issuer's ConfigMaps besides the two that
// are known by name: the copies of a ClusterTrustedIssuer; and what has an earlier name,
// because the new one is taken, or the object went before its change was seen. It returns
// those that were the issuer's. They are looked for in the API server itself, after the
// last write of one: none is left behind. A namespace that is going takes its own with it.
func (r *Reconciler) letGoOthers(ctx context.Context, issuer api.Issuer, retain bool) ([]client.ObjectKey, error) {
	if r.distributor != nil {
		r.distributor.closeAll(issuer)
	}
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	ofIssuer := client.MatchingLabels{api.LabelIssuerUID: string(issuer.GetUID())}
	if err := r.Reader.List(ctx, &list, client.InNamespace(issuer.GetNamespace()), ofIssuer); err != nil {
		return nil, fmt.Errorf("listing the issuer's ConfigMaps: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(withdrawers)
	gone, failed := make([]client.ObjectKey, len(list.Items)), make([]error, len(list.Items))
	for i := range list.Items {
		key := client.ObjectKeyFromObject(&list.Items[i])
		if key == r.authoritativeKey(issuer) || key == r.userKey(issuer) {
			continue
		}
		if _, released := list.Items[i].Annotations[api.AnnotationReleased]; retain && released {
			gone[i] = key
			continue
		}
		group.Go(func() error {
			was, err := r.letGo(ctx, issuer, key, retain)
			if was {
				gone[i] = key
			}
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				failed[i] = err
			}
			return nil
		})
	}
	_ = group.Wait() // each error is in failed
	failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil })
	if len(failed) == 0 {
		return slices.DeleteFunc(gone, func(key client.ObjectKey) bool { return key.Name == "" }), nil
	}
	r.send(issuer, event{corev1.EventTypeWarning, api.ReasonPublishFailed, "Withdraw", cut(fmt.Sprintf(
		"%d ConfigMaps cannot be withdrawn yet, the first one: %v", len(failed), failed[0]))})
	return nil, fmt.Errorf("withdrawing %d ConfigMaps: %w", len(failed), failed[0])
}

// letGo deletes a ConfigMap of the issuer, or marks it as released, and reports whether it
// was one. One that has passed to a later object of the same name is that one's: whoever
// learns late that an object was deleted must not take the keys of the next.
func (r *Reconciler) letGo(ctx context.Context, issuer api.Issuer, at client.ObjectKey, retain bool) (was bool, err error) {
	cm, err := readConfigMap(ctx, r.Reader, at)
	if err != nil || cm == nil || !r.owns(issuer, cm) {
		return false, err
	}
	if of := cm.Labels[api.LabelIssuerUID]; of != "" && of != string(issuer.GetUID()) && at != r.authoritativeKey(issuer) {
		if left, err := r.leftByEarlier(ctx, issuer, cm); err != nil || !left {
			return false, err
		}
	}
	if !retain {
		return true, r.remove(ctx, cm)
	}
	base := cm.DeepCopy()
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, api.AnnotationReleased, r.Clock.Now().UTC().Format(time.RFC3339))
	err = r.Client.Patch(ctx, cm, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager))
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("releasing ConfigMap %s: %w", at, err)
	}
	return err == nil, nil
}

// leftByEarlier reports whether a ConfigMap that was read before, and is another object's
// of that name, was left behind by an earlier one: so it is while the issuer is still
// there, because no later one can be. One that was kept on purpose stays.
func (r *Reconciler) leftByEarlier(ctx context.Context, issuer api.Issuer, cm *corev1.ConfigMap) (bool, error) {
	if _, released := cm.Annotations[api.AnnotationReleased]; released {
		return false, nil
	}
	now := r.New()
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(issuer), now); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading the issuer: %w", err)
	}
	return now.GetUID() == issuer.GetUID(), nil
}

// definitionTerminating reports whether the issuer is deleted only because its
// CustomResourceDefinition is.
func (r *Reconciler) definitionTerminating(ctx context.Context, issuer api.Issuer) (bool, error) {
	name := resourceOf(issuer) + "." + api.GroupVersion.Group
	var crd apiextensionsv1.CustomResourceDefinition
	err := r.Reader.Get(ctx, client.ObjectKey{Name: name}, &crd)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil // gone already: it was deleted
	case err != nil:
		return false, fmt.Errorf("reading CustomResourceDefinition %s: %w", name, err)
	}
	return !crd.DeletionTimestamp.IsZero(), nil
}

// resourceOf is the plural name of the issuer's kind in the API.
func resourceOf(issuer api.Issuer) string {
	if issuer.IssuerKind() == api.ClusterTrustedIssuerKind {
		return "clustertrustedissuers"
	}
	return "trustedissuers"
}

func (r *Reconciler) removeFinalizer(ctx context.Context, issuer api.Issuer) error {
	base, ok := issuer.DeepCopyObject().(client.Object)
	if !ok || !controllerutil.RemoveFinalizer(issuer, api.FinalizerWithdraw) {
		return nil
	}
	err := r.Client.Patch(ctx, issuer, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("removing the finalizer: %w", err)
	}
	return nil
}
