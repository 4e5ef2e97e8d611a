// Package peers tests the verifier's server together with those it is there for:
// nginx and Caddy as reverse proxies, and panva/jose, go-oidc and keyfunc as
// clients of the mirror.
//
// hack/peers.sh makes them ready. NGINX, NODE and CADDY name other binaries. A test
// whose peer is missing fails; go test -short leaves it out.
//
// The configurations in testdata are those that users are meant to have, with
// addresses and file names left open.
package peers
