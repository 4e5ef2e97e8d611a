// witness_test.go reads every version of every object, and judges the history.

package faults

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// version is one version of an object, as far as it says which keys are trusted.
type version struct {
	revision uint64 // etcd's, which orders the versions of all objects
	uid      types.UID
	// An issuer object has these.
	issuer          bool
	digest, pending string
	ending, gone    bool
	// An authoritative ConfigMap has this.
	content string
}

// witness keeps the versions.
type witness struct {
	api     client.WithWatch
	watches []watch.Interface

	mu    sync.Mutex
	seen  []version
	marks map[string]bool // by name
	lost  error           // why there may be versions that it has not seen
}

// watchAll begins to read. A stream that the server ends is taken up where it ended.
func watchAll(w *world) (*witness, error) {
	seen := &witness{api: w.api, marks: map[string]bool{}}
	for _, list := range []client.ObjectList{&api.TrustedIssuerList{}, &api.ClusterTrustedIssuerList{}, &corev1.ConfigMapList{}} {
		if err := w.api.List(context.Background(), list); err != nil {
			return nil, err
		}
		stream, err := watchtools.NewRetryWatcherWithContext(context.Background(), list.GetResourceVersion(), listWatch{w.api, list})
		if err != nil {
			return nil, err
		}
		seen.watches = append(seen.watches, stream)
		go func() {
			for event := range stream.ResultChan() {
				seen.note(event)
			}
		}()
	}
	return seen, nil
}

// listWatch watches the objects of a list.
type listWatch struct {
	api  client.WithWatch
	list client.ObjectList
}

func (l listWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return l.api.Watch(ctx, l.list, &client.ListOptions{Raw: &options})
}

func (s *witness) close() {
	for _, w := range s.watches {
		w.Stop()
	}
}

func (s *witness) note(event watch.Event) {
	if event.Type == watch.Error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lost = apierrors.FromObject(event.Object)
		return
	}
	o, ok := event.Object.(client.Object)
	if !ok {
		return
	}
	v := version{uid: o.GetUID()}
	var err error
	if v.revision, err = strconv.ParseUint(o.GetResourceVersion(), 10, 64); err != nil {
		return
	}
	switch o := o.(type) {
	case api.Issuer:
		v.issuer, v.gone = true, event.Type == watch.Deleted
		v.ending = v.gone || !o.GetDeletionTimestamp().IsZero()
		if status := o.IssuerStatus().Snapshot; status != nil {
			v.digest, v.pending = status.Digest, status.PendingDigest
		}
	case *corev1.ConfigMap:
		if o.Namespace == markNamespace {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.marks[o.Name] = true
			return
		}
		uid, ok := strings.CutPrefix(o.Name, snapshot.AuthoritativeName(""))
		if !ok {
			return
		}
		v.uid = types.UID(uid)
		if event.Type != watch.Deleted {
			v.content = snapshot.Digest(o.Data)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, v)
}

// markNamespace has ConfigMaps that the witness makes, to see how far it has read.
const markNamespace = "default"

var marks atomic.Int64

// catchUp waits until all has been read that there is now of an issuer object.
func (s *witness) catchUp(o client.Object) error {
	gvk, err := apiutil.GVKForObject(o, s.api.Scheme())
	if err != nil {
		return err
	}
	now := &metav1.PartialObjectMetadata{}
	now.SetGroupVersionKind(gvk)
	err = s.api.Get(context.Background(), client.ObjectKeyFromObject(o), now)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	gone := err != nil || now.UID != o.GetUID()
	mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: markNamespace, Name: fmt.Sprint("mark-", marks.Add(1))}}
	if err := s.api.Create(context.Background(), mark); err != nil {
		return err
	}
	reached := func(v version) bool {
		return v.issuer && v.uid == o.GetUID() && (v.gone || !gone && fmt.Sprint(v.revision) == now.ResourceVersion)
	}
	return harness.Within(context.Background(), mended, 10*time.Millisecond, "the witness to have read all of "+o.GetName(), func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.marks[mark.Name] && slices.ContainsFunc(s.seen, reached), s.lost
	})
}

// judge goes through the history of an issuer object: from the moment at which status
// first names a digest, the ConfigMap holds keys that status names, until status names
// none any more, or the object goes. It returns how many versions there were.
func (s *witness) judge(o client.Object) (versions int, err error) {
	if err := s.catchUp(o); err != nil {
		return 0, err
	}
	s.mu.Lock()
	history := slices.Clone(s.seen)
	s.mu.Unlock()
	history = slices.DeleteFunc(history, func(v version) bool { return v.uid != o.GetUID() })
	slices.SortFunc(history, func(a, b version) int { return cmp.Compare(a.revision, b.revision) })
	var now version
	for _, v := range history {
		if v.issuer {
			now.digest, now.pending, now.ending = v.digest, v.pending, v.ending
		} else {
			now.content = v.content
		}
		endorsed := now.content != "" && (now.content == now.digest || now.content == now.pending)
		if now.digest != "" && !now.ending && !endorsed {
			return len(history), fmt.Errorf("at revision %d a verifier that starts would find no trusted keys: "+
				"the ConfigMap has %q, and status names %q and, pending, %q", v.revision, now.content, now.digest, now.pending)
		}
	}
	return len(history), nil
}

// versions are those of the ConfigMaps in a namespace, deleted ones without data.
type versions struct {
	watch.Interface

	mu   sync.Mutex
	seen []*corev1.ConfigMap
}

// versionsIn begins to read them.
func (w *world) versionsIn(g Gomega, namespace string) *versions {
	stream, err := w.api.Watch(context.Background(), &corev1.ConfigMapList{}, client.InNamespace(namespace))
	g.Expect(err).NotTo(HaveOccurred())
	v := &versions{Interface: stream}
	go func() {
		for event := range stream.ResultChan() {
			cm, ok := event.Object.(*corev1.ConfigMap)
			if !ok {
				continue
			}
			if event.Type == watch.Deleted {
				cm.Data = nil
			}
			v.mu.Lock()
			v.seen = append(v.seen, cm)
			v.mu.Unlock()
		}
	}()
	return v
}

func (v *versions) all() []*corev1.ConfigMap {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.seen)
}

// kidsOf are the names of the keys in a ConfigMap, in their order.
func kidsOf(data map[string]string) string {
	var set struct {
		Keys []struct {
			Kid string `json:"kid"`
		} `json:"keys"`
	}
	if json.Unmarshal([]byte(data[snapshot.KeyJWKS]), &set) != nil {
		return ""
	}
	var out []string
	for _, k := range set.Keys {
		out = append(out, k.Kid)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
