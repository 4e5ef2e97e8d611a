// rfc_test.go holds the examples of the RFCs. Each signature is checked by the
// other library first, so that a slip of the pen here is not taken for a refusal.
package conformance

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// Keys of the examples.
const (
	exampleHS256Key = `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`
	exampleRS256Key = `{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`
	exampleES256Key = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	exampleES512Key = `{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`
	exampleEdDSAKey = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`

	cookbookRSAKey   = `{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQAB"}`
	cookbookES512Key = `{"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521","x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt","y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}`
	cookbookHS256Key = `{"kty":"oct","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037","use":"sig","alg":"HS256","k":"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}`
)

// Parts of the examples.
const (
	joe       = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	joeRS256  = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
	joeES256  = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	dangerous = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"

	cookbookHeader = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9" // HS256
	cookbookHMAC   = "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
	cookbookRSA    = "MIsjqtVlOpa71KE-Mss8_Nq2YH4FGhiocsqrgi5NvyG53uoimic1tcMdSg-qptrzZc7CG6Svw2Y13TDIqHzTUrL_lR2ZFcryNFiHkSw129EghGpwkpxaTn_THJTCglNbADko1MZBCdwzJxwqZc-1RlpO2HibUYyXSwO97BSe0_evZKdjvvKSgsIqjytKSeAMbhMBdMma622_BG5t4sdbuCHtFjp9iJmkio47AIwqkZV1aIZsv33uPUqBBCXbYoQJwt7mxPftHmNlGoOSMxR_3thmXTCm4US-xiNOyhbm8afKK64jU6_TPtQHiJeQJxz9G3Tx-083B745_AfYOnlC9w"
	cookbookES512  = "ARcVLnaJJaUWG8fG-8t5BREVAuTY8n8YHjwDO1muhcdCoFZFFjfISu0Cdkn9Ybdlmi54ho0x924DUz8sK7ZXkhc7AFM8ObLfTvNCrqcI3Jkl2U5IX3utNhODH6v7xgy1Qahsn0fyb4zSAkje8bAWz4vIfj5pCMYxxm4fgV3q7ZYhm5eD"
)

// rfcExamples are the examples. want is the reason of the refusal, with the
// detail where the payload is to blame; "" where the token is accepted.
var rfcExamples = []struct {
	name, key, token string
	// theirs is the algorithm that the other library verifies the token with.
	theirs gojose.SignatureAlgorithm
	want   string
}{
	{"RFC 7515 A.1: HS256", exampleHS256Key, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + joe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", gojose.HS256, "AlgorithmNotAllowed"},
	{"RFC 7515 A.2: RS256", exampleRS256Key, "eyJhbGciOiJSUzI1NiJ9." + joe + "." + joeRS256, gojose.RS256, ""},
	{"RFC 7515 A.3: ES256", exampleES256Key, "eyJhbGciOiJFUzI1NiJ9." + joe + "." + joeES256, gojose.ES256, ""},
	{"RFC 7515 A.4: ES512", exampleES512Key, "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn", gojose.ES512, payloadIsNoObject},
	{"RFC 7515 A.5: none", exampleES256Key, "eyJhbGciOiJub25lIn0." + joe + ".", "", "AlgorithmNotAllowed"},
	{"RFC 7515 A.6: general JSON serialization", exampleES256Key, `{"payload":"` + joe + `","signatures":[{"protected":"eyJhbGciOiJSUzI1NiJ9","header":{"kid":"2010-12-29"},"signature":"` + joeRS256 + `"},{"protected":"eyJhbGciOiJFUzI1NiJ9","header":{"kid":"e9bc097a-ce51-4036-9562-d2ade882db0d"},"signature":"` + joeES256 + `"}]}`, gojose.ES256, "MalformedToken"},
	{"RFC 7515 A.7: flattened JSON serialization", exampleES256Key, `{"payload":"` + joe + `","protected":"eyJhbGciOiJFUzI1NiJ9","header":{"kid":"e9bc097a-ce51-4036-9562-d2ade882db0d"},"signature":"` + joeES256 + `"}`, gojose.ES256, "MalformedToken"},

	{"RFC 7520 4.1: RS256", cookbookRSAKey, "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + dangerous + ".MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg", gojose.RS256, payloadIsNoObject},
	{"RFC 7520 4.2: PS384", cookbookRSAKey, "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + dangerous + ".cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw", gojose.PS384, payloadIsNoObject},
	{"RFC 7520 4.3: ES512", cookbookES512Key, "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + dangerous + ".AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2", gojose.ES512, payloadIsNoObject},
	{"RFC 7520 4.4: HS256", cookbookHS256Key, cookbookHeader + "." + dangerous + "." + cookbookHMAC, gojose.HS256, "AlgorithmNotAllowed"},
	{"RFC 7520 4.5: detached content", cookbookHS256Key, cookbookHeader + ".." + cookbookHMAC, "", "AlgorithmNotAllowed"},
	{"RFC 7520 4.6: protecting specific header fields", cookbookHS256Key, `{"payload":"` + dangerous + `","protected":"eyJhbGciOiJIUzI1NiJ9","header":{"kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037"},"signature":"bWUSVaxorn7bEF1djytBd0kHv70Ly5pvbomzMWSOr20"}`, gojose.HS256, "MalformedToken"},
	{"RFC 7520 4.7: protecting content only", cookbookHS256Key, `{"payload":"` + dangerous + `","header":{"alg":"HS256","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037"},"signature":"xuLifqLGiblpv9zBpuZczWhNj1gARaLV3UxvxhJxZuk"}`, gojose.HS256, "MalformedToken"},
	{"RFC 7520 4.8: multiple signatures, RS256", cookbookRSAKey, cookbookMultiple, gojose.RS256, "MalformedToken"},
	{"RFC 7520 4.8: multiple signatures, ES512", cookbookES512Key, cookbookMultiple, gojose.ES512, "MalformedToken"},

	{"RFC 8037 A.4 and A.5: EdDSA", exampleEdDSAKey, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", gojose.EdDSA, payloadIsNoObject},
}

const cookbookMultiple = `{"payload":"` + dangerous + `","signatures":[` +
	`{"protected":"eyJhbGciOiJSUzI1NiJ9","header":{"kid":"bilbo.baggins@hobbiton.example"},"signature":"` + cookbookRSA + `"},` +
	`{"header":{"alg":"ES512","kid":"bilbo.baggins@hobbiton.example"},"signature":"` + cookbookES512 + `"},` +
	`{"protected":"` + cookbookHeader + `","signature":"` + cookbookHMAC + `"}]}`

func TestRFCSignatures(t *testing.T) {
	for _, e := range rfcExamples {
		t.Run(e.name, func(t *testing.T) {
			if e.theirs != "" {
				theyVerify(t, e.token, e.key, e.theirs)
			}
			token, err := jose.ParseToken(e.token)
			if e.want == payloadIsNoObject {
				// The payload is all that is wrong: another one gets as far as the signature.
				if err == nil || err.Error() != e.want {
					t.Fatalf("got %v", err)
				}
				token, err = jose.ParseToken(withPayload(t, e.token, `{}`))
				if err != nil {
					t.Fatalf("with a JSON object: %v", err)
				}
				if got := reasonOf(admit(t, e.key).Verify(token)); got != string(jose.SignatureInvalid) {
					t.Errorf("with a JSON object: got %q", got)
				}
				return
			}
			if got := reasonOf(err); got != e.want {
				t.Fatalf("got %q, want %q", got, e.want)
			}
			if e.want == "" {
				if err := admit(t, e.key).Verify(token); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// theyVerify has the other library verify an example, in whichever serialization.
func theyVerify(t *testing.T, token, key string, alg gojose.SignatureAlgorithm) {
	t.Helper()
	allowed := []gojose.SignatureAlgorithm{gojose.HS256, gojose.RS256, gojose.PS384, gojose.ES256, gojose.ES512, gojose.EdDSA}
	parsed, err := gojose.ParseSigned(token, allowed)
	if err != nil {
		t.Fatalf("go-jose cannot parse the example: %v", err)
	}
	index, signature, _, err := parsed.VerifyMulti(theirKey(t, []byte(key)))
	if err != nil || signature.Header.Algorithm != string(alg) {
		t.Fatalf("the example is wrong: signature %d, %s, %v", index, signature.Header.Algorithm, err)
	}
}

// What shares a secret is no key of a set.
func TestRFCSharedSecretsAreNoKeys(t *testing.T) {
	for _, key := range []string{exampleHS256Key, cookbookHS256Key} {
		if _, err := jose.ParseKey([]byte(key)); reasonOf(err) != string(jose.SymmetricKey) {
			t.Errorf("got %v", err)
		}
		parsed, err := keyset.Parse([]byte(`{"keys":[`+key+`]}`), keyset.Policy{})
		if err == nil || parsed.Set != nil {
			t.Errorf("got %v, %v", parsed, err)
		}
	}
}

func TestRFCThumbprints(t *testing.T) {
	for name, test := range map[string]struct{ key, want string }{
		"RFC 7638 3.1": {
			`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		},
		"RFC 8037 A.3": {exampleEdDSAKey, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := admit(t, test.key).Thumbprint(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			theirs, err := theirKey(t, []byte(test.key)).Thumbprint(crypto.SHA256)
			if err != nil || b64(theirs) != test.want {
				t.Errorf("to go-jose it is %s, %v", b64(theirs), err)
			}
		})
	}
}

// RFC 7518 section 3.4: one curve for each algorithm.
func TestRFC7518Curves(t *testing.T) {
	algorithms := []string{"ES256", "ES384", "ES512"}
	for _, curve := range algorithms {
		for _, alg := range algorithms {
			_, err := jose.ParseKey(encode(t, with(newSigner(t, curve).jwk(t, "a"), map[string]any{"alg": alg})))
			want := ""
			if alg != curve {
				want = string(jose.AlgorithmMismatch)
			}
			if got := reasonOf(err); got != want {
				t.Errorf("the curve of %s with alg %s: got %q, want %q", curve, alg, got, want)
			}
		}
	}
}

// RFC 7797 section 4.2 has an HMAC; what b64 and crit are worth shows with a
// signature.
func TestRFC7797UnencodedPayload(t *testing.T) {
	const header, signature = "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19", "A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY"
	mac := hmac.New(sha256.New, unb64(t, strings.Split(exampleHS256Key, `"`)[7]))
	mac.Write([]byte(header + ".$.02"))
	if got := b64(mac.Sum(nil)); got != signature {
		t.Fatalf("the example is wrong: %s", got)
	}
	s := newSigner(t, "ES256")
	unencoded := func(header, payload string) string {
		input := b64([]byte(header)) + "." + payload
		return input + "." + b64(s.sign(t, input))
	}
	const payload = `{"iss":"joe"}`
	for name, test := range map[string]struct{ token, want string }{
		"detached":                    {header + ".." + signature, "AlgorithmNotAllowed"},
		"in place":                    {header + ".$.02." + signature, "MalformedToken"},
		"ES256, in place":             {unencoded(`{"alg":"ES256","b64":false,"crit":["b64"]}`, payload), "HeaderNotAllowed"},
		"ES256, encoded all the same": {s.token(t, `{"alg":"ES256","b64":false,"crit":["b64"]}`, payload), "HeaderNotAllowed"},
		"ES256, not critical":         {unencoded(`{"alg":"ES256","b64":false}`, payload), "HeaderNotAllowed"},
		"ES256, true":                 {s.token(t, `{"alg":"ES256","b64":true,"crit":["b64"]}`, payload), "HeaderNotAllowed"},
		"ES256, without a word":       {unencoded(`{"alg":"ES256"}`, payload), "MalformedToken"},
		"ES256, as usual":             {s.token(t, `{"alg":"ES256"}`, payload), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := jose.ParseToken(test.token); reasonOf(err) != test.want {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// RFC 9864 section 2.2 names EdDSA with Ed25519 anew, and has no example. What is
// left out there has no name here: Ed448, and the old name for it.
func TestRFC9864Ed25519(t *testing.T) {
	s := newSigner(t, "EdDSA")
	for keyAlg, admitted := range map[any]bool{nil: true, "EdDSA": true, "Ed25519": true, "Ed448": false, "ed25519": false, "ES256": false} {
		key, err := jose.ParseKey(encode(t, with(s.jwk(t, "a"), map[string]any{"alg": keyAlg})))
		if (err == nil) != admitted {
			t.Errorf("a key with alg %v: %v", keyAlg, err)
		}
		if err != nil {
			continue
		}
		for tokenAlg, want := range map[string]string{"EdDSA": "", "Ed25519": "", "Ed448": "AlgorithmNotAllowed", "ed25519": "AlgorithmNotAllowed", "ESP256": "AlgorithmNotAllowed"} {
			token, err := jose.ParseToken(s.token(t, `{"alg":"`+tokenAlg+`"}`, `{}`))
			if err == nil {
				err = key.Verify(token)
			}
			if got := reasonOf(err); got != want {
				t.Errorf("a key with alg %v, a token with alg %s: got %q, want %q", keyAlg, tokenAlg, got, want)
			}
		}
	}
}
