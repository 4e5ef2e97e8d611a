// orphans.go removes ConfigMaps that were made too late: by a manager that had lost its
// lease, for an issuer object that was deleted between its last look and the creation.
// A resourceVersion keeps any other write from being late; a creation has none.

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// graveTime is how long a process looks for what is made too late for the issuer objects
// whose ConfigMaps it has withdrawn: longer than another one can go on without its lease.
// Not longer than that: what a backup brings back looks no different.
const graveTime = time.Minute

// graves are the issuer objects whose ConfigMaps this process has withdrawn.
type graves struct {
	mu    sync.Mutex
	byKey map[types.NamespacedName][]grave
	order []types.NamespacedName // the oldest first
}

type grave struct {
	uid types.UID
	dug time.Time
}

func (g *graves) dig(key types.NamespacedName, uid types.UID, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byKey == nil {
		g.byKey = map[types.NamespacedName][]grave{}
	}
	for len(g.order) > 0 {
		first := g.byKey[g.order[0]]
		if now.Sub(first[0].dug).Abs() < graveTime {
			break
		}
		if first = first[1:]; len(first) == 0 {
			delete(g.byKey, g.order[0])
		} else {
			g.byKey[g.order[0]] = first
		}
		g.order = g.order[1:]
	}
	g.byKey[key] = append(g.byKey[key], grave{uid, now})
	g.order = append(g.order, key)
}

func (g *graves) of(key types.NamespacedName, now time.Time) []grave {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.byKey[key]), func(g grave) bool { return now.Sub(g.dug).Abs() >= graveTime })
}

// collect removes what was made too late for objects of that name, other than the one
// that is there: whatever was withdrawn by this process a moment ago; and of any time, what only the
// verifier could have read. A ConfigMap that applications may read stays, because one
// that a backup has brought back before its issuer object looks no different.
func (r *Reconciler) collect(ctx context.Context, key types.NamespacedName, living types.UID) error {
	for _, g := range r.graves.of(key, r.Clock.Now()) {
		if g.uid == living {
			continue // brought back, with all that it had
		}
		switch ended, err := r.ended(ctx, key, g.uid); {
		case err != nil:
			return err
		case !ended:
			continue
		}
		late, err := r.Holders(ctx, g.uid)
		if err != nil {
			return fmt.Errorf("listing ConfigMaps that were made too late: %w", err)
		}
		for i := range late {
			if err := r.removeLate(ctx, client.ObjectKeyFromObject(&late[i]), g.uid); err != nil {
				return err
			}
		}
	}
	if r.distributor != nil {
		return nil // applications read the authoritative one as well
	}
	late, err := r.Authorities(ctx, key)
	if err != nil {
		return fmt.Errorf("listing authoritative ConfigMaps: %w", err)
	}
	for _, uid := range late {
		if uid == living {
			continue
		}
		switch ended, err := r.ended(ctx, key, uid); {
		case err != nil:
			return err
		case !ended:
			continue
		}
		if err := r.removeLate(ctx, client.ObjectKey{Namespace: r.OperatorNamespace, Name: snapshot.AuthoritativeName(uid)}, uid); err != nil {
			return err
		}
	}
	return nil
}

// ended reports whether the issuer object with that UID is gone, while its kind is there
// to stay: what is left when a CustomResourceDefinition is deleted, is kept.
func (r *Reconciler) ended(ctx context.Context, key types.NamespacedName, uid types.UID) (bool, error) {
	now := r.New()
	if err := r.Reader.Get(ctx, key, now); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading the issuer: %w", err)
	}
	if now.GetUID() == uid {
		return false, nil
	}
	ending, err := r.definitionTerminating(ctx, r.New())
	return !ending, err
}

// removeLate removes a ConfigMap of an issuer object that is gone, unless it was kept on
// purpose.
func (r *Reconciler) removeLate(ctx context.Context, key client.ObjectKey, of types.UID) error {
	cm, err := readConfigMap(ctx, r.Reader, key)
	if err != nil || cm == nil || cm.Labels[api.LabelIssuerUID] != string(of) {
		return err
	}
	if _, released := cm.Annotations[api.AnnotationReleased]; released {
		return nil
	}
	return r.remove(ctx, cm)
}

// authorityIndex finds the authoritative ConfigMaps that were made for issuer objects of
// a kind and name, but for those that were kept on purpose.
const authorityIndex = "authority-of"

func indexAuthority(o client.Object) []string {
	kind, of := o.GetLabels()[api.LabelIssuerKind], o.GetAnnotations()
	_, released := of[api.AnnotationReleased]
	if released || o.GetName() != snapshot.AuthoritativeName(types.UID(o.GetLabels()[api.LabelIssuerUID])) {
		return nil
	}
	return []string{authorityKey(kind, types.NamespacedName{Namespace: of[api.AnnotationIssuerNamespace], Name: of[api.AnnotationIssuerName]})}
}

func authorityKey(kind string, key types.NamespacedName) string { return kind + "/" + key.String() }

func indexedAuthorities(c client.Reader, kind string) func(context.Context, types.NamespacedName) ([]types.UID, error) {
	return func(ctx context.Context, key types.NamespacedName) ([]types.UID, error) {
		var list corev1.ConfigMapList
		if err := c.List(ctx, &list, client.MatchingFields{authorityIndex: authorityKey(kind, key)}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, err
		}
		var out []types.UID
		for i := range list.Items {
			out = append(out, types.UID(list.Items[i].Labels[api.LabelIssuerUID]))
		}
		return out, nil
	}
}
