// leftover.go sees to what an earlier object of the same name left behind, a ConfigMap that
// was retained or that a backup has brought back, while the new one has no keys of its own.
//
// It is not trusted by anybody, but mounted: it must not hold another issuer's keys, nor
// refused ones.

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// clearLeftovers clears the ConfigMap that users read, and those of other names, while
// nothing is trusted.
func (r *Reconciler) clearLeftovers(ctx context.Context, issuer api.Issuer, key client.ObjectKey, a *attempt) error {
	others, err := r.others(ctx, issuer, key)
	if err != nil {
		return err
	}
	for _, each := range append(others, key) {
		if err := r.clearLeftover(ctx, issuer, each, a); err != nil {
			return err
		}
	}
	return nil
}

// clearLeftover removes a ConfigMap that an earlier object of the same name left behind
// for another issuer: its keys must not pass for this one's. One for the same issuer
// loses the keys that are refused by now.
func (r *Reconciler) clearLeftover(ctx context.Context, issuer api.Issuer, key client.ObjectKey, a *attempt) error {
	cm, err := readConfigMap(ctx, r.Reader, key)
	if err != nil || cm == nil || !r.owns(issuer, cm) {
		return err
	}
	if of := snapshot.IssuerOf(cm.Data); of != "" && of != issuer.IssuerSpec().Issuer {
		if err := r.confirm(ctx, issuer); err != nil { // or it is the next object's
			return err
		}
		return r.remove(ctx, cm)
	}
	set, _, err := snapshot.Decode(cm.Data)
	if err != nil {
		return nil //nolint:nilerr // no keys that we wrote
	}
	left, withdrawn := withoutRevoked(set, issuer, a)
	if !withdrawn && left.Len() == set.Len() {
		return nil
	}
	return r.replaceKeys(ctx, issuer, cm, left)
}

// replaceKeys leaves these keys in a ConfigMap of which none is trusted. For the rest it
// stays what it is: what was kept on purpose passes to an object only once that has keys,
// and goes with it only then.
func (r *Reconciler) replaceKeys(ctx context.Context, issuer api.Issuer, cm *corev1.ConfigMap, left *keyset.Set) error {
	data, err := encode(issuer, left)
	if err != nil {
		return err
	}
	if err := r.confirm(ctx, issuer); err != nil {
		return err
	}
	if ptr.Deref(cm.Immutable, false) {
		_, err := r.mend(ctx, cm, r.wanted(issuer, client.ObjectKeyFromObject(cm), data)) // it has to be made anew
		return err
	}
	base := cm.DeepCopy()
	maps.DeleteFunc(cm.Data, func(name, _ string) bool { return slices.Contains(ourKeys, name) })
	maps.Copy(cm.Data, data)
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, api.AnnotationDigest, snapshot.Digest(data))
	err = r.Client.Patch(ctx, cm, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager))
	if err != nil {
		return fmt.Errorf("taking keys out of ConfigMap %s: %w", client.ObjectKeyFromObject(cm), err)
	}
	return nil
}

// clearCopy clears what an earlier object of the same name left behind in a namespace.
// Where the cache has nothing of that name, there is nothing.
func (d *Distributor) clearCopy(ctx context.Context, issuer api.Issuer, namespace string) error {
	if digests(issuer) != [2]string{} {
		return nil // the keys that are trusted come soon
	}
	key := d.wantedCopy(issuer, namespace, nil).key
	var meta metav1.PartialObjectMetadata
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := d.Copies.Get(ctx, key, &meta); err != nil {
		return client.IgnoreNotFound(err)
	}
	return d.clearLeftover(ctx, issuer, key, nil)
}
