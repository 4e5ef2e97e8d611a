// join_test.go plays the events that can reach an issuer, in every order that matters.

package verifier

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// scenario is the life of one issuer: events come in, and what is known moves on.
type scenario struct {
	t      *testing.T
	now    time.Time
	object *api.ClusterTrustedIssuer
	data   map[string]string
	issuer *Issuer
}

// begin is a scenario at the time start with a published set.
func begin(t *testing.T, set *keyset.Set, edits ...edit) *scenario {
	s := &scenario{t: t, now: start, object: cluster(append([]edit{publishes(set, start)}, edits...)...), data: content(t, set)}
	s.join()
	return s
}

func (s *scenario) join() { s.issuer = join(s.object, s.data, s.issuer, s.now) }

// status is an event on the issuer object.
func (s *scenario) status(edits ...edit) {
	s.object = s.object.DeepCopy()
	for _, e := range edits {
		e(s.object)
	}
	s.join()
}

// configMap is an event on the ConfigMap; nil data is its deletion.
func (s *scenario) configMap(data map[string]string) {
	s.data = data
	s.join()
}

// restart forgets what was known.
func (s *scenario) restart() { s.issuer = nil; s.join() }

// expect judges a long-lived token of the key.
func (s *scenario) expect(k *testissuer.Key, want Reason, why string) {
	s.t.Helper()
	token := k.Sign(claims(map[string]any{"exp": start.Add(10000 * time.Hour).Unix()}))
	NewWithT(s.t).Expect(Verify(token, s.issuer, s.now).Reason).To(Equal(want), why)
}

// states sets the state of listed keys, by kid.
func states(byKid map[string]api.KeyState) edit {
	return func(c *api.ClusterTrustedIssuer) {
		for i := range c.Status.Keys {
			if state, ok := byKid[c.Status.Keys[i].KeyID]; ok {
				c.Status.Keys[i].State = state
			}
		}
	}
}

// lists makes status list these keys as Active, and changes nothing else in it.
func lists(set *keyset.Set) edit {
	return func(c *api.ClusterTrustedIssuer) {
		before := c.Status.Snapshot.DeepCopy()
		publishes(set, start)(c)
		c.Status.Snapshot = before
	}
}

func TestJoinTwoPhasePublishing(t *testing.T) {
	a, b := ec("a"), ec("b")
	old, next := keySet(t, a), keySet(t, a, b)
	s := begin(t, old)
	s.expect(b, UnknownKey, "not published yet")

	s.status(pending(next))
	s.expect(a, Accepted, "the old content is still trusted")
	s.expect(b, UnknownKey, "the new one is not there yet")

	s.configMap(content(t, next))
	s.expect(b, Accepted, "the pending digest counts")
	s.restart()
	s.expect(b, Accepted, "and does so right after a start: a crash between two writes harms nobody")

	s.status(publishes(next, start))
	s.expect(a, Accepted, "settled")
	s.expect(b, Accepted, "settled")
}

func TestJoinFirstPublication(t *testing.T) {
	set := keySet(t, ec("a"))
	s := &scenario{t: t, now: start, object: cluster(func(c *api.ClusterTrustedIssuer) {
		c.Status.Snapshot = &api.SnapshotStatus{PendingDigest: set.Digest(), LastSuccessTime: &metav1.Time{Time: start}}
	})}
	s.join()
	s.expect(ec("a"), NoSnapshot, "nothing there yet")
	s.configMap(content(t, set))
	s.expect(ec("a"), Accepted, "status already has the time of the success")
}

func TestJoinWhenConfigMapEventComesFirst(t *testing.T) {
	a, b := ec("a"), ec("b")
	old, next := keySet(t, a), keySet(t, b)
	s := begin(t, old)
	s.configMap(content(t, next))
	s.expect(a, Accepted, "the held set goes on")
	s.expect(b, UnknownKey, "content is not believed before status names it")
	s.status(pending(next))
	s.expect(b, Accepted, "now it is")
	s.expect(a, UnknownKey, "and the old one is gone")
}

func TestJoinWhenConfigMapEventComesLast(t *testing.T) {
	a, b, c := ec("a"), ec("b"), ec("c")
	s := begin(t, keySet(t, a, b))
	s.status(publishes(keySet(t, b, c), start))
	s.expect(b, Accepted, "b is in both sets")
	s.expect(a, UnknownKey, "a held set is intersected with the keys in status: a removal acts at once")
	s.expect(c, UnknownKey, "c has not arrived")
	s.configMap(content(t, keySet(t, b, c)))
	s.expect(c, Accepted, "now it has")
}

func TestJoinIgnoresTamperedConfigMap(t *testing.T) {
	good, evil := ec("k"), testissuer.NewKey("k", "ES256")
	set := keySet(t, good)
	for name, data := range map[string]map[string]string{
		"the attacker's key under our kid":    content(t, keySet(t, evil)),
		"the attacker's key beside ours":      content(t, keySet(t, good, testissuer.NewKey("e", "ES256"))),
		"no data":                             {},
		"no jwks.json":                        {snapshot.KeyJWKS: string(set.JSON())},
		"an empty jwks.json":                  {snapshot.KeyJWKSJSON: ""},
		"a space more":                        {snapshot.KeyJWKSJSON: string(set.JSON()) + " "},
		"nonsense":                            {snapshot.KeyJWKSJSON: "{"},
		"deleted":                             nil,
		"our keys, but in another data entry": {"other": string(set.JSON())},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, set)
			s.configMap(data)
			s.expect(good, Accepted, "THREATS 39: the verifier is unaffected")
			s.expect(evil, SignatureInvalid, "THREATS 39: nothing is injected")

			s.now = start.Add(50 * time.Minute)
			s.status(publishes(set, s.now))
			s.now = start.Add(100 * time.Minute)
			s.join()
			s.expect(good, Accepted, "status goes on naming the held set: its successes count")

			s.restart()
			s.expect(good, NoSnapshot, "THREATS 58: after a start with nothing to hold, cannot decide")
			s.configMap(content(t, set))
			s.expect(good, Accepted, "repaired")
		})
	}
}

func TestJoinIgnoresConfigMapWithUntouchedAnnotations(t *testing.T) {
	evil := testissuer.NewKey("k", "ES256")
	data := content(t, keySet(t, ec("k")))
	data[snapshot.KeyJWKSJSON] = content(t, keySet(t, evil))[snapshot.KeyJWKSJSON]
	s := begin(t, keySet(t, ec("k")))
	s.configMap(data)
	s.expect(evil, SignatureInvalid, "THREATS 39: issuer.json still names the right digest; only the bytes count")
}

func TestJoinRefusesRollback(t *testing.T) {
	a, b := ec("a"), ec("b")
	old, next := keySet(t, a, b), keySet(t, b)
	s := begin(t, old)
	s.status(publishes(next, start))
	s.configMap(content(t, next))
	s.expect(a, UnknownKey, "removed")
	s.configMap(content(t, old))
	s.expect(a, UnknownKey, "THREATS 39: an older set does not come back")
	s.expect(b, Accepted, "THREATS 39: and the trusted one goes on")
	s.restart()
	s.expect(a, NoSnapshot, "THREATS 39: nor after a start")
}

func TestJoinHeldSetKeepsItsOwnExpiry(t *testing.T) {
	a := ec("a")
	set, other := keySet(t, a), keySet(t, a, ec("b"))
	s := begin(t, set)
	s.now = start.Add(30 * time.Minute)
	s.status(publishes(other, s.now)) // content never arrives
	s.expect(a, Accepted, "held, and still in status")
	for s.now.Before(start.Add(2 * time.Hour)) {
		s.now = s.now.Add(10 * time.Minute)
		s.status(publishes(other, s.now))
	}
	s.expect(a, SnapshotExpired, "successes of another set do not lengthen the held one's life")
	s.now = start.Add(time.Hour - 1)
	s.expect(a, Accepted, "which ends an hour after its own")
}

func TestJoinHeldSetFollowsStricterSpec(t *testing.T) {
	a := ec("a")
	s := begin(t, keySet(t, a))
	s.status(publishes(keySet(t, a, ec("b")), start), func(c *api.ClusterTrustedIssuer) {
		c.Spec.StaleTTL = &metav1.Duration{Duration: 20 * time.Minute}
	})
	s.now = start.Add(20 * time.Minute)
	s.expect(a, SnapshotExpired, "staleTTL was shortened")

	s = begin(t, keySet(t, a))
	s.status(publishes(keySet(t, a, ec("b")), start), func(c *api.ClusterTrustedIssuer) {
		c.Spec.StaleTTL = &metav1.Duration{Duration: 20 * time.Hour}
	})
	s.now = start.Add(time.Hour)
	s.expect(a, SnapshotExpired, "a longer one does not reach back")
}

func TestJoinStates(t *testing.T) {
	active, retiring, quarantined, revoked := ec("active"), ec("retiring"), ec("quarantined"), ec("revoked")
	set := keySet(t, active, retiring, quarantined, revoked)
	mixed := states(map[string]api.KeyState{"retiring": api.KeyRetiring, "quarantined": api.KeyQuarantined, "revoked": api.KeyRevoked})
	s := begin(t, set, mixed)
	check := func(when string) {
		t.Helper()
		s.expect(active, Accepted, when)
		s.expect(retiring, Accepted, when)
		s.expect(quarantined, UnknownKey, when)
		s.expect(revoked, KeyRevoked, when)
	}
	check("with the content that status names")
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.Digest = "sha256:else" })
	check("with a held set")
}

func TestJoinHeldSetNeedsListedKeys(t *testing.T) {
	a, b := ec("a"), ec("b")
	s := begin(t, keySet(t, a, b))
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.Digest = "sha256:else" }, lists(keySet(t, a)))
	s.expect(a, Accepted, "listed")
	s.expect(b, UnknownKey, "no longer listed")
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status.Keys = nil })
	s.expect(a, NoSnapshot, "nothing is listed: nothing is left")
}

func TestJoinStatusWithdrawn(t *testing.T) {
	a := ec("a")
	set := keySet(t, a)
	s := begin(t, set)
	s.status(compromised(set, "a"), func(c *api.ClusterTrustedIssuer) {
		c.Status.Snapshot.Digest, c.Status.Keys = "", nil
	})
	s.expect(a, KeyRevoked, "THREATS 17: every key is compromised; the ConfigMap still holds it")
	s.expect(ec("new"), NoSnapshot, "for others it is cannot decide")
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status = api.IssuerStatus{} })
	s.expect(a, NoSnapshot, "a status that was lost trusts nothing")
}

func TestJoinCompromisedKeyActsOnTheLastGoodCopy(t *testing.T) {
	a, b := ec("a"), ec("b")
	set := keySet(t, a, b)
	s := begin(t, set)
	s.configMap(nil)
	s.status(compromised(set, "a"))
	s.expect(a, KeyRevoked, "THREATS 17: revoked even against the last good set")
	s.expect(b, Accepted, "the other one goes on")
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status.CompromisedKeys = nil })
	s.expect(a, Accepted, "an administrator cleared it")
}

func TestJoinRevokedInSpec(t *testing.T) {
	a, b := ec("a"), ec("b")
	set := keySet(t, a, b)
	thumbprint := set.Keys()[1].Thumbprint()
	s := begin(t, set)
	s.status(func(c *api.ClusterTrustedIssuer) { c.Spec.RevokedKeys = []string{"a"} })
	s.expect(a, KeyRevoked, "by kid, before the controller has done anything")
	s.expect(b, Accepted, "the other one goes on")
	s.status(func(c *api.ClusterTrustedIssuer) { c.Spec.RevokedKeys = []string{"a", thumbprint} })
	s.expect(b, KeyRevoked, "by thumbprint")
	s.configMap(nil)
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.Digest = "sha256:else" })
	s.expect(a, KeyRevoked, "in a held set too")
}

func TestJoinForgedStatus(t *testing.T) {
	a, evil := ec("a"), testissuer.NewKey("e", "ES256")
	s := begin(t, keySet(t, a))
	s.status(publishes(keySet(t, a, evil), start))
	s.expect(evil, UnknownKey, "THREATS 41: a digest and a list of keys in status bring no key")
	s.status(publishes(keySet(t, a), start.Add(10000*time.Hour)))
	s.now = start.Add(time.Hour)
	s.expect(a, SnapshotExpired, "THREATS 41: nor does a success in the future lengthen what spec says")
	s.status(func(c *api.ClusterTrustedIssuer) {
		c.Status.Snapshot.ExpiresAt = &metav1.Time{Time: start.Add(10000 * time.Hour)}
	})
	s.expect(a, SnapshotExpired, "THREATS 41: status.snapshot.expiresAt is for people")
	s.status(func(c *api.ClusterTrustedIssuer) {
		c.Status.Snapshot.ExpiresAt, c.Status.Snapshot.FreshUntil = nil, nil
	})
	s.expect(a, SnapshotExpired, "THREATS 41: and so is its absence")
}

func TestJoinSuccessInTheFuture(t *testing.T) {
	a := ec("a")
	set := keySet(t, a)
	s := begin(t, set, publishes(set, start.Add(5*time.Hour)))
	s.now = start.Add(30 * time.Minute)
	s.status(func(*api.ClusterTrustedIssuer) {})
	s.expect(a, Accepted, "THREATS 38: it counts from when it was first seen")
	s.now = start.Add(time.Hour)
	s.status(func(*api.ClusterTrustedIssuer) {})
	s.expect(a, SnapshotExpired, "THREATS 38: and is not moved along with the clock by events")

	s = begin(t, set, publishes(set, start.Add(snapshot.MaxClockAhead)))
	s.now = start.Add(time.Hour)
	s.expect(a, Accepted, "clocks may differ a little")
}

func TestJoinExpiryFollowsSpec(t *testing.T) {
	a := ec("a")
	s := begin(t, keySet(t, a), func(c *api.ClusterTrustedIssuer) { c.Spec.StaleTTL = &metav1.Duration{} })
	s.now = start.Add(10*time.Minute - 1)
	s.expect(a, Accepted, "staleTTL 0 leaves cacheTTL")
	s.now = start.Add(10 * time.Minute)
	s.expect(a, SnapshotExpired, "and nothing after it")
	s.status(func(c *api.ClusterTrustedIssuer) { c.Spec.StaleTTL = nil })
	s.now = start.Add(24*time.Hour - 1)
	s.expect(a, Accepted, "the default is 24h")
}

// inline gives the keys in spec.
func inline(c *api.ClusterTrustedIssuer) { c.Spec.JWKSURI, c.Spec.JWKS = "", `{"keys":[]}` }

// edited is a change of spec that the controller has not acted on.
func edited(c *api.ClusterTrustedIssuer) { c.Generation++ }

func TestJoinStaticKeys(t *testing.T) {
	a := ec("a")
	set := keySet(t, a)
	s := begin(t, set, inline, publishes(set, start))
	s.now = start.Add(1000 * time.Hour)
	s.expect(a, Accepted, "static keys never expire")
	s.status(edited)
	s.expect(a, Accepted, "nor while an edit waits for the controller")
	s.restart()
	s.expect(a, Accepted, "nor when the verifier starts meanwhile")
	s.configMap(nil)
	s.expect(a, Accepted, "nor when held")
}

func TestJoinFetchedKeysDoNotBecomeEternal(t *testing.T) {
	a := ec("a")
	s := begin(t, keySet(t, a))
	s.status(inline, edited)
	s.expect(a, Accepted, "the last good set goes on")
	s.now = start.Add(time.Hour)
	s.expect(a, SnapshotExpired, "but not for ever, although spec has inline keys now: they are not those")
	s.restart()
	s.expect(a, SnapshotExpired, "status says that they expire")
}

func TestJoinStaticKeysThatBecomeFetchedExpire(t *testing.T) {
	a := ec("a")
	set := keySet(t, a)
	s := begin(t, set, inline, publishes(set, start))
	s.status(edited, func(c *api.ClusterTrustedIssuer) { c.Spec.JWKS, c.Spec.JWKSURI = "", issuerName+"jwks.json" })
	s.expect(a, Accepted, "the last good set goes on")
	s.now = start.Add(time.Hour)
	s.expect(a, SnapshotExpired, "spec has an expiry now")
}

func TestJoinStaticKeysThatBecomeFetchedAgeFromThenOn(t *testing.T) {
	a := ec("a")
	s := begin(t, keySet(t, a), inline, publishes(keySet(t, a), start))
	s.now = start.Add(1000 * time.Hour)
	s.expect(a, Accepted, "static keys never expire")
	s.status(edited, func(c *api.ClusterTrustedIssuer) { c.Spec.JWKS, c.Spec.JWKSURI = "", issuerName+"jwks.json" })
	s.expect(a, Accepted, "nor at the edit, although they were admitted long ago")
	s.now = s.now.Add(time.Hour - time.Second)
	s.status(edited)
	s.expect(a, Accepted, "nor at another one")
	s.now = s.now.Add(time.Second)
	s.expect(a, SnapshotExpired, "but their time has begun with it, whether or not the controller is there to say so")
}

func TestJoinHeldStaticKeysThatBecomeFetchedExpire(t *testing.T) {
	a := ec("a")
	set := keySet(t, a)
	s := begin(t, set, inline, publishes(set, start))
	s.status(edited, func(c *api.ClusterTrustedIssuer) { c.Spec.JWKS, c.Spec.JWKSURI = "", issuerName+"jwks.json" },
		publishes(keySet(t, a, ec("b")), start))
	s.now = start.Add(time.Hour)
	s.expect(a, SnapshotExpired, "a held set follows a stricter spec")
}

func TestJoinPolicyFollowsSpecAtOnce(t *testing.T) {
	a := ec("a")
	s := begin(t, keySet(t, a))
	s.status(edited, func(c *api.ClusterTrustedIssuer) { c.Spec.Audiences = []string{"x"} })
	s.expect(a, AudienceMismatch, "audiences")
	s.status(edited, algorithms("RS256"))
	s.expect(a, AlgorithmNotAllowed, "algorithms")
}

func TestJoinSameObjectNewUID(t *testing.T) {
	a := ec("a")
	set := keySet(t, a)
	s := begin(t, set)
	s.data = nil
	s.status(func(c *api.ClusterTrustedIssuer) { c.UID = "another" })
	s.expect(a, NoSnapshot, "nothing carries over to another UID, even where status names the same digest")
	NewWithT(t).Expect(s.issuer.held.set).To(BeNil())
}

func TestJoinLeavesBeforeUntouched(t *testing.T) {
	g := NewWithT(t)
	a, b := ec("a"), ec("b")
	set := keySet(t, a, b)
	s := begin(t, set)
	before, copied := s.issuer, *s.issuer
	s.status(compromised(set, "a"), publishes(keySet(t, b), start.Add(time.Minute)))
	s.configMap(nil)
	g.Expect(*before).To(Equal(copied), "entries are immutable: readers hold them")
	g.Expect(Verify(a.Sign(claims(nil)), before, start).Outcome).To(Equal(Accept))
}

func TestJoinReadsContentOnce(t *testing.T) {
	g := NewWithT(t)
	set := keySet(t, ec("a"))
	s := begin(t, set)
	first := s.issuer.usable
	s.status(publishes(set, start.Add(time.Minute)))
	s.configMap(content(t, set))
	g.Expect(s.issuer.usable).To(BeIdenticalTo(first), "a renewed success reads no key again")
}

// Content that the controller cannot have written is not trusted even where a
// status names its digest.
func TestJoinContentInAnotherForm(t *testing.T) {
	a := ec("a")
	s := begin(t, keySet(t, a))
	odd := " " + string(keySet(t, a, ec("b")).JSON())
	s.status(func(c *api.ClusterTrustedIssuer) { c.Status.Snapshot.Digest = keyset.Digest([]byte(odd)) })
	s.configMap(map[string]string{snapshot.KeyJWKSJSON: odd})
	s.expect(a, Accepted, "the held set goes on")
	s.expect(ec("b"), UnknownKey, "nothing of the odd content is used")
}

func TestJoinNeedsUsernamePrefix(t *testing.T) {
	g := NewWithT(t)
	c := cluster(func(c *api.ClusterTrustedIssuer) { c.Spec.KubernetesAuthentication.UsernamePrefix = "" })
	g.Expect(join(c, nil, nil, start).KubernetesAuthentication).To(BeNil(), "without a prefix a token could name anybody")
	ti := &api.TrustedIssuer{}
	g.Expect(join(ti, nil, nil, start).KubernetesAuthentication).To(BeNil(), "a namespaced issuer never authenticates to Kubernetes")
}
