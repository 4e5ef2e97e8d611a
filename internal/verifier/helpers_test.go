// helpers_test.go makes issuers, snapshots and tokens for the tests of this
// package.

package verifier

import (
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

const (
	issuerName = "https://issuer.example.com/"
	audience   = "https://orders.example.com"
	subject    = "alice"
	uid        = types.UID("0d6f4b2a-1111-2222-3333-444455556666")
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// keys are made once: making RSA keys is slow.
var (
	keysLock sync.Mutex
	keys     = map[string]*testissuer.Key{}
)

// key is the key of that name; the same name always gives the same key.
func key(kid, algorithm string) *testissuer.Key {
	keysLock.Lock()
	defer keysLock.Unlock()
	name := kid + " " + algorithm
	if keys[name] == nil {
		keys[name] = testissuer.NewKey(kid, algorithm)
	}
	return keys[name]
}

func ec(kid string) *testissuer.Key { return key(kid, "ES256") }

// keySet is the admitted set of these keys.
func keySet(t testing.TB, keys ...*testissuer.Key) *keyset.Set {
	t.Helper()
	jwks := make([]any, 0, len(keys))
	for _, k := range keys {
		jwks = append(jwks, k.JWK())
	}
	return parsed(t, jwks...)
}

// parsed is the admitted set of these JSON Web Keys.
func parsed(t testing.TB, jwks ...any) *keyset.Set {
	t.Helper()
	g := NewWithT(t)
	document, err := json.Marshal(map[string]any{"keys": jwks})
	g.Expect(err).NotTo(HaveOccurred())
	p, err := keyset.Parse(document, keyset.Policy{})
	g.Expect(err).NotTo(HaveOccurred())
	return p.Set
}

// content is the data of a ConfigMap with the set.
func content(t testing.TB, set *keyset.Set) map[string]string {
	t.Helper()
	data, err := snapshot.Encode(set, snapshot.Descriptor{Kind: api.ClusterTrustedIssuerKind, Name: "main", Issuer: issuerName})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return data
}

// edit changes a ClusterTrustedIssuer.
type edit func(*api.ClusterTrustedIssuer)

// cluster is a ClusterTrustedIssuer for TokenReview that nothing has been
// published for.
func cluster(edits ...edit) *api.ClusterTrustedIssuer {
	c := &api.ClusterTrustedIssuer{
		ObjectMeta: metav1.ObjectMeta{Name: "main", UID: uid, Generation: 1, CreationTimestamp: metav1.NewTime(start.Add(-time.Hour))},
	}
	c.Spec.Issuer = issuerName
	c.Spec.Audiences = []string{"https://other.example.com", audience}
	c.Spec.JWKSURI = issuerName + "jwks.json"
	c.Spec.CacheTTL = &metav1.Duration{Duration: 10 * time.Minute}
	c.Spec.StaleTTL = &metav1.Duration{Duration: time.Hour}
	c.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "ext:", GroupsPrefix: "ext:"}
	for _, e := range edits {
		e(c)
	}
	return c
}

// publishes makes status name the set as the trusted one, confirmed at the time
// at.
func publishes(set *keyset.Set, at time.Time) edit {
	return func(c *api.ClusterTrustedIssuer) {
		c.Status.Snapshot = &api.SnapshotStatus{
			Digest: set.Digest(), ObservedGeneration: c.Generation, LastSuccessTime: &metav1.Time{Time: at},
		}
		if c.Spec.JWKS == "" {
			c.Status.Snapshot.ExpiresAt = &metav1.Time{Time: at.Add(time.Hour)}
		}
		c.Status.Keys = nil
		for _, k := range set.Keys() {
			c.Status.Keys = append(c.Status.Keys, api.KeyStatus{KeyID: k.KeyID(), Thumbprint: k.Thumbprint(), State: api.KeyActive})
		}
	}
}

// pending makes status name the set as the one that is being published.
func pending(set *keyset.Set) edit {
	return func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.PendingDigest = set.Digest() }
}

// algorithms limits the algorithms in spec.
func algorithms(a ...api.Algorithm) edit {
	return func(c *api.ClusterTrustedIssuer) { c.Spec.AllowedAlgorithms = a }
}

// compromised lists keys of the set in status.compromisedKeys.
func compromised(set *keyset.Set, kids ...string) edit {
	return func(c *api.ClusterTrustedIssuer) {
		for _, k := range set.Keys() {
			for _, kid := range kids {
				if k.KeyID() == kid {
					c.Status.CompromisedKeys = append(c.Status.CompromisedKeys, api.CompromisedKey{KeyID: kid, Thumbprint: k.Thumbprint()})
				}
			}
		}
	}
}

// trusted is what the verifier knows of an issuer whose set is published and
// confirmed at start.
func trusted(t testing.TB, set *keyset.Set, edits ...edit) *Issuer {
	t.Helper()
	return join(cluster(append([]edit{publishes(set, start)}, edits...)...), content(t, set), nil, start)
}

// absent as a claim leaves it out.
type absent struct{}

// claims are those of a good token, with some of them changed.
func claims(changes map[string]any) map[string]any {
	c := testissuer.Claims(issuerName, subject, audience, start, 10*time.Minute)
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == absent{} })
	return c
}

// object is the Object of cluster().
var object = Object{Kind: api.ClusterTrustedIssuerKind, Name: "main"}
