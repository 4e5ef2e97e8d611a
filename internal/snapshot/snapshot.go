// Package snapshot is the wire contract between the controller, which writes
// the trusted keys of an issuer into a ConfigMap, and everybody who reads them:
// the verifier, and applications that mount the ConfigMap.
//
// It holds no client and no clock. Times are arguments.
package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// Keys of the ConfigMap's data.
const (
	// KeyJWKSJSON holds the key set (RFC 7517 section 5). Its exact bytes are
	// what the digest is taken of.
	KeyJWKSJSON = "jwks.json"
	// KeyJWKS holds the same bytes, under the name that Envoy Gateway reads.
	KeyJWKS = "jwks"
	// KeyIssuerJSON describes the issuer: a Descriptor with the digest.
	KeyIssuerJSON = "issuer.json"
	// KeyPEM holds the keys as PEM blocks, in the order of jwks.json, where PEM is
	// asked for.
	KeyPEM = "keys.pem"
)

// Keys are all of them.
func Keys() []string { return []string{KeyJWKSJSON, KeyJWKS, KeyIssuerJSON, KeyPEM} }

// Format is a form of the keys besides the JSON Web Key Set.
type Format string

// PEM adds KeyPEM.
const PEM Format = "PEM"

// MaxSize is the limit for all of a ConfigMap's data, in bytes. The API server
// refuses objects over 1 MiB; the rest is for metadata.
const MaxSize = 900 << 10

// ErrTooLarge means that the encoded keys do not fit into a ConfigMap.
var ErrTooLarge = errors.New("the encoded key set is over 900 KiB")

// ErrNoKeySet means that a ConfigMap has no jwks.json.
var ErrNoKeySet = errors.New("no " + KeyJWKSJSON)

// AuthoritativeName is the name, in the operator's namespace, of the ConfigMap
// that the verifier reads for the issuer object with this UID. All other
// ConfigMaps are copies of it.
func AuthoritativeName(uid types.UID) string { return "jwks-" + string(uid) }

// Descriptor says what a snapshot is for. Nothing in it moves with time, so
// that a refresh which finds the same keys leaves the ConfigMap untouched.
type Descriptor struct {
	// Kind, Namespace (empty for the cluster kind) and Name are those of the
	// issuer object.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Issuer is the exact "iss".
	Issuer string `json:"issuer"`
	// Audiences are those of which a token must name one.
	Audiences []string `json:"audiences"`
	// Algorithms are the signature algorithms that a token may use.
	Algorithms []string `json:"algorithms"`
	// Digest is that of jwks.json. Encode sets it.
	Digest string `json:"digest"`
}

// Encode is the ConfigMap data for a key set, in these formats too. It returns
// ErrTooLarge when the data is over MaxSize.
func Encode(set *keyset.Set, d Descriptor, also ...Format) (map[string]string, error) {
	jwks := string(set.JSON())
	d.Digest = set.Digest()
	about, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", KeyIssuerJSON, err)
	}
	data := map[string]string{
		KeyJWKSJSON:   jwks,
		KeyJWKS:       jwks,
		KeyIssuerJSON: string(about),
	}
	if slices.Contains(also, PEM) {
		if data[KeyPEM], err = pemOf(set); err != nil {
			return nil, err
		}
	}
	size := 0
	for k, v := range data {
		size += len(k) + len(v)
	}
	if size > MaxSize {
		return nil, ErrTooLarge
	}
	return data, nil
}

func pemOf(set *keyset.Set) (string, error) {
	var all []byte
	for _, k := range set.Keys() {
		text, err := k.PEM()
		if err != nil {
			return "", fmt.Errorf("encoding %s: %w", KeyPEM, err)
		}
		all = append(all, text...)
	}
	return string(all), nil
}

// Decode reads the key set of a ConfigMap's data and the digest of its exact
// bytes. Whether to trust it is the caller's question: the digest must be the
// one in the issuer's status.
func Decode(data map[string]string) (*keyset.Set, string, error) {
	jwks, ok := data[KeyJWKSJSON]
	if !ok {
		return nil, "", ErrNoKeySet
	}
	raw := []byte(jwks)
	digest := keyset.Digest(raw)
	set, err := keyset.Decode(raw)
	if err != nil {
		return nil, digest, err
	}
	return set, digest, nil
}

// Digest is the digest of the data's jwks.json, without reading the keys in it;
// empty when there is none.
func Digest(data map[string]string) string {
	jwks, ok := data[KeyJWKSJSON]
	if !ok {
		return ""
	}
	return keyset.Digest([]byte(jwks))
}

// DigestOf is the digest of these bytes.
func DigestOf(content []byte) string { return keyset.Digest(content) }

// IssuerOf is the issuer that a ConfigMap's data was written for; empty when
// the data does not say.
func IssuerOf(data map[string]string) string {
	var d Descriptor
	if json.Unmarshal([]byte(data[KeyIssuerJSON]), &d) != nil {
		return ""
	}
	return d.Issuer
}
