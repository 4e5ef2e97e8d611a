// setup.go wires the reconcilers of both kinds to a manager.

package controller

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// +kubebuilder:rbac:groups=jwks-trust.dev,resources=trustedissuers;clustertrustedissuers,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=jwks-trust.dev,resources=trustedissuers/status;clustertrustedissuers/status,verbs=get;patch
// +kubebuilder:rbac:groups=jwks-trust.dev,resources=trustedissuers/finalizers;clustertrustedissuers/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=certificates.k8s.io,resources=clustertrustbundles,verbs=get
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=get,resourceNames=trustedissuers.jwks-trust.dev;clustertrustedissuers.jwks-trust.dev
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch,namespace=jwks-trust-system
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update,namespace=jwks-trust-system

// workers is how many issuers of a kind are reconciled at a time. Fetches hold
// none of them.
const workers = 16

// maxErrorDelay bounds the time between two tries while the API server refuses
// something, so that all is well again soon after it no longer does.
const maxErrorDelay = 20 * time.Second

// Options are what Setup needs besides the manager.
type Options struct {
	// Fetcher gets documents from issuers.
	Fetcher Fetcher
	// OperatorNamespace is where the authoritative ConfigMaps live.
	OperatorNamespace string
	// Queue brings issuers back; the Fetcher has to tell it of changed documents.
	Queue *Queue
	// Copies caches the metadata of our ConfigMaps in all namespaces.
	Copies cache.Cache
	// Tracing takes spans; nil for none.
	Tracing trace.TracerProvider
}

// Setup adds a controller for each kind to the manager.
func Setup(ctx context.Context, mgr ctrl.Manager, o Options) error {
	if err := mgr.GetFieldIndexer().IndexField(ctx, &api.ClusterTrustedIssuer{}, issuerIndex, indexIssuer); err != nil {
		return fmt.Errorf("indexing ClusterTrustedIssuers: %w", err)
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.ConfigMap{}, authorityIndex, indexAuthority); err != nil {
		return fmt.Errorf("indexing authoritative ConfigMaps: %w", err)
	}
	if err := o.Copies.IndexField(ctx, configMapMetadata(), holderIndex, indexHolder); err != nil {
		return fmt.Errorf("indexing ConfigMaps: %w", err)
	}
	kinds := []func() api.Issuer{
		func() api.Issuer { return &api.TrustedIssuer{} },
		func() api.Issuer { return &api.ClusterTrustedIssuer{} },
	}
	for _, newIssuer := range kinds {
		r := &Reconciler{
			New: newIssuer, Client: mgr.GetClient(), Reader: mgr.GetAPIReader(),
			Copies: o.Copies, Holders: indexedHolders(o.Copies),
			Authorities: indexedAuthorities(mgr.GetClient(), newIssuer().IssuerKind()),
			Fetcher:     o.Fetcher, Recorder: mgr.GetEventRecorder(fieldManager), Clock: clock.RealClock{}, OperatorNamespace: o.OperatorNamespace,
			Siblings: indexedSiblings(mgr.GetClient()), Queue: o.Queue,
		}
		if newIssuer().IssuerKind() == api.ClusterTrustedIssuerKind {
			if err := r.Distribute(mgr.GetClient()).setup(mgr, o); err != nil {
				return fmt.Errorf("setting up the distribution: %w", err)
			}
		}
		if err := r.setup(mgr, o); err != nil {
			return fmt.Errorf("setting up the controller for %s: %w", newIssuer().IssuerKind(), err)
		}
	}
	return nil
}

func (r *Reconciler) setup(mgr ctrl.Manager, o Options) error {
	kind := r.New().IssuerKind()
	toIssuer := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, cm *metav1.PartialObjectMetadata) []reconcile.Request {
		return IssuerOf(cm, kind)
	})
	// An event has to come from the cache that the reconciliation then reads:
	// another one may not have the change yet, and nothing would come after it.
	b := ctrl.NewControllerManagedBy(mgr).
		For(r.New()).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, cm client.Object) []reconcile.Request {
			return IssuerOf(cm, kind)
		})).
		WatchesRawSource(source.Func(r.Queue.Listen(kind))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](conflictDelay, maxErrorDelay),
		})
	if kind == api.TrustedIssuerKind {
		b = b.WatchesRawSource(source.Kind(o.Copies, configMapMetadata(), toIssuer))
	} else {
		b = b.Watches(&api.ClusterTrustedIssuer{}, handler.EnqueueRequestsFromMapFunc(r.siblings))
	}
	return b.Complete(traced(o.Tracing, "reconcile", nameOfRequest(kind), reconcile.Reconciler(r)))
}

func configMapMetadata() *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	return m
}

// IssuerOf maps a ConfigMap of ours to its issuer, if that is of the kind.
func IssuerOf(cm client.Object, kind string) []reconcile.Request {
	if cm.GetLabels()[api.LabelIssuerKind] != kind {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: cm.GetAnnotations()[api.AnnotationIssuerNamespace],
		Name:      cm.GetAnnotations()[api.AnnotationIssuerName],
	}}}
}

// issuerIndex finds the ClusterTrustedIssuers that answer TokenReview for an
// issuer.
const issuerIndex = "tokenreview-issuer"

func indexIssuer(o client.Object) []string {
	if i, ok := o.(api.Issuer); ok && i.KubernetesAuthentication() != nil {
		return []string{i.IssuerSpec().Issuer}
	}
	return nil
}

func indexedSiblings(c client.Reader) func(context.Context, string) ([]api.ClusterTrustedIssuer, error) {
	return func(ctx context.Context, issuer string) ([]api.ClusterTrustedIssuer, error) {
		var all api.ClusterTrustedIssuerList
		err := c.List(ctx, &all, client.MatchingFields{issuerIndex: issuer})
		return all.Items, err
	}
}

// siblings are the objects that trust the same issuer as the one that changed:
// when the oldest goes, the next one may answer TokenReview.
func (r *Reconciler) siblings(ctx context.Context, o client.Object) []reconcile.Request {
	i, ok := o.(api.Issuer)
	if !ok {
		return nil
	}
	all, err := r.Siblings(ctx, i.IssuerSpec().Issuer)
	if err != nil {
		return nil
	}
	var out []reconcile.Request
	for _, sibling := range all {
		if sibling.Name != o.GetName() {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: sibling.Name}})
		}
	}
	return out
}

// olderSibling names the ClusterTrustedIssuer that answers TokenReview in place
// of this one, if there is any: the oldest wins, then the first by name.
func (r *Reconciler) olderSibling(ctx context.Context, issuer api.Issuer) (string, error) {
	if issuer.KubernetesAuthentication() == nil {
		return "", nil
	}
	all, err := r.Siblings(ctx, issuer.IssuerSpec().Issuer)
	if err != nil {
		return "", fmt.Errorf("listing ClusterTrustedIssuers: %w", err)
	}
	for _, other := range all {
		mine, theirs := issuer.GetCreationTimestamp(), other.CreationTimestamp
		older := theirs.Before(&mine) || theirs.Equal(&mine) && other.Name < issuer.GetName()
		if older && other.DeletionTimestamp.IsZero() {
			return other.Name, nil
		}
	}
	return "", nil
}

// algorithms are those that the spec allows; all where it does not say.
func algorithms(spec *api.IssuerSpec) []keyset.Algorithm {
	if len(spec.AllowedAlgorithms) == 0 {
		return keyset.Algorithms()
	}
	out := make([]keyset.Algorithm, 0, len(spec.AllowedAlgorithms))
	for _, a := range spec.AllowedAlgorithms {
		out = append(out, keyset.Algorithm(a))
	}
	return out
}

func keyUses(spec *api.IssuerSpec) []string {
	out := make([]string, 0, len(spec.KeyUses))
	for _, u := range spec.KeyUses {
		out = append(out, string(u))
	}
	return out
}

// revoked are the thumbprints of compromised keys, and the kids and thumbprints
// that spec revokes.
func revoked(issuer api.Issuer) map[string]struct{} {
	out := map[string]struct{}{}
	for _, k := range issuer.IssuerStatus().CompromisedKeys {
		out[k.Thumbprint] = struct{}{}
	}
	for _, name := range issuer.IssuerSpec().RevokedKeys {
		out[name] = struct{}{}
	}
	return out
}

func maxRedirects(spec *api.IssuerSpec) int {
	if spec.MaxRedirects == nil {
		return 0
	}
	return int(*spec.MaxRedirects)
}
