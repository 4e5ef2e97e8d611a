// Package schemas tests what `kubectl jwks export` writes, from issuer objects that a
// running manager keeps, with those who read it: a real API server that has the
// published CustomResourceDefinitions of Istio, Envoy Gateway and the Gateway API, a
// real API server that authenticates by it, and another library for keys.
package schemas
