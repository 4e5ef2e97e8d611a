// Package consumers tests applications together with what the operator publishes: the
// examples of examples/, with the mounted ConfigMap and with the mirror, and real
// issuers (Better Auth, oidc-provider). The operator is the manager's binary on a real
// API server; there is no node, so the tests replace the files of a mounted ConfigMap
// as a kubelet does, but at once.
//
// hack/consumers.sh makes ready what they run. A test whose program is missing fails;
// go test -short leaves it out.
package consumers
