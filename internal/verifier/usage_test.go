package verifier

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// accept has the issuer accept a token of the key, at a time.
func accept(t *testing.T, i *Issuer, k *testissuer.Key, at time.Time, changes map[string]any) {
	t.Helper()
	c := claims(map[string]any{"iat": at.Unix(), "nbf": at.Unix(), "exp": at.Add(time.Hour).Unix()})
	for name, value := range changes {
		c[name] = value
	}
	v := Verify(k.Sign(c), i, at)
	NewWithT(t).Expect(v).To(outcome(Accept, Accepted))
	i.used(v, at)
}

// says edits the status of the keys with these kids.
func says(change func(*api.KeyStatus)) edit {
	return func(c *api.ClusterTrustedIssuer) {
		for n := range c.Status.Keys {
			change(&c.Status.Keys[n])
		}
	}
}

func reports(usage ...api.KeyUsage) edit {
	return func(c *api.ClusterTrustedIssuer) { c.Status.KeyUsage = usage }
}

func TestUseOfKeysIsCounted(t *testing.T) {
	g := NewWithT(t)
	s := NewStore(func() time.Time { return start })
	both := keySet(t, ec("a"), ec("b"))
	s.put(t, cluster(publishes(both, start)), both)
	issuer, _ := s.ForObject(object)
	accept(t, issuer, ec("a"), start, nil)
	accept(t, issuer, ec("a"), start, nil)
	refused := Verify(ec("b").Sign(claims(map[string]any{"aud": "x"})), issuer, start)
	issuer.used(refused, start)

	s.put(t, cluster(publishes(both, start.Add(time.Minute))), both)
	issuer, _ = s.ForObject(object)
	accept(t, issuer, ec("a"), start, nil)
	count := func(k *testissuer.Key) int64 {
		i, _ := s.ForObject(object)
		for _, u := range i.uses {
			if key := keySet(t, k).Keys()[0]; u.thumbprint == key.Thumbprint() {
				return u.accepted.Load()
			}
		}
		return -1
	}
	g.Expect(count(ec("a"))).To(Equal(int64(3)), "counted on when the issuer is confirmed anew")
	g.Expect(count(ec("b"))).To(BeZero(), "a token that is refused is no use")
	g.Expect(testutil.CollectAndCount(usageCollector{s}, "jwks_trust_accepted_tokens_total")).To(Equal(2))

	one := keySet(t, ec("b"))
	s.put(t, cluster(publishes(one, start)), one)
	g.Expect(count(ec("a"))).To(Equal(int64(-1)), "a key that is gone is not counted on")
	g.Expect(testutil.CollectAndCount(usageCollector{s}, "jwks_trust_accepted_tokens_total")).To(Equal(1))
	s.deleteIssuer(cluster())
	g.Expect(testutil.CollectAndCount(usageCollector{s})).To(BeZero())
}

func TestWhenTheUseOfKeysIsReported(t *testing.T) {
	set := keySet(t, ec("a"))
	thumbprint := set.Keys()[0].Thumbprint()
	recorded := func(at time.Time) edit {
		return reports(api.KeyUsage{Thumbprint: thumbprint, LastUsedTime: metav1.NewTime(at)}, api.KeyUsage{Thumbprint: "gone", LastUsedTime: metav1.NewTime(at)})
	}
	missing := func(at time.Time) edit {
		return says(func(k *api.KeyStatus) { k.MissingSince = &metav1.Time{Time: at} })
	}
	absent := func(at time.Time) edit {
		return says(func(k *api.KeyStatus) { k.LastAbsentTime = &metav1.Time{Time: at} })
	}
	for name, tc := range map[string]struct {
		edits  []edit
		unused bool
		iat    time.Time
		due    bool
		early  bool
	}{
		"a first use":                         {due: true},
		"no use":                              {unused: true},
		"a use within the hour":               {edits: []edit{recorded(start.Add(-59 * time.Minute))}},
		"a use an hour later":                 {edits: []edit{recorded(start.Add(-time.Hour))}, due: true},
		"what another replica has reported":   {edits: []edit{recorded(start.Add(time.Second))}},
		"a key that should not sign, at once": {edits: []edit{recorded(start.Add(-2 * time.Minute)), missing(start.Add(-time.Minute))}, due: true},
		"the same, once it is known":          {edits: []edit{recorded(start.Add(-30 * time.Second)), missing(start.Add(-time.Minute))}},
		"a use before the key was missing":    {edits: []edit{recorded(start.Add(-2 * time.Minute)), missing(start.Add(time.Second))}},
		"a token from before the key was there": {
			edits: []edit{recorded(start), absent(start.Add(-time.Minute))}, iat: start.Add(-3 * time.Minute), due: true, early: true,
		},
		"a token from about when the key came": {
			edits: []edit{recorded(start), absent(start.Add(-time.Minute))}, iat: start.Add(-2 * time.Minute),
		},
		"a key of the first set is never early": {edits: []edit{recorded(start)}, iat: start.Add(-50 * time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			issuer := trusted(t, set, tc.edits...)
			if !tc.unused {
				changes := map[string]any{}
				if !tc.iat.IsZero() {
					changes["iat"] = tc.iat.Unix()
				}
				accept(t, issuer, ec("a"), start, changes)
			}
			report, due := issuer.usageReport()
			g.Expect(due).To(Equal(tc.due))
			if tc.unused {
				g.Expect(report).To(BeEmpty())
				return
			}
			g.Expect(report).To(HaveLen(1), "keys that are gone are not reported on")
			g.Expect(report[0].LastUsedTime.Time).To(BeTemporally(">=", start))
			g.Expect(report[0].EarlyUseTime != nil).To(Equal(tc.early))
		})
	}
}

// Status has whole seconds, and tells a use in the second of the first look that missed
// the key from no later one.
func TestAUseInTheSecondInWhichTheKeyWasMissedIsReportedOnce(t *testing.T) {
	g := NewWithT(t)
	u := &usedKey{keyUse: &keyUse{}, thumbprint: "x", missing: start}
	u.last.Store(start.Add(500 * time.Millisecond).UnixNano())
	issuer := &Issuer{uses: map[string]*usedKey{"x": u}}
	report, due := issuer.usageReport()
	g.Expect(due).To(BeTrue(), "the first use")
	u.recorded = report[0]
	u.recorded.LastUsedTime.Time = u.recorded.LastUsedTime.Truncate(time.Second)
	_, due = issuer.usageReport()
	g.Expect(due).To(BeFalse())
}

// statusWriter records what is applied to a status.
type statusWriter struct {
	client.SubResourceClient

	applied []map[string]any
	options client.SubResourceApplyOptions
	fails   error
}

func (w *statusWriter) SubResource(string) client.SubResourceClient { return w }

func (w *statusWriter) Apply(_ context.Context, o runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	w.applied = append(w.applied, fields)
	for _, opt := range opts {
		opt.ApplyToSubResourceApply(&w.options)
	}
	return w.fails
}

func TestTheReporterWritesNothingButTheUseOfKeys(t *testing.T) {
	g := NewWithT(t)
	s := NewStore(func() time.Time { return start })
	set := keySet(t, ec("a"), ec("b"))
	s.put(t, cluster(publishes(set, start)), set)
	w := &statusWriter{fails: errors.New("not now")}
	r := &usageReporter{store: s, client: w, log: logr.Discard()}
	r.report(t.Context())
	g.Expect(w.applied).To(BeEmpty(), "nothing to say")

	issuer, _ := s.ForObject(object)
	accept(t, issuer, ec("a"), start, nil)
	r.report(t.Context())
	r.report(t.Context())
	g.Expect(w.applied).To(HaveLen(2), "tried again until it is there")
	g.Expect(w.applied[0]["metadata"]).To(Equal(map[string]any{"name": "main", "uid": string(uid)}))
	g.Expect(w.applied[0]["status"]).To(And(HaveLen(1), HaveKeyWithValue("keyUsage", ConsistOf(
		And(HaveLen(2), HaveKeyWithValue("lastUsedTime", start.Format(time.RFC3339))),
	))))
	g.Expect(w.options.FieldManager).To(Equal(usageManager))
	g.Expect(usageManager).NotTo(Equal(fieldManager), "what one manager leaves out is taken away")

	report, _ := issuer.usageReport()
	s.put(t, cluster(publishes(set, start), reports(report...)), set)
	r.report(t.Context())
	g.Expect(w.applied).To(HaveLen(2), "once it is there, it is not written again")
}

func TestUnknownKeysAreCountedByOutcome(t *testing.T) {
	both := keySet(t, ec("a"), ec("new"))
	same := keySet(t, ec("a"))
	inBubble(t, func(d *desk) {
		counts := func() (out [unknownOutcomes]int64) {
			i, _ := d.store.ForObject(object)
			for o := range unknownOutcomes {
				out[o] = i.unknown[o].Load()
			}
			return out
		}
		d.answer = d.fetched(time.Millisecond, same, api.ReasonSucceeded)
		d.bring(ec("other"))
		d.Expect(counts()).To(Equal([unknownOutcomes]int64{unknownStill: 1}))
		d.bring(ec("other"))
		d.Expect(counts()).To(Equal([unknownOutcomes]int64{unknownStill: 1, unknownNotLookedUp: 1}))
		advance(time.Minute)
		d.answer = d.fetched(time.Millisecond, both, api.ReasonSucceeded)
		d.bring(ec("new"))
		d.Expect(counts()).To(Equal([unknownOutcomes]int64{unknownFound: 1, unknownStill: 1, unknownNotLookedUp: 1}))
		d.bring(ec("a"))
		d.Expect(counts()[unknownFound]).To(Equal(int64(1)), "a known key is none of these")
		d.store.setIssuer(cluster(publishes(both, time.Now()), func(c *api.ClusterTrustedIssuer) {
			c.Status.Rotation = &api.RotationStatus{History: []api.RemovedKey{{KeyID: "other"}}}
		}))
		d.bring(ec("other"))
		d.Expect(counts()[unknownRemoved]).To(Equal(int64(1)))
		d.Expect(testutil.CollectAndCount(usageCollector{d.store}, "jwks_trust_unknown_keys_total")).To(Equal(4))
	})
}
