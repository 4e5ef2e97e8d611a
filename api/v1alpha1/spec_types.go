package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Algorithm is the "alg" of a JSON Web Signature (RFC 7518 section 3.1,
// RFC 8037 section 3.1). Symmetric algorithms and "none" do not exist here.
//
// +kubebuilder:validation:Enum=RS256;RS384;RS512;PS256;PS384;PS512;ES256;ES384;ES512;EdDSA
type Algorithm string

// KeyUse is the "use" of a JSON Web Key (RFC 7517 section 4.2).
//
// +kubebuilder:validation:Enum=sig;jwt-svid
type KeyUse string

// IssuerSpec says which issuer to trust, for whom its tokens must be meant,
// and where its keys come from. Both kinds share it.
//
// +kubebuilder:validation:XValidation:rule="[has(self.jwksURI), has(self.discoveryURL), has(self.jwks)].filter(x, x).size() <= 1",message="set at most one of jwksURI (keys are fetched), discoveryURL (the issuer's metadata say where from) and jwks (keys are given inline)"
// +kubebuilder:validation:XValidation:rule="has(self.jwksURI) || has(self.discoveryURL) || has(self.jwks) || (self.issuer.startsWith('https://') && !self.issuer.contains('?') && !self.issuer.contains('#'))",message="keys can only be discovered from an issuer that is an https URL without query and fragment: set jwksURI, discoveryURL or jwks"
// +kubebuilder:validation:XValidation:rule="!(has(self.caBundle) && has(self.caBundleRef))",message="set at most one of caBundle and caBundleRef"
// +kubebuilder:validation:XValidation:rule="!has(self.jwks) || (!has(self.caBundle) && !has(self.caBundleRef))",message="caBundle and caBundleRef apply to fetched keys: remove them, or use jwksURI in place of jwks"
type IssuerSpec struct {
	// issuer is the exact value of the "iss" claim, compared byte for byte
	// (RFC 7519 section 4.1.1): a trailing slash matters. It cannot be changed,
	// because keys of one issuer must never serve another: create a new object
	// for another issuer.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="issuer is immutable: create another object for another issuer, and delete this one"
	// +kubebuilder:validation:XValidation:rule="!self.contains(':') || self.matches('^[A-Za-z][A-Za-z0-9+.-]*:[^\\\\s]*$')",message="issuer must be a StringOrURI (RFC 7519 section 2): a value with a colon has to be a URI, such as https://issuer.example.com/"
	Issuer string `json:"issuer,omitempty"`

	// audiences are the values of which a token's "aud" claim must contain at
	// least one (RFC 7519 section 4.1.3).
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=2048
	Audiences []string `json:"audiences,omitempty"`

	// jwksURI is the https URL of the issuer's JSON Web Key Set (RFC 7517
	// section 5). Without it the issuer's metadata say where the keys are: those
	// at <issuer>/.well-known/openid-configuration, or at the place of RFC 8414
	// section 3 where that is not there. They are read again every hour. The URL
	// has no user information and no fragment; a query is allowed. Where the
	// controller may connect to is the administrator's egress policy.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && !self.matches('[[:space:]]')",message="jwksURI must be an https URL, such as https://issuer.example.com/jwks.json: keys that travel without TLS cannot be trusted"
	// +kubebuilder:validation:XValidation:rule="!isURL(self) || url(self).getHostname() != ''",message="jwksURI must name a host"
	// +kubebuilder:validation:XValidation:rule="!isURL(self) || url(self).getPort() == '' || (int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535)",message="jwksURI must name a port from 1 to 65535, or none"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^:]*://[^/?#]*@')",message="jwksURI must not carry user information (user:password@): remove it"
	// +kubebuilder:validation:XValidation:rule="!self.contains('#')",message="jwksURI must not have a fragment (#...): remove it"
	JWKSURI string `json:"jwksURI,omitempty"`

	// discoveryURL is the https URL of the issuer's metadata (OpenID Connect
	// Discovery, RFC 8414), when they are not at the well-known place. Their
	// "issuer" must be issuer, byte for byte.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() != ''",message="discoveryURL must be an https URL with a host, such as https://issuer.example.com/.well-known/openid-configuration"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^:]*://[^/?#]*@') && !self.contains('#')",message="discoveryURL must not carry user information (user:password@) or a fragment (#...): remove it"
	DiscoveryURL string `json:"discoveryURL,omitempty"`

	// jwks is a static key set (RFC 7517 section 5) as JSON text, for an issuer
	// that cannot be reached from the cluster. Its keys pass the same admission
	// as fetched ones, and never become stale. Public keys only.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=524288
	JWKS string `json:"jwks,omitempty"`

	// cacheTTL is how long a fetched key set counts as fresh, from 2m to 24h.
	// It bounds how long a consumer of the mounted keys misses a new key or
	// trusts a withdrawn one. HTTP response headers can make refreshes more
	// frequent, never less.
	// +optional
	// +default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('2m') && duration(self) <= duration('24h')",message="cacheTTL must be a duration from 2m to 24h, such as 10m"
	CacheTTL *metav1.Duration `json:"cacheTTL,omitempty"`

	// staleTTL is how long the last good keys go on being trusted while the
	// issuer cannot be reached, from 0s to 168h, counted from the last success.
	// After the longer of cacheTTL and staleTTL the keys expire and the verifier
	// fails closed. 0s means: never serve stale keys.
	// +optional
	// +default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s') && duration(self) <= duration('168h')",message="staleTTL must be a duration from 0s to 168h, such as 24h"
	StaleTTL *metav1.Duration `json:"staleTTL,omitempty"`

	// caBundle holds the PEM certificates of the authorities that may vouch for
	// the jwksURI's server. They replace the system's roots, which count when
	// neither caBundle nor caBundleRef is set.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=262144
	// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----')",message="caBundle must hold at least one PEM block of type CERTIFICATE"
	CABundle string `json:"caBundle,omitempty"`

	// caBundleRef names where the certificates for caBundle are kept. It is
	// read again at each fetch.
	// +optional
	CABundleRef *CABundleReference `json:"caBundleRef,omitempty"`

	// allowedAlgorithms are the signature algorithms that a token may use, and
	// that a key must serve to be admitted. All of them when empty. EdDSA covers
	// its other name Ed25519 (RFC 9864).
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	AllowedAlgorithms []Algorithm `json:"allowedAlgorithms,omitempty"`

	// keyUses are the values of a key's "use" that are admitted; a key without
	// "use" always is. Add jwt-svid for a SPIFFE bundle endpoint.
	// +optional
	// +listType=set
	// +default=["sig"]
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	KeyUses []KeyUse `json:"keyUses,omitempty"`

	// revokedKeys are refused at once and everywhere, the last good copy
	// included: each is a kid, or the RFC 7638 SHA-256 thumbprint of a key, which
	// nobody can choose. For emergencies; the issuer has to stop publishing the
	// key for good.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	RevokedKeys []string `json:"revokedKeys,omitempty"`

	// rotation says how changes of the issuer's key set are taken over.
	// +optional
	Rotation *RotationSpec `json:"rotation,omitempty"`

	// snapshot says how the keys are published.
	// +optional
	Snapshot *SnapshotSpec `json:"snapshot,omitempty"`

	// verification says what else the verifier demands of a token, and what it
	// passes on.
	// +optional
	Verification *VerificationSpec `json:"verification,omitempty"`

	// suspend stops all fetches, those that are asked for included. The time does
	// not stop: the last good keys become stale, and expire.
	// +optional
	// +default=false
	Suspend *bool `json:"suspend,omitempty"`

	// maxRedirects is how many HTTP redirects a fetch follows, from 0 to 3.
	// Each must stay on https and on the same host.
	// +optional
	// +default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3
	MaxRedirects *int32 `json:"maxRedirects,omitempty"`
}

// RotationPolicy says which key sets are trusted without anybody's consent.
//
// +kubebuilder:validation:Enum=Automatic;RequireOverlap;RequireApproval
type RotationPolicy string

const (
	// RotationAutomatic trusts what the issuer publishes.
	RotationAutomatic RotationPolicy = "Automatic"
	// RotationRequireOverlap quarantines a set that shares no key with the
	// trusted one.
	RotationRequireOverlap RotationPolicy = "RequireOverlap"
	// RotationRequireApproval quarantines a set with any key that is not trusted
	// yet, the first set included.
	RotationRequireApproval RotationPolicy = "RequireApproval"
)

// RotationSpec says how changes of the issuer's key set are taken over.
//
// +kubebuilder:validation:MinProperties=1
type RotationSpec struct {
	// policy says which key sets are trusted without anybody's consent.
	// Automatic: all of them. RequireOverlap: those that share a key with the
	// trusted set; it catches mistakes. RequireApproval: those without a key that
	// is not trusted yet, the first set included; it is the defence against
	// somebody who controls the issuer's server. Any other set is quarantined, as
	// a whole, until the annotation jwks-trust.dev/approve names
	// status.rotation.candidateDigest; until then the last good keys go on, and
	// become stale. Inline keys are never quarantined.
	// +optional
	// +default="Automatic"
	Policy RotationPolicy `json:"policy,omitempty"`

	// retirementGrace is how long a key that the issuer no longer publishes goes
	// on being trusted, from 0s to 168h, counted from when it was first missing.
	// With 0s it ends as soon as a second look, 30 s after the first, confirms
	// that the key is gone. Removing a key is an issuer's only way to revoke it:
	// a long grace honours revoked keys that long. It holds for keys of a place
	// that spec no longer names, too; revokedKeys ends them at once. A key that was
	// replaced by another one under the same kid has no grace.
	// +optional
	// +default="0s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s') && duration(self) <= duration('168h')",message="retirementGrace must be a duration from 0s to 168h, such as 1h"
	RetirementGrace *metav1.Duration `json:"retirementGrace,omitempty"`
}

// ExpiredPolicy says what becomes of published keys that have expired.
//
// +kubebuilder:validation:Enum=Keep;Remove
type ExpiredPolicy string

const (
	// ExpiredKeep leaves them where they are.
	ExpiredKeep ExpiredPolicy = "Keep"
	// ExpiredRemove takes them out of the ConfigMap that applications read.
	ExpiredRemove ExpiredPolicy = "Remove"
)

// DeletionPolicy says what becomes of published keys when their issuer object is
// deleted.
//
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionDelete withdraws the ConfigMaps.
	DeletionDelete DeletionPolicy = "Delete"
	// DeletionRetain leaves them, marked as released.
	DeletionRetain DeletionPolicy = "Retain"
)

// SnapshotFormat is a form, besides the JSON Web Key Set, in which keys are
// published.
//
// +kubebuilder:validation:Enum=PEM
type SnapshotFormat string

const (
	// FormatPEM is keys.pem: each key as a PEM block "PUBLIC KEY" (RFC 7468 section
	// 13), in the order of jwks.json.
	FormatPEM SnapshotFormat = "PEM"
)

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
type LabelValue string

// AnnotationValue is the value of an annotation.
//
// +kubebuilder:validation:MaxLength=1024
type AnnotationValue string

// SnapshotSpec says how the keys are published.
//
// +kubebuilder:validation:MinProperties=1
type SnapshotSpec struct {
	// configMapName is the name of the ConfigMap with the keys; <name>-jwks when
	// absent. One of that name which was not made for this issuer is left alone
	// (condition SnapshotPublished, reason ConfigMapConflict). When the name
	// changes, the ConfigMap moves. For a ClusterTrustedIssuer it is the name of
	// the copies in the namespaces of spec.namespaceSelector.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="configMapName must be a DNS subdomain: lowercase letters, digits, '-' and '.', such as auth0-keys"
	ConfigMapName string `json:"configMapName,omitempty"`

	// labels are added to the ConfigMap, at most 16. The prefix jwks-trust.dev/ is
	// reserved.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && !k.startsWith('jwks-trust.dev/') && !format.qualifiedName().validate(k).hasValue())",message="each name in labels must be a label name, such as example.com/team, and must not begin with jwks-trust.dev/"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.labelValue().validate(self[k]).hasValue())",message="each value in labels must be a label value: at most 63 letters, digits, '-', '_' and '.'"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations are added to the ConfigMap, at most 16, such as those that tell a
	// reloader to restart what mounts it. The prefix jwks-trust.dev/ is reserved.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && !k.startsWith('jwks-trust.dev/') && !format.qualifiedName().validate(k).hasValue())",message="each name in annotations must be an annotation name, such as example.com/reload, and must not begin with jwks-trust.dev/"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`

	// additionalFormats are forms in which the keys are published as well. PEM:
	// keys.pem, for what cannot read a JSON Web Key Set.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	AdditionalFormats []SnapshotFormat `json:"additionalFormats,omitempty"`

	// expiredPolicy says what becomes of the ConfigMap's keys once they have
	// expired, which the verifier never uses any more. Keep: they stay, so for
	// applications that read the ConfigMap they never expire. Remove: they are
	// taken out, and put back when a fetch succeeds.
	// +optional
	// +default="Keep"
	ExpiredPolicy ExpiredPolicy `json:"expiredPolicy,omitempty"`

	// deletionPolicy says what becomes of the ConfigMaps that applications read
	// when this object is deleted. Delete: they go. Retain: they stay, with the
	// annotation jwks-trust.dev/released, and nobody refreshes or revokes their
	// keys any more. The verifier refuses the issuer's tokens at once in either
	// case. When the CustomResourceDefinition is deleted the ConfigMaps always
	// stay.
	// +optional
	// +default="Delete"
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// CABundleReference names PEM certificates in another object. Exactly one of
// its fields is set.
//
// +kubebuilder:validation:ExactlyOneOf=configMap;clusterTrustBundle
type CABundleReference struct {
	// configMap names a ConfigMap and one of its keys, in the namespace of the
	// TrustedIssuer; for a ClusterTrustedIssuer in the operator's namespace.
	// +optional
	ConfigMap *ConfigMapKeyReference `json:"configMap,omitempty"`

	// clusterTrustBundle names a ClusterTrustBundle (certificates.k8s.io/v1).
	// +optional
	ClusterTrustBundle *ClusterTrustBundleReference `json:"clusterTrustBundle,omitempty"`
}

// ConfigMapKeyReference names a ConfigMap and one of its keys.
type ConfigMapKeyReference struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="name must be the name of a ConfigMap: lower-case letters, digits, '-' and '.' (RFC 1123)"
	Name string `json:"name,omitempty"`

	// key in the ConfigMap's data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="key must be a key of a ConfigMap: letters, digits, '-', '_' and '.', such as ca.crt"
	Key string `json:"key,omitempty"`
}

// ClusterTrustBundleReference names a ClusterTrustBundle.
type ClusterTrustBundleReference struct {
	// name of the ClusterTrustBundle.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// KubernetesAuthentication lets an issuer's tokens authenticate to the
// Kubernetes API (TokenReview). The user name is usernamePrefix followed by
// the token's "sub", unless claimMappings says otherwise.
//
// +kubebuilder:validation:XValidation:rule="!has(self.claimMappings) || !has(self.claimMappings.groups) || has(self.groupsPrefix)",message="claimMappings.groups needs groupsPrefix: groups without a prefix could be those of another origin"
type KubernetesAuthentication struct {
	// usernamePrefix goes before every user name, so that no token can name a
	// user of another origin. It must not begin with "system:".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('system:')",message="usernamePrefix must not begin with system:, which is reserved for Kubernetes itself"
	UsernamePrefix string `json:"usernamePrefix,omitempty"`

	// groupsPrefix goes before every group of the token's (its claim "groups", a
	// string or an array of strings, unless claimMappings says otherwise). Without
	// it the token's groups are not passed on. It must not begin with "system:".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('system:')",message="groupsPrefix must not begin with system:, which is reserved for Kubernetes itself"
	GroupsPrefix string `json:"groupsPrefix,omitempty"`

	// claimMappings say which claims make up the user. They mean what they mean in
	// the API server's AuthenticationConfiguration, but that the prefixes above
	// always apply.
	// +optional
	ClaimMappings *ClaimMappings `json:"claimMappings,omitempty"`

	// userValidationRules all have to hold for the user.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	UserValidationRules []UserValidationRule `json:"userValidationRules,omitempty"`
}
