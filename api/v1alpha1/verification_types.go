package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VerificationSpec says what the verifier demands of a token besides a good
// signature, iss, aud and exp, and what it passes on to a reverse proxy. It has no
// effect on applications that verify tokens themselves.
//
// +kubebuilder:validation:MinProperties=1
type VerificationSpec struct {
	// leeway is how far the clocks of the issuer and of the verifier may differ,
	// from 0s to 10m: exp, nbf and iat are judged with that much in the token's
	// favor.
	// +optional
	// +default="60s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s') && duration(self) <= duration('10m')",message="leeway must be a duration from 0s to 10m, such as 60s"
	Leeway *metav1.Duration `json:"leeway,omitempty"`

	// maxTokenLifetime refuses tokens that were issued for longer than this, from
	// 1m to 8760h: exp minus iat. A token without iat is refused too. Without it
	// any lifetime will do.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="maxTokenLifetime must be a duration from 1m to 8760h, such as 1h"
	MaxTokenLifetime *metav1.Duration `json:"maxTokenLifetime,omitempty"`

	// tokenTypes are the values of the header parameter "typ" that a token may
	// have, such as at+jwt (RFC 9068 section 2.1). They are compared without regard
	// to case, and "application/" before a value without another slash means
	// nothing (RFC 7515 section 4.1.9). A token without "typ" is refused then.
	// Without it any will do.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	TokenTypes []string `json:"tokenTypes,omitempty"`

	// requiredClaims are the names of claims that a token must have, with any
	// value but null.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	RequiredClaims []string `json:"requiredClaims,omitempty"`

	// claimValidationRules all have to hold for a token's claims. They mean what
	// they mean in the API server's AuthenticationConfiguration.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	ClaimValidationRules []ClaimValidationRule `json:"claimValidationRules,omitempty"`

	// cookie names a cookie that has the token where a request has no bearer token
	// in its Authorization header. Browsers send cookies without being asked to:
	// the application needs protection against cross-site requests then.
	// Forward-auth and ext_authz alone read it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-A-Za-z0-9!#$%&*+.^_|~]+$')",message="cookie must be the name of a cookie (RFC 6265 section 4.1.1): letters, digits and -!#$%&*+.^_|~"
	Cookie string `json:"cookie,omitempty"`

	// responseHeaders are given to the reverse proxy for an accepted token, besides
	// X-Auth-Subject and X-Auth-Issuer. Each is always there; empty where the token
	// has no such claim. Forward-auth and ext_authz alone send them.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a.name.lowerAscii() == b.name.lowerAscii()))",message="responseHeaders must not name a header twice, case aside"
	ResponseHeaders []ResponseHeader `json:"responseHeaders,omitempty"`
}

// ClaimValidationRule is a demand on a token's claims: a claim with a value, or an
// expression.
//
// +kubebuilder:validation:ExactlyOneOf=claim;expression
// +kubebuilder:validation:XValidation:rule="has(self.claim) == has(self.requiredValue)",message="claim and requiredValue go together"
// +kubebuilder:validation:XValidation:rule="!has(self.message) || has(self.expression)",message="message goes with expression"
type ClaimValidationRule struct {
	// claim is the name of a claim that must be a string, and requiredValue.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Claim string `json:"claim,omitempty"`

	// requiredValue is the exact value of claim.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	RequiredValue string `json:"requiredValue,omitempty"`

	// expression is in CEL and must be true. "claims" is the map of the claims:
	// claims.email_verified == true. One that asks for a claim which is not there
	// is not true; has(claims.email) tells. Claims have no type, which loops want
	// to know of: dyn(claims.groups).exists(g, g == 'staff').
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression,omitempty"`

	// message says, in the verifier's log, what does not hold.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// ResponseHeader is a header for the reverse proxy.
//
// +kubebuilder:validation:ExactlyOneOf=claim;expression
type ResponseHeader struct {
	// name of the header: letters, digits and hyphens. Headers that belong to HTTP
	// itself, and those that the verifier sends anyway, are taken.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z][A-Za-z0-9-]*$')",message="name must be letters, digits and hyphens: proxies and applications disagree about all else"
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().matches('^(x-auth-subject|x-auth-issuer|x-jwks-trust-.*|x-forwarded-.*|x-real-ip|forwarded|host|authorization|cookie|set-cookie|location|date|server|via|te|trailer|upgrade|connection|keep-alive|transfer-encoding|expect|vary|etag|www-authenticate|proxy-.*|content-.*|cache-control|x-envoy-.*)$')",message="name belongs to HTTP, to the proxy or to the verifier: choose another one, such as X-Auth-Email"
	Name string `json:"name,omitempty"`

	// claim is the name of the claim: a string, a number, a boolean, or an array of
	// strings, which become one value with commas.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Claim string `json:"claim,omitempty"`

	// expression is in CEL and must be a string, a list of strings, or null. "claims" is
	// the map of the claims.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression,omitempty"`
}

// ClaimMappings say which claims make up a user of the Kubernetes API.
//
// +kubebuilder:validation:MinProperties=1
type ClaimMappings struct {
	// username is the user's name, after usernamePrefix; the claim "sub" without
	// it. Where it is the claim "email", a claim "email_verified" must be true if it
	// is there; an expression that uses claims.email must use claims.email_verified
	// in one of the rules or mappings.
	// +optional
	Username *ClaimOrExpression `json:"username,omitempty"`

	// groups are the user's groups, each after groupsPrefix: a string or an array
	// of strings; the claim "groups" without it.
	// +optional
	Groups *ClaimOrExpression `json:"groups,omitempty"`

	// uid is the user's UID; none without it.
	// +optional
	UID *ClaimOrExpression `json:"uid,omitempty"`

	// extra are more attributes of the user, for authorizers.
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Extra []ExtraMapping `json:"extra,omitempty"`
}

// ClaimOrExpression is a value of a token's.
//
// +kubebuilder:validation:ExactlyOneOf=claim;expression
type ClaimOrExpression struct {
	// claim is the name of the claim.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Claim string `json:"claim,omitempty"`

	// expression is in CEL; "claims" is the map of the claims.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression,omitempty"`
}

// ExtraMapping is an attribute of the user.
type ExtraMapping struct {
	// key is a path with a domain before it, in lower case, such as
	// example.com/tenant. Those of k8s.io and kubernetes.io are Kubernetes' own.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[a-z0-9._~!$&*+,;=:@%/-]+$')",message="key must be a path with a domain before it, in lower case, such as example.com/tenant"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([^/]*[.])?(k8s|kubernetes)[.]io/')",message="key must not be of k8s.io or kubernetes.io, which are Kubernetes' own"
	Key string `json:"key,omitempty"`

	// valueExpression is in CEL and must be a string, a list of strings, or null.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	ValueExpression string `json:"valueExpression,omitempty"`
}

// UserValidationRule is a demand on the user that a token stands for.
type UserValidationRule struct {
	// expression is in CEL and must be true. "user" has username, groups, uid and
	// extra, with their prefixes: user.groups.exists(g, g == 'ext:staff').
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression,omitempty"`

	// message says, in the verifier's log, what does not hold.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}
