// queue.go brings an issuer back to the controller when its fetch has ended, and
// when another issuer object has found that their common source has changed.

package controller

import (
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
)

// Queue wakes issuers of both kinds. It is safe for concurrent use; a nil one
// does nothing.
type Queue struct {
	mu     sync.Mutex
	queues map[string]workqueue.TypedInterface[reconcile.Request]
	// sources and followers say who reads which document.
	sources   map[follower]fetch.Identity
	followers map[fetch.Identity][]follower // most documents have one
}

// follower is an issuer object.
type follower struct {
	kind string
	key  types.NamespacedName
}

func followerOf(issuer api.Issuer) follower {
	return follower{issuer.IssuerKind(), types.NamespacedName{Namespace: issuer.GetNamespace(), Name: issuer.GetName()}}
}

// NewQueue is a queue that no controller listens to yet.
func NewQueue() *Queue {
	return &Queue{
		queues:    map[string]workqueue.TypedInterface[reconcile.Request]{},
		sources:   map[follower]fetch.Identity{},
		followers: map[fetch.Identity][]follower{},
	}
}

// Listen is a source of events for the controller of a kind (source.Func).
func (q *Queue) Listen(kind string) func(context.Context, workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	return func(_ context.Context, to workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.queues[kind] = to
		return nil
	}
}

// priority of an issuer in the queue. Those that only follow what another has
// found wait for those that somebody waits for.
const (
	ordinary  = 0
	following = -10
)

// wake has an issuer reconciled.
func (q *Queue) wake(f follower, priority int) {
	if q == nil {
		return
	}
	q.mu.Lock()
	to := q.queues[f.kind]
	q.mu.Unlock()
	request := reconcile.Request{NamespacedName: f.key}
	switch to := to.(type) {
	case nil:
	case priorityqueue.PriorityQueue[reconcile.Request]:
		to.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, request)
	default:
		to.Add(request)
	}
}

// follow notes what document an issuer reads.
func (q *Queue) follow(issuer api.Issuer, source fetch.Identity) {
	if q == nil {
		return
	}
	f := followerOf(issuer)
	q.mu.Lock()
	defer q.mu.Unlock()
	if before, ok := q.sources[f]; ok && before == source {
		return
	}
	q.drop(f)
	q.sources[f] = source
	q.followers[source] = append(q.followers[source], f)
}

// leave forgets an issuer that is gone.
func (q *Queue) leave(kind string, key types.NamespacedName) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(follower{kind, key})
}

func (q *Queue) drop(f follower) {
	source, ok := q.sources[f]
	if !ok {
		return
	}
	delete(q.sources, f)
	left := slices.DeleteFunc(q.followers[source], func(other follower) bool { return other == f })
	if q.followers[source] = left; len(left) == 0 {
		delete(q.followers, source)
	}
}

// Changed wakes all who read a document. It is what fetch.Share calls.
func (q *Queue) Changed(source fetch.Identity) {
	q.mu.Lock()
	all := slices.Clone(q.followers[source])
	q.mu.Unlock()
	for _, f := range all {
		q.wake(f, following)
	}
}
