// distribute_setup.go says when copies are looked at: when the issuer has other keys
// or another spec, when a namespace comes or changes, when a copy changes.

package controller

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	ctrlevent "sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// copyWorkers is how many copies are written at a time.
const copyWorkers = 32

func (d *Distributor) setup(mgr ctrl.Manager, o Options) error {
	namespaces := &metav1.PartialObjectMetadata{}
	namespaces.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	on := d.Handlers()
	return builder.TypedControllerManagedBy[target](mgr).
		Named("distribution").
		WatchesRawSource(source.TypedKind(mgr.GetCache(), client.Object(&api.ClusterTrustedIssuer{}), on.Issuer)).
		WatchesRawSource(source.TypedKind(mgr.GetCache(), client.Object(&corev1.ConfigMap{}), on.Authoritative)).
		WatchesRawSource(source.TypedKind(mgr.GetCache(), namespaces, on.Namespace)).
		WatchesRawSource(source.TypedKind(o.Copies, configMapMetadata(), on.Copy)).
		WithOptions(controller.TypedOptions[target]{
			MaxConcurrentReconciles: copyWorkers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[target](conflictDelay, refusedDelay),
		}).
		Complete(traced(o.Tracing, "distribute", nameOfTarget, reconcile.TypedReconciler[target](d)))
}

// Handlers say which copies to look at when something has changed: an issuer object, an
// authoritative ConfigMap, a namespace, a copy.
type Handlers struct {
	Issuer, Authoritative handler.TypedEventHandler[client.Object, target]
	Namespace, Copy       handler.TypedEventHandler[*metav1.PartialObjectMetadata, target]
}

// Handlers are those of the distributor's watches.
func (d *Distributor) Handlers() Handlers {
	return Handlers{Issuer: d.onIssuer(), Authoritative: d.onAuthoritative(), Namespace: d.onNamespace(), Copy: d.onCopy()}
}

type targets = workqueue.TypedRateLimitingInterface[target]

// onIssuer looks at all copies when what they have to hold, or where, may have
// changed; not when times in status move on, and not before a new set is trusted.
func (d *Distributor) onIssuer() handler.TypedEventHandler[client.Object, target] {
	return handler.TypedFuncs[client.Object, target]{
		CreateFunc: func(ctx context.Context, e ctrlevent.TypedCreateEvent[client.Object], q targets) {
			d.addAll(ctx, e.Object, q)
		},
		UpdateFunc: func(ctx context.Context, e ctrlevent.TypedUpdateEvent[client.Object], q targets) {
			before, ok1 := e.ObjectOld.(api.Issuer)
			now, ok2 := e.ObjectNew.(api.Issuer)
			if !ok1 || !ok2 {
				return
			}
			edited := before.GetGeneration() != now.GetGeneration() || madeAgain(before, now)
			published := digests(before) != digests(now) && !pending(now)
			// Copies of an earlier object may hold a key that was exposed before anything is trusted.
			exposed := len(before.IssuerStatus().CompromisedKeys) < len(now.IssuerStatus().CompromisedKeys) && digests(now) == [2]string{}
			if edited || published || exposed {
				d.addAll(ctx, now, q)
			}
		},
	}
}

// madeAgain reports that an object was deleted and another one made of its name. A watch
// that was broken meanwhile shows that as a change.
func madeAgain(before, now client.Object) bool { return before.GetUID() != now.GetUID() }

// digests are those of the set that is trusted and of the one that is pending.
func digests(issuer api.Issuer) [2]string {
	if s := issuer.IssuerStatus().Snapshot; s != nil {
		return [2]string{s.Digest, s.PendingDigest}
	}
	return [2]string{}
}

// pending reports that a set is being published: its end is another event.
func pending(issuer api.Issuer) bool { return digests(issuer)[1] != "" }

// onAuthoritative looks at all copies when the ConfigMap that they copy changes, or
// comes, perhaps again: those that were looked at meanwhile have nothing to wait for.
func (d *Distributor) onAuthoritative() handler.TypedEventHandler[client.Object, target] {
	look := func(ctx context.Context, cm client.Object, q targets) {
		if cm.GetLabels()[api.LabelIssuerKind] != api.ClusterTrustedIssuerKind {
			return
		}
		issuer := d.New()
		name := cm.GetAnnotations()[api.AnnotationIssuerName]
		if err := d.Client.Get(ctx, client.ObjectKey{Name: name}, issuer); err == nil && !pending(issuer) {
			d.addAll(ctx, issuer, q)
		}
	}
	return handler.TypedFuncs[client.Object, target]{
		CreateFunc: func(ctx context.Context, e ctrlevent.TypedCreateEvent[client.Object], q targets) {
			if !e.IsInInitialList { // the issuers of which bring all
				look(ctx, e.Object, q)
			}
		},
		UpdateFunc: func(ctx context.Context, e ctrlevent.TypedUpdateEvent[client.Object], q targets) {
			look(ctx, e.ObjectNew, q)
		},
	}
}

func (d *Distributor) addAll(ctx context.Context, o client.Object, q targets) {
	issuer, ok := o.(api.Issuer)
	if !ok {
		return
	}
	all, err := d.targets(ctx, issuer)
	if err != nil { // a cache that cannot be read, which nothing would mend
		log.FromContext(ctx).Error(err, "Cannot tell which namespaces to look at", "issuer", o.GetName())
		return
	}
	for _, t := range all {
		q.Add(t)
	}
	if len(all) == 0 && issuer.NamespaceSelector() != nil {
		d.Queue.wake(followerOf(issuer), following) // there is nothing to wait for
	}
}

// onNamespace looks at the copies that a namespace has to have, or had to.
func (d *Distributor) onNamespace() handler.TypedEventHandler[*metav1.PartialObjectMetadata, target] {
	return handler.TypedFuncs[*metav1.PartialObjectMetadata, target]{
		CreateFunc: func(ctx context.Context, e ctrlevent.TypedCreateEvent[*metav1.PartialObjectMetadata], q targets) {
			d.addNamespace(ctx, q, e.Object.Name, e.Object.Labels)
		},
		UpdateFunc: func(ctx context.Context, e ctrlevent.TypedUpdateEvent[*metav1.PartialObjectMetadata], q targets) {
			terminates := e.ObjectOld.DeletionTimestamp.IsZero() != e.ObjectNew.DeletionTimestamp.IsZero()
			if terminates || madeAgain(e.ObjectOld, e.ObjectNew) || !maps.Equal(e.ObjectOld.Labels, e.ObjectNew.Labels) {
				d.addNamespace(ctx, q, e.ObjectNew.Name, e.ObjectOld.Labels, e.ObjectNew.Labels)
			}
		},
		DeleteFunc: func(ctx context.Context, e ctrlevent.TypedDeleteEvent[*metav1.PartialObjectMetadata], q targets) {
			d.addNamespace(ctx, q, e.Object.Name, e.Object.Labels)
		},
	}
}

// addNamespace adds the copies of all issuers that select a namespace with one of
// these sets of labels.
func (d *Distributor) addNamespace(ctx context.Context, q targets, namespace string, labelled ...map[string]string) {
	var all api.ClusterTrustedIssuerList
	if err := d.Client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Cannot tell which issuers select a namespace", "namespace", namespace)
		return
	}
	for i := range all.Items {
		selector, err := selectorOf(&all.Items[i])
		if err != nil {
			continue
		}
		for _, l := range labelled {
			if selector.Matches(k8slabels.Set(l)) {
				q.Add(target{all.Items[i].Name, namespace})
				break
			}
		}
	}
}

// onCopy looks at a copy that has changed; and at its issuer, where an object of that
// name was withdrawn a moment ago: the copy may have been made too late (orphans.go).
func (d *Distributor) onCopy() handler.TypedEventHandler[*metav1.PartialObjectMetadata, target] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, cm *metav1.PartialObjectMetadata) []target {
		name := cm.Annotations[api.AnnotationIssuerName]
		if cm.Labels[api.LabelIssuerKind] != api.ClusterTrustedIssuerKind || cm.Namespace == d.OperatorNamespace || name == "" {
			return nil
		}
		if key := (types.NamespacedName{Name: name}); len(d.graves.of(key, d.Clock.Now())) > 0 {
			d.Queue.wake(follower{api.ClusterTrustedIssuerKind, key}, following)
		}
		return []target{{name, cm.Namespace}}
	})
}

// holderIndex finds the ConfigMaps of an issuer by its UID.
const holderIndex = "issuer-uid"

func indexHolder(o client.Object) []string {
	if uid := o.GetLabels()[api.LabelIssuerUID]; uid != "" {
		return []string{uid}
	}
	return nil
}

func indexedHolders(copies client.Reader) func(context.Context, types.UID, ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	return func(ctx context.Context, uid types.UID, in ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
		var list metav1.PartialObjectMetadataList
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
		err := copies.List(ctx, &list, append(in, client.MatchingFields{holderIndex: string(uid)}, client.UnsafeDisableDeepCopy)...)
		return list.Items, err
	}
}
