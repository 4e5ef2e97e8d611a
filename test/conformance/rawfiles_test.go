// rawfiles_test.go says which of Wycheproof's files for bare signatures speak of
// our algorithms, and makes JSON Web Keys of their keys.
package conformance

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// rawFile is a file whose vectors are judged as signatures of one algorithm.
type rawFile struct {
	name string
	alg  jose.Algorithm
	// sha is that of the groups which count, where a file has several.
	sha string
	// foreign: the signatures are good ones, but of something else than the
	// algorithm: another hash, another length of salt, another encoding. None may
	// be accepted.
	foreign bool
	// valid and invalid are how many vectors there are; those that are
	// "acceptable" bend a rule, and count as invalid.
	valid, invalid int
	// also has the vectors, not valid as the file means it, which are good
	// signatures of the algorithm.
	also map[int]string
}

func (f rawFile) takes(g rawGroup) bool { return f.sha == "" || f.sha == g.SHA }

var rawFiles = []rawFile{
	{name: "ed25519_test.json", alg: jose.EdDSA, valid: 88, invalid: 63},
	{name: "ecdsa_secp256r1_sha256_p1363_test.json", alg: jose.ES256, valid: 173, invalid: 89},
	{name: "ecdsa_secp384r1_sha384_p1363_test.json", alg: jose.ES384, valid: 193, invalid: 87},
	{name: "ecdsa_secp521r1_sha512_p1363_test.json", alg: jose.ES512, valid: 231, invalid: 87},
	{name: "rsa_signature_2048_sha256_test.json", alg: jose.RS256, valid: 9, invalid: 250},
	{name: "rsa_signature_2048_sha384_test.json", alg: jose.RS384, valid: 7, invalid: 251},
	{name: "rsa_signature_2048_sha512_test.json", alg: jose.RS512, valid: 8, invalid: 251},
	{name: "rsa_signature_3072_sha256_test.json", alg: jose.RS256, valid: 8, invalid: 251},
	{name: "rsa_signature_3072_sha384_test.json", alg: jose.RS384, valid: 7, invalid: 252},
	{name: "rsa_signature_3072_sha512_test.json", alg: jose.RS512, valid: 8, invalid: 252},
	{name: "rsa_signature_4096_sha256_test.json", alg: jose.RS256, valid: 7, invalid: 251},
	{name: "rsa_signature_4096_sha384_test.json", alg: jose.RS384, valid: 7, invalid: 252},
	{name: "rsa_signature_4096_sha512_test.json", alg: jose.RS512, valid: 7, invalid: 252},
	{name: "rsa_signature_8192_sha256_test.json", alg: jose.RS256, valid: 7, invalid: 251},
	{name: "rsa_signature_8192_sha384_test.json", alg: jose.RS384, valid: 7, invalid: 252},
	{name: "rsa_signature_8192_sha512_test.json", alg: jose.RS512, valid: 7, invalid: 252},
	{name: "rsa_pkcs1_2048_sig_gen_test.json", alg: jose.RS256, sha: "SHA-256", valid: 8, invalid: 2, also: map[int]string{154: "e is 3", 158: "e is 3"}},
	{name: "rsa_pkcs1_2048_sig_gen_test.json", alg: jose.RS384, sha: "SHA-384", valid: 8, invalid: 0},
	{name: "rsa_pkcs1_2048_sig_gen_test.json", alg: jose.RS512, sha: "SHA-512", valid: 8, invalid: 1, also: map[int]string{155: "e is 3"}},
	{name: "rsa_pss_2048_sha256_mgf1_32_test.json", alg: jose.PS256, valid: 63, invalid: 45},
	{name: "rsa_pss_2048_sha384_mgf1_48_test.json", alg: jose.PS384, valid: 95, invalid: 46},
	{name: "rsa_pss_3072_sha256_mgf1_32_test.json", alg: jose.PS256, valid: 63, invalid: 45},
	{name: "rsa_pss_4096_sha256_mgf1_32_test.json", alg: jose.PS256, valid: 63, invalid: 45},
	{name: "rsa_pss_4096_sha384_mgf1_48_test.json", alg: jose.PS384, valid: 95, invalid: 46},
	{name: "rsa_pss_4096_sha512_mgf1_64_test.json", alg: jose.PS512, valid: 132, invalid: 47},

	{name: "ecdsa_secp256r1_sha256_test.json", alg: jose.ES256, foreign: true, valid: 174, invalid: 310}, // DER
	{name: "ecdsa_secp384r1_sha384_test.json", alg: jose.ES384, foreign: true, valid: 194, invalid: 310},
	{name: "ecdsa_secp521r1_sha512_test.json", alg: jose.ES512, foreign: true, valid: 232, invalid: 310},
	{name: "ecdsa_secp256r1_sha512_p1363_test.json", alg: jose.ES256, foreign: true, valid: 242, invalid: 90}, // another hash
	{name: "ecdsa_secp384r1_sha512_p1363_test.json", alg: jose.ES384, foreign: true, valid: 230, invalid: 88},
	{name: "rsa_pss_2048_sha256_mgf1_0_test.json", alg: jose.PS256, foreign: true, valid: 61, invalid: 42, also: map[int]string{69: "the salt has 32 bytes"}}, // another salt
	{name: "rsa_pss_2048_sha256_mgf1sha1_20_test.json", alg: jose.PS256, foreign: true, valid: 63, invalid: 45},
	{name: "rsa_pss_4096_sha512_mgf1_32_test.json", alg: jose.PS512, foreign: true, valid: 132, invalid: 45},
	{name: "rsa_pss_2048_sha512_256_mgf1_32_test.json", alg: jose.PS256, foreign: true, valid: 69, invalid: 46},
	{name: "rsa_pss_2048_sha256_mgf1_32_test.json", alg: jose.RS256, foreign: true, valid: 63, invalid: 45, also: map[int]string{108: "it is PKCS #1 v1.5"}}, // RS and PS swapped
	{name: "rsa_signature_2048_sha256_test.json", alg: jose.PS256, foreign: true, valid: 9, invalid: 250, also: map[int]string{257: "it is PSS"}},
	{name: "rsa_signature_2048_sha512_256_test.json", alg: jose.RS256, foreign: true, valid: 7, invalid: 250, also: map[int]string{221: "the hash is SHA-256"}},
	{name: "rsa_signature_2048_sha3_256_test.json", alg: jose.RS256, foreign: true, valid: 7, invalid: 250, also: map[int]string{221: "the hash is SHA-256"}},
}

// jwk is the group's key.
func (g rawGroup) jwk(t testing.TB) []byte {
	t.Helper()
	key := g.PublicKey
	if key == (rawKey{}) {
		key = g.PrivateKey
	}
	switch {
	case key.PK != "":
		return encode(t, map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(unhex(t, key.PK))})
	case key.Uncompressed != "":
		name, ok := map[string]string{"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[key.Curve]
		point := unhex(t, key.Uncompressed)
		if size := (len(point) - 1) / 2; ok {
			return encode(t, map[string]any{"kty": "EC", "crv": name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])})
		}
	case key.Modulus != "":
		return encode(t, map[string]any{"kty": "RSA", "n": b64(unhex(t, key.Modulus)), "e": b64(unhex(t, key.PublicExponent))})
	}
	t.Fatalf("no such key: %+v", key)
	return nil
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	if len(text)%2 == 1 {
		text = "0" + text
	}
	b, err := hex.DecodeString(strings.ToLower(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
