// mapper.go says where the API server keeps the kinds that this program watches.

package main

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// newMapper knows these kinds by itself, so that a manager can start while the API
// server is down, and asks the API server about others.
func newMapper(cfg *rest.Config, c *http.Client) (meta.RESTMapper, error) {
	known := meta.NewDefaultRESTMapper(nil)
	known.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	known.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	known.Add(api.GroupVersion.WithKind(api.TrustedIssuerKind), meta.RESTScopeNamespace)
	known.Add(api.GroupVersion.WithKind(api.ClusterTrustedIssuerKind), meta.RESTScopeRoot)
	others, err := apiutil.NewDynamicRESTMapper(cfg, c)
	if err != nil {
		return nil, err
	}
	return meta.FirstHitRESTMapper{MultiRESTMapper: meta.MultiRESTMapper{known, others}}, nil
}
