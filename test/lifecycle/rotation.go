// rotation.go measures how soon a token of a new key is accepted.
package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	// retryAfter is when the owner of a refused token tries again.
	retryAfter = 100 * time.Millisecond
	// acceptLimit is when a round is given up.
	acceptLimit = 90 * time.Second
)

// rotationRound is one rotation, of one issuer.
type rotationRound struct {
	name     string
	issuer   *testissuer.Issuer
	old, new *testissuer.Key

	before   int                     // fetches before the rotation
	accepted [replicas]time.Duration // from the rotation, by each replica
	refused  [replicas]int           // how often each refused the token
	fetched  int                     // fetches until both had accepted it
	leftOver bool                    // status kept a request that no fetch had answered
}

func measureRotation(ctx context.Context, o *options, r *harness.Report) error {
	return inWorld(ctx, o.manager, func(w *world) error {
		rounds, err := prepareRounds(o.rounds)
		defer closeRounds(rounds)
		if err != nil {
			return err
		}
		harness.Say("Creating %d issuers ...", len(rounds))
		if err := w.createReady(ctx, objectsOf(rounds)); err != nil {
			return err
		}
		if err := sleep(ctx, spacing, "an unknown key causes a fetch at most once in 30 s, and they were just fetched"); err != nil {
			return err
		}
		v := newVerifiers(replicas)
		defer v.close()
		for n, turn := range rounds {
			if err := turn.run(ctx, w, v); err != nil {
				return fmt.Errorf("round %d: %w", n+1, err)
			}
			harness.Say("round %2d: accepted after %s and %s, refused before that %v times, %d fetch(es)", n+1,
				harness.Round(turn.accepted[0]), harness.Round(turn.accepted[1]), turn.refused, turn.fetched)
		}
		if err := findLeftOvers(ctx, w, rounds); err != nil {
			return err
		}
		if err := sleep(ctx, spacing+2*time.Second, "a request that was left over would cause another fetch by then"); err != nil {
			return err
		}
		reportRotation(r, rounds)
		return nil
	})
}

func prepareRounds(n int) ([]*rotationRound, error) {
	var out []*rotationRound
	for k := range n {
		i, err := testissuer.Start()
		if err != nil {
			return out, err
		}
		round := &rotationRound{
			name: fmt.Sprintf("rotating-%d", k), issuer: i,
			old: testissuer.NewKey("old", "ES256"), new: testissuer.NewKey("new", "ES256"),
		}
		i.Publish(round.old)
		out = append(out, round)
	}
	return out, nil
}

func closeRounds(rounds []*rotationRound) {
	for _, r := range rounds {
		r.issuer.Close()
	}
}

func objectsOf(rounds []*rotationRound) []*api.TrustedIssuer {
	var out []*api.TrustedIssuer
	for _, r := range rounds {
		out = append(out, trusted(r.name, r.issuer))
	}
	return out
}

// run rotates and sends a token of the new key to every replica at once.
func (r *rotationRound) run(ctx context.Context, w *world, v verifiers) error {
	ctx, cancel := context.WithTimeout(ctx, acceptLimit)
	defer cancel()
	token := good(r.issuer, r.new)
	r.before = r.issuer.Requests()
	r.issuer.Publish(r.old, r.new)
	rotated := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for n, m := range w.managers {
		group.Go(func() error {
			var err error
			r.refused[n], err = insist(ctx, v, m, r.name, token)
			r.accepted[n] = time.Since(rotated)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	r.fetched = r.issuer.Requests() - r.before
	return nil
}

// findLeftOvers looks for requests of the verifiers that no fetch has answered. It waits
// first: a token is accepted before status says what was handled.
func findLeftOvers(ctx context.Context, w *world, rounds []*rotationRound) error {
	if err := sleep(ctx, 3*time.Second, "the last status is still being written"); err != nil {
		return err
	}
	for _, r := range rounds {
		o, err := w.read(ctx, r.name)
		if err != nil {
			return err
		}
		handled := o.Status.HandledRefresh
		r.leftOver = handled == nil || !o.Status.RefreshRequestedAt.Equal(handled.RequestedAt)
	}
	return nil
}

// insist sends a token until it is accepted, and says how often it was refused.
func insist(ctx context.Context, v verifiers, m *replica, name, token string) (refused int, err error) {
	for {
		status, reason, err := v.ask(ctx, m, name, token)
		switch {
		case err != nil:
			return refused, fmt.Errorf("asking %s: %w", m.Name, err)
		case status == http.StatusOK:
			return refused, nil
		}
		refused++
		select {
		case <-ctx.Done():
			return refused, fmt.Errorf("%s still answered %d (%s) after %s", m.Name, status, reason, acceptLimit)
		case <-time.After(retryAfter):
		}
	}
}

func reportRotation(r *harness.Report, rounds []*rotationRound) {
	var first, both []time.Duration
	refused, leftOver, early, late, uneven := 0, 0, 0, 0, 0
	for _, turn := range rounds {
		first = append(first, min(turn.accepted[0], turn.accepted[1]))
		both = append(both, max(turn.accepted[0], turn.accepted[1]))
		if turn.refused[0]+turn.refused[1] > 0 {
			refused++
		}
		if turn.leftOver {
			leftOver++
		}
		total := turn.issuer.Requests() - turn.before
		early, late = early+turn.fetched, late+total-turn.fetched
		if total != 1 {
			uneven++
		}
	}
	n := len(rounds)
	r.Times("rotation: issuer rotates -> token accepted by the first replica", first)
	r.Times("rotation: issuer rotates -> token accepted by both replicas", both)
	r.Figure("rotation: rounds in which a replica refused the token first", "%d of %d", refused, n)
	r.Figure("rotation: rounds that left a request in status that no fetch had answered", "%d of %d", leftOver, n)
	r.Target("rotation: fetches until both replicas accepted", early == n, fmt.Sprintf("%d, one a round", n), "%d", early)
	r.Target("rotation: further fetches in the 30 s after", late == 0, "0", "%d", late)
	r.Target("rotation: rounds with exactly one fetch", uneven == 0, fmt.Sprintf("%d of %d", n, n), "%d of %d", n-uneven, n)
}
