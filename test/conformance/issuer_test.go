// issuer_test.go brings an issuer into a store in the way that a cluster does.
package conformance

import (
	"errors"
	"testing"
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
	issuerURL  = "https://issuer.example.com/"
	audience   = "https://orders.example.com"
	namespace  = "jwks-trust-system"
)

// start is when the tests take place.
var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// edit changes an issuer object.
type edit func(*api.ClusterTrustedIssuer)

// newStore knows one issuer, with the keys of the document that are admitted.
func newStore(t *testing.T, document []byte, edits ...edit) *verifier.Store {
	t.Helper()
	parsed, err := keyset.Parse(document, keyset.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	object := issuerObject(parsed.Set, edits...)
	data, err := snapshot.Encode(parsed.Set, snapshot.Descriptor{Kind: api.ClusterTrustedIssuerKind, Name: objectName, Issuer: issuerURL})
	if err != nil {
		t.Fatal(err)
	}
	content := &corev1.ConfigMap{Data: data}
	content.Namespace, content.Name = namespace, snapshot.AuthoritativeName(object.UID)
	content.Labels = map[string]string{api.LabelSnapshot: "true"}

	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	informers := &informertest.FakeInformers{Scheme: scheme}
	store := verifier.NewStore(func() time.Time { return start })
	watch, err := verifier.SetupWatch(t.Context(), informers, store, namespace, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{object, content} {
		informer, err := informers.FakeInformerFor(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		informer.Add(o)
	}
	go func() { _ = watch.Start(t.Context()) }() // ends with the test, without an error
	for deadline := time.Now().Add(10 * time.Second); !store.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the store is not ready")
		}
	}
	return store
}

func issuerObject(set *keyset.Set, edits ...edit) *api.ClusterTrustedIssuer {
	at := metav1.NewTime(start)
	o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{
		Name: objectName, UID: types.UID("0d6f4b2a-1111-2222-3333-444455556666"), Generation: 1, CreationTimestamp: at,
	}}
	o.Spec.Issuer = issuerURL
	o.Spec.Audiences = []string{audience}
	o.Spec.JWKSURI = issuerURL + "jwks.json"
	o.Spec.CacheTTL = &metav1.Duration{Duration: time.Hour}
	o.Spec.StaleTTL = &metav1.Duration{Duration: time.Hour}
	o.Status.Snapshot = &api.SnapshotStatus{
		Digest: set.Digest(), ObservedGeneration: 1, LastSuccessTime: &at, ExpiresAt: &metav1.Time{Time: start.Add(time.Hour)},
	}
	for _, k := range set.Keys() {
		o.Status.Keys = append(o.Status.Keys, api.KeyStatus{KeyID: k.KeyID(), Thumbprint: k.Thumbprint(), State: api.KeyActive})
	}
	for _, e := range edits {
		e(o)
	}
	return o
}

// newIssuer is what a store knows of the issuer.
func newIssuer(t *testing.T, document []byte, edits ...edit) *verifier.Issuer {
	t.Helper()
	issuer, ok := newStore(t, document, edits...).ForObject(verifier.Object{Kind: api.ClusterTrustedIssuerKind, Name: objectName})
	if !ok {
		t.Fatal("the store does not know the issuer")
	}
	return issuer
}
