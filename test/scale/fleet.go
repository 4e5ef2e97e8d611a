// fleet.go is many issuers on few servers: each has a URL, keys and a count of
// requests of its own.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

const (
	// namespace is where the TrustedIssuers are.
	namespace = "scale"
	// material is how many key pairs of each kind there are. Issuers share them, since
	// to make 40,000 would take an hour; their kids differ.
	material = 8
)

// fleet is many issuers.
type fleet struct {
	servers  []*testissuer.Issuer
	rsa, ec  []*testissuer.Key
	cacheTTL func(n int) time.Duration

	mu       sync.Mutex
	requests map[int]int // by issuer
	extra    map[int]int // keys besides the usual four, by issuer
}

func newFleet(servers int, cacheTTL func(n int) time.Duration) (f *fleet, err error) {
	f = &fleet{cacheTTL: cacheTTL, requests: map[int]int{}, extra: map[int]int{}}
	for range material {
		f.rsa, f.ec = append(f.rsa, testissuer.NewKey("rsa", "RS256")), append(f.ec, testissuer.NewKey("ec", "ES256"))
	}
	for range servers {
		i, err := testissuer.Start()
		if err != nil {
			f.close()
			return f, err
		}
		i.Respond(f.serve)
		f.servers = append(f.servers, i)
	}
	return f, nil
}

// always is one cacheTTL for all.
func always(cacheTTL time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return cacheTTL }
}

func (f *fleet) close() {
	for _, i := range f.servers {
		i.Close()
	}
}

// serve answers for the issuer that the query names.
func (f *fleet) serve(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("of"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	f.mu.Lock()
	f.requests[n]++
	extra := f.extra[n]
	f.mu.Unlock()
	body := f.document(n, 4+extra)
	sum := sha256.Sum256(body)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	w.Header().Set("Content-Type", "application/jwk-set+json")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) // which knows If-None-Match
}

// document is the key set of an issuer: RS256 and ES256 in turns.
func (f *fleet) document(n, keys int) []byte {
	set := make([]map[string]any, keys)
	for k := range set {
		of := f.rsa
		if k%2 == 1 {
			of = f.ec
		}
		// The k/2-th pair, so that no pair appears twice while they last.
		set[k] = of[(n+k/2)%material].JWK()
		set[k]["kid"] = fmt.Sprintf("%s-%06d-%03d", of[0].ID, n, k)
	}
	body, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return body
}

// addKeys publishes more keys of an issuer.
func (f *fleet) addKeys(n, keys int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.extra[n] += keys
}

// asked is how often an issuer was asked for its keys.
func (f *fleet) asked(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[n]
}

// allAsked is how often all were.
func (f *fleet) allAsked() (sum int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.requests {
		sum += n
	}
	return sum
}

// spec is that of an issuer object.
func (f *fleet) spec(n int) api.IssuerSpec {
	on := f.servers[n%len(f.servers)]
	return api.IssuerSpec{
		Issuer: fmt.Sprintf("%s/%d", on.URL(), n), Audiences: []string{"https://orders.example.com"},
		JWKSURI: fmt.Sprintf("%s?of=%d", on.JWKSURI(), n), CABundle: on.CABundle(),
		CacheTTL: &metav1.Duration{Duration: f.cacheTTL(n)},
	}
}

// objects are TrustedIssuers for so many of the issuers.
func (f *fleet) objects(many int) []*api.TrustedIssuer {
	out := make([]*api.TrustedIssuer, many)
	for n := range out {
		out[n] = &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: nameOf(n)}}
		out[n].Spec.IssuerSpec = f.spec(n)
	}
	return out
}

func nameOf(n int) string { return fmt.Sprintf("issuer-%06d", n) }

func names(objects []*api.TrustedIssuer) []string {
	out := make([]string, len(objects))
	for n, o := range objects {
		out[n] = o.Name
	}
	return out
}
