// reasons.go is the closed set of reasons that a verdict can bear. They are
// stable: clients, dashboards and tests match on them.

package verifier

import (
	"errors"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
)

// Reason is a stable code that says why a verdict came out as it did. It is the
// value of the header X-Jwks-Trust-Reason and of the metric label "reason".
type Reason string

// Accepted is the reason of every Accept.
const Accepted Reason = "Accepted"

// Reasons that are a definite no, whatever the keys are.
const (
	// TokenMissing: the request has no bearer token.
	TokenMissing Reason = "TokenMissing"
	// AmbiguousCredentials: the request has several Authorization headers, or
	// several cookies of the name.
	AmbiguousCredentials Reason = "AmbiguousCredentials"
	// TokenTooLarge: the token is over 16 KiB.
	TokenTooLarge Reason = "TokenTooLarge"
	// MalformedToken: the token is not a JWS in compact form (RFC 7515 section
	// 7.1), read strictly.
	MalformedToken Reason = "MalformedToken"
	// HeaderNotAllowed: a header parameter asks for something that is never
	// done here, such as crit, b64 or zip.
	HeaderNotAllowed Reason = "HeaderNotAllowed"
	// AlgorithmNotAllowed: "alg" is not a supported signature algorithm, or not
	// among spec.allowedAlgorithms.
	AlgorithmNotAllowed Reason = "AlgorithmNotAllowed"
	// MalformedClaims: a registered claim has the wrong type or is out of range.
	MalformedClaims Reason = policy.MalformedClaims
	// IssuerMismatch: "iss" is not exactly spec.issuer.
	IssuerMismatch Reason = "IssuerMismatch"
	// AudienceMismatch: "aud" names none of spec.audiences; to TokenReview also:
	// none of the audiences that the API server asks for.
	AudienceMismatch Reason = "AudienceMismatch"
	// ExpiryMissing: the token has no "exp".
	ExpiryMissing Reason = "ExpiryMissing"
	// TokenExpired: "exp" has passed.
	TokenExpired Reason = "TokenExpired"
	// TokenNotYetValid: "nbf" has not come.
	TokenNotYetValid Reason = "TokenNotYetValid"
	// IssuedInFuture: "iat" has not come.
	IssuedInFuture Reason = "IssuedInFuture"
	// LifetimeTooLong: exp minus iat is over spec.verification.maxTokenLifetime, or
	// there is no iat.
	LifetimeTooLong Reason = "LifetimeTooLong"
	// TokenTypeNotAllowed: "typ" is not among spec.verification.tokenTypes.
	TokenTypeNotAllowed Reason = "TokenTypeNotAllowed"
	// RequiredClaimMissing: a claim of spec.verification.requiredClaims is not
	// there.
	RequiredClaimMissing Reason = policy.RequiredClaimMissing
	// ClaimRuleFailed: one of spec.verification.claimValidationRules does not hold.
	ClaimRuleFailed Reason = policy.ClaimRuleFailed
)

// Reasons that are a definite no because of the keys.
const (
	// AmbiguousKey: the token has no "kid" and several keys fit.
	AmbiguousKey Reason = "AmbiguousKey"
	// KeyAlgorithmMismatch: the key that "kid" names does not serve "alg".
	KeyAlgorithmMismatch Reason = "KeyAlgorithmMismatch"
	// KeyRevoked: the key is compromised or revoked.
	KeyRevoked Reason = "KeyRevoked"
	// SignatureInvalid: the signature is not one of the key over the token.
	SignatureInvalid Reason = "SignatureInvalid"
)

// Reasons that are a definite no although the token is genuine.
const (
	// SubjectMissing: the token has no "sub", or what else is mapped, to make a user
	// name of.
	SubjectMissing Reason = policy.UsernameMissing
	// EmailNotVerified: the user name is an email address that is not verified.
	EmailNotVerified Reason = policy.EmailNotVerified
	// UserRuleFailed: one of kubernetesAuthentication.userValidationRules does not
	// hold.
	UserRuleFailed Reason = policy.UserRuleFailed
	// ReservedName: the user name or a group would begin with "system:".
	ReservedName Reason = "ReservedName"
	// ClaimNotHeaderSafe: "sub", "iss" or a claim of spec.verification.responseHeaders
	// cannot be an HTTP header's value without being changed on the way (RFC 9110
	// section 5.5).
	ClaimNotHeaderSafe Reason = policy.NotHeaderSafe
)

// UnknownIssuer is a definite no to TokenReview, where another authenticator may
// know the token's issuer. To forward-auth it is "cannot decide": the request
// names an issuer object that does not exist, which is not the token's fault.
const UnknownIssuer Reason = "UnknownIssuer"

// Reasons that are "cannot decide": the token may be good.
const (
	// NotReady: not all issuers and snapshots have been read yet.
	NotReady Reason = "NotReady"
	// NoSnapshot: the issuer has no trusted keys (yet).
	NoSnapshot Reason = "NoSnapshot"
	// SnapshotExpired: the issuer has been silent for too long to trust its keys.
	SnapshotExpired Reason = "SnapshotExpired"
	// UnknownKey: no trusted key fits the token; the issuer may have a new one.
	UnknownKey Reason = "UnknownKey"
	// PolicyInvalid: an expression in spec cannot be compiled; the condition Stalled
	// says which.
	PolicyInvalid Reason = "PolicyInvalid"
	// DeadlineExceeded: there was no answer in time.
	DeadlineExceeded Reason = "DeadlineExceeded"
	// Overloaded: too many requests are being worked on.
	Overloaded Reason = policy.Busy
	// InternalError: the verification panicked.
	InternalError Reason = "InternalError"
)

// texts say what each reason means, for people. They go into HTTP headers
// (RFC 6750 section 3 limits error_description to printable ASCII without
// quotes and backslashes) and hold nothing of the token.
var texts = map[Reason]string{
	Accepted:             "the token is good",
	TokenMissing:         "there is no bearer token",
	AmbiguousCredentials: "there is more than one token",
	TokenTooLarge:        "the token is over 16 KiB",
	MalformedToken:       "the token is not a well-formed JWT",
	HeaderNotAllowed:     "the token's header asks for something that is not supported",
	AlgorithmNotAllowed:  "the token's algorithm is not allowed",
	MalformedClaims:      "a claim has the wrong type or is out of range",
	IssuerMismatch:       "the token is from another issuer",
	AudienceMismatch:     "the token is meant for another audience",
	ExpiryMissing:        "the token has no expiry",
	TokenExpired:         "the token has expired",
	TokenNotYetValid:     "the token is not valid yet",
	IssuedInFuture:       "the token was issued in the future",
	LifetimeTooLong:      "the token's lifetime is too long, or not known",
	TokenTypeNotAllowed:  "the token is of a type that is not allowed",
	RequiredClaimMissing: "a claim that is required is missing",
	ClaimRuleFailed:      "a rule for the claims does not hold",
	AmbiguousKey:         "the token has no kid and several keys fit",
	KeyAlgorithmMismatch: "the key does not serve the token's algorithm",
	KeyRevoked:           "the key is revoked",
	SignatureInvalid:     "the signature is not valid",
	SubjectMissing:       "the token has no subject",
	EmailNotVerified:     "the email address is not verified",
	UserRuleFailed:       "a rule for the user does not hold",
	ReservedName:         "the user name or a group would begin with system:",
	ClaimNotHeaderSafe:   "a claim cannot be put into a header unchanged",
	UnknownIssuer:        "the issuer is not known here",
	NotReady:             "the issuers have not all been read yet",
	NoSnapshot:           "there are no trusted keys for the issuer",
	SnapshotExpired:      "the trusted keys have expired, because the issuer has not confirmed them for too long",
	UnknownKey:           "no trusted key fits the token",
	PolicyInvalid:        "the rules for the issuer's tokens cannot be compiled",
	DeadlineExceeded:     "there was no answer in time",
	Overloaded:           "too many requests at once",
	InternalError:        "the verification failed",
}

// Text says in a few words what the reason means. It is printable ASCII and
// holds nothing of any token.
func (r Reason) Text() string { return texts[r] }

// joseReason translates the refusal of package jose. Whatever is not known is a
// malformed token: an error is never an accept.
func joseReason(err error) (Reason, string) {
	var je *jose.Error
	if !errors.As(err, &je) {
		return MalformedToken, ""
	}
	switch r := Reason(je.Reason); r {
	case TokenTooLarge, MalformedToken, HeaderNotAllowed, AlgorithmNotAllowed, SignatureInvalid:
		return r, je.Detail
	}
	return MalformedToken, je.Detail
}
