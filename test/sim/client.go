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

// process is a manager process, as its client sees it.
type process interface {
	// call stops, and then makes the call, or not, as its fate is.
	call(ctx context.Context, what string, writes bool, do func() error) error
	// present is the API server itself, and seen what the process's cache has of a kind.
	present() *apiserver
	seen(kind client.Object) contents
	// wrote hears of a ConfigMap that the process has made (before is nil), changed or
	// removed (after is nil), and withdrew that it has let a deleted issuer object go.
	wrote(before, after *corev1.ConfigMap)
	withdrew(issuer api.Issuer)
}

// carryOut ends a call as its fate is; died says that the process does not live to see
// the end.
func carryOut(f fate, what string, writes bool, do func() error) (err error, died bool) { //nolint:revive // whether it died is what comes of the error
	switch f {
	case unavailable:
		return apierrors.NewServiceUnavailable("the API server is away"), false
	case conflicted:
		if writes {
			return conflict(configMaps, what), false
		}
	case diesBefore:
		return nil, true
	case answered, late, diesAfter, fates:
	}
	err = do()
	if f == late {
		err = apierrors.NewTimeoutError("the answer was lost", 1)
	}
	return err, f == diesAfter
}

// reader reads from the API server itself, or from the process's cache.
type reader struct {
	client.Reader

	p      process
	cached bool
}

// Get reads one object. From the cache it takes no time.
func (r reader) Get(ctx context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if r.cached {
		return copyInto(r.p.seen(into).find(into, key), into, key)
	}
	return r.p.call(ctx, "get "+kindOf(into)+" "+key.String(), false, func() error {
		if _, ok := into.(*apiextensionsv1.CustomResourceDefinition); ok {
			return nil // there, and there to stay
		}
		return copyInto(r.p.present().find(into, key), into, key)
	})
}

// copyInto copies an object, or its metadata.
func copyInto(from, into client.Object, key client.ObjectKey) error {
	switch into := into.(type) {
	case *api.TrustedIssuer:
		if ti, ok := from.(*api.TrustedIssuer); ok {
			ti.DeepCopyInto(into)
			return nil
		}
		return apierrors.NewNotFound(issuers, key.Name)
	case *api.ClusterTrustedIssuer:
		if o, ok := from.(*api.ClusterTrustedIssuer); ok {
			o.DeepCopyInto(into)
			return nil
		}
		return apierrors.NewNotFound(issuers, key.Name)
	case *corev1.ConfigMap:
		if cm, ok := from.(*corev1.ConfigMap); ok {
			cm.DeepCopyInto(into)
			return nil
		}
	case *metav1.PartialObjectMetadata:
		if from != nil {
			into.ObjectMeta = metadataOf(from).ObjectMeta
			return nil
		}
	}
	return apierrors.NewNotFound(configMaps, key.Name)
}

// metadataOf is the metadata of a ConfigMap or a namespace.
func metadataOf(o client.Object) *metav1.PartialObjectMetadata {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return &metav1.PartialObjectMetadata{ObjectMeta: *o.ObjectMeta.DeepCopy()}
	case *corev1.Namespace:
		return &metav1.PartialObjectMetadata{ObjectMeta: *o.ObjectMeta.DeepCopy()}
	}
	panic(fmt.Sprintf("the model has no metadata of a %T", o))
}

// List lists the metadata of ConfigMaps or namespaces, or the ClusterTrustedIssuers.
func (r reader) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	switch into := list.(type) {
	case *api.ClusterTrustedIssuerList:
		for _, issuer := range r.p.seen(&api.ClusterTrustedIssuer{}).issuers {
			if o, ok := issuer.(*api.ClusterTrustedIssuer); ok {
				into.Items = append(into.Items, *o)
			}
		}
	case *metav1.PartialObjectMetadataList:
		if !r.cached {
			return r.p.call(ctx, "list ConfigMaps", false, func() error {
				listMetadata(r.p.present().maps, o, into)
				return nil
			})
		}
		if into.Kind == "NamespaceList" {
			listMetadata(r.p.seen(&corev1.Namespace{}).namespaces, o, into)
			return nil
		}
		listMetadata(r.p.seen(configMapMetadata).maps, o, into)
	default:
		return fmt.Errorf("the model lists no %T", list)
	}
	return nil
}

// configMapMetadata stands for its kind.
var configMapMetadata = &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}

func listMetadata[O client.Object](from map[client.ObjectKey]O, o client.ListOptions, into *metav1.PartialObjectMetadataList) {
	for _, key := range sortedKeys(from) {
		if (o.Namespace == "" || o.Namespace == key.Namespace) && (o.LabelSelector == nil || o.LabelSelector.Matches(labelSet(from[key].GetLabels()))) {
			into.Items = append(into.Items, *metadataOf(from[key]))
		}
	}
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
func (c kubeClient) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	cm, ok := o.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("the model creates no %T", o)
	}
	return c.p.call(ctx, "create ConfigMap "+client.ObjectKeyFromObject(o).String(), true, func() error {
		err := c.p.present().createMap(cm)
		if err == nil {
			c.p.wrote(nil, cm)
		}
		return err
	})
}

// Delete deletes a ConfigMap, under its preconditions.
func (c kubeClient) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	var d client.DeleteOptions
	d.ApplyOptions(options)
	key := client.ObjectKeyFromObject(o)
	return c.p.call(ctx, "delete ConfigMap "+key.String(), true, func() error {
		s := c.p.present()
		cm := s.maps[key]
		switch {
		case cm == nil:
			return apierrors.NewNotFound(configMaps, key.Name)
		case d.Preconditions != nil && (*d.Preconditions.UID != cm.UID || *d.Preconditions.ResourceVersion != cm.ResourceVersion):
			return conflict(configMaps, key.Name)
		}
		s.removeMap(key)
		c.p.wrote(cm, nil)
		return nil
	})
}

// Patch is a merge patch with a resourceVersion: the object as it was read is what
// the server has, so the changed object is the result.
func (c kubeClient) Patch(ctx context.Context, o client.Object, _ client.Patch, _ ...client.PatchOption) error {
	key := client.ObjectKeyFromObject(o)
	return c.p.call(ctx, "patch "+kindOf(o)+" "+key.String(), true, func() error {
		s := c.p.present()
		now := s.find(o, key)
		switch {
		case now == nil:
			return apierrors.NewNotFound(resourceOf(o), key.Name)
		case now.GetUID() != o.GetUID() || now.GetResourceVersion() != o.GetResourceVersion():
			return conflict(resourceOf(o), key.Name)
		}
		switch now := now.(type) {
		case api.Issuer:
			next := copyOf(now)
			next.SetFinalizers(o.GetFinalizers())
			if next.GetDeletionTimestamp() != nil {
				c.p.withdrew(next)
			}
			s.putIssuer(next)
			o.SetResourceVersion(next.GetResourceVersion())
		case *corev1.ConfigMap:
			cm, ok := o.(*corev1.ConfigMap)
			if !ok {
				return fmt.Errorf("the model patches no %T", o)
			}
			s.putMap(cm.DeepCopy())
			cm.ResourceVersion = s.maps[key].ResourceVersion
			c.p.wrote(now, s.maps[key])
		}
		return nil
	})
}

// Apply applies a ConfigMap.
func (c kubeClient) Apply(ctx context.Context, o runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	ac, ok := o.(*corev1ac.ConfigMapApplyConfiguration)
	if !ok {
		return fmt.Errorf("the model applies no %T", o)
	}
	key := client.ObjectKey{Namespace: *ac.Namespace, Name: *ac.Name}
	return c.p.call(ctx, "apply ConfigMap "+key.String(), true, func() error {
		s := c.p.present()
		before := s.maps[key]
		version, err := s.applyMap(key, *ac.UID, *ac.ResourceVersion, fields{ac.Labels, ac.Annotations, ac.Data})
		if err == nil {
			ac.WithResourceVersion(version)
			c.p.wrote(before, s.maps[key])
		}
		return err
	})
}

// Status writes status.
func (c kubeClient) Status() client.SubResourceWriter { return statusWriter{p: c.p} }

type statusWriter struct {
	client.SubResourceWriter

	p process
}

// Apply applies the status of an issuer.
func (w statusWriter) Apply(ctx context.Context, o runtime.ApplyConfiguration, _ ...client.SubResourceApplyOption) error {
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var ti api.TrustedIssuer // the status of both kinds is the same
	if err := json.Unmarshal(content, &ti); err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(&ti)
	return w.p.call(ctx, "apply status "+key.String(), true, func() error {
		version, err := w.p.present().applyStatus(key, ti.UID, ti.ResourceVersion, &ti.Status)
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
