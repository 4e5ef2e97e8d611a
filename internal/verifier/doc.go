// Package verifier checks tokens with the keys that the controller published,
// and answers those who ask: reverse proxies (forward-auth) and the Kubernetes
// API server (TokenReview).
//
//	watch.go ──> join.go ──> store.go <── forwardauth.go, tokenreview.go <── server.go
//	 events      pure         index              protocols
//	                            └──> verify.go, claims.go: the judgement, pure
//
// It reads two things and nothing else: the authoritative ConfigMap of an issuer
// for the keys, and the issuer object for policy, digest and freshness. It never
// talks to an issuer.
package verifier
