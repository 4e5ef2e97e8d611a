// token_test.go: what an attacker may write into a token, and what becomes of
// it. Rows refer to the project's list of threats.
package jose_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// unsigned puts a token together around a signature of 64 bytes: preflight does
// not look at it.
func unsigned(header, payload string) string {
	return b64([]byte(header)) + "." + b64([]byte(payload)) + "." + b64(make([]byte, 64))
}

func TestParseTokenReads(t *testing.T) {
	header := `{"alg":"ES256","kid":"k1","typ":"at+jwt","x5t":"irrelevant","iss":"https://a"}`
	token, err := jose.ParseToken(unsigned(header, `{"iss":"https://a","n":[{"deep":1.5e3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if token.Algorithm != jose.ES256 || token.KeyID != "k1" || !token.HasKeyID || token.Type != "at+jwt" {
		t.Errorf("read %+v", token)
	}
	if want := `{"iss":"https://a","n":[{"deep":1.5e3}]}`; string(token.Payload) != want {
		t.Errorf("the payload is %s, want %s", token.Payload, want)
	}
}

func TestParseTokenTellsAnEmptyKeyIDFromNone(t *testing.T) {
	for header, want := range map[string]bool{`{"alg":"ES256"}`: false, `{"alg":"ES256","kid":""}`: true} {
		token, err := jose.ParseToken(unsigned(header, `{}`))
		if err != nil {
			t.Fatal(err)
		}
		if token.HasKeyID != want || token.KeyID != "" {
			t.Errorf("%s: HasKeyID is %t, KeyID %q", header, token.HasKeyID, token.KeyID)
		}
	}
}

func TestParseTokenReadsEveryAlgorithm(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		token, err := jose.ParseToken(unsigned(typicalHeader(alg), `{}`))
		if err != nil || token.Algorithm != alg {
			t.Errorf("%s: got %+v, %v", alg, token, err)
		}
	}
	token, err := jose.ParseToken(unsigned(`{"alg":"Ed25519"}`, `{}`)) // RFC 9864
	if err != nil || token.Algorithm != jose.EdDSA {
		t.Errorf("Ed25519: got %+v, %v", token, err)
	}
}

func TestParseTokenRefusesHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		header string
		want   jose.Reason
	}{
		"THREATS 1: alg none":                   {`{"alg":"none"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg None":                   {`{"alg":"None"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg nOnE":                   {`{"alg":"nOnE"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg NONE":                   {`{"alg":"NONE"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg empty":                  {`{"alg":""}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg null":                   {`{"alg":null}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg array":                  {`{"alg":["RS256"]}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg object":                 {`{"alg":{"RS256":1}}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg number":                 {`{"alg":256}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg missing":                {`{"typ":"JWT"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg in another case":        {`{"alg":"rs256"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: member alg in another case": {`{"Alg":"RS256"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg with white space":       {`{"alg":"RS256 "}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg ES256K":                 {`{"alg":"ES256K"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg Ed448":                  {`{"alg":"Ed448"}`, jose.AlgorithmNotAllowed},
		"THREATS 1: alg ed25519":                {`{"alg":"ed25519"}`, jose.AlgorithmNotAllowed},
		"THREATS 2: alg HS256":                  {`{"alg":"HS256"}`, jose.AlgorithmNotAllowed},
		"THREATS 2: alg HS384":                  {`{"alg":"HS384"}`, jose.AlgorithmNotAllowed},
		"THREATS 2: alg HS512":                  {`{"alg":"HS512"}`, jose.AlgorithmNotAllowed},
		"THREATS 4: kid over 128 bytes":         {`{"alg":"RS256","kid":"` + strings.Repeat("k", 129) + `"}`, jose.MalformedToken},
		"THREATS 4: kid a number":               {`{"alg":"RS256","kid":1}`, jose.MalformedToken},
		"THREATS 4: kid null":                   {`{"alg":"RS256","kid":null}`, jose.MalformedToken},
		"THREATS 4: kid an array":               {`{"alg":"RS256","kid":["k1"]}`, jose.MalformedToken},
		"THREATS 4: kid half a surrogate pair":  {`{"alg":"RS256","kid":"\ud800"}`, jose.MalformedToken},
		"THREATS 4: kid twice":                  {`{"alg":"RS256","kid":"a","kid":"b"}`, jose.MalformedToken},
		"THREATS 6: crit unknown":               {`{"alg":"RS256","crit":["x"],"x":1}`, jose.HeaderNotAllowed},
		"THREATS 6: crit empty":                 {`{"alg":"RS256","crit":[]}`, jose.HeaderNotAllowed},
		"THREATS 6: crit null":                  {`{"alg":"RS256","crit":null}`, jose.HeaderNotAllowed},
		"THREATS 6: crit registered":            {`{"alg":"RS256","crit":["exp"],"exp":1}`, jose.HeaderNotAllowed},
		"THREATS 6: crit b64":                   {`{"alg":"RS256","crit":["b64"],"b64":true}`, jose.HeaderNotAllowed},
		"THREATS 7: b64 false":                  {`{"alg":"RS256","b64":false}`, jose.HeaderNotAllowed},
		"THREATS 7: b64 true":                   {`{"alg":"RS256","b64":true}`, jose.HeaderNotAllowed},
		"THREATS 8: alg twice":                  {`{"alg":"RS256","alg":"none"}`, jose.MalformedToken},
		"THREATS 8: alg twice, once escaped":    {`{"alg":"RS256","\u0061lg":"none"}`, jose.MalformedToken},
		"THREATS 8: twice, deep inside":         {`{"alg":"RS256","jwk":[{"a":1,"a":2}]}`, jose.MalformedToken},
		"THREATS 8: bytes after the object":     {`{"alg":"RS256"}x`, jose.MalformedToken},
		"THREATS 8: a second object":            {`{"alg":"RS256"}{}`, jose.MalformedToken},
		"THREATS 8: a zero byte after":          {"{\"alg\":\"RS256\"}\x00", jose.MalformedToken},
		"THREATS 8: white space after":          {`{"alg":"RS256"} `, jose.MalformedToken},
		"THREATS 8: a line break before":        {"\n" + `{"alg":"RS256"}`, jose.MalformedToken},
		"THREATS 8: a byte order mark":          {"\ufeff" + `{"alg":"RS256"}`, jose.MalformedToken},
		"THREATS 8: invalid UTF-8":              {"{\"alg\":\"RS256\",\"x\":\"\xff\"}", jose.MalformedToken},
		"THREATS 8: overlong UTF-8":             {"{\"alg\":\"RS256\",\"x\":\"\xc0\x80\"}", jose.MalformedToken},
		"THREATS 8: no JSON":                    {`alg=RS256`, jose.MalformedToken},
		"THREATS 8: a trailing comma":           {`{"alg":"RS256",}`, jose.MalformedToken},
		"THREATS 8: a comment":                  {`{"alg":"RS256"/**/}`, jose.MalformedToken},
		"THREATS 8: single quotes":              {`{'alg':'RS256'}`, jose.MalformedToken},
		"THREATS 8: the header an array":        {`["RS256"]`, jose.MalformedToken},
		"THREATS 8: the header null":            {`null`, jose.MalformedToken},
		"THREATS 8: the header empty":           {``, jose.MalformedToken},
		"THREATS 9: zip":                        {`{"alg":"RS256","zip":"DEF"}`, jose.HeaderNotAllowed},
		"THREATS 9: enc":                        {`{"alg":"RS256","enc":"A256GCM"}`, jose.HeaderNotAllowed},
		"THREATS 9: an encryption's alg":        {`{"alg":"RSA-OAEP","enc":"A256GCM"}`, jose.AlgorithmNotAllowed},
		"THREATS 9: PBES2":                      {`{"alg":"PBES2-HS256+A128KW","p2c":2147483647}`, jose.AlgorithmNotAllowed},
		"THREATS 9: PBES2 counts":               {`{"alg":"RS256","p2c":2147483647}`, jose.HeaderNotAllowed},
		"THREATS 9: a nested token":             {`{"alg":"RS256","cty":"JWT"}`, jose.HeaderNotAllowed},
		"THREATS 9: a nested token, lower case": {`{"alg":"RS256","cty":"jwt"}`, jose.HeaderNotAllowed},
		"THREATS 9: a nested token, in full":    {`{"alg":"RS256","cty":"application/jwt"}`, jose.HeaderNotAllowed},
		"THREATS 9: cty an array":               {`{"alg":"RS256","cty":["JWT"]}`, jose.MalformedToken},
		"THREATS 10: nesting of 33":             {`{"alg":"RS256","x":` + nested(32) + `}`, jose.MalformedToken},
		"THREATS 10: nesting of 3000":           {`{"alg":"RS256","x":` + nested(3000) + `}`, jose.MalformedToken},
		"THREATS 14: typ an array":              {`{"alg":"RS256","typ":["JWT"]}`, jose.MalformedToken},
		"THREATS 14: typ null":                  {`{"alg":"RS256","typ":null}`, jose.MalformedToken},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := jose.ParseToken(unsigned(test.header, `{"iss":"https://a"}`))
			if got := reasonOf(t, err); got != test.want || token != nil {
				t.Errorf("got %q and %+v, want %q", got, token, test.want)
			}
		})
	}
}

// nested is an array in an array, and so on.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestParseTokenRefusesPayloads(t *testing.T) {
	for name, payload := range map[string]string{
		"THREATS 8: a member twice":          `{"iss":"a","iss":"b"}`,
		"THREATS 8: a member twice, escaped": `{"iss":"a","i\u0073s":"b"}`,
		"THREATS 8: twice, deep inside":      `{"x":{"y":[{"z":1,"z":1}]}}`,
		"THREATS 8: bytes after the object":  `{"iss":"a"}{}`,
		"THREATS 8: white space after":       "{\"iss\":\"a\"}\n",
		"THREATS 8: white space before":      ` {"iss":"a"}`,
		"THREATS 8: invalid UTF-8":           "{\"iss\":\"\xed\xa0\x80\"}",
		"THREATS 8: half a surrogate pair":   `{"iss":"\udfff"}`,
		"THREATS 8: an array":                `[{"iss":"a"}]`,
		"THREATS 8: a string":                `"iss"`,
		"THREATS 8: null":                    `null`,
		"THREATS 8: empty":                   ``,
		"THREATS 8: not closed":              `{"iss":"a"`,
		"THREATS 9: a token":                 unsigned(`{"alg":"RS256"}`, `{}`),
		"THREATS 10: nesting of 33":          `{"x":` + nested(32) + `}`,
		"THREATS 10: nesting of 5000":        `{"x":` + nested(5000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseToken(unsigned(`{"alg":"RS256"}`, payload))
			if got := reasonOf(t, err); got != jose.MalformedToken {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("THREATS 10: nesting of 32 is read", func(t *testing.T) {
		if _, err := jose.ParseToken(unsigned(`{"alg":"RS256","x":`+nested(31)+`}`, `{"x":`+nested(31)+`}`)); err != nil {
			t.Error(err)
		}
	})
}

func TestParseTokenRefusesSpellings(t *testing.T) {
	good := unsigned(`{"alg":"RS256"}`, `{"iss":"https://a/?b"}`)
	parts := strings.Split(good, ".")
	// The signature is 64 bytes: its last character has four stray bits.
	stray := strings.TrimSuffix(good, "A") + "B"
	standard := base64.RawStdEncoding.EncodeToString([]byte(`{"a":"~~~???"}`))
	if _, err := jose.ParseToken(good); err != nil {
		t.Fatal(err)
	}
	if !strings.ContainsAny(standard, "+/") {
		t.Fatal("the example in the standard alphabet is one in both")
	}
	for name, token := range map[string]string{
		"THREATS 8: a space before":            " " + good,
		"THREATS 8: a space after":             good + " ",
		"THREATS 8: a line break after":        good + "\n",
		"THREATS 8: a line break inside":       parts[0] + "." + parts[1][:8] + "\n" + parts[1][8:] + "." + parts[2],
		"THREATS 8: a return in the header":    parts[0][:4] + "\r" + parts[0][4:] + "." + parts[1] + "." + parts[2],
		"THREATS 8: a return in the signature": good + "\r\n",
		"THREATS 8: a space inside":            parts[0] + ". " + parts[1] + "." + parts[2],
		"THREATS 8: a tab inside":              parts[0] + "." + parts[1] + ".\t" + parts[2],
		"THREATS 8: padding":                   good + "==",
		"THREATS 8: one padding character":     good + "=",
		"THREATS 8: the standard alphabet":     parts[0] + "." + standard + "." + parts[2],
		"THREATS 8: stray low bits":            stray,
		"THREATS 8: one character of base64":   parts[0] + "." + parts[1] + ".A",
		"THREATS 8: bytes over 127":            parts[0] + "." + parts[1] + ".\xff\xff",
		"THREATS 8: a zero byte":               good + "\x00",
		"THREATS 8: percent encoding":          strings.Replace(good, ".", "%2E", 1),
		"THREATS 9: five parts":                good + "." + parts[1] + "." + parts[2],
		"THREATS 9: four parts":                good + ".",
		"two parts":                            parts[0] + "." + parts[1],
		"one part":                             parts[0],
		"nothing":                              "",
		"two dots":                             "..",
		"the JSON serialization":               `{"payload":"e30","signatures":[]}`,
		"a scheme":                             "Bearer " + good,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseToken(token)
			if got := reasonOf(t, err); got != jose.MalformedToken {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestParseTokenBoundsWork(t *testing.T) {
	head := b64([]byte(`{"alg":"RS256"}`)) + "."
	tail := "." + b64(make([]byte, 64))
	// sized makes a token of an exact length out of one long string.
	sized := func(size int) string {
		payload := size - len(head) - len(tail)
		return head + b64([]byte(`{"a":"`+strings.Repeat("a", payload*3/4-8)+`"}`)) + tail
	}
	largest := sized(jose.MaxTokenSize)
	if len(largest) != jose.MaxTokenSize {
		t.Fatalf("the example has %d bytes", len(largest))
	}
	for name, test := range map[string]struct {
		token string
		want  jose.Reason
	}{
		"THREATS 10: 16 KiB":                {largest, ""},
		"THREATS 10: over 16 KiB":           {largest + "A", jose.TokenTooLarge},
		"THREATS 10: a million dots":        {strings.Repeat(".", 1_000_000), jose.TokenTooLarge},
		"THREATS 10: 16 KiB of dots":        {strings.Repeat(".", jose.MaxTokenSize), jose.MalformedToken},
		"THREATS 10: 16 KiB of brackets":    {head + b64([]byte(strings.Repeat("[", 12_000))) + tail, jose.MalformedToken},
		"THREATS 10: 16 KiB of open braces": {head + b64([]byte(strings.Repeat(`{"a":`, 2_400)+"}")) + tail, jose.MalformedToken},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseToken(test.token)
			if got := reasonOf(t, err); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if allocs := testing.AllocsPerRun(10, func() { _, _ = jose.ParseToken(test.token) }); allocs > 50 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

// THREATS 2: an HMAC keyed with the issuer's public key, in the forms in which a
// confused verifier would have it at hand.
func TestTHREATS2HMACWithThePublicKey(t *testing.T) {
	private, err := rsaTestKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	key := admit(t, signer{private: private}.jwk())
	for name, secret := range map[string][]byte{
		"PEM":       pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"DER":       der,
		"PKCS1 PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&private.PublicKey)}),
		"modulus":   private.N.Bytes(),
		"JWK":       key.MarshalJWK(),
	} {
		t.Run("THREATS 2: "+name, func(t *testing.T) {
			mac := func(header string) string {
				input := b64([]byte(header)) + "." + b64([]byte(`{"iss":"https://a"}`))
				h := hmac.New(sha256.New, secret)
				h.Write([]byte(input))
				return input + "." + b64(h.Sum(nil))
			}
			_, err := jose.ParseToken(mac(`{"alg":"HS256","kid":"k1"}`))
			if got := reasonOf(t, err); got != jose.AlgorithmNotAllowed {
				t.Errorf("HS256: got %q", got)
			}
			token, err := jose.ParseToken(mac(`{"alg":"RS256","kid":"k1"}`))
			if err != nil {
				t.Fatal(err)
			}
			if got := reasonOf(t, key.Verify(token)); got != jose.SignatureInvalid {
				t.Errorf("RS256 with a MAC for a signature: got %q", got)
			}
		})
	}
}

// THREATS 3: a key that the token brings along verifies nothing.
func TestTHREATS3KeysInTheHeader(t *testing.T) {
	attacker, issuer := newSigner(t, jose.ES256), newSigner(t, jose.ES256)
	own := string(encode(t, attacker.jwk()))
	key := admit(t, issuer.jwk())
	for name, member := range map[string]string{
		"jwk": `"jwk":` + own,
		"jku": `"jku":"https://attacker.example/jwks.json"`,
		"x5u": `"x5u":"https://attacker.example/cert.pem"`,
		"x5c": `"x5c":["MIIB"]`,
		"x5t": `"x5t":"AAAA","x5t#S256":"AAAA"`,
	} {
		t.Run("THREATS 3: "+name, func(t *testing.T) {
			header := `{"alg":"ES256","kid":"k1",` + member + `}`
			forged, err := jose.ParseToken(attacker.token(t, header, typicalPayload))
			if err != nil {
				t.Fatal(err)
			}
			if got := reasonOf(t, key.Verify(forged)); got != jose.SignatureInvalid {
				t.Errorf("the attacker's: got %q", got)
			}
			genuine, err := jose.ParseToken(issuer.token(t, header, typicalPayload))
			if err != nil {
				t.Fatal(err)
			}
			if err := key.Verify(genuine); err != nil {
				t.Errorf("the issuer's: %v", err)
			}
		})
	}
}

// THREATS 4: a kid is a string to compare, and nothing is made of it.
func TestTHREATS4HostileKeyIDsAreJustStrings(t *testing.T) {
	for _, kid := range []string{"../../etc/passwd", "' OR 1=1 --", "/dev/null", "k1;id", "${jndi:x}", strings.Repeat("k", 128), "ключ"} {
		token, err := jose.ParseToken(unsigned(`{"alg":"RS256","kid":"`+kid+`"}`, `{}`))
		if err != nil || token.KeyID != kid {
			t.Errorf("THREATS 4: %q: got %+v, %v", kid, token, err)
		}
	}
}

// Errors go into logs and answers: no byte of a token may be in them.
func TestErrorsHoldNothingOfTheToken(t *testing.T) {
	const secret = "s3cr3t"
	key := admit(t, newSigner(t, jose.ES256).jwk())
	for _, text := range []string{
		secret, secret + "." + secret + "." + secret,
		unsigned(`{"alg":"`+secret+`"}`, `{}`),
		unsigned(`{"alg":"RS256","`+secret+`":1,"`+secret+`":1}`, `{}`),
		unsigned(`{"alg":"RS256","kid":"`+strings.Repeat(secret, 40)+`"}`, `{}`),
		unsigned(`{"alg":"RS256","cty":["`+secret+`"]}`, `{}`),
		unsigned(`{"alg":"RS256"}`, `{"a":`+secret+`}`),
		unsigned(`{"alg":"ES256"}`, `{"a":"`+secret+`"}`),
		unsigned(`{"alg":"PS256"}`, `{"a":"`+secret+`"}`),
	} {
		token, err := jose.ParseToken(text)
		if err == nil {
			err = key.Verify(token)
		}
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), b64([]byte(secret))) {
			t.Errorf("got %v", err)
		}
	}
}
