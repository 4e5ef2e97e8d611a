// flood.go measures what tokens that anybody can make do to an issuer, and to the
// owners of good tokens.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// floodName is the issuer that is flooded.
const floodName = "flooded"

// window is the time in which one fetch is allowed.
const window = 30 * time.Second

func measureFlood(ctx context.Context, o *options, r *harness.Report) error {
	i, err := testissuer.Start()
	if err != nil {
		return err
	}
	defer i.Close()
	known := testissuer.NewKey("known", "ES256")
	i.Publish(known)
	return inWorld(ctx, o.manager, func(w *world) error {
		if err := w.createReady(ctx, []*api.TrustedIssuer{trusted(floodName, i)}); err != nil {
			return err
		}
		f := noteFetches(ctx, i)
		defer f.close()
		v := newVerifiers(o.floodWorkers)
		defer v.close()
		return floods(ctx, o, r, &flooded{world: w, verifiers: v, issuer: i, known: known, fetches: f})
	})
}

// flooded is what the two floods share.
type flooded struct {
	*world
	verifiers
	issuer  *testissuer.Issuer
	known   *testissuer.Key
	fetches *fetches
}

// floods sends tokens whose claims pass, then some whose claims do not. Before each
// the issuer is left alone for so long that the first token could cause a fetch.
func floods(ctx context.Context, o *options, r *harness.Report, x *flooded) error {
	if err := x.fetches.quiet(ctx); err != nil {
		return err
	}
	harness.Say("Flooding: tokens with random kids whose claims pass ...")
	right := x.flood(ctx, o.floodWorkers, o.flood, o.floodFor, audience)
	reportFlood(r, "flood", right)
	allowed := int(right.took/window) + 2 // those begun, and one for the border
	r.Target("flood: fetches by the issuer's count", len(right.fetched) <= allowed,
		fmt.Sprintf("<= %d, one per started 30 s and one", allowed), "%d, shortest time between two: %s", len(right.fetched), shortest(right.fetched))

	if err := x.fetches.quiet(ctx); err != nil {
		return err
	}
	before, err := x.requestedAt(ctx)
	if err != nil {
		return err
	}
	harness.Say("Flooding: tokens for another audience ...")
	wrong := x.flood(ctx, o.floodWorkers, o.floodWrong, 0, "https://billing.example.com")
	reportFlood(r, "flood, wrong aud", wrong)
	after, err := x.requestedAt(ctx)
	if err != nil {
		return err
	}
	r.Target("flood, wrong aud: fetches by the issuer's count", len(wrong.fetched) == 0, "0", "%d", len(wrong.fetched))
	// A request would be acted on later, too late to be counted.
	r.Target("flood, wrong aud: fetches requested from the controller", before == after, "0", "%s", map[bool]string{true: "0", false: "1 or more"}[before == after])
	return ctx.Err()
}

// requestedAt is when a verifier last requested a fetch.
func (x *flooded) requestedAt(ctx context.Context) (string, error) {
	o, err := x.read(ctx, floodName)
	if err != nil || o.Status.RefreshRequestedAt == nil {
		return "", err
	}
	return o.Status.RefreshRequestedAt.String(), nil
}

// floodResult is what a flood did.
type floodResult struct {
	answers map[string]int
	refused int // with 401
	took    time.Duration
	fetched []time.Time
	good    samples
}

// flood sends at least so many tokens for at least so long.
func (x *flooded) flood(ctx context.Context, workers, atLeast int, duration time.Duration, aud string) floodResult {
	sampling, cancel := context.WithCancel(ctx)
	sampled := make(chan samples)
	go func() { sampled <- x.sampleGood(sampling) }()

	start := time.Now()
	counts := newTally(start)
	mint := newMint(x.issuer, aud)
	var sent atomic.Int64
	var all sync.WaitGroup
	for n := range workers {
		m := x.managers[n%len(x.managers)]
		all.Go(func() {
			for ctx.Err() == nil && (sent.Add(1) <= int64(atLeast) || time.Since(start) < duration) {
				status, reason, err := x.ask(ctx, m, floodName, mint())
				counts.add(status, reason, err)
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	cancel()
	out := floodResult{took: took, fetched: x.fetches.since(start), good: <-sampled}
	out.answers, out.refused = counts.all()
	return out
}

// newMint makes tokens that differ in kid and signature: right in form, and signed by
// nobody.
func newMint(i *testissuer.Issuer, aud string) func() string {
	claims, err := json.Marshal(testissuer.Claims(i.URL(), "mallory", aud, time.Now(), time.Hour))
	if err != nil {
		panic(err) // claims of our own that JSON cannot express
	}
	b64 := base64.RawURLEncoding.EncodeToString
	payload := "." + b64(claims) + "."
	return func() string {
		var garbage [64]byte // the length of an ES256 signature
		_, _ = rand.Read(garbage[:])
		return b64(fmt.Appendf(nil, `{"alg":"ES256","kid":%q,"typ":"JWT"}`, rand.Text())) + payload + b64(garbage[:])
	}
}

// tally counts answers.
type tally struct {
	mu      sync.Mutex
	answers map[string]int
	refused int
	total   int
	started time.Time
	told    time.Time
}

func newTally(now time.Time) *tally {
	return &tally{answers: map[string]int{}, started: now, told: now}
}

func (t *tally) add(status int, reason string, err error) {
	answer := fmt.Sprintf("%d %s", status, reason)
	if err != nil {
		answer = "no answer"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers[strings.TrimSpace(answer)]++
	t.total++
	if status == http.StatusUnauthorized {
		t.refused++
	}
	if time.Since(t.told) >= 10*time.Second {
		t.told = time.Now()
		harness.Say("... %d tokens in %s", t.total, time.Since(t.started).Round(time.Second))
	}
}

func (t *tally) all() (answers map[string]int, refused int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.answers), t.refused
}

// samples are the answers to a good token.
type samples struct {
	sent, accepted int
	times          []time.Duration
	failures       map[string]int
}

// sampleGood sends a good token to both replicas every 100 ms, whether or not the last
// ones have been answered.
func (x *flooded) sampleGood(ctx context.Context) samples {
	token := good(x.issuer, x.known)
	v := newVerifiers(4) // connections of its own: it does not wait for those of the flood
	defer v.close()
	out := samples{failures: map[string]int{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	one := func(m *replica) {
		asked := time.Now()
		status, reason, err := v.ask(context.WithoutCancel(ctx), m, floodName, token)
		took := time.Since(asked)
		mu.Lock()
		defer mu.Unlock()
		out.sent++
		out.times = append(out.times, took)
		switch {
		case err != nil:
			out.failures[err.Error()]++
		case status == http.StatusOK:
			out.accepted++
		default:
			out.failures[fmt.Sprintf("%d %s", status, reason)]++
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, m := range x.managers {
			all.Go(func() { one(m) })
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	all.Wait()
	return out
}

// flood adds what the two floods have in common.
func reportFlood(r *harness.Report, name string, f floodResult) {
	total := 0
	for _, n := range f.answers {
		total += n
	}
	r.Figure(name+": tokens sent", "%d in %s, %.0f a second", total, harness.Round(f.took), float64(total)/f.took.Seconds())
	r.Target(name+": tokens refused with 401", f.refused == total, "all", "%d of %d (%s)", f.refused, total, listed(f.answers))
	r.Target(name+": good tokens accepted meanwhile", f.good.accepted == f.good.sent, "100 %",
		"%.1f %%, %d of %d%s", 100*float64(f.good.accepted)/float64(f.good.sent), f.good.accepted, f.good.sent, prefixed("; ", listed(f.good.failures)))
	r.Times(name+": answer to a good token", f.good.times)
}

// listed is a count of each, sorted.
func listed(counts map[string]int) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s: %d", name, counts[name]))
	}
	return strings.Join(out, ", ")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// shortest is the shortest time between two fetches.
func shortest(at []time.Time) string {
	if len(at) < 2 {
		return "-"
	}
	least := at[1].Sub(at[0])
	for n := 2; n < len(at); n++ {
		least = min(least, at[n].Sub(at[n-1]))
	}
	return least.Round(100 * time.Millisecond).String()
}
