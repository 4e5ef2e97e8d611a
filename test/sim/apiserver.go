// apiserver.go is the modelled API server: objects with uid, generation and
// resourceVersion, optimistic concurrency, and the history that watches replay.
// Server-side apply is modelled as far as the product uses it.

package sim

import (
	"maps"
	"reflect"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const controllerManager = "jwks-trust-controller"

var (
	issuers    = schema.GroupResource{Group: api.GroupVersion.Group, Resource: "trustedissuers"}
	configMaps = schema.GroupResource{Resource: "configmaps"}
)

// event is an object after a change; gone says that the change was its end.
type event struct {
	object client.Object
	gone   bool
}

// apiserver holds the objects. What it hands out are copies, or objects that
// nobody changes.
type apiserver struct {
	version int
	uids    int
	issuer  *api.TrustedIssuer
	maps    map[client.ObjectKey]*corev1.ConfigMap
	// applied are the fields of each ConfigMap that the controller has applied.
	applied map[client.ObjectKey]fields
	// history is what has changed, in order: watches replay it.
	history []event
	now     func() time.Time
}

// fields are names of labels, annotations and data.
type fields struct{ labels, annotations, data map[string]string }

func newAPIServer(now func() time.Time) *apiserver {
	return &apiserver{now: now, maps: map[client.ObjectKey]*corev1.ConfigMap{}, applied: map[client.ObjectKey]fields{}}
}

func (s *apiserver) uid() types.UID {
	s.uids++
	return types.UID("uid-" + strconv.Itoa(s.uids))
}

// stamp gives an object its next resourceVersion and records the change.
func (s *apiserver) stamp(o client.Object, gone bool) {
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	s.history = append(s.history, event{o, gone})
}

// putIssuer stores the issuer as changed; one whose last finalizer is gone ends.
func (s *apiserver) putIssuer(next *api.TrustedIssuer) {
	before := s.issuer
	next.ResourceVersion = ""
	if before != nil {
		same := before.DeepCopy()
		same.ResourceVersion = ""
		if reflect.DeepEqual(same, next) {
			next.ResourceVersion = before.ResourceVersion
			return // nothing changed: no new version
		}
		if !reflect.DeepEqual(before.Spec, next.Spec) {
			next.Generation++
		}
	}
	s.issuer = next
	gone := next.DeletionTimestamp != nil && len(next.Finalizers) == 0
	if gone {
		s.issuer = nil
	}
	s.stamp(next, gone)
}

func (s *apiserver) createIssuer(key client.ObjectKey, spec api.IssuerSpec) {
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, UID: s.uid(), Generation: 1, CreationTimestamp: metav1.NewTime(s.now()),
	}}
	ti.Spec.IssuerSpec = spec
	s.putIssuer(ti)
}

// editIssuer changes the issuer as a user does.
func (s *apiserver) editIssuer(change func(*api.TrustedIssuer)) {
	if s.issuer == nil {
		return
	}
	next := s.issuer.DeepCopy()
	change(next)
	s.putIssuer(next)
}

// putMap stores a ConfigMap as changed, if it was.
func (s *apiserver) putMap(next *corev1.ConfigMap) {
	key := client.ObjectKeyFromObject(next)
	if before := s.maps[key]; before != nil {
		same := before.DeepCopy()
		next.ResourceVersion = same.ResourceVersion
		if reflect.DeepEqual(same, next) {
			return
		}
	}
	s.maps[key] = next
	s.stamp(next, false)
}

func (s *apiserver) removeMap(key client.ObjectKey) {
	if cm := s.maps[key]; cm != nil {
		last := cm.DeepCopy()
		delete(s.maps, key)
		delete(s.applied, key)
		s.stamp(last, true)
	}
}

// createMap makes a ConfigMap for the controller; what exists is left alone.
func (s *apiserver) createMap(cm *corev1.ConfigMap) error {
	key := client.ObjectKeyFromObject(cm)
	if s.maps[key] != nil {
		return apierrors.NewAlreadyExists(configMaps, cm.Name)
	}
	stored := cm.DeepCopy()
	stored.UID, stored.CreationTimestamp = s.uid(), metav1.NewTime(s.now())
	stored.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: controllerManager, Operation: metav1.ManagedFieldsOperationUpdate}}
	s.putMap(stored)
	stored.DeepCopyInto(cm)
	return nil
}

// applyMap is server-side apply by the controller: fields that it applied before
// and no longer does go.
func (s *apiserver) applyMap(key client.ObjectKey, uid types.UID, version string, want fields) (string, error) {
	cm := s.maps[key]
	if cm == nil || cm.UID != uid || cm.ResourceVersion != version {
		return "", conflict(configMaps, key.Name)
	}
	if cm.Immutable != nil && *cm.Immutable {
		return "", apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, key.Name, nil)
	}
	before, next := s.applied[key], cm.DeepCopy()
	next.Labels = merged(next.Labels, before.labels, want.labels)
	next.Annotations = merged(next.Annotations, before.annotations, want.annotations)
	next.Data = merged(next.Data, before.data, want.data)
	next.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: controllerManager, Operation: metav1.ManagedFieldsOperationApply}}
	s.applied[key] = want
	s.putMap(next)
	return s.maps[key].ResourceVersion, nil
}

func merged(have, applied, want map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range have {
		_, was := applied[k]
		_, is := want[k]
		if !was || is {
			out[k] = v
		}
	}
	maps.Copy(out, want)
	if len(out) == 0 {
		return nil
	}
	return out
}

// applyStatus is server-side apply of status by the controller, but for the fields
// that are the verifier's.
func (s *apiserver) applyStatus(uid types.UID, version string, status *api.IssuerStatus) (string, error) {
	switch {
	case s.issuer == nil:
		return "", apierrors.NewNotFound(issuers, "auth")
	case s.issuer.UID != uid || s.issuer.ResourceVersion != version:
		return "", conflict(issuers, "auth")
	}
	next := s.issuer.DeepCopy()
	status.RefreshRequestedAt, status.KeyUsage = next.Status.RefreshRequestedAt, next.Status.KeyUsage
	next.Status = *status
	s.putIssuer(next)
	return next.ResourceVersion, nil
}

func conflict(resource schema.GroupResource, name string) error {
	return apierrors.NewConflict(resource, name, nil)
}
