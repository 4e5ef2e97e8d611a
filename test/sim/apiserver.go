// apiserver.go is the modelled API server: objects with uid, generation and
// resourceVersion, optimistic concurrency, and the history that watches replay.
// Server-side apply is modelled as far as the product uses it.

package sim

import (
	"fmt"
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
	namespaces = schema.GroupResource{Resource: "namespaces"}
)

// event is an object after a change; gone says that the change was its end.
type event struct {
	object client.Object
	gone   bool
}

// contents are objects by name: those of the API server, or what a watch has told of
// them. No two issuer objects have the same name, whatever their kinds.
type contents struct {
	issuers    map[client.ObjectKey]api.Issuer
	maps       map[client.ObjectKey]*corev1.ConfigMap
	namespaces map[client.ObjectKey]*corev1.Namespace
}

func newContents() contents {
	return contents{map[client.ObjectKey]api.Issuer{}, map[client.ObjectKey]*corev1.ConfigMap{}, map[client.ObjectKey]*corev1.Namespace{}}
}

// take takes an object in, or out when it is gone.
func (c contents) take(o client.Object, gone bool) {
	switch key := client.ObjectKeyFromObject(o); o := o.(type) {
	case api.Issuer:
		putOrDelete(c.issuers, key, o, gone)
	case *corev1.ConfigMap:
		putOrDelete(c.maps, key, o, gone)
	case *corev1.Namespace:
		putOrDelete(c.namespaces, key, o, gone)
	}
}

func putOrDelete[V any](m map[client.ObjectKey]V, key client.ObjectKey, v V, gone bool) {
	if m[key] = v; gone {
		delete(m, key)
	}
}

// find is the object of that name, of the kind of another one; nil for none.
func (c contents) find(kind client.Object, key client.ObjectKey) client.Object {
	switch kindOf(kind) {
	case issuerKind:
		if o := c.issuers[key]; o != nil {
			return o
		}
	case namespaceKind:
		if o := c.namespaces[key]; o != nil {
			return o
		}
	case mapKind:
		if o := c.maps[key]; o != nil {
			return o
		}
	}
	return nil
}

// issuer is the one issuer object of a world that has no more.
func (c contents) issuer() *api.TrustedIssuer {
	ti, _ := c.issuers[issuerKey].(*api.TrustedIssuer)
	return ti
}

// The kinds of objects.
const (
	issuerKind    = "issuer"
	mapKind       = "ConfigMap"
	namespaceKind = "namespace"
	otherKind     = "definition"
)

// kindOf names an object's kind.
func kindOf(o client.Object) string {
	switch o := o.(type) {
	case api.Issuer:
		return issuerKind
	case *corev1.ConfigMap:
		return mapKind
	case *corev1.Namespace:
		return namespaceKind
	case *metav1.PartialObjectMetadata:
		if o.Kind == "Namespace" {
			return namespaceKind
		}
		return mapKind
	}
	return otherKind
}

func resourceOf(o client.Object) schema.GroupResource {
	if kindOf(o) == issuerKind {
		return issuers
	}
	return configMaps
}

// apiserver holds the objects. What it hands out are copies, or objects that
// nobody changes.
type apiserver struct {
	contents

	version int
	uids    int
	// applied are the fields of each ConfigMap that the controller has applied.
	applied map[client.ObjectKey]fields
	// history is what has changed, in order: watches replay it.
	history []event
	now     func() time.Time
}

// fields are names of labels, annotations and data.
type fields struct{ labels, annotations, data map[string]string }

func newAPIServer(now func() time.Time) *apiserver {
	return &apiserver{now: now, contents: newContents(), applied: map[client.ObjectKey]fields{}}
}

func (s *apiserver) uid() types.UID {
	s.uids++
	return types.UID("uid-" + strconv.Itoa(s.uids))
}

// stamp stores an object under its next resourceVersion and records the change.
func (s *apiserver) stamp(o client.Object, gone bool) {
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	s.take(o, gone)
	s.history = append(s.history, event{o, gone})
}

// putIssuer stores the issuer as changed; one whose last finalizer is gone ends.
func (s *apiserver) putIssuer(next api.Issuer) {
	before := s.issuers[client.ObjectKeyFromObject(next)]
	next.SetResourceVersion("")
	if before != nil {
		same := copyOf(before)
		same.SetResourceVersion("")
		if reflect.DeepEqual(same, next) {
			next.SetResourceVersion(before.GetResourceVersion())
			return // nothing changed: no new version
		}
		if !reflect.DeepEqual(specOf(before), specOf(next)) {
			next.SetGeneration(next.GetGeneration() + 1)
		}
	}
	s.stamp(next, next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0)
}

// copyOf is an issuer object that may be changed.
func copyOf(issuer api.Issuer) api.Issuer {
	next, ok := issuer.DeepCopyObject().(api.Issuer)
	if !ok {
		panic(fmt.Sprintf("a copy of a %T", issuer))
	}
	return next
}

func specOf(issuer api.Issuer) any {
	if o, ok := issuer.(*api.ClusterTrustedIssuer); ok {
		return o.Spec
	}
	return *issuer.IssuerSpec()
}

// create makes an issuer object, or a namespace.
func (s *apiserver) create(o client.Object) {
	o.SetUID(s.uid())
	o.SetGeneration(1)
	o.SetCreationTimestamp(metav1.NewTime(s.now()))
	if issuer, ok := o.(api.Issuer); ok {
		s.putIssuer(issuer)
		return
	}
	s.stamp(o, false)
}

func (s *apiserver) createIssuer(key client.ObjectKey, spec api.IssuerSpec) {
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	ti.Spec.IssuerSpec = spec
	s.create(ti)
}

// editIssuer changes the issuer as a user does.
func (s *apiserver) editIssuer(change func(*api.TrustedIssuer)) {
	if s.issuer() == nil {
		return
	}
	next := s.issuer().DeepCopy()
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
	s.stamp(next, false)
}

func (s *apiserver) removeMap(key client.ObjectKey) {
	if cm := s.maps[key]; cm != nil {
		last := cm.DeepCopy()
		delete(s.applied, key)
		s.stamp(last, true)
	}
}

// createMap makes a ConfigMap for the controller; what exists is left alone.
func (s *apiserver) createMap(cm *corev1.ConfigMap) error {
	key := client.ObjectKeyFromObject(cm)
	if err := s.admits(cm.Namespace); err != nil {
		return err
	}
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

// admits reports whether a ConfigMap may be made in a namespace; where the world has
// none, there is no need for one.
func (s *apiserver) admits(namespace string) error {
	ns := s.namespaces[client.ObjectKey{Name: namespace}]
	switch {
	case len(s.namespaces) == 0, ns != nil && ns.DeletionTimestamp == nil:
		return nil
	case ns == nil:
		return apierrors.NewNotFound(namespaces, namespace)
	}
	err := apierrors.NewForbidden(configMaps, "", nil)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
	return err
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
func (s *apiserver) applyStatus(key client.ObjectKey, uid types.UID, version string, status *api.IssuerStatus) (string, error) {
	now := s.issuers[key]
	switch {
	case now == nil:
		return "", apierrors.NewNotFound(issuers, key.Name)
	case now.GetUID() != uid || now.GetResourceVersion() != version:
		return "", conflict(issuers, key.Name)
	}
	next := copyOf(now)
	status.RefreshRequestedAt, status.KeyUsage = next.IssuerStatus().RefreshRequestedAt, next.IssuerStatus().KeyUsage
	*next.IssuerStatus() = *status
	s.putIssuer(next)
	return next.GetResourceVersion(), nil
}

func conflict(resource schema.GroupResource, name string) error {
	return apierrors.NewConflict(resource, name, nil)
}
