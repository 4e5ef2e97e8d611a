// store.go is the index of what the verifier knows. Writers (watch.go) join one
// issuer at a time; readers (the protocols) get finished, immutable entries.

package verifier

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// issuers is all that a protocol sees of the store.
type issuers interface {
	// Ready reports whether every issuer and snapshot has been read once.
	Ready() bool
	// ForObject is the issuer of that kind, namespace and name.
	ForObject(Object) (*Issuer, bool)
	// ForTokenReview is the one issuer whose tokens with this exact "iss" may
	// authenticate to the Kubernetes API.
	ForTokenReview(untrustedIssuer string) (*Issuer, bool)
}

// Store holds what the verifier knows of every issuer. It is safe for
// concurrent use.
type Store struct {
	now   func() time.Time
	ready atomic.Bool
	// dropped, where set before the store is fed, hears of each UID that is gone.
	dropped func(types.UID)

	// joining serializes the writers. Key sets are read while it is held;
	// readers never wait for it.
	joining sync.Mutex
	records map[types.UID]*record
	current map[Object]types.UID

	// index guards what the readers see. It is held for map operations only.
	index    sync.RWMutex
	byObject map[Object]*Issuer
	// byIssuer lists the ClusterTrustedIssuers with kubernetesAuthentication for
	// an "iss", the oldest first.
	byIssuer map[string][]*Issuer
}

// record holds the two sources of one UID, and what came of them. The objects
// are those of the informers' cache and must not be changed.
type record struct {
	object api.Issuer
	// data is nil when there is no ConfigMap.
	data   map[string]string
	issuer *Issuer
}

// NewStore is an empty store that tells the time by now; nil for the clock.
func NewStore(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{
		now:      now,
		records:  map[types.UID]*record{},
		current:  map[Object]types.UID{},
		byObject: map[Object]*Issuer{},
		byIssuer: map[string][]*Issuer{},
	}
}

// Ready reports whether every issuer and every snapshot that was there at the
// start has been read. An issuer whose keys are missing or bad does not hold it
// back.
func (s *Store) Ready() bool { return s.ready.Load() }

// ReadyCheck is Ready as a readiness probe.
func (s *Store) ReadyCheck(*http.Request) error {
	if !s.Ready() {
		return errors.New("the issuers and their snapshots have not all been read yet")
	}
	return nil
}

// ForObject is what is known of the issuer object of that name.
func (s *Store) ForObject(o Object) (*Issuer, bool) {
	s.index.RLock()
	defer s.index.RUnlock()
	issuer, ok := s.byObject[o]
	return issuer, ok
}

// ForTokenReview is the ClusterTrustedIssuer whose tokens with this exact "iss"
// may authenticate to the Kubernetes API. Where several claim the same issuer it
// is the oldest one; names break ties.
func (s *Store) ForTokenReview(untrustedIssuer string) (*Issuer, bool) {
	s.index.RLock()
	defer s.index.RUnlock()
	candidates := s.byIssuer[untrustedIssuer]
	if len(candidates) == 0 {
		return nil, false
	}
	return candidates[0], true
}

// all are the issuers that are known now.
func (s *Store) all() []*Issuer {
	s.index.RLock()
	defer s.index.RUnlock()
	return slices.Collect(maps.Values(s.byObject))
}

// setIssuer takes in an issuer object as it is now.
func (s *Store) setIssuer(object api.Issuer) {
	s.joining.Lock()
	defer s.joining.Unlock()
	name := objectOf(object)
	if uid, ok := s.current[name]; ok && uid != object.GetUID() {
		s.drop(name, uid)
	}
	if deleting(object) {
		s.drop(name, object.GetUID())
		return
	}
	s.current[name] = object.GetUID()
	r := s.record(object.GetUID())
	r.object = object
	s.rejoin(r)
}

// deleteIssuer takes note that an issuer object is gone.
func (s *Store) deleteIssuer(object api.Issuer) {
	s.joining.Lock()
	defer s.joining.Unlock()
	s.drop(objectOf(object), object.GetUID())
}

// setContent takes in the data of the authoritative ConfigMap of an issuer; nil
// when it is gone. It reports whether the data are what is trusted now, as far
// as can be told.
func (s *Store) setContent(uid types.UID, data map[string]string) (trusted bool) {
	s.joining.Lock()
	defer s.joining.Unlock()
	r := s.record(uid)
	r.data = data
	if r.object != nil {
		s.rejoin(r)
	}
	s.forgetIfEmpty(uid, r)
	return r.issuer == nil || r.issuer.held.digest == snapshot.Digest(data)
}

func (s *Store) record(uid types.UID) *record {
	r, ok := s.records[uid]
	if !ok {
		r = &record{}
		s.records[uid] = r
	}
	return r
}

// drop ends the trust in the object with this UID. Nothing of it is kept but the
// ConfigMap's data, for as long as there is one.
func (s *Store) drop(name Object, uid types.UID) {
	if s.current[name] == uid {
		delete(s.current, name)
	}
	r, ok := s.records[uid]
	if !ok {
		return
	}
	s.publish(r.issuer, nil)
	r.object, r.issuer = nil, nil
	if s.dropped != nil {
		s.dropped(uid)
	}
	s.forgetIfEmpty(uid, r)
}

func (s *Store) forgetIfEmpty(uid types.UID, r *record) {
	if r.object == nil && r.data == nil {
		delete(s.records, uid)
	}
}

// rejoin computes what is known anew and lets the readers see it.
func (s *Store) rejoin(r *record) {
	before := r.issuer
	r.issuer = join(r.object, r.data, before, s.now())
	s.publish(before, r.issuer)
}

// publish replaces one entry of the index by another; either may be nil.
func (s *Store) publish(before, next *Issuer) {
	s.index.Lock()
	defer s.index.Unlock()
	if before != nil {
		delete(s.byObject, before.Object)
		s.unlist(before)
		defer close(before.replaced)
	}
	if next != nil {
		s.byObject[next.Object] = next
		s.list(next)
	}
}

// list and unlist keep the slices in byIssuer sorted and never change one that
// a reader may hold.
func (s *Store) list(issuer *Issuer) {
	if issuer.KubernetesAuthentication == nil {
		return
	}
	others := s.byIssuer[issuer.Issuer]
	sorted := append(slices.Clone(others), issuer)
	slices.SortFunc(sorted, older)
	s.byIssuer[issuer.Issuer] = sorted
}

func (s *Store) unlist(issuer *Issuer) {
	kept := slices.DeleteFunc(slices.Clone(s.byIssuer[issuer.Issuer]), func(i *Issuer) bool { return i == issuer })
	if len(kept) == 0 {
		delete(s.byIssuer, issuer.Issuer)
		return
	}
	s.byIssuer[issuer.Issuer] = kept
}
