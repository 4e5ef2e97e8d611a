package controller

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// known is the status of an issuer whose keys were confirmed at success, in
// generation 1, with the next refresh due at next.
func known(success, next time.Time) *api.IssuerStatus {
	return &api.IssuerStatus{
		Snapshot:        &api.SnapshotStatus{Digest: "sha256:1", LastSuccessTime: ptrTo(metav1.NewTime(success))},
		LastAttempt:     &api.AttemptStatus{Time: metav1.NewTime(success), Reason: api.ReasonSucceeded},
		NextRefreshTime: ptrTo(metav1.NewTime(next)),
		Conditions:      []metav1.Condition{{Type: api.ConditionFetched, ObservedGeneration: 1, Status: metav1.ConditionTrue}},
	}
}

func TestPlanFetch(t *testing.T) {
	ago, ahead := func(d time.Duration) time.Time { return noon.Add(-d) }, noon.Add
	handled := known(ago(time.Minute), ahead(7*time.Minute))
	handled.HandledRefresh = &api.HandledRefresh{Request: "a"}
	wanted := func(success, next time.Time) *api.IssuerStatus {
		s := known(success, next)
		s.RefreshRequestedAt = ptrTo(metav1.NewMicroTime(noon))
		return s
	}
	served := wanted(ago(time.Minute), ahead(7*time.Minute))
	served.HandledRefresh = &api.HandledRefresh{RequestedAt: ptrTo(metav1.NewMicroTime(noon))}

	missing := func(since, next time.Time) *api.IssuerStatus {
		s := known(ago(time.Minute), next)
		s.Keys = []api.KeyStatus{{KeyID: "k1", State: api.KeyActive}, {KeyID: "k2", State: api.KeyActive, MissingSince: ptrTo(metav1.NewTime(since))}}
		return s
	}
	retiring := missing(ago(time.Minute), ahead(7*time.Minute))
	retiring.Keys[1].State = api.KeyRetiring
	waiting := known(ago(time.Minute), ahead(7*time.Minute))
	waiting.Rotation = &api.RotationStatus{CandidateDigest: "sha256:2"}
	waiting.LastAttempt.Reason = api.ReasonQuarantined

	unanswered := known(ago(time.Minute), ahead(7*time.Minute))
	unanswered.Conditions[0].Status = metav1.ConditionUnknown

	for name, tc := range map[string]struct {
		status     *api.IssuerStatus
		last       *attemptMemory
		request    string
		generation int64
		lost       bool
		static     bool
		suspended  bool
		approved   bool
		news       bool
		// wantedSince is now where it is zero.
		wantedSince time.Time
		want        plan
	}{
		"a new object is fetched at once": {
			status: &api.IssuerStatus{}, want: plan{fetch: true, why: "changed"},
		},
		"static keys are never fetched": {
			status: &api.IssuerStatus{}, static: true, want: plan{},
		},
		"a suspended issuer is not fetched, whatever is asked for": {
			status: &api.IssuerStatus{}, request: "a", suspended: true, want: plan{},
		},
		"a missing key is looked for again, unconditionally, 30 s later": {
			status: missing(ago(30*time.Second), ahead(7*time.Minute)), want: plan{fetch: true, why: "missing"},
		},
		"and not before": {
			status: missing(ago(29*time.Second), ahead(7*time.Minute)), want: plan{next: ahead(time.Second)},
		},
		"while the issuer fails, along the backoff": {
			status: missing(ago(time.Minute), ahead(7*time.Minute)),
			last:   &attemptMemory{started: ago(10 * time.Second), generation: 1, failures: 2, next: ahead(5 * time.Second)},
			want:   plan{next: ahead(5 * time.Second)},
		},
		"another document from the same source is taken over at once": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), news: true, want: plan{fetch: true, why: "news", revalidate: true},
		},
		"but not sooner than any fetch: the spec may name another source by now, which has to be asked": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), news: true, generation: 2,
			last: &attemptMemory{started: noon, generation: 1, next: ahead(7 * time.Minute)},
			want: plan{next: ahead(5 * time.Second)},
		},
		"a retiring key has had its second look": {
			status: retiring, want: plan{next: ahead(7 * time.Minute)},
		},
		"THREATS 38: a key that is missing since the future is looked for now": {
			status: missing(ahead(time.Hour), ahead(7*time.Minute)), want: plan{fetch: true, why: "missing"},
		},
		"an approval is acted on at once, unconditionally, after a restart too": {
			status: waiting, approved: true, want: plan{fetch: true, why: "approved"},
		},
		"an approval of another set is not": {
			status: waiting, want: plan{next: ahead(7 * time.Minute)},
		},
		"fresh keys wait for their refresh point": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), want: plan{next: ahead(7 * time.Minute)},
		},
		"after a restart the recorded schedule goes on, so that a fleet does not fetch at once": {
			status: known(ago(5*time.Minute), ahead(3*time.Minute)), want: plan{next: ahead(3 * time.Minute)},
		},
		"at the refresh point a conditional fetch is due": {
			status: known(ago(8*time.Minute), noon), want: plan{fetch: true, why: "scheduled", revalidate: true},
		},
		"but unconditionally after an answer that was not taken over: it may be mended under the same ETag": {
			status: known(ago(8*time.Minute), noon), want: plan{fetch: true, why: "scheduled"},
			last: &attemptMemory{started: ago(time.Minute), generation: 1, failures: 1, refused: true, next: noon},
		},
		"what the process remembers beats what was recorded": {
			status: known(ago(8*time.Minute), ago(time.Second)),
			last:   &attemptMemory{started: ago(10 * time.Second), generation: 1, next: ahead(8 * time.Minute)},
			want:   plan{next: ahead(8 * time.Minute)},
		},
		"a new refresh request is answered at once, unconditionally": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), request: "a",
			want: plan{fetch: true, why: "requested", request: "a"},
		},
		"an unknown key is looked up, unconditionally": {
			status: wanted(ago(time.Minute), ahead(7*time.Minute)),
			want:   plan{fetch: true, why: "unknown key", requestedAt: ptrTo(metav1.NewMicroTime(noon))},
		},
		"an unknown key is looked up once": {
			status: served, want: plan{next: ahead(7 * time.Minute)},
		},
		"THREATS 37: unknown keys lead to one fetch in 30 s, counted from the last attempt": {
			status: wanted(ago(time.Minute), ahead(7*time.Minute)),
			last:   &attemptMemory{started: ago(10 * time.Second), generation: 1, next: ahead(7 * time.Minute)},
			want:   plan{next: ahead(7 * time.Minute)},
		},
		"an unknown key that can be looked up while somebody waits is, a moment later": {
			status: wanted(ago(time.Minute), ahead(7*time.Minute)),
			last:   &attemptMemory{started: ago(28 * time.Second), generation: 1, next: ahead(7 * time.Minute)},
			want:   plan{next: ahead(2 * time.Second)},
		},
		"THREATS 37: and to none while the issuer fails": {
			status: wanted(ago(time.Minute), ahead(7*time.Minute)),
			last:   &attemptMemory{started: ago(time.Minute), generation: 1, failures: 6, next: ahead(4 * time.Minute)},
			want:   plan{next: ahead(4 * time.Minute)},
		},
		"nobody waits for ever: an old request leads to no fetch": {
			status: wanted(ago(time.Minute), ahead(7*time.Minute)), wantedSince: ago(4 * time.Second), want: plan{next: ahead(7 * time.Minute)},
		},
		"unknown keys do not put off what is due anyway": {
			status: wanted(ago(8*time.Minute), noon),
			last:   &attemptMemory{started: ago(10 * time.Second), generation: 1, next: noon},
			want:   plan{fetch: true, why: "scheduled", requestedAt: ptrTo(metav1.NewMicroTime(noon))},
		},
		"a refresh request is answered once": {
			status: handled, request: "a", want: plan{next: ahead(7 * time.Minute)},
		},
		"refresh requests in a loop are held to the spacing": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), request: "b",
			last: &attemptMemory{started: ago(2 * time.Second), generation: 1, next: ahead(7 * time.Minute)},
			want: plan{next: ahead(3 * time.Second)},
		},
		"a change of spec is tried at once, whatever the backoff": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), generation: 2,
			last: &attemptMemory{started: ago(6 * time.Second), generation: 1, failures: 5, next: ahead(4 * time.Minute)},
			want: plan{fetch: true, why: "changed"},
		},
		"changes of spec in a loop are held to the spacing": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), generation: 9,
			last: &attemptMemory{started: ago(time.Second), generation: 8, next: ahead(time.Minute)},
			want: plan{next: ahead(4 * time.Second)},
		},
		"a cacheTTL that is cut short is no reason to come sooner: to and fro it would be a loop": {
			status: known(ago(time.Second), ahead(19*time.Hour)), generation: 2,
			last: &attemptMemory{started: ago(time.Second), generation: 1, next: ahead(19 * time.Hour)},
			want: plan{next: ahead(4 * time.Second)},
		},
		"a spec that was seen but never tried is tried, after a restart too": {
			status: unanswered, want: plan{fetch: true, why: "changed"},
		},
		"lost keys are fetched again": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), lost: true, want: plan{fetch: true, why: "lost"},
		},
		"lost keys wait for a running backoff": {
			status: known(ago(time.Minute), ahead(7*time.Minute)), lost: true,
			last: &attemptMemory{started: ago(10 * time.Second), generation: 1, failures: 3, next: ahead(9 * time.Second)},
			want: plan{next: ahead(9 * time.Second)},
		},
		"THREATS 38: a success from the future is confirmed anew": {
			status: known(ahead(time.Hour), ahead(67*time.Minute)), want: plan{fetch: true, why: "unconfirmed"},
		},
		"THREATS 38: a refresh point beyond any schedule means that the clock was set back": {
			status: known(ago(time.Minute), ahead(2*time.Hour)), want: plan{fetch: true, why: "scheduled", revalidate: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			spec := &api.IssuerSpec{JWKSURI: "https://issuer.example.com/jwks"}
			if tc.static {
				spec = &api.IssuerSpec{JWKS: `{"keys":[]}`}
			}
			spec.Suspend = &tc.suspended
			if tc.wantedSince.IsZero() {
				tc.wantedSince = noon
			}
			generation := max(tc.generation, 1)
			got := planFetch(planInput{
				now: noon, generation: generation, spec: spec, status: tc.status,
				request: tc.request, approved: tc.approved, last: tc.last, lost: tc.lost, news: tc.news, wantedSince: tc.wantedSince,
			})
			got.notBefore, got.maxAge = time.Time{}, 0 // TestSharedAnswers
			g.Expect(got).To(Equal(tc.want))
		})
	}
}

func TestRefreshDelay(t *testing.T) {
	for name, tc := range map[string]struct {
		lifetime time.Duration
		has      bool
		random   float64
		want     time.Duration
	}{
		"80 % of cacheTTL":                                 {random: 0.5, want: 8 * time.Minute},
		"jitter downwards":                                 {random: 0, want: 7 * time.Minute},
		"jitter upwards stays ahead of expiry":             {random: 0.999999, want: 9 * time.Minute},
		"headers shorten it":                               {lifetime: 5 * time.Minute, has: true, random: 0.5, want: 4 * time.Minute},
		"headers never lengthen it":                        {lifetime: 24 * time.Hour, has: true, random: 0.5, want: 8 * time.Minute},
		"THREATS 35: max-age=0 cannot make a hot loop":     {lifetime: 0, has: true, random: 0, want: time.Minute},
		"THREATS 35: a negative lifetime cannot either":    {lifetime: -time.Hour, has: true, random: 0, want: time.Minute},
		"Auth0's max-age=15 is served at the floor":        {lifetime: 15 * time.Second, has: true, random: 0.5, want: time.Minute},
		"without headers a lifetime of zero means nothing": {lifetime: 0, has: false, random: 0.5, want: 8 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			got := refreshDelay(10*time.Minute, tc.lifetime, tc.has, tc.random)
			NewWithT(t).Expect(got).To(BeNumerically("~", tc.want, time.Second))
		})
	}
}

func TestRetryDelay(t *testing.T) {
	g := NewWithT(t)
	const most = 0.999999999
	for n, limit := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		g.Expect(retryDelay(n+1, 0, most)).To(BeNumerically("~", limit, time.Second), "after %d failures", n+1)
		g.Expect(retryDelay(n+1, 0, 0)).To(Equal(backoffMin), "full jitter, but never at once")
	}
	g.Expect(retryDelay(1_000_000, 0, most)).To(BeNumerically("<=", backoffCap), "no overflow")
	g.Expect(retryDelay(1, 2*time.Minute, 0)).To(Equal(2*time.Minute), "Retry-After is honoured")
	g.Expect(retryDelay(1, 24*time.Hour, 0)).To(Equal(maxRetryAfter), "THREATS 35: but not without limit")
	g.Expect(retryDelay(1, -time.Hour, 0)).To(Equal(backoffMin), "THREATS 35: a negative one is ignored")
}

// A time that no schedule of ours can have is one from before the clock was set back, and
// is looked into at once. While a fetch goes on it may be one by an earlier spec; looking
// again and again would end it no sooner.
func TestWakeAfterAClockThatWasSetBack(t *testing.T) {
	g := NewWithT(t)
	r := &Reconciler{Clock: clocktesting.NewFakePassiveClock(noon)}
	issuer := &api.TrustedIssuer{}
	due := func(at, began time.Time, m *memory) time.Duration {
		return r.wake(issuer, outcome{nextRefresh: at}, began, m)
	}
	ahead := noon.Add(time.Hour)
	g.Expect(due(noon.Add(10*time.Minute), noon, &memory{})).To(Equal(10 * time.Minute))
	g.Expect(due(ahead.Add(2*time.Second), ahead, &memory{})).To(Equal(time.Millisecond))
	g.Expect(due(ahead, noon, &memory{running: &running{}})).To(Equal(time.Hour))
}
