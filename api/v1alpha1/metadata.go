package v1alpha1

import (
	"strconv"
	"strings"
)

// Labels, annotations and the finalizer. The prefix is reserved.
const (
	// Prefix begins the names of all of them.
	Prefix = "jwks-trust.dev/"

	// AnnotationRefresh on an issuer: any new value refreshes its keys now.
	AnnotationRefresh = "jwks-trust.dev/refresh"
	// AnnotationApprove on an issuer: the digest of a quarantined key set that is
	// to be trusted (status.rotation.candidateDigest). See Approval.
	AnnotationApprove = "jwks-trust.dev/approve"
	// AnnotationClearCompromised on an issuer: the thumbprint of a compromised
	// key to forget, or several, separated by commas.
	AnnotationClearCompromised = "jwks-trust.dev/clear-compromised"

	// LabelSnapshot is "true" on every ConfigMap that the controller writes.
	LabelSnapshot = "jwks-trust.dev/snapshot"
	// LabelIssuerUID is the metadata.uid of the issuer that a ConfigMap serves.
	LabelIssuerUID = "jwks-trust.dev/issuer-uid"
	// LabelIssuerKind is the kind of the issuer that a ConfigMap serves.
	LabelIssuerKind = "jwks-trust.dev/issuer-kind"
	// AnnotationIssuerName is the name of the issuer that a ConfigMap serves.
	// Names can be longer than a label's value may be.
	AnnotationIssuerName = "jwks-trust.dev/issuer-name"
	// AnnotationIssuerNamespace is its namespace; absent for the cluster kind.
	AnnotationIssuerNamespace = "jwks-trust.dev/issuer-namespace"
	// AnnotationDigest is the digest of a ConfigMap's jwks.json, for people. The
	// digest that counts stands in the issuer's status.
	AnnotationDigest = "jwks-trust.dev/digest"
	// AnnotationAdded identifies the labels and annotations of a ConfigMap that
	// spec.snapshot asks for.
	AnnotationAdded = "jwks-trust.dev/added"
	// AnnotationReleased is set on a ConfigMap whose issuer is gone and whose
	// keys were kept.
	AnnotationReleased = "jwks-trust.dev/released"
	// AnnotationFence is set on a ConfigMap that an interrupted publication has not
	// reached, so that a manager which does not know that it has ended fails to write.
	AnnotationFence = "jwks-trust.dev/fence"

	// FinalizerWithdraw holds a deleted issuer until its ConfigMaps are
	// withdrawn. It never waits for the issuer's server.
	FinalizerWithdraw = "jwks-trust.dev/withdraw"
)

// maxApproval is how long the annotation may be, in bytes: status repeats it.
const maxApproval = 128

// Approval is the value of AnnotationApprove that approves of the key set with that
// digest. An approval is good for one time: where the set was approved before, keys
// of it have been removed since, and the same value must not bring them back. Then it
// is the digest with a number behind it.
func Approval(issuer Issuer, digest string) string {
	r := issuer.IssuerStatus().Rotation
	if r == nil || r.HandledApproval != digest {
		return digest
	}
	return digest + "/" + strconv.FormatInt(r.Count, 10)
}

// Approves reports whether somebody has approved of the key set with that digest,
// which waits for that, and the approval has not been used yet.
func Approves(issuer Issuer, digest string) bool {
	r := issuer.IssuerStatus().Rotation
	value, named := ApprovalOf(issuer)
	return r != nil && digest != "" && named == digest && r.CandidateDigest == digest && r.HandledApproval != value
}

// ApprovalOf is the value of AnnotationApprove and the digest that it names. Both are
// empty where there is none, and where it is too long to be one.
func ApprovalOf(issuer Issuer) (value, digest string) {
	value = issuer.GetAnnotations()[AnnotationApprove]
	if len(value) > maxApproval {
		return "", ""
	}
	digest, _, _ = strings.Cut(value, "/")
	return value, digest
}
