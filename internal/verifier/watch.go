// watch.go feeds the store: informers on the two kinds and on the authoritative
// ConfigMaps in the operator's namespace, and nothing else. Each event touches
// one UID.

package verifier

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// +kubebuilder:rbac:groups=jwks-trust.dev,resources=trustedissuers;clustertrustedissuers,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch,namespace=jwks-trust-system

// watcher takes events from the informers into the store.
type watcher struct {
	store     *Store
	namespace string
	log       logr.Logger
	synced    []toolscache.InformerSynced
}

var (
	_ manager.Runnable               = (*watcher)(nil)
	_ manager.LeaderElectionRunnable = (*watcher)(nil)
)

// SetupWatch registers the store with the informers of c and returns what makes
// the store ready once all they had at the start has arrived: add it to the
// manager. It works on every replica. An error means that c cannot serve one of
// the kinds.
func SetupWatch(ctx context.Context, c cache.Cache, store *Store, operatorNamespace string, log logr.Logger) (manager.Runnable, error) {
	w := &watcher{store: store, namespace: operatorNamespace, log: log}
	for _, watch := range []struct {
		object   client.Object
		handlers toolscache.ResourceEventHandler
	}{
		{&api.TrustedIssuer{}, handlers(w.issuerChanged, w.issuerDeleted)},
		{&api.ClusterTrustedIssuer{}, handlers(w.issuerChanged, w.issuerDeleted)},
		{&corev1.ConfigMap{}, handlers(w.configMapChanged, w.configMapDeleted)},
	} {
		informer, err := c.GetInformer(ctx, watch.object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", watch.object, err)
		}
		registration, err := informer.AddEventHandler(watch.handlers)
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", watch.object, err)
		}
		w.synced = append(w.synced, registration.HasSynced)
	}
	return w, nil
}

// Start makes the store ready when the handlers have seen everything that there
// was at the start, and then waits for the end.
func (w *watcher) Start(ctx context.Context) error {
	if !toolscache.WaitForCacheSync(ctx.Done(), w.synced...) {
		return nil // the end came first
	}
	w.store.ready.Store(true)
	w.log.Info("All issuers and snapshots have been read")
	<-ctx.Done()
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica
// verifies tokens.
func (*watcher) NeedLeaderElection() bool { return false }

// handlers calls changed with the newest state of an object, and deleted with
// its last known one.
func handlers(changed, deleted func(object any)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    changed,
		UpdateFunc: func(_, object any) { changed(object) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			deleted(object)
		},
	}
}

func (w *watcher) issuerChanged(object any) {
	if issuer, ok := object.(api.Issuer); ok {
		w.store.setIssuer(issuer)
	}
}

func (w *watcher) issuerDeleted(object any) {
	if issuer, ok := object.(api.Issuer); ok {
		w.store.deleteIssuer(issuer)
		w.log.V(1).Info("An issuer is gone; its tokens are no longer accepted", "issuer", objectOf(issuer).String())
	}
}

func (w *watcher) configMapChanged(object any) {
	cm, uid := w.authoritative(object)
	if cm == nil {
		return
	}
	if cm.Labels[api.LabelSnapshot] != "true" {
		w.store.setContent(uid, nil)
		return
	}
	data := cm.Data
	if data == nil {
		data = map[string]string{}
	}
	if !w.store.setContent(uid, data) {
		w.log.V(1).Info("A ConfigMap's keys are not those in the issuer's status; they are not used", "configMap", client.ObjectKeyFromObject(cm).String())
	}
}

func (w *watcher) configMapDeleted(object any) {
	if cm, uid := w.authoritative(object); cm != nil {
		w.store.setContent(uid, nil)
	}
}

// authoritative is the ConfigMap if it is one that the verifier reads, by
// namespace and name, and the UID of the issuer that it serves. Its labels are
// not asked whom it serves: others may have changed them.
func (w *watcher) authoritative(object any) (*corev1.ConfigMap, types.UID) {
	cm, ok := object.(*corev1.ConfigMap)
	if !ok || cm.Namespace != w.namespace {
		return nil, ""
	}
	uid, ok := strings.CutPrefix(cm.Name, snapshot.AuthoritativeName(""))
	if !ok || uid == "" {
		return nil, ""
	}
	return cm, types.UID(uid)
}
