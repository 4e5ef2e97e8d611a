// ready.go makes TrustedIssuers and watches them become Ready.

package harness

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
	r := &Readiness{wanted: map[string]bool{}, done: make(chan struct{}), at: map[string]time.Time{}}
	for _, n := range names {
		r.wanted[n] = true
	}
	return r, c.Follow(ctx, &api.TrustedIssuer{}, nil, func(o client.Object) {
		if ti, ok := o.(*api.TrustedIssuer); ok {
			r.note(ti)
		}
	})
}

// Follow calls seen with each object of the kind, and labels, that there is, and with
// each change of one, until the context ends. It goes on where a watch is broken off,
// as the API server does with those who are slow.
func (c *Cluster) Follow(ctx context.Context, kind client.Object, labels client.MatchingLabels, seen func(client.Object)) error {
	followed, err := cache.New(c.Config, cache.Options{Scheme: c.Client.Scheme(), DefaultLabelSelector: k8slabels.SelectorFromSet(k8slabels.Set(labels))})
	if err != nil {
		return err
	}
	informer, err := followed.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	note := func(o any) {
		if o, ok := o.(client.Object); ok {
			seen(o)
		}
	}
	if _, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, o any) { note(o) }}); err != nil {
		return err
	}
	go func() { _ = followed.Start(ctx) }() // ends with the context, and has no other error
	if !followed.WaitForCacheSync(ctx) {
		return fmt.Errorf("following %T: %w", kind, ctx.Err())
	}
	return nil
}

func (r *Readiness) note(o *api.TrustedIssuer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wanted[o.Name] || !meta.IsStatusConditionTrue(o.Status.Conditions, api.ConditionReady) {
		return
	}
	if _, seen := r.at[o.Name]; seen {
		return
	}
	if r.at[o.Name] = time.Now(); len(r.at) == len(r.wanted) {
		close(r.done)
	}
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
