// The examples. A module of its own, so that the product's go.mod holds only what
// the product runs on.
module github.com/jwks-trust/jwks-trust-manager/examples

go 1.26.0

require (
	github.com/coreos/go-oidc/v3 v3.21.0
	github.com/go-jose/go-jose/v4 v4.1.9
)

require golang.org/x/oauth2 v0.36.0 // indirect

ignore (
	./nextjs-better-auth/node_modules
	./node/node_modules
)
