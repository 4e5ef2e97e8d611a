// publishers.go scripts the answers of well-known issuers: what stands on the
// wire, with the members and headers that set each of them apart.

package testissuer

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// BetterAuth publishes without "use" (better-auth.com/docs/plugins/jwt).
func BetterAuth(keys ...*Key) http.HandlerFunc {
	return document("application/json", nil, jwks(keys, func(jwk map[string]any, _ *Key) { delete(jwk, "use") }))
}

// Auth0 has a lifetime of 15 s, and certificates in its keys
// (auth0.com/docs/secure/tokens/json-web-tokens/json-web-key-sets).
func Auth0(keys ...*Key) http.HandlerFunc {
	return document("application/json; charset=utf-8", map[string]string{
		"Cache-Control": "public, max-age=15, stale-while-revalidate=15, stale-if-error=86400",
	}, jwks(keys, withCertificate))
}

// Okta gives its keys in another order at each request
// (developer.okta.com/docs/concepts/key-rotation).
func Okta(keys ...*Key) http.HandlerFunc {
	var requests atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		n := int(requests.Add(1)) % len(keys)
		turned := append(append([]*Key{}, keys[n:]...), keys[:n]...)
		document("application/json", map[string]string{"Cache-Control": "max-age=3600, must-revalidate"}, jwks(turned, nil))(w, r)
	}
}

// Firebase gives PEM certificates by kid, not a key set; max-age says how long
// they last (firebase.google.com/docs/auth/admin/verify-id-tokens).
func Firebase(maxAge time.Duration, keys ...*Key) http.HandlerFunc {
	certificates := map[string]string{}
	for _, k := range keys {
		certificates[k.ID] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.certificate()}))
	}
	return document("application/json; charset=UTF-8", map[string]string{
		"Cache-Control": "public, max-age=" + seconds(maxAge) + ", must-revalidate, no-transform",
	}, certificates)
}

// Google varies max-age and Age from request to request
// (developers.google.com/identity/openid-connect/openid-connect).
func Google(keys ...*Key) http.HandlerFunc {
	var requests atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		document("application/json; charset=UTF-8", map[string]string{
			"Cache-Control": "public, max-age=" + strconv.FormatInt(19000+n*517%6000, 10) + ", must-revalidate, no-transform",
			"Age":           strconv.FormatInt(n*97%3000, 10),
		}, jwks(keys, nil))(w, r)
	}
}

// Entra leaves out "alg", and adds a certificate and an "issuer" to each key
// (learn.microsoft.com/entra/identity-platform/access-tokens).
func Entra(keys ...*Key) http.HandlerFunc {
	return document("application/json; charset=utf-8", map[string]string{"Cache-Control": "max-age=86400, private"},
		jwks(keys, func(jwk map[string]any, k *Key) {
			delete(jwk, "alg")
			withCertificate(jwk, k)
			jwk["issuer"] = "https://login.microsoftonline.com/{tenantid}/v2.0"
		}))
}

// Keycloak has an encryption key beside the others, and lets nothing be cached
// (keycloak.org/docs/latest/server_admin, realm keys).
func Keycloak(encryption *Key, keys ...*Key) http.HandlerFunc {
	all := append([]*Key{encryption}, keys...)
	return document("application/json", map[string]string{"Cache-Control": "no-cache"}, jwks(all, func(jwk map[string]any, k *Key) {
		withCertificate(jwk, k)
		if k == encryption {
			jwk["use"], jwk["alg"] = "enc", "RSA-OAEP"
		}
	}))
}

// Dex says until when its keys hold: the next rotation, every six hours
// (dexidp.io/docs/configuration/tokens).
func Dex(untilRotation time.Duration, keys ...*Key) http.HandlerFunc {
	return document("application/json", map[string]string{
		"Cache-Control": "max-age=" + seconds(untilRotation) + ", must-revalidate",
	}, jwks(keys, nil))
}

// APIServer has the media type of key sets, and a kid that is derived from the
// key (kubernetes.io/docs/tasks/configure-pod-container/configure-service-account,
// service account issuer discovery).
func APIServer(key *Key) http.HandlerFunc {
	return document("application/jwk-set+json", map[string]string{"Cache-Control": "public, max-age=3600"},
		jwks([]*Key{key}, func(jwk map[string]any, k *Key) { jwk["kid"] = k.DERKeyID() }))
}

// DERKeyID is the kid that kube-apiserver gives the key: the hash of its public
// part in DER.
func (k *Key) DERKeyID() string {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		panic(err) // every key here can be encoded
	}
	sum := sha256.Sum256(der)
	return b64(sum[:])
}

// SPIFFE is a bundle endpoint: keys for JWTs and for X.509, each with its "use",
// a hint when to come again, and a sequence number (SPIFFE Trust Domain and
// Bundle, section 4).
func SPIFFE(hint time.Duration, authority *Key, keys ...*Key) http.HandlerFunc {
	all := append([]*Key{authority}, keys...)
	bundle := jwks(all, func(jwk map[string]any, k *Key) {
		jwk["use"] = "jwt-svid"
		delete(jwk, "alg")
		if k == authority {
			withCertificate(jwk, k)
			jwk["use"] = "x509-svid"
			delete(jwk, "kid")
		}
	})
	bundle["spiffe_sequence"], bundle["spiffe_refresh_hint"] = 12035488, int64(hint.Seconds())
	return document("application/json", nil, bundle)
}

// jwks is a key set whose keys have been edited.
func jwks(keys []*Key, edit func(jwk map[string]any, k *Key)) map[string]any {
	list := make([]map[string]any, 0, len(keys))
	for _, k := range keys {
		jwk := k.JWK()
		if edit != nil {
			edit(jwk, k)
		}
		list = append(list, jwk)
	}
	return map[string]any{"keys": list}
}

// document answers with a JSON document.
func document(contentType string, headers map[string]string, content any) http.HandlerFunc {
	body, err := json.Marshal(content)
	if err != nil {
		panic(err) // what is made here can be encoded
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		_, _ = w.Write(body) // the client may hang up
	}
}

// withCertificate adds the members of RFC 7517 sections 4.7 and 4.8.
func withCertificate(jwk map[string]any, k *Key) {
	der := k.certificate()
	sum := sha256.Sum256(der)
	jwk["x5c"], jwk["x5t#S256"], jwk["x5t"] = []string{base64.StdEncoding.EncodeToString(der)}, b64(sum[:]), b64(sum[:20])
}

// certificate is a self-signed one for the key, in DER.
func (k *Key) certificate() []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: k.ID},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k.private)
	if err != nil {
		panic(err) // the system has no randomness
	}
	return der
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d.Seconds()), 10) }
