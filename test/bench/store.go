package bench

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

const (
	objectName = "main"
	objectUID  = types.UID("0d6f4b2a-1111-2222-3333-444455556666")
	namespace  = "jwks-trust-system"
)

// newStore is a store that has read the issuer's object and its key set the way
// it does in a cluster: from informers, here without an API server behind them.
// It is ready until the context ends.
func newStore(ctx context.Context, f *fixture) (*verifier.Store, error) {
	object, content, err := published(f)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	informers := &informertest.FakeInformers{Scheme: scheme}
	store := verifier.NewStore(nil)
	watch, err := verifier.SetupWatch(ctx, informers, store, namespace, logr.Discard())
	if err != nil {
		return nil, err
	}
	for _, o := range []client.Object{object, content} {
		informer, err := informers.FakeInformerFor(ctx, o)
		if err != nil {
			return nil, err
		}
		informer.Add(o)
	}
	go func() { _ = watch.Start(ctx) }() // ends with the context, without an error
	return store, waitUntil(ctx, store.Ready)
}

// published is an issuer object whose key set is trusted, and the ConfigMap with
// that set.
func published(f *fixture) (*api.ClusterTrustedIssuer, *corev1.ConfigMap, error) {
	jwks, err := f.jwks()
	if err != nil {
		return nil, nil, err
	}
	parsed, err := keyset.Parse(jwks, keyset.Policy{})
	if err != nil {
		return nil, nil, err
	}
	data, err := snapshot.Encode(parsed.Set, snapshot.Descriptor{Kind: api.ClusterTrustedIssuerKind, Name: objectName, Issuer: issuerURL})
	if err != nil {
		return nil, nil, err
	}
	content := &corev1.ConfigMap{Data: data}
	content.Namespace, content.Name = namespace, snapshot.AuthoritativeName(objectUID)
	content.Labels = map[string]string{api.LabelSnapshot: "true"}
	return issuerObject(f, parsed.Set), content, nil
}

func issuerObject(f *fixture, set *keyset.Set) *api.ClusterTrustedIssuer {
	at := metav1.NewTime(f.start)
	o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: objectName, UID: objectUID, Generation: 1, CreationTimestamp: at}}
	o.Spec.Issuer = issuerURL
	o.Spec.Audiences = []string{audience}
	o.Spec.AllowedAlgorithms = []api.Algorithm{api.Algorithm(f.algorithm)}
	o.Spec.JWKSURI = issuerURL + "jwks.json"
	o.Spec.CacheTTL = &metav1.Duration{Duration: lifetime}
	o.Spec.StaleTTL = &metav1.Duration{Duration: lifetime}
	o.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "ext:", GroupsPrefix: "ext:"}
	o.Status.Snapshot = &api.SnapshotStatus{
		Digest: set.Digest(), ObservedGeneration: 1, LastSuccessTime: &at, ExpiresAt: &metav1.Time{Time: f.start.Add(lifetime)},
	}
	for _, k := range set.Keys() {
		o.Status.Keys = append(o.Status.Keys, api.KeyStatus{KeyID: k.KeyID(), Thumbprint: k.Thumbprint(), State: api.KeyActive})
	}
	return o
}

// issuerOf is what the store knows of the issuer.
func issuerOf(store *verifier.Store) (*verifier.Issuer, error) {
	issuer, ok := store.ForObject(verifier.Object{Kind: api.ClusterTrustedIssuerKind, Name: objectName})
	if !ok {
		return nil, errors.New("the store does not know the issuer")
	}
	return issuer, nil
}

// waitUntil waits for what other goroutines are about to bring about.
func waitUntil(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
