// Package v1alpha1 holds the two kinds of the API group jwks-trust.dev,
// TrustedIssuer (namespaced) and ClusterTrustedIssuer (cluster-scoped), with
// their condition types, reasons, labels and annotations.
//
// +kubebuilder:object:generate=true
// +groupName=jwks-trust.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of the kinds in this package.
var GroupVersion = schema.GroupVersion{Group: "jwks-trust.dev", Version: "v1alpha1"}

// AddToScheme registers the kinds of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&TrustedIssuer{}, &TrustedIssuerList{},
		&ClusterTrustedIssuer{}, &ClusterTrustedIssuerList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
