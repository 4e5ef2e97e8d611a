// threats_test.go sends what an attacker would send through the whole
// verification. Every bad token is a good one but for what its row says; where it
// helps the attacker nothing else to be wrong, it is truly signed.
package conformance

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// world is the issuer that is attacked. Its keys have their algorithms, in lower
// case, as kids; that of RSA is "rsa" and serves RS256 and PS256 alike.
type world struct {
	rs256, ps256, es256, es384, eddsa signer

	keys   []any
	issuer *verifier.Issuer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	for alg, s := range map[string]*signer{"RS256": &w.rs256, "PS256": &w.ps256, "ES256": &w.es256, "ES384": &w.es384, "EdDSA": &w.eddsa} {
		*s = newSigner(t, alg)
	}
	w.keys = []any{w.rs256.jwk(t, "rsa"), w.es256.jwk(t, "es256"), w.es384.jwk(t, "es384"), w.eddsa.jwk(t, "eddsa")}
	w.issuer = newIssuer(t, document(t, w.keys...))
	return w
}

// kid is that of a signer's key.
func kid(s signer) string {
	if s.alg[1] == 'S' && s.alg[0] != 'E' {
		return "rsa"
	}
	return strings.ToLower(s.alg)
}

// header is that of a good token, with other members.
func header(t testing.TB, s signer, changes map[string]any) string {
	t.Helper()
	return string(encode(t, with(map[string]any{"alg": s.alg, "kid": kid(s), "typ": "JWT"}, changes)))
}

// claims are those of a good token, with some of them changed.
func claims(t testing.TB, changes map[string]any) string {
	t.Helper()
	return string(encode(t, with(map[string]any{
		"iss": issuerURL, "sub": "alice", "aud": audience,
		"iat": start.Unix(), "nbf": start.Unix(), "exp": start.Unix() + 600,
	}, changes)))
}

// rawClaim are the claims of a good token, but one, whose text is given.
func rawClaim(t testing.TB, name, text string) string {
	t.Helper()
	rest := claims(t, map[string]any{name: nil})
	return fmt.Sprintf(`{%q:%s,%s`, name, text, rest[1:])
}

// attack is a token and what becomes of it.
type attack struct {
	token string
	want  verifier.Reason
}

// check sees to it that the attack ends as it should.
func (a attack) check(t *testing.T, issuer *verifier.Issuer) {
	t.Helper()
	v := verifier.Verify(a.token, issuer, start)
	outcome := verifier.Refuse
	switch a.want {
	case verifier.Accepted:
		outcome = verifier.Accept
	case verifier.UnknownKey:
		outcome = verifier.CannotDecide
	}
	if v.Outcome != outcome || v.Reason != a.want {
		t.Errorf("got %v, %s (%s), want %v, %s", v.Outcome, v.Reason, v.Detail, outcome, a.want)
	}
	if (v.Claims != nil) != (outcome == verifier.Accept) {
		t.Errorf("the claims are %+v", v.Claims)
	}
}

// Rows of the table. Each makes its attacks by name.
var threats = []struct {
	name    string
	attacks func(t *testing.T, w *world) map[string]attack
}{
	{"alg none in any case", algNone},
	{"HS256 keyed with the public key", hmacWithPublicKey},
	{"a key in the header", keyInHeader},
	{"an odd kid, or none", oddKeyID},
	{"a kid of two differing keys", duplicatedKeyID},
	{"crit", critical},
	{"b64", unencodedPayload},
	{"bytes that do not belong there", strayBytes},
	{"encrypted, compressed or nested", notASignature},
	{"too large or too deep", tooLarge},
	{"times", times},
	{"another iss", otherIssuer},
	{"another aud", otherAudience},
	{"typ", tokenType},
	{"forms of signatures", signatureForms},
}

func TestThreats(t *testing.T) {
	w := newWorld(t)
	t.Run("a good token", func(t *testing.T) { // without this the rest shows nothing
		for _, s := range []signer{w.rs256, w.ps256, w.es256, w.es384, w.eddsa} {
			attack{s.token(t, header(t, s, nil), claims(t, nil)), verifier.Accepted}.check(t, w.issuer)
		}
	})
	for _, threat := range threats {
		t.Run(threat.name, func(t *testing.T) {
			attacks := threat.attacks(t, w)
			if len(attacks) == 0 {
				t.Fatal("there is no attack")
			}
			for name, a := range attacks {
				t.Run(name, func(t *testing.T) { a.check(t, w.issuer) })
			}
		})
	}
}

func algNone(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	for _, alg := range []any{"none", "None", "NONE", "nOnE", "", "none ", nil, []string{"ES256"}, 1, true, map[string]any{}, "es256", "ES256\x00"} {
		h := header(t, w.es256, map[string]any{"alg": alg})
		signed := w.es256.token(t, h, claims(t, nil))
		out[fmt.Sprintf("%q, signed", fmt.Sprint(alg))] = attack{signed, verifier.AlgorithmNotAllowed}
		out[fmt.Sprintf("%q, unsigned", fmt.Sprint(alg))] = attack{signed[:strings.LastIndexByte(signed, '.')+1], verifier.AlgorithmNotAllowed}
	}
	null := `{"alg":null,"kid":"es256"}`
	out["null"] = attack{w.es256.token(t, null, claims(t, nil)), verifier.AlgorithmNotAllowed}
	out["twice"] = attack{w.es256.token(t, `{"alg":"none","kid":"es256","alg":"ES256"}`, claims(t, nil)), verifier.MalformedToken}
	out["in another case"] = attack{w.es256.token(t, `{"Alg":"ES256","kid":"es256"}`, claims(t, nil)), verifier.AlgorithmNotAllowed}
	good := w.es256.token(t, header(t, w.es256, nil), claims(t, nil))
	out["ES256 without a signature"] = attack{good[:strings.LastIndexByte(good, '.')+1], verifier.SignatureInvalid}
	return out
}

func hmacWithPublicKey(t *testing.T, w *world) map[string]attack {
	public, ok := w.rs256.private.Public().(*rsa.PublicKey)
	if !ok {
		t.Fatal("no RSA key")
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	out := map[string]attack{}
	for name, secret := range map[string][]byte{
		"PEM, PKIX": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}), "DER, PKIX": pkix,
		"PEM, PKCS #1": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}), "DER, PKCS #1": pkcs1,
		"the modulus": public.N.Bytes(), "the JWK": encode(t, w.keys[0]), "nothing": nil,
	} {
		for alg, want := range map[string]verifier.Reason{"HS256": verifier.AlgorithmNotAllowed, "RS256": verifier.SignatureInvalid, "ES256": verifier.KeyAlgorithmMismatch} {
			input := b64([]byte(header(t, w.rs256, map[string]any{"alg": alg}))) + "." + b64([]byte(claims(t, nil)))
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(input))
			out[alg+", "+name] = attack{input + "." + b64(mac.Sum(nil)), want}
		}
	}
	return out
}

func keyInHeader(t *testing.T, w *world) map[string]attack {
	var asked atomic.Int32
	attacker := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(func() {
		attacker.Close()
		if n := asked.Load(); n != 0 {
			t.Errorf("the attacker's server was asked %d times", n)
		}
	})
	own := newSigner(t, "ES256")
	out := map[string]attack{}
	for name, value := range map[string]any{
		"jwk": own.jwk(t, "es256"), "jku": attacker.URL, "x5u": attacker.URL, "x5c": []string{"AAAA"}, "x5t": "AAAA", "x5t#S256": "AAAA",
	} {
		h := header(t, own, map[string]any{name: value})
		out[name+", signed by the attacker"] = attack{own.token(t, h, claims(t, nil)), verifier.SignatureInvalid}
		out[name+", and no kid"] = attack{own.token(t, header(t, own, map[string]any{name: value, "kid": nil}), claims(t, nil)), verifier.SignatureInvalid}
		out[name+", and an unknown kid"] = attack{own.token(t, header(t, own, map[string]any{name: value, "kid": "attacker"}), claims(t, nil)), verifier.UnknownKey}
		out[name+", signed by the issuer"] = attack{w.es256.token(t, h, claims(t, nil)), verifier.Accepted} // it has no effect
	}
	return out
}

func oddKeyID(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	for name, test := range map[string]struct {
		kid  any
		want verifier.Reason
	}{
		"a path":             {"../../../dev/null", verifier.UnknownKey},
		"SQL":                {"es256' OR '1'='1", verifier.UnknownKey},
		"a command":          {"es256;id|cat /etc/passwd", verifier.UnknownKey},
		"a URL":              {"https://attacker.example.com/jwks.json", verifier.UnknownKey},
		"a NUL":              {"es256\x00", verifier.UnknownKey},
		"in another case":    {"ES256", verifier.UnknownKey},
		"white space":        {" es256", verifier.UnknownKey},
		"128 bytes":          {strings.Repeat("a", 128), verifier.UnknownKey},
		"129 bytes":          {strings.Repeat("a", 129), verifier.MalformedToken},
		"129 bytes of UTF-8": {strings.Repeat("é", 65), verifier.MalformedToken},
		"a number":           {1, verifier.MalformedToken},
		"an array":           {[]string{"es256"}, verifier.MalformedToken},
		"empty":              {"", verifier.UnknownKey},
		"that of another":    {"eddsa", verifier.KeyAlgorithmMismatch},
		"none, one key fits": {nil, verifier.Accepted},
	} {
		out[name] = attack{w.es256.token(t, header(t, w.es256, map[string]any{"kid": test.kid}), claims(t, nil)), test.want}
	}
	out["null"] = attack{w.es256.token(t, `{"alg":"ES256","kid":null}`, claims(t, nil)), verifier.MalformedToken}
	out["half a surrogate pair"] = attack{w.es256.token(t, `{"alg":"ES256","kid":"\ud800"}`, claims(t, nil)), verifier.MalformedToken}

	issuer := newIssuer(t, document(t, append(w.keys, newSigner(t, "ES256").jwk(t, "other"))...))
	attack{w.es256.token(t, header(t, w.es256, map[string]any{"kid": nil}), claims(t, nil)), verifier.AmbiguousKey}.check(t, issuer)
	return out
}

func duplicatedKeyID(t *testing.T, w *world) map[string]attack {
	other := newSigner(t, "ES256")
	issuer := newIssuer(t, document(t, w.es256.jwk(t, "es256"), other.jwk(t, "es256"), w.eddsa.jwk(t, "eddsa")))
	for _, s := range []signer{w.es256, other} {
		attack{s.token(t, header(t, s, nil), claims(t, nil)), verifier.UnknownKey}.check(t, issuer)
		attack{s.token(t, header(t, s, map[string]any{"kid": nil}), claims(t, nil)), verifier.UnknownKey}.check(t, issuer)
	}
	attack{w.eddsa.token(t, header(t, w.eddsa, nil), claims(t, nil)), verifier.Accepted}.check(t, issuer)
	twice := newIssuer(t, document(t, w.es256.jwk(t, "es256"), w.es256.jwk(t, "es256")))
	attack{w.es256.token(t, header(t, w.es256, nil), claims(t, nil)), verifier.Accepted}.check(t, twice) // they do not differ
	return map[string]attack{"signed by neither": {other.token(t, header(t, other, nil), claims(t, nil)), verifier.SignatureInvalid}}
}

func critical(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	for _, value := range []any{[]string{"urn:example"}, []string{}, []string{"alg"}, []string{"exp"}, []string{"b64"}, "exp", 1, map[string]any{}} {
		h := header(t, w.es256, map[string]any{"crit": value, "exp": 1, "urn:example": 1})
		out[fmt.Sprint(value)] = attack{w.es256.token(t, h, claims(t, nil)), verifier.HeaderNotAllowed}
	}
	out["null"] = attack{w.es256.token(t, `{"alg":"ES256","kid":"es256","crit":null}`, claims(t, nil)), verifier.HeaderNotAllowed}
	return out
}

func unencodedPayload(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	for _, value := range []any{false, true, "false"} {
		h := header(t, w.es256, map[string]any{"b64": value})
		input := b64([]byte(h)) + "." + claims(t, nil)
		out[fmt.Sprintf("%v, unencoded", value)] = attack{input + "." + b64(w.es256.sign(t, input)), verifier.MalformedToken} // dots in the payload
		out[fmt.Sprintf("%v, encoded", value)] = attack{w.es256.token(t, h, claims(t, nil)), verifier.HeaderNotAllowed}
		input = b64([]byte(h)) + `.{"iss":1}`
		out[fmt.Sprintf("%v, unencoded, no dots", value)] = attack{input + "." + b64(w.es256.sign(t, input)), verifier.HeaderNotAllowed}
	}
	return out
}

func strayBytes(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	h, c := header(t, w.eddsa, nil), claims(t, nil)
	for name, test := range map[string]struct{ header, payload string }{
		"after the header":                 {h + " ", c},
		"another object after the header":  {h + `{}`, c},
		"before the header":                {"\ufeff" + h, c},
		"after the payload":                {h, c + "\n"},
		"another object after the payload": {h, c + `{"iss":"https://attacker.example.com"}`},
		"before the payload":               {h, " " + c},
		"a comma":                          {h, c[:len(c)-1] + ",}"},
		"a comment":                        {h, "{/**/" + c[1:]},
		"invalid UTF-8 in the header":      {strings.Replace(h, "JWT", "\xff", 1), c},
		"invalid UTF-8 in the payload":     {h, strings.Replace(c, "alice", "\xc0\xaf", 1)},
		"an overlong surrogate":            {h, strings.Replace(c, "alice", "\xed\xa0\x80", 1)},
		"a claim twice":                    {h, `{"sub":"root",` + c[1:]},
		"a claim twice, once escaped":      {h, `{"\u0073ub":"root",` + c[1:]},
		"an array":                         {h, "[" + c + "]"},
		"null":                             {h, "null"},
		"nothing":                          {h, ""},
	} {
		out[name] = attack{w.eddsa.token(t, test.header, test.payload), verifier.MalformedToken}
	}
	good := w.eddsa.token(t, h, c)
	parts := strings.Split(good, ".")
	resigned := func(header, payload string) string { // the signature is good for what stands there
		input := header + "." + payload
		return input + "." + b64(w.eddsa.sign(t, input))
	}
	for name, token := range map[string]string{
		"white space before":               " " + good,
		"white space after":                good + " ",
		"a line break after":               good + "\n",
		"a line break in the header":       resigned(parts[0][:4]+"\n"+parts[0][4:], parts[1]),
		"white space in the payload":       resigned(parts[0], parts[1][:4]+" "+parts[1][4:]),
		"a carriage return in the header":  resigned(parts[0][:4]+"\r"+parts[0][4:], parts[1]),
		"a carriage return in the payload": resigned(parts[0], parts[1][:4]+"\r"+parts[1][4:]),
		"a line break in the payload":      resigned(parts[0], parts[1][:4]+"\r\n"+parts[1][4:]),
		"a line break in the signature":    parts[0] + "." + parts[1] + "." + parts[2][:9] + "\n" + parts[2][9:],
		"padding of the header":            resigned(base64.URLEncoding.EncodeToString([]byte(strings.Replace(h, "JWT", "JWTt", 1)))+"=", parts[1]),
		"padding of the payload":           resigned(parts[0], padded(c)),
		"padding of the signature":         good + "==",
		"the standard alphabet":            resigned(parts[0], base64.RawStdEncoding.EncodeToString([]byte(strings.Replace(c, "alice", "~~~???\u00ff\u00fe", 1)))),
		"stray bits in the payload":        resigned(parts[0], strayBits(t, c)),
		"stray bits in the signature":      good[:len(good)-1] + next(good[len(good)-1:]),
		"a dot after":                      good + ".",
		"a dot before":                     "." + good,
		"no signature and no dot":          parts[0] + "." + parts[1],
		"two signatures":                   good + "." + parts[2],
		"a percent sign":                   strings.Replace(good, ".", "%2e", 1),
	} {
		out[name] = attack{token, verifier.MalformedToken}
	}
	return out
}

// padded is base64url of a payload, made as long as needs padding.
func padded(payload string) string {
	for len(payload)%3 == 0 {
		payload = strings.Replace(payload, "alice", "alicea", 1)
	}
	return base64.URLEncoding.EncodeToString([]byte(payload))
}

// strayBits is a payload, made as long as leaves bits over, with one of them set.
func strayBits(t testing.TB, payload string) string {
	t.Helper()
	text := strings.TrimRight(padded(payload), "=")
	return text[:len(text)-1] + next(text[len(text)-1:])
}

// next is the digit of base64url with the lowest bit set: that bit is left over
// at the end of a text whose length is no multiple of four.
func next(digit string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return digits[strings.Index(digits, digit)|1:][:1]
}

func notASignature(t *testing.T, w *world) map[string]attack {
	var deflated bytes.Buffer
	z, err := flate.NewWriter(&deflated, flate.BestCompression)
	if err == nil {
		_, err = z.Write([]byte(claims(t, nil)))
	}
	if err != nil || z.Close() != nil {
		t.Fatal("the payload cannot be compressed")
	}
	good := w.es256.token(t, header(t, w.es256, nil), claims(t, nil))
	out := map[string]attack{
		"JWE, compact":    {b64([]byte(`{"alg":"RSA-OAEP","enc":"A128GCM"}`)) + ".AA.AA.AA.AA", verifier.MalformedToken},
		"JWE in a JWS":    {w.es256.token(t, `{"alg":"RSA-OAEP","enc":"A128GCM"}`, claims(t, nil)), verifier.AlgorithmNotAllowed},
		"dir":             {w.es256.token(t, `{"alg":"dir","enc":"A128GCM"}`, claims(t, nil)), verifier.AlgorithmNotAllowed},
		"PBES2":           {w.es256.token(t, `{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAA"}`, claims(t, nil)), verifier.AlgorithmNotAllowed},
		"zip, compressed": {w.es256.token(t, header(t, w.es256, map[string]any{"zip": "DEF"}), deflated.String()), verifier.HeaderNotAllowed},
		"nested":          {w.es256.token(t, header(t, w.es256, map[string]any{"cty": "JWT"}), claims(t, nil)), verifier.HeaderNotAllowed},
		"nested, in full": {w.es256.token(t, header(t, w.es256, map[string]any{"cty": "application/jwt"}), claims(t, nil)), verifier.HeaderNotAllowed},
		"nested for real": {w.es256.token(t, header(t, w.es256, nil), good), verifier.MalformedToken},
		"JSON":            {`{"payload":"` + strings.Split(good, ".")[1] + `"}`, verifier.MalformedToken},
		"cty a number":    {w.es256.token(t, header(t, w.es256, map[string]any{"cty": 1}), claims(t, nil)), verifier.MalformedToken},
	}
	for _, name := range []string{"zip", "enc", "epk", "apu", "apv", "p2s", "p2c", "iv", "tag"} {
		out[name] = attack{w.es256.token(t, header(t, w.es256, map[string]any{name: 100000000}), claims(t, nil)), verifier.HeaderNotAllowed}
	}
	return out
}

func tooLarge(t *testing.T, w *world) map[string]attack {
	nested := func(depth int) string {
		return rawClaim(t, "a", strings.Repeat("[", depth)+strings.Repeat("]", depth))
	}
	token := func(payload string) string { return w.eddsa.token(t, header(t, w.eddsa, nil), payload) }
	sized := func(size int) string {
		text := ""
		for n := size * 3 / 4; n > 0 && (text == "" || len(text) > size); n-- {
			text = token(claims(t, map[string]any{"a": strings.Repeat("a", n)}))
		}
		return text
	}
	dots := strings.Repeat(".", 1_000_000)
	// It is refused before anything is decoded or copied.
	if n := testing.AllocsPerRun(10, func() { verifier.Verify(dots, w.issuer, start) }); n > 20 {
		t.Errorf("a million dots cost %v allocations", n)
	}
	large := sized(16 << 10)
	if len(large) < 16<<10-3 {
		t.Fatalf("the largest token has %d bytes", len(large))
	}
	return map[string]attack{
		"a million dots":       {dots, verifier.TokenTooLarge},
		"16 thousand dots":     {dots[:16000], verifier.MalformedToken},
		"16 KiB":               {large, verifier.Accepted},
		"over 16 KiB":          {token(claims(t, map[string]any{"a": strings.Repeat("a", 13000)})), verifier.TokenTooLarge},
		"a megabyte, signed":   {token(claims(t, map[string]any{"a": strings.Repeat("a", 1<<20)})), verifier.TokenTooLarge},
		"nested 32 deep":       {token(nested(31)), verifier.Accepted}, // with the object around it
		"nested 33 deep":       {token(nested(32)), verifier.MalformedToken},
		"nested 5000 deep":     {token(nested(5000)), verifier.MalformedToken},
		"a nested header":      {w.eddsa.token(t, `{"alg":"EdDSA","kid":"eddsa","a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`, claims(t, nil)), verifier.MalformedToken},
		"a thousand members":   {token(manyMembers(t, 1000)), verifier.Accepted},
		"an enormous number":   {token(rawClaim(t, "a", strings.Repeat("9", 8000))), verifier.Accepted}, // nobody reads it
		"an enormous exponent": {token(rawClaim(t, "exp", "1e"+strings.Repeat("9", 8000))), verifier.MalformedClaims},
	}
}

func manyMembers(t testing.TB, n int) string {
	t.Helper()
	changes := map[string]any{}
	for i := range n {
		changes[fmt.Sprint("a", i)] = i
	}
	return claims(t, changes)
}

func times(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{
		"exp missing": {w.eddsa.token(t, header(t, w.eddsa, nil), claims(t, map[string]any{"exp": nil})), verifier.ExpiryMissing},
	}
	now := start.Unix()
	for name, test := range map[string]struct {
		claim, text string
		want        verifier.Reason
	}{
		"exp null":                  {"exp", "null", verifier.MalformedClaims},
		"exp a string":              {"exp", fmt.Sprintf(`"%d"`, now+600), verifier.MalformedClaims},
		"exp an array":              {"exp", fmt.Sprintf(`[%d]`, now+600), verifier.MalformedClaims},
		"exp in the year 10000":     {"exp", "253402300800", verifier.MalformedClaims},
		"exp at the end of 9999":    {"exp", "253402300799", verifier.Accepted},
		"exp in milliseconds":       {"exp", fmt.Sprint((now + 600) * 1000), verifier.MalformedClaims},
		"exp 1e999":                 {"exp", "1e999", verifier.MalformedClaims},
		"exp 2^63":                  {"exp", "9223372036854775808", verifier.MalformedClaims},
		"exp 2^64 and a bit":        {"exp", "18446744073709551616", verifier.MalformedClaims},
		"exp negative":              {"exp", "-1", verifier.MalformedClaims},
		"exp minus zero":            {"exp", "-0", verifier.MalformedClaims},
		"exp zero":                  {"exp", "0", verifier.TokenExpired},
		"exp with an exponent":      {"exp", "1.8e9", verifier.Accepted},
		"exp passed":                {"exp", fmt.Sprint(now - 60), verifier.TokenExpired},
		"exp within the leeway":     {"exp", fmt.Sprint(now - 59), verifier.Accepted},
		"nbf to come":               {"nbf", fmt.Sprint(now + 61), verifier.TokenNotYetValid},
		"nbf within the leeway":     {"nbf", fmt.Sprint(now + 60), verifier.Accepted},
		"nbf a string":              {"nbf", `"0"`, verifier.MalformedClaims},
		"iat to come":               {"iat", fmt.Sprint(now + 61), verifier.IssuedInFuture},
		"iat within the leeway":     {"iat", fmt.Sprint(now + 60), verifier.Accepted},
		"iat true":                  {"iat", "true", verifier.MalformedClaims},
		"iat negative":              {"iat", "-1", verifier.MalformedClaims},
		"nbf by half a second more": {"nbf", fmt.Sprint(now+60) + ".5", verifier.TokenNotYetValid},
	} {
		out[name] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), rawClaim(t, test.claim, test.text)), test.want}
	}
	out["exp in another case"] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), claims(t, map[string]any{"exp": nil, "EXP": now + 600})), verifier.ExpiryMissing}
	return out
}

func otherIssuer(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	for name, test := range map[string]struct {
		text string
		want verifier.Reason
	}{
		"no slash":              {`"https://issuer.example.com"`, verifier.IssuerMismatch},
		"two slashes":           {`"https://issuer.example.com//"`, verifier.IssuerMismatch},
		"another case":          {`"https://ISSUER.example.com/"`, verifier.IssuerMismatch},
		"http":                  {`"http://issuer.example.com/"`, verifier.IssuerMismatch},
		"a port":                {`"https://issuer.example.com:443/"`, verifier.IssuerMismatch},
		"white space":           {`" https://issuer.example.com/"`, verifier.IssuerMismatch},
		"a prefix of it":        {`"https://issuer.example"`, verifier.IssuerMismatch},
		"more than it":          {`"https://issuer.example.com/.attacker.example.com"`, verifier.IssuerMismatch},
		"a NUL":                 {`"https://issuer.example.com/\u0000"`, verifier.IssuerMismatch},
		"empty":                 {`""`, verifier.IssuerMismatch},
		"null":                  {`null`, verifier.MalformedClaims},
		"an array":              {`["https://issuer.example.com/"]`, verifier.MalformedClaims},
		"an object":             {`{"iss":"https://issuer.example.com/"}`, verifier.MalformedClaims},
		"half a surrogate pair": {`"https://issuer.example.com/\ud800"`, verifier.MalformedToken},
		"escaped":               {`"https:\/\/issuer.ex\u0061mple.com\/"`, verifier.Accepted}, // the same string
	} {
		out[name] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), rawClaim(t, "iss", test.text)), test.want}
	}
	out["missing"] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), claims(t, map[string]any{"iss": nil})), verifier.IssuerMismatch}
	out["in another case"] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), claims(t, map[string]any{"iss": nil, "ISS": issuerURL})), verifier.IssuerMismatch}
	return out
}

func otherAudience(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	for name, test := range map[string]struct {
		text string
		want verifier.Reason
	}{
		"an object":       {`{"aud":"https://orders.example.com"}`, verifier.MalformedClaims},
		"a nested array":  {`[["https://orders.example.com"]]`, verifier.MalformedClaims},
		"a mixed array":   {`["https://orders.example.com",1]`, verifier.MalformedClaims},
		"null":            {`null`, verifier.MalformedClaims},
		"null in it":      {`["https://orders.example.com",null]`, verifier.MalformedClaims},
		"a number":        {`1`, verifier.MalformedClaims},
		"part of it":      {`"https://orders.example"`, verifier.AudienceMismatch},
		"more than it":    {`"https://orders.example.com/"`, verifier.AudienceMismatch},
		"two, in one":     {`"https://a.example.com https://orders.example.com"`, verifier.AudienceMismatch},
		"another case":    {`"https://Orders.example.com"`, verifier.AudienceMismatch},
		"an empty array":  {`[]`, verifier.AudienceMismatch},
		"an empty string": {`""`, verifier.AudienceMismatch},
		"a wildcard":      {`"*"`, verifier.AudienceMismatch},
		"the issuer":      {`"https://issuer.example.com/"`, verifier.AudienceMismatch},
		"one of several":  {`["https://a.example.com","https://orders.example.com"]`, verifier.Accepted},
	} {
		out[name] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), rawClaim(t, "aud", test.text)), test.want}
	}
	out["missing"] = attack{w.eddsa.token(t, header(t, w.eddsa, nil), claims(t, map[string]any{"aud": nil})), verifier.AudienceMismatch}
	return out
}

func tokenType(t *testing.T, w *world) map[string]attack {
	issuer := newIssuer(t, document(t, w.keys...), func(o *api.ClusterTrustedIssuer) {
		o.Spec.Verification = &api.VerificationSpec{TokenTypes: []string{"at+jwt"}}
	})
	for typ, want := range map[any]verifier.Reason{
		"at+jwt": verifier.Accepted, "AT+JWT": verifier.Accepted, "application/at+jwt": verifier.Accepted,
		"JWT": verifier.TokenTypeNotAllowed, "id+jwt": verifier.TokenTypeNotAllowed, "logout+jwt": verifier.TokenTypeNotAllowed,
		"": verifier.TokenTypeNotAllowed, "at+jwt ": verifier.TokenTypeNotAllowed, nil: verifier.TokenTypeNotAllowed,
		"application/application/at+jwt": verifier.TokenTypeNotAllowed, 1: verifier.MalformedToken,
	} {
		attack{w.es256.token(t, header(t, w.es256, map[string]any{"typ": typ}), claims(t, nil)), want}.check(t, issuer)
	}
	return map[string]attack{
		"any, without a policy": {w.es256.token(t, header(t, w.es256, map[string]any{"typ": "id+jwt"}), claims(t, nil)), verifier.Accepted},
		"an array":              {w.es256.token(t, header(t, w.es256, map[string]any{"typ": []string{"JWT"}}), claims(t, nil)), verifier.MalformedToken},
	}
}

func signatureForms(t *testing.T, w *world) map[string]attack {
	out := map[string]attack{}
	rsaPrivate, isRSA := w.rs256.private.(*rsa.PrivateKey)
	ecPrivate, isEC := w.es256.private.(*ecdsa.PrivateKey)
	if !isRSA || !isEC {
		t.Fatal("the keys have other types")
	}
	input := func(s signer) string {
		return b64([]byte(header(t, s, nil))) + "." + b64([]byte(claims(t, nil)))
	}
	for name, test := range map[string]struct {
		salt int
		want verifier.Reason
	}{
		"PSS, salt of 32": {32, verifier.Accepted}, "PSS, salt of 31": {31, verifier.SignatureInvalid}, "PSS, salt of 33": {33, verifier.SignatureInvalid},
		"PSS, salt of 20": {20, verifier.SignatureInvalid}, "PSS, salt of 1": {1, verifier.SignatureInvalid}, "PSS, the longest salt": {rsa.PSSSaltLengthAuto, verifier.SignatureInvalid},
	} {
		text := input(w.ps256)
		signature, err := rsa.SignPSS(rand.Reader, rsaPrivate, crypto.SHA256, w.ps256.digest(text), &rsa.PSSOptions{SaltLength: test.salt})
		if err != nil {
			t.Fatal(err)
		}
		out[name] = attack{text + "." + b64(signature), test.want}
	}
	out["PS256 as RS256"] = attack{input(w.rs256) + "." + b64(w.ps256.sign(t, input(w.rs256))), verifier.SignatureInvalid}
	out["RS256 as PS256"] = attack{input(w.ps256) + "." + b64(w.rs256.sign(t, input(w.ps256))), verifier.SignatureInvalid}
	bound := newIssuer(t, document(t, with(w.rs256.jwk(t, "rsa"), map[string]any{"alg": "PS256"})))
	attack{w.rs256.token(t, header(t, w.rs256, nil), claims(t, nil)), verifier.KeyAlgorithmMismatch}.check(t, bound)
	attack{w.ps256.token(t, header(t, w.ps256, nil), claims(t, nil)), verifier.Accepted}.check(t, bound)

	text := input(w.es256)
	order := ecPrivate.Params().N
	r, s, err := ecdsa.Sign(rand.Reader, ecPrivate, w.es256.digest(text))
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		t.Fatal(err)
	}
	zero, one := new(big.Int), big.NewInt(1)
	raw := join(ecPrivate.Curve, r, s)
	for name, signature := range map[string][]byte{
		"ECDSA in DER":        der,
		"r zero":              join(ecPrivate.Curve, zero, s),
		"s zero":              join(ecPrivate.Curve, r, zero),
		"r and s zero":        make([]byte, 64),
		"r and s one":         join(ecPrivate.Curve, one, one),
		"r is the order":      join(ecPrivate.Curve, order, s),
		"s is the order":      join(ecPrivate.Curve, r, order),
		"s and r swapped":     join(ecPrivate.Curve, s, r),
		"a zero byte more":    append([]byte{0}, raw...),
		"a zero byte between": append(append(bytes.Clone(raw[:32]), 0), raw[32:]...),
		"a byte less":         raw[:63],
		"half a signature":    raw[:32],
		"as P-384 has them":   append(append(make([]byte, 16), raw[:32]...), append(make([]byte, 16), raw[32:]...)...),
		"nothing":             {},
	} {
		out[name] = attack{text + "." + b64(signature), verifier.SignatureInvalid}
	}
	out["raw"] = attack{text + "." + b64(raw), verifier.Accepted}
	out["another curve's alg"] = attack{w.es384.token(t, header(t, w.es384, map[string]any{"kid": "es256"}), claims(t, nil)), verifier.KeyAlgorithmMismatch}
	out["another curve's key"] = attack{w.es256.token(t, header(t, w.es256, map[string]any{"kid": "es384"}), claims(t, nil)), verifier.KeyAlgorithmMismatch}
	out["P-384 signs as ES256"] = attack{text + "." + b64(w.es384.sign(t, text)), verifier.SignatureInvalid}

	// The order of Ed25519's group may not be added to S (RFC 8032 section 5.1.7).
	ed := input(w.eddsa)
	signature := w.eddsa.sign(t, ed)
	out["Ed25519, S plus the order"] = attack{ed + "." + b64(addOrder(signature)), verifier.SignatureInvalid}
	out["Ed25519, all zero"] = attack{ed + "." + b64(make([]byte, 64)), verifier.SignatureInvalid}
	return out
}

// addOrder adds the order of Ed25519's group to S, which is little-endian.
func addOrder(signature []byte) []byte {
	order, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	order.Add(order, new(big.Int).Lsh(big.NewInt(1), 252))
	reversed := func(in []byte) []byte {
		out := make([]byte, len(in))
		for i, b := range in {
			out[len(in)-1-i] = b
		}
		return out
	}
	s := new(big.Int).Add(order, new(big.Int).SetBytes(reversed(signature[32:])))
	return append(bytes.Clone(signature[:32]), reversed(s.FillBytes(make([]byte, 32)))...)
}

// Where a request has its token, and how many.
func TestThreatsOfRequests(t *testing.T) {
	w := newWorld(t)
	server, err := verifier.NewServer(verifier.ServerOptions{HTTPAddress: "127.0.0.1:0"}, newStore(t, document(t, w.keys...)), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	good := w.es256.token(t, header(t, w.es256, nil), claims(t, nil))
	for name, test := range map[string]struct {
		query          string
		authorizations []string
		status         int
		want           verifier.Reason
	}{
		"one header":                 {"", []string{"Bearer " + good}, 200, ""},
		"the scheme in another case": {"", []string{"bEaReR " + good}, 200, ""},
		"two headers, both good":     {"", []string{"Bearer " + good, "Bearer " + good}, 401, verifier.AmbiguousCredentials},
		"two headers, one good":      {"", []string{"Basic YTpi", "Bearer " + good}, 401, verifier.AmbiguousCredentials},
		"two in one header":          {"", []string{"Bearer " + good + ", Bearer " + good}, 401, verifier.MalformedToken},
		"another scheme":             {"", []string{"Basic " + good}, 401, verifier.TokenMissing},
		"a scheme like it":           {"", []string{"Bearerx " + good}, 401, verifier.TokenMissing},
		"a tab after the scheme":     {"", []string{"Bearer\t" + good}, 401, verifier.TokenMissing},
		"no scheme":                  {"", []string{good}, 401, verifier.TokenMissing},
		"an empty token":             {"", []string{"Bearer "}, 401, verifier.TokenMissing},
		"no header":                  {"", nil, 401, verifier.TokenMissing},
		"in the query":               {"?access_token=" + good, nil, 401, verifier.TokenMissing},
		"the query beside a bad one": {"?access_token=" + good, []string{"Bearer a"}, 401, verifier.MalformedToken},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/forward-auth/cluster/"+objectName+test.query, strings.NewReader("access_token="+good))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header["Authorization"] = test.authorizations
			answer := httptest.NewRecorder()
			server.HTTPHandler().ServeHTTP(answer, r)
			if answer.Code != test.status || answer.Header().Get(verifier.HeaderReason) != string(test.want) {
				t.Errorf("got %d, %q, want %d, %q", answer.Code, answer.Header().Get(verifier.HeaderReason), test.status, test.want)
			}
			if subject := answer.Header().Get(verifier.HeaderSubject); (subject == "alice") != (test.status == 200) {
				t.Errorf("the subject is %q", subject)
			}
		})
	}
}
