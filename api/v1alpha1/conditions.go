package v1alpha1

// Condition types. Ready, Fetched and SnapshotPublished are true when all is
// well; Stale, Expired, KeysRetiring, RotationSuspended and Stalled are true when
// something needs attention. What could not be checked is Unknown.
const (
	// ConditionReady sums up: a usable snapshot of the current generation is
	// published.
	ConditionReady = "Ready"
	// ConditionFetched is the outcome of the newest fetch.
	ConditionFetched = "Fetched"
	// ConditionSnapshotPublished says whether the ConfigMaps hold the trusted
	// keys.
	ConditionSnapshotPublished = "SnapshotPublished"
	// ConditionStale is true while the keys are served past their freshness.
	ConditionStale = "Stale"
	// ConditionExpired is true once the keys are too old to be trusted.
	ConditionExpired = "Expired"
	// ConditionKeysRetiring is true while keys are trusted that the issuer no
	// longer publishes, because of spec.rotation.retirementGrace.
	ConditionKeysRetiring = "KeysRetiring"
	// ConditionRotationSuspended is true while a key set is quarantined until
	// somebody approves it.
	ConditionRotationSuspended = "RotationSuspended"
	// ConditionDistributed says whether each namespace of spec.namespaceSelector
	// has its copy. It is absent without a selector.
	ConditionDistributed = "Distributed"
	// ConditionStalled is true when only a change of spec can help.
	ConditionStalled = "Stalled"
)

// Reasons of the condition Ready. While it is not True it bears the reason of
// the condition that stands in the way.
const (
	// ReasonFresh: the keys are fresh (or static).
	ReasonFresh = "Fresh"
	// ReasonServingStale: the keys are past their freshness but not expired;
	// tokens go on being accepted. Also a reason of Stale.
	ReasonServingStale = "ServingStale"
	// ReasonExpired: the keys are too old to be trusted; the verifier cannot
	// decide. Also a reason of Stale and Expired.
	ReasonExpired = "Expired"
	// ReasonPending: nothing has been fetched yet. Also a reason of the other
	// conditions.
	ReasonPending = "Pending"
	// ReasonNotExpired is the reason of Expired while it is False.
	ReasonNotExpired = "NotExpired"
	// ReasonIssuerConflict is a reason of Stalled: an older ClusterTrustedIssuer
	// for the same issuer already answers TokenReview.
	ReasonIssuerConflict = "IssuerConflict"
	// ReasonInvalidExpression is a reason of Stalled: an expression in spec cannot be
	// compiled. The verifier cannot decide about the issuer's tokens meanwhile.
	ReasonInvalidExpression = "InvalidExpression"
	// ReasonGracePeriod: retired keys are trusted until their grace period ends.
	// The reason of KeysRetiring while it is True.
	ReasonGracePeriod = "GracePeriod"
	// ReasonNoneRetiring is the reason of KeysRetiring while it is False.
	ReasonNoneRetiring = "NoneRetiring"
	// ReasonApprovalRequired is a reason of RotationSuspended: the published set
	// has a key that nobody has approved.
	ReasonApprovalRequired = "ApprovalRequired"
	// ReasonNoOverlap is a reason of RotationSuspended: the published set shares
	// no key with the trusted one.
	ReasonNoOverlap = "NoOverlap"
	// ReasonNotSuspended is the reason of RotationSuspended while it is False.
	ReasonNotSuspended = "NotSuspended"
	// ReasonNotStalled is the reason of Stalled while it is False.
	ReasonNotStalled = "NotStalled"
)

// Reasons of the condition Fetched.
const (
	// ReasonSucceeded: the issuer answered with at least one usable key.
	ReasonSucceeded = "Succeeded"
	// ReasonStatic: the keys are given inline.
	ReasonStatic = "Static"
	// ReasonSuspended: spec.suspend stops all fetches.
	ReasonSuspended = "Suspended"
	// ReasonCABundleUnavailable: spec.caBundleRef names something that is not
	// there, cannot be read, or holds no certificate.
	ReasonCABundleUnavailable = "CABundleUnavailable"

	// ReasonInvalidURL: the URL cannot be used.
	ReasonInvalidURL = "InvalidURL"
	// ReasonInvalidCABundle: the PEM text holds no certificate.
	ReasonInvalidCABundle = "InvalidCABundle"
	// ReasonEgressBlocked: the address is one that the administrator's egress
	// policy does not allow.
	ReasonEgressBlocked = "EgressBlocked"
	// ReasonDNSLookupFailed: the host's name does not resolve.
	ReasonDNSLookupFailed = "DNSLookupFailed"
	// ReasonConnectionFailed: no connection, or it broke.
	ReasonConnectionFailed = "ConnectionFailed"
	// ReasonTLSFailed: the server's certificate is not trusted, not valid for
	// the host, or the handshake failed.
	ReasonTLSFailed = "TLSFailed"
	// ReasonTimeout: the server did not answer in time.
	ReasonTimeout = "Timeout"
	// ReasonRedirectRefused: a redirect that spec.maxRedirects or the redirect
	// rules do not allow.
	ReasonRedirectRefused = "RedirectRefused"
	// ReasonUnexpectedStatus: an HTTP status that is neither 200 nor, where it
	// was asked for, 304.
	ReasonUnexpectedStatus = "UnexpectedStatus"
	// ReasonTooManyRequests: HTTP 429, or 503 with Retry-After.
	ReasonTooManyRequests = "TooManyRequests"
	// ReasonTooLarge: the response is over 512 KiB after decompression.
	ReasonTooLarge = "TooLarge"
	// ReasonInvalidResponse: the response is not well-formed HTTP, or its
	// encoding is not one that was asked for.
	ReasonInvalidResponse = "InvalidResponse"

	// ReasonInvalidDiscovery: the issuer's metadata cannot be read, or do not say
	// where the keys are.
	ReasonInvalidDiscovery = "InvalidDiscovery"
	// ReasonIssuerMismatch: the metadata are those of another issuer.
	ReasonIssuerMismatch = "IssuerMismatch"

	// ReasonQuarantined: the issuer published a key set that spec.rotation.policy
	// does not take over without approval.
	ReasonQuarantined = "Quarantined"

	// ReasonNotAKeySet: the document is not a JSON Web Key Set.
	ReasonNotAKeySet = "NotAKeySet"
	// ReasonEmptyKeySet: the set has no keys at all.
	ReasonEmptyKeySet = "EmptyKeySet"
	// ReasonNoUsableKeys: the set has keys, but none is admitted.
	ReasonNoUsableKeys = "NoUsableKeys"
	// ReasonTooManyKeys: the set has over 100 keys.
	ReasonTooManyKeys = "TooManyKeys"
	// ReasonPrivateKeyExposed: every usable key was published with its private
	// part. Also the reason of the event for a single one.
	ReasonPrivateKeyExposed = "PrivateKeyExposed"
)

// Reasons of the condition SnapshotPublished.
const (
	// ReasonPublished: the ConfigMaps hold the trusted keys.
	ReasonPublished = "Published"
	// ReasonAllKeysRevoked: spec.revokedKeys leaves no key to publish.
	ReasonAllKeysRevoked = "AllKeysRevoked"
	// ReasonExpiredKeysRemoved: the keys have expired, and spec.snapshot.expiredPolicy
	// is Remove.
	ReasonExpiredKeysRemoved = "ExpiredKeysRemoved"
	// ReasonConfigMapConflict: a ConfigMap of that name belongs to someone else
	// and is left alone.
	ReasonConfigMapConflict = "ConfigMapConflict"
	// ReasonPublishFailed: the API server refused the ConfigMap.
	ReasonPublishFailed = "PublishFailed"
	// ReasonKeysLost: the ConfigMaps that held the trusted keys are gone, and the issuer
	// has not answered since.
	ReasonKeysLost = "KeysLost"
	// ReasonSnapshotTooLarge: the encoded keys do not fit into a ConfigMap.
	ReasonSnapshotTooLarge = "SnapshotTooLarge"
)

// Reasons of the condition Distributed.
const (
	// ReasonDistributed: each selected namespace has its copy.
	ReasonDistributed = "Distributed"
	// ReasonNothingSelected: spec.namespaceSelector matches no namespace.
	ReasonNothingSelected = "NothingSelected"
	// ReasonDistributing: copies are being written.
	ReasonDistributing = "Distributing"
	// ReasonNamespacesFailed: namespaces refuse their copy;
	// status.distribution.failed names them.
	ReasonNamespacesFailed = "NamespacesFailed"
	// ReasonInvalidSelector: spec.namespaceSelector cannot be understood. The copies
	// stay as they are.
	ReasonInvalidSelector = "InvalidSelector"
)

// Reasons of events that are not reasons of conditions.
const (
	// ReasonKeysRotated: the trusted set changed.
	ReasonKeysRotated = "KeysRotated"
	// ReasonJWKSURIHostChanged: discovery found the keys at another host.
	ReasonJWKSURIHostChanged = "JWKSURIHostChanged"
	// ReasonKeySetReplaced: the issuer replaced all of its keys at once.
	ReasonKeySetReplaced = "KeySetReplaced"
	// ReasonKeyReplaced: a kid got another key.
	ReasonKeyReplaced = "KeyReplaced"
	// ReasonRetiredKeyInUse: a key that the issuer no longer publishes still signs
	// tokens.
	ReasonRetiredKeyInUse = "RetiredKeyInUse"
	// ReasonKeyUsedEarly: a key signed a token before the issuer published it.
	ReasonKeyUsedEarly = "KeyUsedEarly"
	// ReasonKeysSkipped: some keys of the set were not admitted.
	ReasonKeysSkipped = "KeysSkipped"
	// ReasonSnapshotRepaired: a ConfigMap was deleted or changed by someone
	// else and has been put right.
	ReasonSnapshotRepaired = "SnapshotRepaired"
	// ReasonRecovered: fetching works again.
	ReasonRecovered = "Recovered"
	// ReasonSnapshotReleased: the ConfigMaps were kept although the issuer was
	// deleted, because of spec.snapshot.deletionPolicy, or because the
	// CustomResourceDefinition is being deleted.
	ReasonSnapshotReleased = "SnapshotReleased"
)
