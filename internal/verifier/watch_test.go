// watch_test.go sends the events of informers into a store.

package verifier

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

const operatorNamespace = "jwks-trust-system"

// watched is a store that is fed by informers under the test's control.
type watched struct {
	store                         *Store
	runnable                      interface{ Start(context.Context) error }
	issuers, clusters, configMaps *controllertest.FakeInformer
}

func watch(t *testing.T) watched {
	t.Helper()
	g := NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	g.Expect(api.AddToScheme(scheme)).To(Succeed())
	w := watched{
		store:   NewStore(nil),
		issuers: controllertest.NewFakeInformer(), clusters: controllertest.NewFakeInformer(), configMaps: controllertest.NewFakeInformer(),
	}
	w.store.now = newStore().now
	informers := &informertest.FakeInformers{Scheme: scheme, InformersByGVK: map[schema.GroupVersionKind]toolscache.SharedIndexInformer{
		api.GroupVersion.WithKind(api.TrustedIssuerKind):        w.issuers,
		api.GroupVersion.WithKind(api.ClusterTrustedIssuerKind): w.clusters,
		corev1.SchemeGroupVersion.WithKind("ConfigMap"):         w.configMaps,
	}}
	runnable, err := SetupWatch(t.Context(), informers, w.store, operatorNamespace, logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	w.runnable = runnable
	return w
}

func configMap(t *testing.T, namespace, name string, set *keyset.Set) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{api.LabelSnapshot: "true"}},
		Data:       content(t, set),
	}
}

func TestWatchJoinsByUID(t *testing.T) {
	g := NewWithT(t)
	w := watch(t)
	set := keySet(t, ec("a"))
	w.clusters.Add(cluster(publishes(set, start)))
	w.configMaps.Add(configMap(t, operatorNamespace, snapshot.AuthoritativeName(uid), set))
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(Accepted))

	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: "main", UID: "ti"}}
	ti.Spec.IssuerSpec = cluster().Spec.IssuerSpec
	ti.Status = cluster(publishes(set, start)).Status
	w.issuers.Add(ti)
	w.configMaps.Add(configMap(t, operatorNamespace, "jwks-ti", set))
	g.Expect(reasonFor(w.store, Object{api.TrustedIssuerKind, "orders", "main"}, ec("a"))).To(Equal(Accepted))

	w.clusters.Delete(cluster())
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(UnknownIssuer))
	w.issuers.Delete(ti)
	g.Expect(reasonFor(w.store, Object{api.TrustedIssuerKind, "orders", "main"}, ec("a"))).To(Equal(UnknownIssuer))
}

// A ConfigMap counts by its place and its label alone.
func TestWatchReadsAuthoritativeConfigMapsAlone(t *testing.T) {
	set := keySet(t, ec("a"))
	name := snapshot.AuthoritativeName(uid)
	unlabeled := configMap(t, operatorNamespace, name, set)
	unlabeled.Labels = map[string]string{api.LabelIssuerUID: string(uid)}
	relabeled := configMap(t, operatorNamespace, "jwks-else", set)
	relabeled.Labels[api.LabelIssuerUID] = string(uid)
	for title, cm := range map[string]*corev1.ConfigMap{
		"THREATS 39: in the tenant's namespace":            configMap(t, "orders", name, set),
		"THREATS 39: the tenant's copy":                    configMap(t, "orders", "main-jwks", set),
		"a copy in the operator's namespace":               configMap(t, operatorNamespace, "main-jwks", set),
		"THREATS 40: without our label":                    unlabeled,
		"another name, with the issuer's UID in the label": relabeled,
		"no UID at all":                                    configMap(t, operatorNamespace, "jwks-", set),
	} {
		t.Run(title, func(t *testing.T) {
			w := watch(t)
			w.clusters.Add(cluster(publishes(set, start)))
			w.configMaps.Add(cm)
			NewWithT(t).Expect(reasonFor(w.store, object, ec("a"))).To(Equal(NoSnapshot))
		})
	}
}

func TestWatchHoldsThroughTampering(t *testing.T) {
	g := NewWithT(t)
	w := watch(t)
	set, evil := keySet(t, ec("a")), keySet(t, ec("b"))
	good := configMap(t, operatorNamespace, snapshot.AuthoritativeName(uid), set)
	w.clusters.Add(cluster(publishes(set, start)))
	w.configMaps.Add(good)

	tampered := configMap(t, operatorNamespace, good.Name, evil)
	w.configMaps.Update(good, tampered)
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(Accepted), "THREATS 39")
	g.Expect(reasonFor(w.store, object, ec("b"))).To(Equal(UnknownKey), "THREATS 39")
	unlabeled := good.DeepCopy()
	unlabeled.Labels = nil
	w.configMaps.Update(tampered, unlabeled)
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(Accepted), "the label taken off")
	emptied := good.DeepCopy()
	emptied.Data = nil
	w.configMaps.Update(unlabeled, emptied)
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(Accepted), "emptied")
	w.configMaps.Delete(emptied)
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(Accepted), "deleted")
}

// An informer that was away hands over the last state that it knew.
func TestWatchMissedDeletion(t *testing.T) {
	g := NewWithT(t)
	w := watch(t)
	set := keySet(t, ec("a"))
	c := cluster(publishes(set, start))
	w.clusters.Add(c)
	missed := handlers(func(any) {}, (&watcher{store: w.store}).issuerDeleted)
	missed.OnDelete(toolscache.DeletedFinalStateUnknown{Key: c.Name, Obj: c})
	_, ok := w.store.ForObject(object)
	g.Expect(ok).To(BeFalse())
	missed.OnDelete(toolscache.DeletedFinalStateUnknown{Key: c.Name})
}

// An object that was deleted and made again between two events comes as an update.
func TestWatchReplacedObject(t *testing.T) {
	g := NewWithT(t)
	w := watch(t)
	set := keySet(t, ec("a"))
	first, second := cluster(publishes(set, start)), cluster(publishes(set, start), identity("main", "second"))
	w.clusters.Add(first)
	w.configMaps.Add(configMap(t, operatorNamespace, snapshot.AuthoritativeName(uid), set))
	w.clusters.Update(first, second)
	g.Expect(reasonFor(w.store, object, ec("a"))).To(Equal(NoSnapshot))
}

func TestWatchReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		w := watch(t)
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		go func() { err = w.runnable.Start(ctx) }()

		w.clusters.Add(cluster(identity("broken", "broken"), func(c *api.ClusterTrustedIssuer) {
			c.Status.Snapshot = &api.SnapshotStatus{Digest: "sha256:gone"}
		}))
		w.issuers.Synced()
		w.clusters.Synced()
		pass(time.Hour)
		g.Expect(w.store.Ready()).To(BeFalse(), "THREATS 65: not before every snapshot has been read")
		g.Expect(w.store.ReadyCheck(nil)).NotTo(Succeed())

		w.configMaps.Synced()
		pass(time.Second)
		g.Expect(w.store.Ready()).To(BeTrue(), "THREATS 65: one bad issuer does not block it")
		g.Expect(w.store.ReadyCheck(nil)).To(Succeed())

		cancel()
		synctest.Wait()
		g.Expect(err).NotTo(HaveOccurred())
	})
}

// pass lets time go by on the clock of a synctest bubble.
func pass(d time.Duration) {
	<-time.NewTimer(d).C
	synctest.Wait()
}

func TestWatchEndsBeforeItIsReady(t *testing.T) {
	g := NewWithT(t)
	w := watch(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(w.runnable.Start(ctx)).To(Succeed())
	g.Expect(w.store.Ready()).To(BeFalse())
}

func TestWatchNeedsItsKinds(t *testing.T) {
	g := NewWithT(t)
	_, err := SetupWatch(t.Context(), &informertest.FakeInformers{Error: errors.New("no such kind")}, NewStore(nil), operatorNamespace, logr.Discard())
	g.Expect(err).To(HaveOccurred())
}

func TestWatchRunsOnEveryReplica(t *testing.T) {
	g := NewWithT(t)
	g.Expect((&watcher{}).NeedLeaderElection()).To(BeFalse())
	g.Expect((&Server{}).NeedLeaderElection()).To(BeFalse())
}

// The store never lists: an event about one issuer leaves the entry of another
// as it is.
func TestWatchTouchesOneIssuerPerEvent(t *testing.T) {
	g := NewWithT(t)
	w := watch(t)
	w.clusters.Add(cluster())
	other := cluster(identity("other", types.UID("other")))
	w.clusters.Add(other)
	before, _ := w.store.ForObject(object)
	w.clusters.Update(other, other)
	after, _ := w.store.ForObject(object)
	g.Expect(after).To(BeIdenticalTo(before))
}
