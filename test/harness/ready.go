// ready.go makes TrustedIssuers and watches them become Ready.

package harness

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// Create makes the objects, eight at a time and in their order.
func (c *Cluster) Create(ctx context.Context, objects []*api.TrustedIssuer) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, o := range objects {
		group.Go(func() error { return c.Client.Create(ctx, o) })
	}
	return group.Wait()
}

// Readiness counts the objects that are Ready.
type Readiness struct {
	wanted map[string]bool
	done   chan struct{} // closed when all are

	mu sync.Mutex
	at map[string]time.Time // when each was seen to be Ready
}

// WatchReady begins to watch for TrustedIssuers of these names, which differ over all
// namespaces. It ends with the context.
func (c *Cluster) WatchReady(ctx context.Context, names []string) (*Readiness, error) {
	stream, err := c.Client.Watch(ctx, &api.TrustedIssuerList{})
	if err != nil {
		return nil, err
	}
	r := &Readiness{wanted: map[string]bool{}, done: make(chan struct{}), at: map[string]time.Time{}}
	for _, n := range names {
		r.wanted[n] = true
	}
	go func() {
		defer stream.Stop()
		for event := range stream.ResultChan() {
			if o, ok := event.Object.(*api.TrustedIssuer); ok && r.note(o) {
				return
			}
		}
	}()
	return r, nil
}

// note reports whether all are Ready now.
func (r *Readiness) note(o *api.TrustedIssuer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wanted[o.Name] || !meta.IsStatusConditionTrue(o.Status.Conditions, api.ConditionReady) {
		return false
	}
	if _, seen := r.at[o.Name]; !seen {
		r.at[o.Name] = time.Now()
	}
	if len(r.at) < len(r.wanted) {
		return false
	}
	close(r.done)
	return true
}

// Wait waits until all are Ready, and says how far it is.
func (r *Readiness) Wait(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("after %s only %d of %d issuers were Ready", limit, r.count(), len(r.wanted))
		case <-tick.C:
			Say("... %d of %d are Ready", r.count(), len(r.wanted))
		}
	}
}

func (r *Readiness) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.at)
}

// Since is how long after a time each became Ready.
func (r *Readiness) Since(start time.Time) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []time.Duration
	for _, at := range r.at {
		out = append(out, at.Sub(start))
	}
	return out
}
