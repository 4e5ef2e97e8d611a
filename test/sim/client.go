// client.go is the modelled client of one manager process. Every call stops before
// it reaches the API server, until the scheduler says how it ends.

package sim

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// fate is how a call ends.
type fate int

const (
	answered    fate = iota
	unavailable      // an error; the server has seen nothing
	late             // an error, though the server has carried it out
	conflicted       // 409
	diesBefore       // the process dies before the server has seen the call
	diesAfter        // the process dies after the server has carried it out
	fates
)

var fateNames = [fates]string{"is answered", "fails", "is carried out, but its answer is lost", "meets a conflict", "is the process's last: it dies before", "is the process's last: it dies after"}

// died unwinds a process that has died.
type died struct{}

// call lets the scheduler decide about one call.
func (p *manager) call(what string, writes bool, do func() error) error {
	fate := p.await(what)
	switch fate {
	case unavailable:
		return apierrors.NewServiceUnavailable("the API server is away")
	case conflicted:
		if writes {
			return conflict(configMaps, what)
		}
	case diesBefore:
		p.die()
	case answered, late, diesAfter, fates:
	}
	err := do()
	switch fate {
	case late:
		return apierrors.NewTimeoutError("the answer was lost", 1)
	case diesAfter:
		p.die()
	default:
	}
	return err
}

// reader reads from the API server itself, or from the process's cache.
type reader struct {
	client.Reader

	p      *manager
	cached bool
}

// Get reads one object. From the cache it takes no time.
func (r reader) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	get := func() error {
		var found client.Object
		switch into.(type) {
		case *apiextensionsv1.CustomResourceDefinition:
			return nil // there, and there to stay
		case *api.TrustedIssuer:
			found = r.issuer()
		default:
			found = r.configMap(key)
		}
		return copyInto(found, into)
	}
	if r.cached {
		return get()
	}
	return r.p.call("get "+kindOf(into), false, get)
}

func (r reader) issuer() client.Object {
	ti := r.p.world.server.issuer
	if r.cached {
		ti = r.p.view.issuer
	}
	if ti == nil {
		return nil
	}
	return ti
}

func (r reader) configMap(key client.ObjectKey) client.Object {
	cm := r.p.world.server.maps[key]
	if r.cached {
		cm = r.p.view.maps[key]
	}
	if cm == nil {
		return nil
	}
	return cm
}

// copyInto copies an object, or its metadata.
func copyInto(from, into client.Object) error {
	switch into := into.(type) {
	case *api.TrustedIssuer:
		if ti, ok := from.(*api.TrustedIssuer); ok {
			ti.DeepCopyInto(into)
			return nil
		}
		return apierrors.NewNotFound(issuers, "auth")
	case *corev1.ConfigMap:
		if cm, ok := from.(*corev1.ConfigMap); ok {
			cm.DeepCopyInto(into)
			return nil
		}
	case *metav1.PartialObjectMetadata:
		if cm, ok := from.(*corev1.ConfigMap); ok {
			cm.ObjectMeta.DeepCopyInto(&into.ObjectMeta)
			return nil
		}
	}
	return apierrors.NewNotFound(configMaps, "configmap")
}

// List lists the metadata of ConfigMaps.
func (r reader) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	into, ok := list.(*metav1.PartialObjectMetadataList)
	if !ok {
		return fmt.Errorf("the model lists no %T", list)
	}
	var o client.ListOptions
	o.ApplyOptions(options)
	for _, key := range sortedKeys(r.p.view.maps) {
		cm := r.p.view.maps[key]
		if (o.Namespace == "" || o.Namespace == key.Namespace) && (o.LabelSelector == nil || o.LabelSelector.Matches(labelSet(cm.Labels))) {
			into.Items = append(into.Items, metav1.PartialObjectMetadata{ObjectMeta: *cm.ObjectMeta.DeepCopy()})
		}
	}
	return nil
}

// kubeClient reads from the cache and writes.
type kubeClient struct {
	client.Client

	reader
}

// Get is that of the cache.
func (c kubeClient) Get(ctx context.Context, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
	return c.reader.Get(ctx, key, into, o...)
}

// List is that of the cache.
func (c kubeClient) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	return c.reader.List(ctx, list, o...)
}

// Create creates a ConfigMap.
func (c kubeClient) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	cm, ok := o.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("the model creates no %T", o)
	}
	return c.p.call("create ConfigMap", true, func() error {
		w := c.p.world
		w.checks.lateCopy = w.checks.lateCopy || w.leader != c.p && client.ObjectKeyFromObject(cm) == copyKey
		return w.server.createMap(cm)
	})
}

// Delete deletes a ConfigMap, under its preconditions.
func (c kubeClient) Delete(_ context.Context, o client.Object, options ...client.DeleteOption) error {
	var d client.DeleteOptions
	d.ApplyOptions(options)
	return c.p.call("delete ConfigMap", true, func() error {
		s, key := c.p.world.server, client.ObjectKeyFromObject(o)
		cm := s.maps[key]
		switch {
		case cm == nil:
			return apierrors.NewNotFound(configMaps, key.Name)
		case d.Preconditions != nil && (*d.Preconditions.UID != cm.UID || *d.Preconditions.ResourceVersion != cm.ResourceVersion):
			return conflict(configMaps, key.Name)
		}
		s.removeMap(key)
		return nil
	})
}

// Patch is a merge patch with a resourceVersion: the object as it was read is what
// the server has, so the changed object is the result.
func (c kubeClient) Patch(_ context.Context, o client.Object, _ client.Patch, _ ...client.PatchOption) error {
	return c.p.call("patch "+kindOf(o), true, func() error {
		s := c.p.world.server
		switch o := o.(type) {
		case *api.TrustedIssuer:
			switch {
			case s.issuer == nil:
				return apierrors.NewNotFound(issuers, o.Name)
			case s.issuer.UID != o.UID || s.issuer.ResourceVersion != o.ResourceVersion:
				return conflict(issuers, o.Name)
			}
			next := s.issuer.DeepCopy()
			next.Finalizers = o.Finalizers
			if next.DeletionTimestamp != nil {
				c.p.world.withdrew = c.p
			}
			s.putIssuer(next)
			o.ResourceVersion = next.ResourceVersion
		case *corev1.ConfigMap:
			cm := s.maps[client.ObjectKeyFromObject(o)]
			switch {
			case cm == nil:
				return apierrors.NewNotFound(configMaps, o.Name)
			case cm.UID != o.UID || cm.ResourceVersion != o.ResourceVersion:
				return conflict(configMaps, o.Name)
			}
			next := o.DeepCopy()
			s.putMap(next)
			o.ResourceVersion = s.maps[client.ObjectKeyFromObject(o)].ResourceVersion
		}
		return nil
	})
}

// Apply applies a ConfigMap.
func (c kubeClient) Apply(_ context.Context, o runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	ac, ok := o.(*corev1ac.ConfigMapApplyConfiguration)
	if !ok {
		return fmt.Errorf("the model applies no %T", o)
	}
	return c.p.call("apply ConfigMap", true, func() error {
		key, w := client.ObjectKey{Namespace: *ac.Namespace, Name: *ac.Name}, c.p.world
		version, err := w.server.applyMap(key, *ac.UID, *ac.ResourceVersion, fields{ac.Labels, ac.Annotations, ac.Data})
		if err == nil {
			ac.WithResourceVersion(version)
		}
		return err
	})
}

// Status writes status.
func (c kubeClient) Status() client.SubResourceWriter { return statusWriter{p: c.p} }

type statusWriter struct {
	client.SubResourceWriter

	p *manager
}

// Apply applies the status of an issuer.
func (w statusWriter) Apply(_ context.Context, o runtime.ApplyConfiguration, _ ...client.SubResourceApplyOption) error {
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var ti api.TrustedIssuer
	if err := json.Unmarshal(content, &ti); err != nil {
		return err
	}
	return w.p.call("apply status", true, func() error {
		version, err := w.p.world.server.applyStatus(ti.UID, ti.ResourceVersion, &ti.Status)
		if err == nil {
			if setter, ok := o.(interface{ SetResourceVersion(string) }); ok {
				setter.SetResourceVersion(version)
			} else {
				return fmt.Errorf("the model applies no %T", o)
			}
		}
		return err
	})
}

// kindOf names an object's kind.
func kindOf(o client.Object) string {
	switch o.(type) {
	case *api.TrustedIssuer:
		return "issuer"
	case *corev1.ConfigMap, *metav1.PartialObjectMetadata:
		return "ConfigMap"
	case *unstructured.Unstructured:
		return "object"
	}
	return "definition"
}
