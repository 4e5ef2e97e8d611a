// verify_test.go judges tokens, good and bad, with nothing but the pure code.

package verifier

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

func TestVerifyAcceptsEveryAlgorithm(t *testing.T) {
	for _, a := range jose.Algorithms() {
		t.Run(string(a), func(t *testing.T) {
			g := NewWithT(t)
			k := key("k", string(a))
			v := Verify(k.Sign(claims(nil)), trusted(t, keySet(t, k, ec("other"))), start)
			g.Expect(v.Outcome).To(Equal(Accept))
			g.Expect(v.Reason).To(Equal(Accepted))
			g.Expect(v.Claims.Issuer).To(Equal(issuerName))
			g.Expect(v.Claims.Subject).To(Equal(subject))
			g.Expect(v.Claims.Audiences).To(Equal([]string{audience}))
		})
	}
}

// TestVerifyClaims has the clock at start, and the token's own times around it.
func TestVerifyClaims(t *testing.T) {
	unix := func(d time.Duration) any {
		return json.Number(fmt.Sprintf("%.3f", float64(start.Add(d).UnixMilli())/1000))
	}
	number := func(s string) any { return json.RawMessage(s) }
	type c = map[string]any

	for name, tc := range map[string]struct {
		claims  c
		outcome Outcome
		reason  Reason
	}{
		"a good token":        {nil, Accept, Accepted},
		"without sub":         {c{"sub": absent{}}, Accept, Accepted},
		"without iat and nbf": {c{"iat": absent{}, "nbf": absent{}}, Accept, Accepted},
		"with claims that are none of our concern": {c{"groups": 7, "nonce": nil, "Iss": "x", "EXP": "y"}, Accept, Accepted},

		"THREATS 12: iss without its slash":         {c{"iss": strings.TrimSuffix(issuerName, "/")}, Refuse, IssuerMismatch},
		"THREATS 12: iss in another case":           {c{"iss": strings.ToUpper(issuerName)}, Refuse, IssuerMismatch},
		"THREATS 12: iss as an array":               {c{"iss": []string{issuerName}}, Refuse, MalformedClaims},
		"THREATS 12: iss null":                      {c{"iss": nil}, Refuse, MalformedClaims},
		"iss missing":                               {c{"iss": absent{}}, Refuse, IssuerMismatch},
		"iss empty":                                 {c{"iss": ""}, Refuse, IssuerMismatch},
		"iss under a name in another case":          {c{"iss": absent{}, "ISS": issuerName}, Refuse, IssuerMismatch},
		"iss of another issuer, all else right":     {c{"iss": "https://evil.example.com/"}, Refuse, IssuerMismatch},
		"THREATS 13: aud as an object":              {c{"aud": c{audience: true}}, Refuse, MalformedClaims},
		"THREATS 13: aud as a nested array":         {c{"aud": [][]string{{audience}}}, Refuse, MalformedClaims},
		"THREATS 13: aud longer than ours":          {c{"aud": audience + ".evil"}, Refuse, AudienceMismatch},
		"THREATS 13: aud a part of ours":            {c{"aud": audience[:len(audience)-1]}, Refuse, AudienceMismatch},
		"THREATS 13: aud an empty string":           {c{"aud": ""}, Refuse, AudienceMismatch},
		"THREATS 13: aud an empty array":            {c{"aud": []string{}}, Refuse, AudienceMismatch},
		"aud missing":                               {c{"aud": absent{}}, Refuse, AudienceMismatch},
		"aud with ours among others":                {c{"aud": []string{"x", audience}}, Accept, Accepted},
		"aud the other one of ours":                 {c{"aud": "https://other.example.com"}, Accept, Accepted},
		"aud null":                                  {c{"aud": nil}, Refuse, MalformedClaims},
		"THREATS 11: exp missing":                   {c{"exp": absent{}}, Refuse, ExpiryMissing},
		"THREATS 11: exp a string":                  {c{"exp": "1795435200"}, Refuse, MalformedClaims},
		"THREATS 11: exp in the year 10000":         {c{"exp": number("253402300800")}, Refuse, MalformedClaims},
		"THREATS 11: exp 1e999":                     {c{"exp": number("1e999")}, Refuse, MalformedClaims},
		"THREATS 11: exp 2^63":                      {c{"exp": number("9223372036854775808")}, Refuse, MalformedClaims},
		"THREATS 11: exp negative":                  {c{"exp": -1}, Refuse, MalformedClaims},
		"exp the epoch":                             {c{"exp": 0}, Refuse, TokenExpired},
		"exp at the end of 9999":                    {c{"exp": number("253402300799")}, Accept, Accepted},
		"exp passed, within the leeway":             {c{"exp": unix(-59999 * time.Millisecond)}, Accept, Accepted},
		"exp passed, at the end of the leeway":      {c{"exp": unix(-60 * time.Second)}, Refuse, TokenExpired},
		"THREATS 11: nbf beyond the leeway":         {c{"nbf": unix(60*time.Second + time.Millisecond)}, Refuse, TokenNotYetValid},
		"nbf at the end of the leeway":              {c{"nbf": unix(60 * time.Second)}, Accept, Accepted},
		"nbf a string":                              {c{"nbf": "0"}, Refuse, MalformedClaims},
		"THREATS 11: iat beyond the leeway":         {c{"iat": unix(60*time.Second + time.Millisecond)}, Refuse, IssuedInFuture},
		"iat at the end of the leeway":              {c{"iat": unix(60 * time.Second)}, Accept, Accepted},
		"iat null":                                  {c{"iat": nil}, Refuse, MalformedClaims},
		"sub a number":                              {c{"sub": 1}, Refuse, MalformedClaims},
		"order: iss comes before aud":               {c{"iss": "x", "aud": "x"}, Refuse, IssuerMismatch},
		"order: aud comes before exp":               {c{"aud": "x", "exp": 0}, Refuse, AudienceMismatch},
		"order: exp comes before nbf":               {c{"exp": 0, "nbf": unix(time.Hour)}, Refuse, TokenExpired},
		"order: a wrong type comes before all":      {c{"iss": "x", "nbf": "x"}, Refuse, MalformedClaims},
		"THREATS 9: a token inside a token's claim": {c{"iss": ec("k").Sign(claims(nil))}, Refuse, IssuerMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			v := Verify(ec("k").Sign(claims(tc.claims)), trusted(t, keySet(t, ec("k"))), start)
			g.Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{tc.outcome, tc.reason}))
			g.Expect(v.Claims != nil).To(Equal(tc.outcome == Accept), "only an accepted token's claims are passed on")
		})
	}
}

// part is one part of a token in compact serialization.
func part(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// hs256 signs with a shared secret.
func hs256(secret []byte, header, payload string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(header + "." + payload))
	return header + "." + payload + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// publicDER is the public key as openssl writes it.
func publicDER(k crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		panic(err)
	}
	return der
}

func TestVerifyRefusesTokens(t *testing.T) {
	rs, es := key("rs", "RS256"), ec("es")
	evil := testissuer.NewKey("es", "ES256")
	payload := part(claims(nil))
	good := es.Sign(claims(nil))
	segments := strings.Split(good, ".")
	header := func(h map[string]any) string { return part(h) }
	der := publicDER(rs.Public())
	hsHeader := header(map[string]any{"alg": "HS256", "typ": "JWT", "kid": "rs"})

	for name, tc := range map[string]struct {
		token   string
		outcome Outcome
		reason  Reason
	}{
		"nothing":                                          {"", Refuse, TokenMissing},
		"an opaque token":                                  {"d2VsY29tZQ", Refuse, MalformedToken},
		"THREATS 1: alg none":                              {header(map[string]any{"alg": "none"}) + "." + payload + ".", Refuse, AlgorithmNotAllowed},
		"THREATS 1: alg nOnE":                              {header(map[string]any{"alg": "nOnE"}) + "." + payload + ".", Refuse, AlgorithmNotAllowed},
		"THREATS 1: alg empty":                             {es.Sign(claims(nil), testissuer.WithHeader("alg", "")), Refuse, AlgorithmNotAllowed},
		"THREATS 1: alg null":                              {es.Sign(claims(nil), testissuer.WithHeader("alg", nil)), Refuse, AlgorithmNotAllowed},
		"THREATS 1: alg an array":                          {es.Sign(claims(nil), testissuer.WithHeader("alg", []string{"ES256"})), Refuse, AlgorithmNotAllowed},
		"THREATS 1: alg missing":                           {es.Sign(claims(nil), testissuer.WithoutHeader("alg")), Refuse, AlgorithmNotAllowed},
		"THREATS 2: HS256 with the PEM of the RSA key":     {hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), hsHeader, payload), Refuse, AlgorithmNotAllowed},
		"THREATS 2: HS256 with the DER of the RSA key":     {hs256(der, hsHeader, payload), Refuse, AlgorithmNotAllowed},
		"THREATS 3: the attacker's key in jwk":             {evil.Sign(claims(nil), testissuer.WithHeader("jwk", evil.JWK())), Refuse, SignatureInvalid},
		"THREATS 3: jku to the attacker":                   {evil.Sign(claims(nil), testissuer.WithHeader("jku", "https://evil.example.com/")), Refuse, SignatureInvalid},
		"THREATS 3: x5u to the attacker":                   {evil.Sign(claims(nil), testissuer.WithHeader("x5u", "https://evil.example.com/")), Refuse, SignatureInvalid},
		"THREATS 3: x5c of the attacker":                   {evil.Sign(claims(nil), testissuer.WithHeader("x5c", []string{"AA=="})), Refuse, SignatureInvalid},
		"THREATS 3: a good token with jwk":                 {es.Sign(claims(nil), testissuer.WithHeader("jwk", evil.JWK())), Accept, Accepted},
		"THREATS 4: kid with path traversal":               {es.Sign(claims(nil), testissuer.WithHeader("kid", "../../dev/null")), CannotDecide, UnknownKey},
		"THREATS 4: kid with SQL":                          {es.Sign(claims(nil), testissuer.WithHeader("kid", "' OR 1=1 --")), CannotDecide, UnknownKey},
		"THREATS 4: kid over 128 bytes":                    {es.Sign(claims(nil), testissuer.WithHeader("kid", strings.Repeat("k", 129))), Refuse, MalformedToken},
		"THREATS 4: no kid, one key fits":                  {es.Sign(claims(nil), testissuer.WithoutHeader("kid")), Accept, Accepted},
		"an empty kid is a kid":                            {es.Sign(claims(nil), testissuer.WithHeader("kid", "")), CannotDecide, UnknownKey},
		"kid a number":                                     {es.Sign(claims(nil), testissuer.WithHeader("kid", 7)), Refuse, MalformedToken},
		"THREATS 6: crit":                                  {es.Sign(claims(nil), testissuer.WithHeader("crit", []string{"exp"})), Refuse, HeaderNotAllowed},
		"THREATS 7: b64 false":                             {es.Sign(claims(nil), testissuer.WithHeader("b64", false)), Refuse, HeaderNotAllowed},
		"THREATS 8: bytes after the JSON object":           {es.SignRaw([]byte(`{"iss":"` + issuerName + `"}x`)), Refuse, MalformedToken},
		"THREATS 8: iss twice":                             {es.SignRaw([]byte(`{"iss":"` + issuerName + `","iss":"x"}`)), Refuse, MalformedToken},
		"THREATS 8: iss twice, once escaped":               {es.SignRaw([]byte(`{"iss":"` + issuerName + `","\u0069ss":"x"}`)), Refuse, MalformedToken},
		"THREATS 8: invalid UTF-8":                         {es.SignRaw([]byte("{\"iss\":\"\xff\"}")), Refuse, MalformedToken},
		"THREATS 8: a space before":                        {" " + good, Refuse, MalformedToken},
		"THREATS 8: a line break after":                    {good + "\n", Refuse, MalformedToken},
		"THREATS 8: padding":                               {good + "=", Refuse, MalformedToken},
		"THREATS 9: zip":                                   {es.Sign(claims(nil), testissuer.WithHeader("zip", "DEF")), Refuse, HeaderNotAllowed},
		"THREATS 9: a JWE":                                 {header(map[string]any{"alg": "RSA-OAEP", "enc": "A256GCM"}) + ".a.a.a.a", Refuse, MalformedToken},
		"THREATS 9: a nested token":                        {es.Sign(claims(nil), testissuer.WithHeader("cty", "JWT")), Refuse, HeaderNotAllowed},
		"THREATS 10: a million dots":                       {strings.Repeat(".", 1_000_000), Refuse, TokenTooLarge},
		"THREATS 10: over 16 KiB":                          {es.Sign(claims(map[string]any{"pad": strings.Repeat("x", 16<<10)})), Refuse, TokenTooLarge},
		"THREATS 10: nesting over 32":                      {es.SignRaw([]byte(`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`)), Refuse, MalformedToken},
		"THREATS 15: ES256 under the kid of an RSA key":    {es.Sign(claims(nil), testissuer.WithHeader("kid", "rs")), Refuse, KeyAlgorithmMismatch},
		"THREATS 15: PS256 with a key bound to RS256":      {rs.Sign(claims(nil), testissuer.WithHeader("alg", "PS256")), Refuse, KeyAlgorithmMismatch},
		"THREATS 15: an empty ECDSA signature":             {segments[0] + "." + segments[1] + ".", Refuse, SignatureInvalid},
		"THREATS 15: an ECDSA signature of zeros":          {segments[0] + "." + segments[1] + "." + strings.Repeat("A", 86), Refuse, SignatureInvalid},
		"another key under a known kid":                    {evil.Sign(claims(nil)), Refuse, SignatureInvalid},
		"the payload of one token under the seal of other": {segments[0] + "." + part(claims(map[string]any{"sub": "root"})) + "." + segments[2], Refuse, SignatureInvalid},
		"order: a bad audience comes before the key":       {evil.Sign(claims(map[string]any{"aud": "x"}), testissuer.WithHeader("kid", "?")), Refuse, AudienceMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			v := Verify(tc.token, trusted(t, keySet(t, rs, es)), start)
			NewWithT(t).Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{tc.outcome, tc.reason}))
		})
	}
}

func TestVerifyAllowedAlgorithms(t *testing.T) {
	g := NewWithT(t)
	rs, es := key("rs", "RS256"), ec("es")
	onlyES := trusted(t, keySet(t, rs, es), algorithms("ES256"))
	g.Expect(Verify(es.Sign(claims(nil)), onlyES, start).Outcome).To(Equal(Accept))
	v := Verify(rs.Sign(claims(map[string]any{"iss": "x"})), onlyES, start)
	g.Expect(v.Reason).To(Equal(AlgorithmNotAllowed), "before anything else, whatever keys there are")

	ed := key("ed", "EdDSA")
	onlyEd := trusted(t, keySet(t, ed), algorithms("EdDSA"))
	g.Expect(Verify(ed.Sign(claims(nil), testissuer.WithHeader("alg", "Ed25519")), onlyEd, start).Outcome).To(Equal(Accept), "RFC 9864's name of the same")
}

func TestVerifyKeysWithoutKid(t *testing.T) {
	g := NewWithT(t)
	one, two := key("", "ES256"), ec("two")
	single := trusted(t, keySet(t, one))
	g.Expect(Verify(one.Sign(claims(nil)), single, start).Outcome).To(Equal(Accept))
	g.Expect(Verify(two.Sign(claims(nil)), single, start).Reason).To(Equal(UnknownKey), "a kid is never matched with a key that has none")

	several := trusted(t, keySet(t, ec("a"), two))
	v := Verify(two.Sign(claims(nil), testissuer.WithoutHeader("kid")), several, start)
	g.Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{Refuse, AmbiguousKey}), "THREATS 4: no kid where several keys fit")
}

// An issuer that publishes two keys under one kid has neither of them trusted.
func TestVerifyDuplicateKid(t *testing.T) {
	g := NewWithT(t)
	a, b := testissuer.NewKey("same", "ES256"), testissuer.NewKey("same", "ES256")
	issuer := trusted(t, keySet(t, a, b, ec("other")))
	for _, k := range []*testissuer.Key{a, b} {
		g.Expect(Verify(k.Sign(claims(nil)), issuer, start).Outcome).To(Equal(CannotDecide), "THREATS 5: a kid of duplicated, differing keys")
	}
}

// A key of one issuer never verifies a token that claims another, whatever the
// two have in common.
func TestVerifyKeepsIssuersApart(t *testing.T) {
	g := NewWithT(t)
	a := trusted(t, keySet(t, ec("k")))
	b := trusted(t, keySet(t, testissuer.NewKey("k", "ES256")), func(c *api.ClusterTrustedIssuer) { c.Spec.Issuer = "https://b.example.com" })
	claimsB := claims(map[string]any{"iss": "https://b.example.com"})
	g.Expect(Verify(ec("k").Sign(claimsB), a, start).Reason).To(Equal(IssuerMismatch))
	g.Expect(Verify(ec("k").Sign(claimsB), b, start).Reason).To(Equal(SignatureInvalid))
}

func TestVerifyWithoutUsableSnapshot(t *testing.T) {
	set := keySet(t, ec("k"), ec("leaked"))
	good := ec("k").Sign(claims(map[string]any{"exp": start.Add(100 * time.Hour).Unix()}))
	expired := ec("k").Sign(claims(map[string]any{"exp": start.Add(-time.Hour).Unix()}))
	leaked := ec("leaked").Sign(claims(map[string]any{"exp": start.Add(100 * time.Hour).Unix()}))

	for name, tc := range map[string]struct {
		issuer *Issuer
		token  string
		after  time.Duration
		want   []any
	}{
		"THREATS 58: no snapshot":                         {join(cluster(), nil, nil, start), good, 0, []any{CannotDecide, NoSnapshot}},
		"THREATS 58: a definite no needs no snapshot":     {join(cluster(), nil, nil, start), expired, 0, []any{Refuse, TokenExpired}},
		"content that no status vouches for":              {join(cluster(), content(t, set), nil, start), good, 0, []any{CannotDecide, NoSnapshot}},
		"a status without a success":                      {join(cluster(publishes(set, time.Time{})), content(t, set), nil, start), good, 0, []any{CannotDecide, NoSnapshot}},
		"fresh":                                           {trusted(t, set), good, 9 * time.Minute, []any{Accept, Accepted}},
		"stale":                                           {trusted(t, set), good, time.Hour - 1, []any{Accept, Accepted}},
		"THREATS 58: expired":                             {trusted(t, set), good, time.Hour, []any{CannotDecide, SnapshotExpired}},
		"THREATS 58: expired, and an unknown key":         {trusted(t, set), ec("?").Sign(claims(map[string]any{"exp": start.Add(100 * time.Hour).Unix()})), time.Hour, []any{CannotDecide, SnapshotExpired}},
		"THREATS 17: a compromised key":                   {trusted(t, set, compromised(set, "leaked")), leaked, 0, []any{Refuse, KeyRevoked}},
		"THREATS 17: the others go on":                    {trusted(t, set, compromised(set, "leaked")), good, 0, []any{Accept, Accepted}},
		"THREATS 17: a compromised key, expired snapshot": {trusted(t, set, compromised(set, "leaked")), leaked, 2 * time.Hour, []any{Refuse, KeyRevoked}},
		"THREATS 17: a compromised key that has left":     {trusted(t, keySet(t, ec("k")), compromised(set, "leaked")), leaked, 0, []any{Refuse, KeyRevoked}},
		"THREATS 17: all keys compromised":                {trusted(t, set, compromised(set, "k", "leaked")), good, 0, []any{Refuse, KeyRevoked}},
		"THREATS 17: all compromised, another key":        {trusted(t, set, compromised(set, "k", "leaked")), ec("?").Sign(claims(map[string]any{"exp": start.Add(100 * time.Hour).Unix()})), 0, []any{CannotDecide, NoSnapshot}},
	} {
		t.Run(name, func(t *testing.T) {
			v := Verify(tc.token, tc.issuer, start.Add(tc.after))
			NewWithT(t).Expect([]any{v.Outcome, v.Reason}).To(Equal(tc.want))
		})
	}
}

// A compromised key that has no kid is found by what it can verify.
func TestVerifyCompromisedKeyWithoutKid(t *testing.T) {
	g := NewWithT(t)
	k := key("", "ES256")
	set := keySet(t, k)
	v := Verify(k.Sign(claims(nil)), trusted(t, set, compromised(set, "")), start)
	g.Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{Refuse, KeyRevoked}), "THREATS 17")
}

// Without a kid nothing but the signature says whose a token is: the key that takes the
// place of a revoked one makes tokens with the same header.
func TestVerifyRevokedKeyWithoutKidSpeaksForItselfAlone(t *testing.T) {
	g := NewWithT(t)
	set := keySet(t, key("", "ES256"))
	next := testissuer.NewKey("", "ES256")
	v := Verify(next.Sign(claims(nil)), trusted(t, set, compromised(set, "")), start)
	g.Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{CannotDecide, NoSnapshot}))

	both := keySet(t, key("", "ES256"), key("other", "RS256"))
	v = Verify(next.Sign(claims(nil)), trusted(t, both, compromised(both, "")), start)
	g.Expect([]any{v.Outcome, v.Reason}).To(Equal([]any{CannotDecide, UnknownKey}), "it is worth a look-up")
}

// A new key under the kid of a compromised one is a new key.
func TestVerifyKidOfCompromisedKeyUsedAgain(t *testing.T) {
	g := NewWithT(t)
	old, renewed := testissuer.NewKey("k", "ES256"), testissuer.NewKey("k", "ES256")
	issuer := trusted(t, keySet(t, renewed), compromised(keySet(t, old), "k"))
	g.Expect(Verify(renewed.Sign(claims(nil)), issuer, start).Outcome).To(Equal(Accept))
	g.Expect(Verify(old.Sign(claims(nil)), issuer, start).Outcome).To(Equal(Refuse))
}

func TestZeroValuesNeverAccept(t *testing.T) {
	g := NewWithT(t)
	g.Expect(Verdict{}.Outcome).To(Equal(CannotDecide))
	nobody := trusted(t, keySet(t, ec("k")), func(c *api.ClusterTrustedIssuer) { c.Spec.Issuer = "" })
	for _, iss := range []any{"", absent{}} {
		g.Expect(Verify(ec("k").Sign(claims(map[string]any{"iss": iss})), nobody, start).Reason).To(Equal(IssuerMismatch))
	}
	g.Expect((&Issuer{}).window.State(start)).To(Equal(snapshot.Pending))
}

func TestReasonsHaveHeaderSafeTexts(t *testing.T) {
	g := NewWithT(t)
	for reason, text := range texts {
		g.Expect(text).NotTo(BeEmpty(), string(reason))
		g.Expect(headerSafe(text)).To(BeTrue(), string(reason))
		g.Expect(text).NotTo(ContainSubstring(`"`), "RFC 6750 section 3")
		g.Expect(text).NotTo(ContainSubstring(`\`), "RFC 6750 section 3")
	}
	for _, r := range []jose.Reason{jose.TokenTooLarge, jose.MalformedToken, jose.AlgorithmNotAllowed, jose.HeaderNotAllowed, jose.SignatureInvalid} {
		reason, _ := joseReason(&jose.Error{Reason: r})
		g.Expect(reason).To(Equal(Reason(r)))
	}
	reason, _ := joseReason(&jose.Error{Reason: "NewOne"})
	g.Expect(reason).To(Equal(MalformedToken), "the set stays closed")
	reason, _ = joseReason(keyset.ErrUnknownKey)
	g.Expect(reason).To(Equal(MalformedToken), "an error is never an accept")
}

// TestVerifyRefusesEveryMutation changes every byte of good tokens.
func TestVerifyRefusesEveryMutation(t *testing.T) {
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			k := key("k", algorithm)
			issuer := trusted(t, keySet(t, k))
			token := []byte(k.Sign(claims(nil)))
			if v := Verify(string(token), issuer, start); v.Outcome != Accept {
				t.Fatalf("the token itself: %v", v.Reason)
			}
			for i := range token {
				for _, change := range mutations(algorithm) {
					token[i] ^= change
					if v := Verify(string(token), issuer, start); v.Outcome == Accept {
						t.Fatalf("accepted with byte %d (of %d) changed by %#x", i, len(token), change)
					}
					token[i] ^= change
				}
			}
			for i := range token {
				if v := Verify(string(token[:i]), issuer, start); v.Outcome == Accept {
					t.Fatalf("accepted when cut to %d bytes", i)
				}
			}
		})
	}
}

// mutations are all values of a byte for the fastest algorithm, and every bit,
// with some pairs of bits, for the others.
func mutations(algorithm string) []byte {
	if algorithm != "EdDSA" {
		return []byte{1, 2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 96}
	}
	all := make([]byte, 255)
	for i := range all {
		all[i] = byte(i + 1)
	}
	return all
}

// FuzzVerify looks for panics, and for accepted tokens that nobody signed.
func FuzzVerify(f *testing.F) {
	k := ec("k")
	good := k.Sign(claims(nil))
	issuer := trusted(f, keySet(f, k))
	f.Add(good)
	f.Add(key("ed", "EdDSA").Sign(claims(map[string]any{"aud": []string{audience}})))
	f.Add(strings.Repeat(".", 100))
	f.Add(k.SignRaw([]byte(`{"exp":1e999,"aud":[{}],"iss":null}`)))
	f.Fuzz(func(t *testing.T, token string) {
		if v := Verify(token, issuer, start); v.Outcome == Accept && token != good {
			t.Fatalf("accepted %q", token)
		}
	})
}
