// documents.go names documents by their addresses: who has the plugin need not have the
// repository.

package main

const (
	installDocument     = "https://github.com/jwks-trust/jwks-trust-manager/blob/main/docs/install.md"
	kubernetesDocument  = "https://github.com/jwks-trust/jwks-trust-manager/blob/main/docs/kubernetes.md"
	forwardAuthDocument = "https://github.com/jwks-trust/jwks-trust-manager/blob/main/docs/forward-auth.md"
)
