package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The defaults of the schema, for objects that never passed through it.
const (
	// DefaultCacheTTL is the default of spec.cacheTTL.
	DefaultCacheTTL = 10 * time.Minute
	// DefaultStaleTTL is the default of spec.staleTTL.
	DefaultStaleTTL = 24 * time.Hour
	// DefaultLeeway is the default of spec.verification.leeway.
	DefaultLeeway = time.Minute
)

// Kinds of this group.
const (
	// TrustedIssuerKind is the namespaced kind.
	TrustedIssuerKind = "TrustedIssuer"
	// ClusterTrustedIssuerKind is the cluster-scoped kind.
	ClusterTrustedIssuerKind = "ClusterTrustedIssuer"
)

// Issuer is either kind: what the controller and the verifier work with.
//
// +kubebuilder:object:generate=false
type Issuer interface {
	client.Object

	// IssuerKind is TrustedIssuerKind or ClusterTrustedIssuerKind.
	IssuerKind() string
	// IssuerSpec is the spec that both kinds share.
	IssuerSpec() *IssuerSpec
	// IssuerStatus is the status that both kinds share.
	IssuerStatus() *IssuerStatus
	// KubernetesAuthentication is nil where the issuer's tokens must not
	// authenticate to the Kubernetes API: for every TrustedIssuer.
	KubernetesAuthentication() *KubernetesAuthentication
	// NamespaceSelector selects the namespaces that get a copy of the snapshot;
	// nil for none, and for every TrustedIssuer.
	NamespaceSelector() *metav1.LabelSelector
}

var (
	_ Issuer = (*TrustedIssuer)(nil)
	_ Issuer = (*ClusterTrustedIssuer)(nil)
)

// TrustedIssuer names a JWT issuer that workloads of its namespace trust. The
// controller keeps the issuer's public keys in a ConfigMap named after the
// TrustedIssuer with the suffix "-jwks".
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ti,categories=jwks-trust
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Keys",type=integer,JSONPath=`.status.snapshot.keys`
// +kubebuilder:printcolumn:name="Fresh",type=date,JSONPath=`.status.snapshot.lastSuccessTime`,description="Age of the last success"
// +kubebuilder:printcolumn:name="Rotated",type=date,JSONPath=`.status.rotation.lastRotationTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Issuer",type=string,JSONPath=`.spec.issuer`,priority=1
// +kubebuilder:printcolumn:name="JWKS URI",type=string,JSONPath=`.status.jwksURI`,priority=1
// +kubebuilder:printcolumn:name="Expires",type=string,format=date-time,JSONPath=`.status.snapshot.expiresAt`,priority=1
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 248 || (has(self.spec.snapshot) && has(self.spec.snapshot.configMapName))",message="metadata.name must have at most 248 characters, so that the ConfigMap <name>-jwks can be named after it; or set spec.snapshot.configMapName"
type TrustedIssuer struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec says what to trust.
	// +required
	Spec TrustedIssuerSpec `json:"spec,omitzero"`
	// status is what the controller has seen and done.
	// +optional
	// +default={"observedGeneration":-1}
	Status IssuerStatus `json:"status,omitempty,omitzero"`
}

// TrustedIssuerSpec is the spec of a TrustedIssuer.
type TrustedIssuerSpec struct {
	IssuerSpec `json:",inline"`
}

// IssuerKind implements Issuer.
func (*TrustedIssuer) IssuerKind() string { return TrustedIssuerKind }

// IssuerSpec implements Issuer.
func (t *TrustedIssuer) IssuerSpec() *IssuerSpec { return &t.Spec.IssuerSpec }

// IssuerStatus implements Issuer.
func (t *TrustedIssuer) IssuerStatus() *IssuerStatus { return &t.Status }

// KubernetesAuthentication implements Issuer. A namespaced issuer never
// authenticates to the Kubernetes API.
func (*TrustedIssuer) KubernetesAuthentication() *KubernetesAuthentication { return nil }

// NamespaceSelector implements Issuer.
func (*TrustedIssuer) NamespaceSelector() *metav1.LabelSelector { return nil }

// TrustedIssuerList is a list of TrustedIssuers.
//
// +kubebuilder:object:root=true
type TrustedIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustedIssuer `json:"items"`
}

// ClusterTrustedIssuer names a JWT issuer that the whole cluster trusts, and
// that may authenticate to the Kubernetes API. Its snapshot lives in the
// operator's namespace, with copies in the namespaces that it selects.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cti,categories=jwks-trust
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Keys",type=integer,JSONPath=`.status.snapshot.keys`
// +kubebuilder:printcolumn:name="Fresh",type=date,JSONPath=`.status.snapshot.lastSuccessTime`,description="Age of the last success"
// +kubebuilder:printcolumn:name="Rotated",type=date,JSONPath=`.status.rotation.lastRotationTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Issuer",type=string,JSONPath=`.spec.issuer`,priority=1
// +kubebuilder:printcolumn:name="JWKS URI",type=string,JSONPath=`.status.jwksURI`,priority=1
// +kubebuilder:printcolumn:name="Expires",type=string,format=date-time,JSONPath=`.status.snapshot.expiresAt`,priority=1
// +kubebuilder:validation:XValidation:rule="!has(self.spec.namespaceSelector) || size(self.metadata.name) <= 248 || (has(self.spec.snapshot) && has(self.spec.snapshot.configMapName))",message="with spec.namespaceSelector metadata.name must have at most 248 characters, so that the ConfigMap <name>-jwks can be named after it; or set spec.snapshot.configMapName"
type ClusterTrustedIssuer struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec says what to trust.
	// +required
	Spec ClusterTrustedIssuerSpec `json:"spec,omitzero"`
	// status is what the controller has seen and done.
	// +optional
	// +default={"observedGeneration":-1}
	Status IssuerStatus `json:"status,omitempty,omitzero"`
}

// ClusterTrustedIssuerSpec is the spec of a ClusterTrustedIssuer.
type ClusterTrustedIssuerSpec struct {
	IssuerSpec `json:",inline"`

	// kubernetesAuthentication lets the issuer's tokens authenticate to the
	// Kubernetes API through TokenReview. Absent: they cannot.
	// +optional
	KubernetesAuthentication *KubernetesAuthentication `json:"kubernetesAuthentication,omitempty"`

	// namespaceSelector selects the namespaces that get a copy of the ConfigMap,
	// named spec.snapshot.configMapName, so that applications there can mount it.
	// An empty selector selects all namespaces; absent: none. A namespace that is
	// no longer selected loses its copy. The operator's namespace gets none.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// IssuerKind implements Issuer.
func (*ClusterTrustedIssuer) IssuerKind() string { return ClusterTrustedIssuerKind }

// IssuerSpec implements Issuer.
func (c *ClusterTrustedIssuer) IssuerSpec() *IssuerSpec { return &c.Spec.IssuerSpec }

// IssuerStatus implements Issuer.
func (c *ClusterTrustedIssuer) IssuerStatus() *IssuerStatus { return &c.Status }

// KubernetesAuthentication implements Issuer.
func (c *ClusterTrustedIssuer) KubernetesAuthentication() *KubernetesAuthentication {
	return c.Spec.KubernetesAuthentication
}

// NamespaceSelector implements Issuer.
func (c *ClusterTrustedIssuer) NamespaceSelector() *metav1.LabelSelector {
	return c.Spec.NamespaceSelector
}

// ClusterTrustedIssuerList is a list of ClusterTrustedIssuers.
//
// +kubebuilder:object:root=true
type ClusterTrustedIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterTrustedIssuer `json:"items"`
}

// CacheTTLOrDefault is spec.cacheTTL, or its default where it is absent.
func (s *IssuerSpec) CacheTTLOrDefault() time.Duration {
	if s.CacheTTL == nil {
		return DefaultCacheTTL
	}
	return s.CacheTTL.Duration
}

// StaleTTLOrDefault is spec.staleTTL, or its default where it is absent.
func (s *IssuerSpec) StaleTTLOrDefault() time.Duration {
	if s.StaleTTL == nil {
		return DefaultStaleTTL
	}
	return s.StaleTTL.Duration
}

// Static reports whether the keys are given inline, and so never fetched.
func (s *IssuerSpec) Static() bool { return s.JWKS != "" }

// Suspended reports whether no keys are to be fetched.
func (s *IssuerSpec) Suspended() bool { return s.Suspend != nil && *s.Suspend }

// RotationPolicyOrDefault is spec.rotation.policy, or its default.
func (s *IssuerSpec) RotationPolicyOrDefault() RotationPolicy {
	if s.Rotation == nil || s.Rotation.Policy == "" {
		return RotationAutomatic
	}
	return s.Rotation.Policy
}

// RetirementGraceOrDefault is spec.rotation.retirementGrace, or its default.
func (s *IssuerSpec) RetirementGraceOrDefault() time.Duration {
	if s.Rotation == nil || s.Rotation.RetirementGrace == nil {
		return 0
	}
	return s.Rotation.RetirementGrace.Duration
}

// RemovesExpired reports whether expired keys are taken out of the ConfigMap.
func (s *IssuerSpec) RemovesExpired() bool {
	return s.Snapshot != nil && s.Snapshot.ExpiredPolicy == ExpiredRemove
}

// RetainsSnapshots reports whether what applications read outlives the object.
func (s *IssuerSpec) RetainsSnapshots() bool {
	return s.Snapshot != nil && s.Snapshot.DeletionPolicy == DeletionRetain
}

// snapshotSuffix makes the default name of an issuer's ConfigMap.
const snapshotSuffix = "-jwks"

// SnapshotName is the name of the ConfigMap that applications read, for an issuer
// object of that name.
func (s *IssuerSpec) SnapshotName(name string) string {
	if s.Snapshot == nil || s.Snapshot.ConfigMapName == "" {
		return name + snapshotSuffix
	}
	return s.Snapshot.ConfigMapName
}
