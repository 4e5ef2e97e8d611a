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

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// version is one version of an object, as far as it says which keys are trusted.
type version struct {
	revision uint64 // etcd's, which orders the versions of all objects
	uid      types.UID
	// An issuer object has these.
	issuer          bool
	digest, pending string
	ending          bool
	// An authoritative ConfigMap has this.
	content string
}

// witness keeps the versions.
type witness struct {
	watches []watch.Interface

	mu   sync.Mutex
	seen []version
}

// watchAll begins to read.
func watchAll(w *world) (*witness, error) {
	seen := &witness{}
	for _, list := range []client.ObjectList{&api.TrustedIssuerList{}, &api.ClusterTrustedIssuerList{}, &corev1.ConfigMapList{}} {
		stream, err := w.api.Watch(context.Background(), list)
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

func (s *witness) close() {
	for _, w := range s.watches {
		w.Stop()
	}
}

func (s *witness) note(event watch.Event) {
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
		v.issuer = true
		v.ending = event.Type == watch.Deleted || !o.GetDeletionTimestamp().IsZero()
		if status := o.IssuerStatus().Snapshot; status != nil {
			v.digest, v.pending = status.Digest, status.PendingDigest
		}
	case *corev1.ConfigMap:
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

// judge goes through the history of an issuer object: from the moment at which status
// first names a digest, the ConfigMap holds keys that status names, until status names
// none any more, or the object goes. It returns how many versions there were.
func (s *witness) judge(uid types.UID) (versions int, err error) {
	s.mu.Lock()
	history := slices.Clone(s.seen)
	s.mu.Unlock()
	history = slices.DeleteFunc(history, func(v version) bool { return v.uid != uid })
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
