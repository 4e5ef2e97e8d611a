// copy.go keeps the ConfigMap that users of a TrustedIssuer mount: a copy of the
// authoritative one, in the issuer's own namespace.

package controller

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// copied is the outcome of publishing the copy.
type copied struct {
	publication *publication
	// err makes the reconciliation come back; a conflict with a foreign
	// ConfigMap does not, because only its owner can end it.
	err error
}

// publishCopy brings the copy up to date. It is nil for the cluster kind, whose
// users read the authoritative ConfigMap, and while there is nothing to publish
// and nothing to take away.
func (r *Reconciler) publishCopy(ctx context.Context, issuer api.Issuer, out outcome, m *memory) *copied {
	if issuer.GetNamespace() == "" {
		return nil
	}
	key := r.userKey(issuer)
	if out.trusted == nil && !out.withdrawn {
		if err := r.clearLeftovers(ctx, issuer, key, out.attempt); err != nil {
			return &copied{failedPublication(key, err), unlessTooLarge(err)}
		}
		return nil
	}
	set := out.trusted
	if out.expired {
		set = nil
	}
	data, err := encode(issuer, set)
	if err != nil {
		return &copied{failedPublication(key, err), nil}
	}
	w := r.wanted(issuer, key, data)
	same, err := r.copyIs(ctx, w, m)
	if err != nil {
		return &copied{failedPublication(key, err), err}
	}
	others, err := r.others(ctx, issuer, key) // one may have come to light since
	if err != nil {
		return &copied{failedPublication(key, err), err}
	}
	if !same || len(others) > 0 {
		version, err := r.ensure(ctx, issuer, w)
		if err != nil {
			return &copied{failedPublication(key, err), errors.Join(unlessForeign(err), r.keepOthers(ctx, issuer, w, err, m))}
		}
		if err := r.removeOthers(ctx, issuer, others); err != nil {
			return &copied{failedPublication(key, err), err}
		}
		m.copyVersion, m.copyData = version, w.sum()
	}
	if out.withdrawn {
		return &copied{withdrawnPublication(out, key), nil}
	}
	return &copied{publicationOf(out, key), nil}
}

// copyIs reports whether the copy is known to hold what is wanted. Only its
// metadata is cached; a version that was verified once need not be read again.
func (r *Reconciler) copyIs(ctx context.Context, w wanted, m *memory) (bool, error) {
	if m.copyVersion == "" || m.copyData != w.sum() {
		return false, nil
	}
	var meta metav1.PartialObjectMetadata
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := r.Copies.Get(ctx, w.key, &meta); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return meta.ResourceVersion == m.copyVersion, nil
}

// others are the issuer's ConfigMaps of other names, in the namespace of this one: it
// had another name before.
func (r *Reconciler) others(ctx context.Context, issuer api.Issuer, key client.ObjectKey) ([]client.ObjectKey, error) {
	holders, err := r.Holders(ctx, issuer.GetUID(), client.InNamespace(key.Namespace))
	if err != nil {
		return nil, fmt.Errorf("listing the issuer's ConfigMaps: %w", err)
	}
	var out []client.ObjectKey
	for i := range holders {
		if holder := client.ObjectKeyFromObject(&holders[i]); holder != key && holder != r.authoritativeKey(issuer) {
			out = append(out, holder)
		}
	}
	return out, nil
}

// removeOthers removes them, unless one of them may be the one that spec names by now.
func (r *Reconciler) removeOthers(ctx context.Context, issuer api.Issuer, others []client.ObjectKey) error {
	if len(others) == 0 {
		return nil
	}
	now, err := r.live(ctx, issuer)
	if err == nil && now.GetGeneration() != issuer.GetGeneration() {
		err = superseded(issuer)
	}
	if err != nil {
		return err
	}
	return r.letGoOf(ctx, issuer, others)
}

// letGoOf lets go of ConfigMaps that nothing names any more.
func (r *Reconciler) letGoOf(ctx context.Context, issuer api.Issuer, keys []client.ObjectKey) error {
	for _, key := range keys {
		if _, err := r.letGo(ctx, issuer, key, false); err != nil {
			return err
		}
	}
	return nil
}

// keepOthers brings them up to date while the one that is wanted cannot be written, for
// that reason: applications still read them, and revoked keys must not stay there. None
// is made again.
func (r *Reconciler) keepOthers(ctx context.Context, issuer api.Issuer, w wanted, reason error, m *memory) error {
	var others []client.ObjectKey
	if !outdated(reason) { // else there is another look first
		var err error
		if others, err = r.others(ctx, issuer, w.key); err != nil {
			return err
		}
	}
	if len(others) == 0 {
		m.copyVersion = ""
	}
	for _, w.key = range others {
		same, err := r.copyIs(ctx, w, m)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		m.copyVersion = ""
		live, err := readConfigMap(ctx, r.Reader, w.key)
		if err != nil {
			return err
		}
		if live == nil || !r.owns(issuer, live) {
			continue
		}
		if m.copyVersion, err = r.converge(ctx, issuer, live, w); err != nil {
			return err
		}
		m.copyData = w.sum()
	}
	return nil
}

// publicationOf says what the ConfigMap that users read holds.
func publicationOf(out outcome, key client.ObjectKey) *publication {
	if out.expired {
		return &publication{reason: api.ReasonExpiredKeysRemoved, message: fmt.Sprintf(
			"The keys have expired and were taken out of ConfigMap %s, as spec.snapshot.expiredPolicy says. They come back when a fetch succeeds.", key)}
	}
	return &publication{succeeded: true, reason: api.ReasonPublished, message: fmt.Sprintf("ConfigMap %s holds the trusted keys.", key)}
}

// withdrawnPublication says why there is no key left.
func withdrawnPublication(out outcome, key client.ObjectKey) *publication {
	if out.exposed {
		return &publication{reason: api.ReasonPrivateKeyExposed, message: fmt.Sprintf(
			"The keys were taken out of ConfigMap %s: the issuer published their private part. Have it make new keys.", key)}
	}
	return &publication{reason: api.ReasonAllKeysRevoked, message: fmt.Sprintf(
		"The keys were taken out of ConfigMap %s: spec.revokedKeys names every one that the issuer still publishes. Have the issuer publish a new key.", key)}
}

// failedPublication translates the error of a write. A conflict is no failure:
// nothing is said about it, and it is tried again at once.
func failedPublication(key client.ObjectKey, err error) *publication {
	switch {
	case outdated(err):
		return nil
	case errors.Is(err, errForeign):
		return &publication{blocked: true, reason: api.ReasonConfigMapConflict, message: fmt.Sprintf(
			"ConfigMap %s exists and was not made for this issuer; it is left alone. Rename or delete it, or give the issuer another name.", key)}
	case errors.Is(err, snapshot.ErrTooLarge):
		return &publication{reason: api.ReasonSnapshotTooLarge, message: fmt.Sprintf("ConfigMap %s: %v; have the issuer publish fewer keys.", key, err)}
	case apierrors.IsForbidden(err):
		return &publication{reason: api.ReasonPublishFailed, message: fmt.Sprintf("The API server refuses ConfigMap %s: %v. Grant what it lacks, or change the quota or admission policy that stands in the way.", key, err)}
	}
	return &publication{reason: api.ReasonPublishFailed, message: fmt.Sprintf("ConfigMap %s could not be written: %v. It is tried again; if that goes on, look at the API server.", key, err)}
}

// unlessForeign drops the error that only the ConfigMap's owner can mend.
func unlessForeign(err error) error {
	if errors.Is(err, errForeign) {
		return nil
	}
	return err
}

// unlessTooLarge drops the error that only the issuer can mend.
func unlessTooLarge(err error) error {
	if errors.Is(err, snapshot.ErrTooLarge) {
		return nil
	}
	return err
}
