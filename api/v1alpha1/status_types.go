package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KeyState says whether a key may verify tokens.
//
// +kubebuilder:validation:Enum=Active;Retiring;Quarantined;Revoked
type KeyState string

const (
	// KeyActive is a key of the trusted set.
	KeyActive KeyState = "Active"
	// KeyRetiring is a key that the issuer no longer publishes and that is
	// trusted until its grace period ends.
	KeyRetiring KeyState = "Retiring"
	// KeyQuarantined is a key that waits for approval and is not trusted.
	KeyQuarantined KeyState = "Quarantined"
	// KeyRevoked is a key that is refused everywhere.
	KeyRevoked KeyState = "Revoked"
)

// IssuerStatus is what the controller has seen and done. To keep the API
// quiet, a refresh that changes nothing but its own time is recorded at most
// once per 0.7 of cacheTTL; finer times are metrics.
type IssuerStatus struct {
	// observedGeneration is the metadata.generation that this status speaks of;
	// -1 until the controller has seen the object.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready (a usable snapshot of the current generation is
	// published), Fetched (the newest attempt), SnapshotPublished; and, true
	// when something needs attention, Stale, Expired, KeysRetiring,
	// RotationSuspended and Stalled; and Distributed, where there is a
	// spec.namespaceSelector.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// jwksURI is the URL that the keys were last fetched from: that of the spec,
	// or the discovered one.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	JWKSURI string `json:"jwksURI,omitempty"`

	// snapshot describes the trusted key set and where it is published.
	// +optional
	Snapshot *SnapshotStatus `json:"snapshot,omitempty"`

	// lastAttempt is the newest fetch that was recorded.
	// +optional
	LastAttempt *AttemptStatus `json:"lastAttempt,omitempty"`

	// nextRefreshTime is when the next fetch is due.
	// +optional
	NextRefreshTime *metav1.Time `json:"nextRefreshTime,omitempty"`

	// refreshRequestedAt is when the verifier last met a token with an unknown
	// key and asked for a refresh. The verifier alone writes it.
	// +optional
	RefreshRequestedAt *metav1.MicroTime `json:"refreshRequestedAt,omitempty"`

	// handledRefresh is the newest requested refresh that was carried out.
	// +optional
	HandledRefresh *HandledRefresh `json:"handledRefresh,omitempty"`

	// keys are the keys of the trusted set, and those that are quarantined or
	// revoked.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	Keys []KeyStatus `json:"keys,omitempty"`

	// keyUsage says which keys sign tokens that are accepted. The verifier alone
	// writes it, about once an hour; no decision rests on it.
	// +optional
	// +listType=map
	// +listMapKey=thumbprint
	// +kubebuilder:validation:MaxItems=200
	KeyUsage []KeyUsage `json:"keyUsage,omitempty"`

	// rotation says how the trusted set last changed.
	// +optional
	Rotation *RotationStatus `json:"rotation,omitempty"`

	// distribution says how far the copies in the namespaces of
	// spec.namespaceSelector have come. Absent without a selector.
	// +optional
	Distribution *DistributionStatus `json:"distribution,omitempty"`

	// compromisedKeys are keys that the issuer published with their private
	// part. They are refused everywhere, the last good copy included, until an
	// administrator clears them with the annotation
	// jwks-trust.dev/clear-compromised: <thumbprint>.
	// +optional
	// +listType=map
	// +listMapKey=thumbprint
	// +kubebuilder:validation:MaxItems=100
	CompromisedKeys []CompromisedKey `json:"compromisedKeys,omitempty"`

	// handledClear is the value of the annotation jwks-trust.dev/clear-compromised
	// that was last acted on, or its digest where it has over 1024 bytes; absent once
	// the annotation is.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	HandledClear string `json:"handledClear,omitempty"`
}

// DistributionStatus says how far the copies of a snapshot have come.
type DistributionStatus struct {
	// digest is that of the key set which current counts.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest,omitempty"`

	// desired is how many namespaces are selected.
	// +required
	// +kubebuilder:validation:Minimum=0
	Desired *int32 `json:"desired,omitempty"`

	// current is how many of them have the current copy.
	// +required
	// +kubebuilder:validation:Minimum=0
	Current *int32 `json:"current,omitempty"`

	// failed are namespaces that refuse their copy, the first ten by name.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MaxItems=10
	Failed []FailedNamespace `json:"failed,omitempty"`
}

// FailedNamespace is a namespace that refuses its copy.
type FailedNamespace struct {
	// namespace is its name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// reason is ConfigMapConflict or PublishFailed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`

	// message says what the API server said, and what to do.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// SnapshotStatus describes the trusted key set and where it is published. The
// verifier accepts keys only from content whose digest stands here.
type SnapshotStatus struct {
	// configMapName is the ConfigMap with the keys: in the namespace of the
	// TrustedIssuer; for a ClusterTrustedIssuer in the namespaces of its
	// namespaceSelector or, without one, in the operator's.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ConfigMapName string `json:"configMapName,omitempty"`

	// digest is the SHA-256 of the trusted jwks.json, as sha256:<hex>.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest,omitempty"`

	// pendingDigest is the digest of a set that is being published.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	PendingDigest string `json:"pendingDigest,omitempty"`

	// observedGeneration is the metadata.generation whose spec produced the
	// keys. It is behind that of the object while a change of spec has not yet
	// led to a success.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// keys is how many keys the trusted set holds.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Keys int32 `json:"keys,omitempty"`

	// lastSuccessTime is when the issuer last confirmed the keys.
	// +optional
	LastSuccessTime *metav1.Time `json:"lastSuccessTime,omitempty"`

	// freshUntil is lastSuccessTime plus cacheTTL. Absent for static keys.
	// +optional
	FreshUntil *metav1.Time `json:"freshUntil,omitempty"`

	// expiresAt is when the verifier stops trusting the keys unless a refresh
	// succeeds before: lastSuccessTime plus the longer of cacheTTL and
	// staleTTL. Absent for static keys.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
}

// AttemptStatus is the outcome of one fetch.
type AttemptStatus struct {
	// time is when the attempt began.
	// +optional
	Time metav1.Time `json:"time,omitempty,omitzero"`

	// reason is the outcome: one of the reasons of the Fetched condition.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// message says what happened and, after a failure, what mends it.
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	Message string `json:"message,omitempty"`
}

// HandledRefresh is the outcome of a requested refresh.
type HandledRefresh struct {
	// request is the value of the annotation jwks-trust.dev/refresh that was
	// last acted on, or its digest where it has over 1024 bytes.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Request string `json:"request,omitempty"`

	// requestedAt is the value of status.refreshRequestedAt that was last acted
	// on.
	// +optional
	RequestedAt *metav1.MicroTime `json:"requestedAt,omitempty"`

	// startTime is when the fetch began. Times are compared with it by the
	// verifier, so it has microseconds.
	// +optional
	StartTime metav1.MicroTime `json:"startTime,omitempty,omitzero"`

	// outcome is the reason that the Fetched condition had afterwards.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Outcome string `json:"outcome,omitempty"`
}

// KeyStatus is one key of the trusted set.
type KeyStatus struct {
	// kid is the key's "kid" (RFC 7517 section 4.5); empty where the issuer
	// publishes a single key without one.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	KeyID string `json:"kid,omitempty"`

	// kty is the key's "kty" (RFC 7517 section 4.1).
	// +optional
	// +kubebuilder:validation:MaxLength=16
	KeyType string `json:"kty,omitempty"`

	// alg is the algorithm that the key is bound to; empty where it may serve
	// several.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Algorithm string `json:"alg,omitempty"`

	// bits is the size of an RSA key's modulus.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Bits int32 `json:"bits,omitempty"`

	// crv is the curve of an EC or OKP key.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Curve string `json:"crv,omitempty"`

	// thumbprint is the key's SHA-256 thumbprint (RFC 7638), base64url.
	// +required
	// +kubebuilder:validation:MinLength=43
	// +kubebuilder:validation:MaxLength=43
	Thumbprint string `json:"thumbprint,omitempty"`

	// firstSeenTime is when the issuer was first seen to publish the key.
	// +optional
	FirstSeenTime metav1.Time `json:"firstSeenTime,omitempty,omitzero"`

	// lastSeenTime is when the issuer was last recorded to publish the key.
	// +optional
	LastSeenTime metav1.Time `json:"lastSeenTime,omitempty,omitzero"`

	// missingSince is when the issuer was first seen not to publish the key any
	// more; absent while it does. The key stays Active until a second look, 30 s
	// later, confirms it; then it is Retiring, or gone.
	// +optional
	MissingSince *metav1.Time `json:"missingSince,omitempty"`

	// lastAbsentTime is when the issuer was last seen not to publish the key yet;
	// absent for the keys of the first set.
	// +optional
	LastAbsentTime *metav1.Time `json:"lastAbsentTime,omitempty"`

	// lastUsedTime is when a token that the key signed was last accepted, to
	// about an hour. After missingSince it means that a key which the issuer no
	// longer publishes still signs.
	// +optional
	LastUsedTime *metav1.Time `json:"lastUsedTime,omitempty"`

	// earlyUseTime is the "iat" of a token that the key signed before the issuer
	// published it; absent where there was none.
	// +optional
	EarlyUseTime *metav1.Time `json:"earlyUseTime,omitempty"`

	// state says whether the key may verify tokens.
	// +optional
	State KeyState `json:"state,omitempty"`
}

// KeyUsage says whether a key signs tokens that are accepted.
type KeyUsage struct {
	// thumbprint is the key's SHA-256 thumbprint (RFC 7638), base64url.
	// +required
	// +kubebuilder:validation:MinLength=43
	// +kubebuilder:validation:MaxLength=43
	Thumbprint string `json:"thumbprint,omitempty"`

	// lastUsedTime is when a token that the key signed was last accepted, to
	// about an hour.
	// +optional
	LastUsedTime metav1.Time `json:"lastUsedTime,omitempty,omitzero"`

	// earlyUseTime is the "iat" of a token that the key signed before
	// lastAbsentTime.
	// +optional
	EarlyUseTime *metav1.Time `json:"earlyUseTime,omitempty"`
}

// RotationStatus says how the trusted set last changed.
type RotationStatus struct {
	// lastRotationTime is when the trusted set last changed; absent for the first
	// set.
	// +optional
	LastRotationTime *metav1.Time `json:"lastRotationTime,omitempty"`

	// count is how often the set has changed since the first one.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Count int64 `json:"count,omitempty"`

	// added are the kids that the last rotation brought.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=128
	Added []string `json:"added,omitempty"`

	// removed are the kids that the last rotation took away.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=128
	Removed []string `json:"removed,omitempty"`

	// replaced are the kids that got another key under the same name: an alarm,
	// because a correct issuer never does this (RFC 7517 section 4.5).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=128
	Replaced []string `json:"replaced,omitempty"`

	// candidateDigest is that of the quarantined set, as sha256:<hex>. The
	// annotation jwks-trust.dev/approve with this value makes it trusted, once.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	CandidateDigest string `json:"candidateDigest,omitempty"`

	// handledApproval is the value of the annotation jwks-trust.dev/approve that was
	// used. It approves of nothing any more: keys that were removed since need another
	// approval.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	HandledApproval string `json:"handledApproval,omitempty"`

	// history lists the keys that were trusted and no longer are, the newest
	// first; the last 50 of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	History []RemovedKey `json:"history,omitempty"`
}

// RemovedKey is a key that was trusted once.
type RemovedKey struct {
	// kid is the key's "kid".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	KeyID string `json:"kid,omitempty"`

	// thumbprint is the key's SHA-256 thumbprint (RFC 7638), base64url.
	// +required
	// +kubebuilder:validation:MinLength=43
	// +kubebuilder:validation:MaxLength=43
	Thumbprint string `json:"thumbprint,omitempty"`

	// firstSeenTime is when the issuer was first seen to publish the key.
	// +optional
	FirstSeenTime metav1.Time `json:"firstSeenTime,omitempty,omitzero"`

	// removedTime is when the key ceased to be trusted.
	// +optional
	RemovedTime metav1.Time `json:"removedTime,omitempty,omitzero"`
}

// CompromisedKey is a key that the issuer published with its private part.
type CompromisedKey struct {
	// thumbprint is the key's SHA-256 thumbprint (RFC 7638), base64url.
	// +required
	// +kubebuilder:validation:MinLength=43
	// +kubebuilder:validation:MaxLength=43
	Thumbprint string `json:"thumbprint,omitempty"`

	// kid is the key's "kid".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	KeyID string `json:"kid,omitempty"`

	// seenTime is when the private part was first seen.
	// +optional
	SeenTime metav1.Time `json:"seenTime,omitempty,omitzero"`
}
