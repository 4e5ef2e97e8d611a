// lookup_test.go covers tokens that name a key which is not in the set. Time is
// that of a bubble: nobody really waits.

package verifier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// desk is a store with one issuer that publishes the key a, a look-up, and a
// controller that does what answer says.
type desk struct {
	*WithT
	t      testing.TB
	store  *Store
	lookup *lookup

	mu     sync.Mutex
	asked  int
	answer func()
	fails  error
}

// inBubble runs a test with a desk whose clock begins at a minute after the last
// fetch.
func inBubble(t *testing.T, test func(*desk)) {
	set := keySet(t, ec("a"))
	ec("new")
	synctest.Test(t, func(t *testing.T) {
		d := &desk{WithT: NewWithT(t), t: t, store: NewStore(time.Now), answer: func() {}}
		d.store.ready.Store(true)
		d.lookup = newLookup(d.store, d.ask, time.Now, logr.Discard())
		d.store.dropped = d.lookup.forget
		d.store.put(t, cluster(publishes(set, time.Now())), set)
		advance(time.Minute)
		test(d)
		synctest.Wait()
	})
}

// advance lets the time of the bubble pass.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // in a bubble, nobody waits

func (d *desk) ask(context.Context, *Issuer, time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if d.fails == nil {
		go d.answer()
	}
	return d.fails
}

// fetched is the controller's answer after a while: a fetch that was begun now,
// with this outcome.
func (d *desk) fetched(after time.Duration, set *keyset.Set, outcome string) func() {
	data := content(d.t, set)
	return func() {
		advance(time.Millisecond)
		begun := metav1.NewMicroTime(time.Now())
		advance(after)
		d.store.setContent(uid, data)
		d.store.setIssuer(cluster(publishes(set, begun.Time), func(c *api.ClusterTrustedIssuer) {
			c.Status.HandledRefresh = &api.HandledRefresh{StartTime: begun, Outcome: outcome}
			c.Status.LastAttempt = &api.AttemptStatus{Time: metav1.NewTime(begun.Time), Reason: outcome}
		}))
	}
}

// bring judges a good token that the key made just now.
func (d *desk) bring(k *testissuer.Key, changes ...map[string]any) Verdict {
	return d.bringIn(context.Background(), k, changes...)
}

// bringIn is bring for a client that may leave.
func (d *desk) bringIn(ctx context.Context, k *testissuer.Key, changes ...map[string]any) Verdict {
	return d.bringTo(ctx, object, k, changes...)
}

// bringTo is bringIn for the issuer of an object.
func (d *desk) bringTo(ctx context.Context, o Object, k *testissuer.Key, changes ...map[string]any) Verdict {
	claims := testissuer.Claims(issuerName, subject, audience, time.Now(), 10*time.Minute)
	for _, c := range changes {
		for name, value := range c {
			claims[name] = value
		}
	}
	c, malformed := decode(k.Sign(claims))
	d.Expect(malformed).To(BeNil())
	issuer, ok := d.store.ForObject(o)
	d.Expect(ok).To(BeTrue())
	v, _ := d.lookup.judge(ctx, c, issuer, time.Now())
	return v
}

func (d *desk) requests() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

func outcome(o Outcome, r Reason) OmegaMatcher {
	return And(HaveField("Outcome", o), HaveField("Reason", r))
}

func TestLookupFindsANewKey(t *testing.T) {
	both := keySet(t, ec("a"), ec("new"))
	inBubble(t, func(d *desk) {
		d.answer = d.fetched(300*time.Millisecond, both, api.ReasonSucceeded)
		begun := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { d.Expect(d.bring(ec("new"))).To(outcome(Accept, Accepted)) })
		}
		all.Wait()
		d.Expect(d.requests()).To(Equal(1), "one question serves all who wait")
		d.Expect(time.Since(begun)).To(BeNumerically("<", time.Second))
	})
}

func TestLookupStillUnknown(t *testing.T) {
	same := keySet(t, ec("a"))
	inBubble(t, func(d *desk) {
		d.answer = d.fetched(100*time.Millisecond, same, api.ReasonSucceeded)
		d.Expect(d.bring(ec("new"))).To(outcome(Refuse, UnknownKey), "looked up afresh: a definite no")
		begun := time.Now()
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey), "remembered, not looked up")
		d.Expect(time.Since(begun)).To(BeZero(), "and not waited for")
		d.Expect(d.requests()).To(Equal(1))
		advance(unknownFor)
		d.Expect(d.bring(ec("new"))).To(outcome(Refuse, UnknownKey), "after a minute it may have come")
		d.Expect(d.requests()).To(Equal(2))
	})
}

func TestLookupFailedFetchIsNoAnswer(t *testing.T) {
	same := keySet(t, ec("a"))
	inBubble(t, func(d *desk) {
		d.answer = d.fetched(100*time.Millisecond, same, api.ReasonTimeout)
		begun := time.Now()
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		d.Expect(time.Since(begun)).To(BeNumerically("<", lookupWait), "nothing more would come")
	})
}

func TestLookupWhoeverAnswersNothing(t *testing.T) {
	inBubble(t, func(d *desk) {
		begun := time.Now()
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		d.Expect(time.Since(begun)).To(Equal(lookupWait))
	})
}

// TestLookupFlood is THREATS 37.
func TestLookupFlood(t *testing.T) {
	same := keySet(t, ec("a"))
	inBubble(t, func(d *desk) {
		d.answer = d.fetched(time.Second, same, api.ReasonSucceeded)
		var all sync.WaitGroup
		for i := range 500 {
			k := *ec("new")
			k.ID = fmt.Sprintf("random-%d", i)
			all.Go(func() { d.Expect(d.bring(&k).Outcome).NotTo(Equal(Accept)) })
		}
		synctest.Wait()
		d.lookup.mu.Lock()
		waiting := d.lookup.byUID[uid].waiters
		d.lookup.mu.Unlock()
		d.Expect(waiting).To(Equal(maxWaiters), "the others are answered at once")
		d.Expect(d.bring(ec("a"))).To(outcome(Accept, Accepted), "good tokens pass meanwhile")
		all.Wait()
		d.Expect(d.requests()).To(Equal(1))
		advance(lookupSpacing - 5*time.Second)
		d.bring(ec("new"))
		d.Expect(d.requests()).To(Equal(1), "not before 30 s")
		advance(10 * time.Second)
		d.bring(ec("new"))
		d.Expect(d.requests()).To(Equal(2))
		d.Expect(len(d.lookup.byUID[uid].unknown)).To(BeNumerically("<=", maxUnknown))
	})
}

func TestLookupCountsWhatOthersFetched(t *testing.T) {
	same := keySet(t, ec("a"))
	inBubble(t, func(d *desk) {
		d.fetched(0, same, api.ReasonSucceeded)() // for another replica
		begun := time.Now()
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		d.Expect(d.requests()).To(BeZero())
		d.Expect(time.Since(begun)).To(BeZero())
	})
}

func TestLookupIsForGoodTokensAlone(t *testing.T) {
	inBubble(t, func(d *desk) {
		for name, changes := range map[string]map[string]any{
			"expired":          {"exp": time.Now().Add(-time.Hour).Unix()},
			"for another app":  {"aud": "https://billing.example.com"},
			"of another issue": {"iss": "https://issuer.example.com"},
		} {
			d.Expect(d.bring(ec("new"), changes).Outcome).To(Equal(Refuse), name)
		}
		forged := *ec("new")
		forged.ID = "a"
		d.Expect(d.bring(&forged)).To(outcome(Refuse, SignatureInvalid), "a known kid with a bad signature never asks")
		d.Expect(d.requests()).To(BeZero())
	})
}

func TestLookupThatCannotAsk(t *testing.T) {
	both := keySet(t, ec("a"), ec("new"))
	inBubble(t, func(d *desk) {
		d.fails = errors.New("the API server is down")
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		d.fails, d.answer = nil, d.fetched(0, both, api.ReasonSucceeded)
		d.Expect(d.bring(ec("new"))).To(outcome(Accept, Accepted), "the next one asks again")
	})
}

func TestLookupEndsWithTheIssuer(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.answer = func() { d.store.deleteIssuer(cluster()) }
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, NoSnapshot))
		d.Expect(d.lookup.byUID).To(BeEmpty(), "nothing is kept of it")
	})
}

func TestLookupHearsOfRevocation(t *testing.T) {
	both := keySet(t, ec("a"), ec("new"))
	inBubble(t, func(d *desk) {
		d.answer = func() {
			d.store.setContent(uid, content(t, both))
			d.store.setIssuer(cluster(publishes(both, time.Now()), compromised(both, "new")))
		}
		d.Expect(d.bring(ec("new"))).To(outcome(Refuse, KeyRevoked))
	})
}

// A request waits for an API server that does not answer no longer than for one that
// does: it would hold its place, and its proxy, for as long as that pleases.
func TestLookupWhoeverCannotEvenBeAsked(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.lookup.ask = func(ctx context.Context, _ *Issuer, _ time.Time) error {
			<-ctx.Done()
			return ctx.Err()
		}
		begun := time.Now()
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		d.Expect(time.Since(begun)).To(Equal(lookupWait), "the asking and the waiting together")
	})
}

// Tokens of many issuers with keys that nobody knows must not take all places.
func TestLookupLeavesRoomForOthers(t *testing.T) {
	set := keySet(t, ec("a"))
	inBubble(t, func(d *desk) {
		const issuers = 3 * maxWaitersInAll / maxWaiters
		var all sync.WaitGroup
		for i := range issuers {
			name := fmt.Sprintf("issuer-%d", i)
			c := cluster(publishes(set, time.Now().Add(-time.Minute)), identity(name, types.UID(name)))
			d.store.put(t, c, set)
			for range maxWaiters {
				all.Go(func() {
					claims := testissuer.Claims(issuerName, subject, audience, time.Now(), 10*time.Minute)
					c, malformed := decode(ec("new").Sign(claims))
					d.Expect(malformed).To(BeNil())
					issuer, _ := d.store.ForObject(Object{Kind: api.ClusterTrustedIssuerKind, Name: name})
					v, _ := d.lookup.judge(context.Background(), c, issuer, time.Now())
					d.Expect(v).To(outcome(CannotDecide, UnknownKey))
				})
			}
		}
		synctest.Wait()
		d.lookup.mu.Lock()
		waiting := 0
		for _, q := range d.lookup.byUID {
			waiting += q.waiters
		}
		d.lookup.mu.Unlock()
		d.Expect(waiting).To(Equal(maxWaitersInAll))
		all.Wait()
		d.Expect(d.lookup.waiters).To(BeZero())
	})
}

// Clocks differ, and one that was wrong is put right. An answer from before the token
// came is none, whatever the controller's clock said when it was written.
func TestLookupDoesNotTakeAnEarlierAnswerForItsOwn(t *testing.T) {
	same, both := keySet(t, ec("a")), keySet(t, ec("a"), ec("new"))
	for _, earlier := range []string{api.ReasonSucceeded, api.ReasonTimeout} {
		t.Run(earlier, func(t *testing.T) {
			inBubble(t, func(d *desk) {
				ahead := time.Now().Add(40 * time.Second)
				d.store.put(t, cluster(publishes(same, time.Now()), func(c *api.ClusterTrustedIssuer) {
					c.Status.HandledRefresh = &api.HandledRefresh{StartTime: metav1.NewMicroTime(ahead), Outcome: earlier}
				}), same)
				d.answer = d.fetched(100*time.Millisecond, both, api.ReasonSucceeded)
				d.Expect(d.bring(ec("new"))).To(outcome(Accept, Accepted))
			})
		})
	}
}

// While one waits for a look-up all do, though the fetch before was written by a clock
// that was an hour ahead and has been put right.
func TestLookupIsForAllAlsoAfterAClockWasAhead(t *testing.T) {
	same, both := keySet(t, ec("a")), keySet(t, ec("a"), ec("new"))
	inBubble(t, func(d *desk) {
		d.store.put(t, cluster(publishes(same, time.Now()), func(c *api.ClusterTrustedIssuer) {
			c.Status.LastAttempt = &api.AttemptStatus{Time: metav1.NewTime(time.Now().Add(time.Hour)), Reason: api.ReasonSucceeded}
		}), same)
		d.answer = d.fetched(300*time.Millisecond, both, api.ReasonSucceeded)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { d.Expect(d.bring(ec("new"))).To(outcome(Accept, Accepted)) })
		}
		all.Wait()
		d.Expect(d.requests()).To(Equal(1))
	})
}

// Whoever asked may have gone before the API server has answered. Others wait for the
// same look-up; and who only asks and leaves must not keep everybody from one.
func TestLookupGoesOnWithoutWhoeverAsked(t *testing.T) {
	both := keySet(t, ec("a"), ec("new"))
	inBubble(t, func(d *desk) {
		d.answer = d.fetched(100*time.Millisecond, both, api.ReasonSucceeded)
		d.lookup.ask = func(ctx context.Context, issuer *Issuer, at time.Time) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
				return d.ask(ctx, issuer, at)
			}
		}
		var all sync.WaitGroup
		ctx, leave := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer leave()
		all.Go(func() { d.bringIn(ctx, ec("new")) })
		synctest.Wait()
		all.Go(func() { d.Expect(d.bring(ec("new"))).To(outcome(Accept, Accepted)) })
		all.Wait()
	})
}

// Whoever can make issuer objects of servers that never answer can take all places.
// Without one nobody waits, but the key is looked up all the same.
func TestLookupAsksAlsoWhereThereIsNoPlaceToWait(t *testing.T) {
	both := keySet(t, ec("a"), ec("new"))
	inBubble(t, func(d *desk) {
		const issuers = maxWaitersInAll / maxWaiters
		var all sync.WaitGroup
		for i := range issuers {
			name := fmt.Sprintf("issuer-%d", i)
			d.store.put(t, cluster(publishes(keySet(t, ec("a")), time.Now().Add(-time.Minute)), identity(name, types.UID(name))), keySet(t, ec("a")))
			for range maxWaiters {
				all.Go(func() {
					v := d.bringTo(context.Background(), Object{Kind: api.ClusterTrustedIssuerKind, Name: name}, ec("new"))
					d.Expect(v).To(outcome(CannotDecide, UnknownKey))
				})
			}
		}
		synctest.Wait()
		d.answer = d.fetched(100*time.Millisecond, both, api.ReasonSucceeded)
		begun := time.Now()
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		d.Expect(time.Since(begun)).To(BeZero(), "nobody waits without a place")
		d.Expect(d.bring(ec("new"))).To(outcome(CannotDecide, UnknownKey))
		advance(200 * time.Millisecond)
		d.Expect(d.bring(ec("new"))).To(outcome(Accept, Accepted))
		d.Expect(d.requests()).To(Equal(issuers + 1))
		all.Wait()
		d.Expect(d.lookup.waiters).To(BeZero())
	})
}
