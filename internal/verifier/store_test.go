// store_test.go covers the index: who is found, and for how long.

package verifier

import (
	"fmt"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// newStore is a ready store whose clock stands at start.
func newStore() *Store {
	s := NewStore(func() time.Time { return start })
	s.ready.Store(true)
	return s
}

// put stores an issuer object with its ConfigMap.
func (s *Store) put(t testing.TB, c *api.ClusterTrustedIssuer, set *keyset.Set) {
	t.Helper()
	s.setIssuer(c)
	s.setContent(c.UID, content(t, set))
}

// reason judges a good token of the key for an object.
func reasonFor(s *Store, o Object, k *testissuer.Key) Reason {
	issuer, ok := s.ForObject(o)
	if !ok {
		return UnknownIssuer
	}
	return Verify(k.Sign(claims(nil)), issuer, start).Reason
}

// identity names an object.
func identity(name string, uid types.UID) edit {
	return func(c *api.ClusterTrustedIssuer) { c.Name, c.UID = name, uid }
}

func createdAt(at time.Time) edit {
	return func(c *api.ClusterTrustedIssuer) { c.CreationTimestamp = metav1.NewTime(at) }
}

func TestStoreOrderOfArrivalDoesNotMatter(t *testing.T) {
	g := NewWithT(t)
	set := keySet(t, ec("a"))
	issuerFirst, contentFirst := newStore(), newStore()
	issuerFirst.setIssuer(cluster(publishes(set, start)))
	g.Expect(reasonFor(issuerFirst, object, ec("a"))).To(Equal(NoSnapshot))
	issuerFirst.setContent(uid, content(t, set))
	contentFirst.setContent(uid, content(t, set))
	contentFirst.setIssuer(cluster(publishes(set, start)))
	g.Expect(reasonFor(issuerFirst, object, ec("a"))).To(Equal(Accepted))
	g.Expect(reasonFor(contentFirst, object, ec("a"))).To(Equal(Accepted))
}

func TestStoreDeletionWithdrawsAtOnce(t *testing.T) {
	set := keySet(t, ec("a"))
	for name, end := range map[string]func(*Store){
		"deletionTimestamp": func(s *Store) {
			s.setIssuer(cluster(publishes(set, start), func(c *api.ClusterTrustedIssuer) {
				c.DeletionTimestamp = &metav1.Time{Time: start}
			}))
		},
		"gone": func(s *Store) { s.deleteIssuer(cluster()) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newStore()
			s.put(t, cluster(publishes(set, start)), set)
			end(s)
			g.Expect(reasonFor(s, object, ec("a"))).To(Equal(UnknownIssuer))
			_, ok := s.ForTokenReview(issuerName)
			g.Expect(ok).To(BeFalse())
			s.setContent(uid, content(t, set))
			g.Expect(reasonFor(s, object, ec("a"))).To(Equal(UnknownIssuer), "a late event of the ConfigMap brings nothing back")
			s.setContent(uid, nil)
			g.Expect(s.records).To(BeEmpty(), "nothing is kept")
			g.Expect(s.current).To(BeEmpty(), "nothing is kept")
		})
	}
}

func TestStoreNewUIDUnderTheSameName(t *testing.T) {
	g := NewWithT(t)
	set := keySet(t, ec("a"))
	s := newStore()
	s.put(t, cluster(publishes(set, start)), set)
	s.setIssuer(cluster(publishes(set, start), identity("main", "second")))
	g.Expect(reasonFor(s, object, ec("a"))).To(Equal(NoSnapshot), "another UID is another issuer: nothing carries over")
	s.deleteIssuer(cluster())
	_, ok := s.ForObject(object)
	g.Expect(ok).To(BeTrue(), "a late deletion of the first does not touch the second")
	s.setContent("second", content(t, set))
	g.Expect(reasonFor(s, object, ec("a"))).To(Equal(Accepted))
	s.setContent(uid, nil)
	g.Expect(s.records).To(HaveLen(1))
	s.setIssuer(cluster(identity("main", "third")))
	g.Expect(s.byIssuer[issuerName]).To(HaveLen(1), "the second is gone from every index")
}

func TestStoreKeepsKindsAndNamespacesApart(t *testing.T) {
	g := NewWithT(t)
	s := newStore()
	s.setIssuer(cluster())
	for _, namespace := range []string{"orders", "billing"} {
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "main", Namespace: namespace, UID: types.UID(namespace)}}
		ti.Spec.Issuer = issuerName
		s.setIssuer(ti)
	}
	for _, o := range []Object{object, {api.TrustedIssuerKind, "orders", "main"}, {api.TrustedIssuerKind, "billing", "main"}} {
		issuer, ok := s.ForObject(o)
		g.Expect(ok).To(BeTrue(), o.String())
		g.Expect(issuer.Object).To(Equal(o))
	}
	_, ok := s.ForObject(Object{Kind: api.TrustedIssuerKind, Name: "main"})
	g.Expect(ok).To(BeFalse())
	only, _ := s.ForTokenReview(issuerName)
	g.Expect(only.Object).To(Equal(object), "a namespaced issuer never answers TokenReview")
	g.Expect(s.byIssuer[issuerName]).To(HaveLen(1))
}

func TestStoreTokenReviewPicksTheOldest(t *testing.T) {
	g := NewWithT(t)
	s := newStore()
	answers := func() string {
		issuer, ok := s.ForTokenReview(issuerName)
		if !ok {
			return ""
		}
		return issuer.Object.Name
	}
	noAuthentication := func(c *api.ClusterTrustedIssuer) { c.Spec.KubernetesAuthentication = nil }
	s.setIssuer(cluster(identity("young", "1"), createdAt(start)))
	g.Expect(answers()).To(Equal("young"))
	s.setIssuer(cluster(identity("b", "2"), createdAt(start.Add(-time.Hour))))
	s.setIssuer(cluster(identity("a", "3"), createdAt(start.Add(-time.Hour))))
	g.Expect(answers()).To(Equal("a"), "the oldest, then by name")
	s.setIssuer(cluster(identity("oldest", "4"), createdAt(start.Add(-9*time.Hour)), noAuthentication))
	g.Expect(answers()).To(Equal("a"), "one without kubernetesAuthentication does not count")
	s.setIssuer(cluster(identity("a", "3"), createdAt(start.Add(-time.Hour)), noAuthentication))
	g.Expect(answers()).To(Equal("b"), "the next one takes over")
	s.deleteIssuer(cluster(identity("b", "2")))
	g.Expect(answers()).To(Equal("young"))
	s.deleteIssuer(cluster(identity("young", "1")))
	g.Expect(answers()).To(BeEmpty())
	g.Expect(s.byIssuer).To(BeEmpty())
}

func TestStoreTokenReviewComparesExactly(t *testing.T) {
	g := NewWithT(t)
	s := newStore()
	s.setIssuer(cluster())
	for _, iss := range []string{"", issuerName[:len(issuerName)-1], issuerName + "/", "HTTPS://issuer.example.com/"} {
		_, ok := s.ForTokenReview(iss)
		g.Expect(ok).To(BeFalse(), "THREATS 12: %q", iss)
	}
}

// Readers go on while writers replace what they read.
func TestStoreConcurrency(t *testing.T) {
	set, other := keySet(t, ec("a")), keySet(t, ec("a"), ec("b"))
	s := newStore()
	s.put(t, cluster(publishes(set, start)), set)
	token := ec("a").Sign(claims(nil))
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				issuer, ok := s.ForTokenReview(issuerName)
				if !ok || Verify(token, issuer, start).Outcome != Accept {
					t.Error("a trusted token was not accepted while the store changed")
					return
				}
			}
		})
	}
	writers.Go(func() {
		for range 100 {
			s.setIssuer(cluster(publishes(other, start)))
			s.setIssuer(cluster(publishes(set, start), pending(other)))
		}
	})
	writers.Go(func() {
		for range 100 {
			s.setContent(uid, content(t, other))
			s.setContent(uid, content(t, set))
			s.setContent(uid, nil)
		}
	})
	writers.Go(func() {
		for i := range 100 {
			s.setIssuer(cluster(identity(fmt.Sprint("n", i), types.UID(fmt.Sprint(i))), createdAt(start)))
			s.deleteIssuer(cluster(identity(fmt.Sprint("n", i), types.UID(fmt.Sprint(i)))))
		}
	})
	writers.Wait()
	close(done)
	readers.Wait()
}
