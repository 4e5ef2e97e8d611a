// claims_test.go has the types and ranges of claims.

package verifier

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// readClaims reads the claims of a payload, as decode does.
func readClaims(payload string) (Claims, string) {
	members, err := jose.ReadObject([]byte(payload), 32)
	if err != nil {
		return Claims{}, err.Error()
	}
	return decodeClaims(members)
}

func TestDecodeClaims(t *testing.T) {
	g := NewWithT(t)
	c, problem := readClaims(` { "iss" : "i" , "sub":"s","aud":["a","b"], "exp": 1.5e3 ,"nbf":10.25,"iat":0,"groups":["x"],
		"ISS":"other","Exp":"later","azp":7,"nested":{"iss":"inner"} } `)
	g.Expect(problem).To(BeEmpty())
	g.Expect(c.Issuer).To(Equal("i"), "names are compared exactly, and at the top level alone")
	g.Expect(c.Subject).To(Equal("s"))
	g.Expect(c.Audiences).To(Equal([]string{"a", "b"}))
	g.Expect(c.ExpiresAt).To(BeTemporally("==", time.Unix(1500, 0)))
	g.Expect(c.NotBefore).To(BeTemporally("==", time.Unix(10, 250_000_000)))
	g.Expect(c.IssuedAt).To(BeTemporally("==", time.Unix(0, 0)))
	g.Expect(c.IssuedAt.IsZero()).To(BeFalse(), "the epoch is a time")
}

func TestDecodeClaimsOfNothing(t *testing.T) {
	g := NewWithT(t)
	c, problem := readClaims(`{}`)
	g.Expect(problem).To(BeEmpty())
	g.Expect(c).To(Equal(Claims{}))
}

func TestDecodeClaimsRefuses(t *testing.T) {
	for name, payload := range map[string]string{
		"an array":                                 `[]`,
		"null":                                     `null`,
		"a string":                                 `"{}"`,
		"nothing":                                  ``,
		"THREATS 12: iss as an array":              `{"iss":["i"]}`,
		"THREATS 12: iss null":                     `{"iss":null}`,
		"iss a number":                             `{"iss":1}`,
		"iss half of a surrogate pair":             `{"iss":"a\ud800"}`,
		"sub null":                                 `{"sub":null}`,
		"sub a number":                             `{"sub":12345}`,
		"sub an object":                            `{"sub":{}}`,
		"sub with a replacement character":         "{\"sub\":\"a\uFFFD\"}",
		"THREATS 13: aud as an object":             `{"aud":{"a":"a"}}`,
		"THREATS 13: aud as a nested array":        `{"aud":[["a"]]}`,
		"aud null":                                 `{"aud":null}`,
		"aud with null":                            `{"aud":["a",null]}`,
		"aud with a number":                        `{"aud":["a",1]}`,
		"aud a bool":                               `{"aud":true}`,
		"THREATS 11: exp a string":                 `{"exp":"1900000000"}`,
		"exp null":                                 `{"exp":null}`,
		"exp a bool":                               `{"exp":true}`,
		"exp an array":                             `{"exp":[1900000000]}`,
		"THREATS 11: exp in the year 10000":        `{"exp":253402300800}`,
		"exp in milliseconds, far past 9999":       `{"exp":1900000000000}`,
		"THREATS 11: exp 1e999":                    `{"exp":1e999}`,
		"THREATS 11: exp 2^63":                     `{"exp":9223372036854775808}`,
		"exp 2^64, which would wrap to 0":          `{"exp":18446744073709551616}`,
		"THREATS 11: exp negative":                 `{"exp":-1}`,
		"exp minus zero":                           `{"exp":-0}`,
		"nbf a string":                             `{"nbf":"0"}`,
		"nbf 1e999":                                `{"nbf":1e999}`,
		"nbf negative":                             `{"nbf":-1e300}`,
		"iat an object":                            `{"iat":{}}`,
		"iat in the year 10000":                    `{"iat":253402300800}`,
		"a bad claim before a good one of its own": `{"exp":"x","iss":"i"}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			c, problem := readClaims(payload)
			g.Expect(problem).NotTo(BeEmpty())
			g.Expect(c).To(Equal(Claims{}), "nothing of a bad payload is passed on")
		})
	}
}

func TestNumericDateAtTheEdges(t *testing.T) {
	for payload, want := range map[string]time.Time{
		`{"exp":0}`:                time.Unix(0, 0),
		`{"exp":253402300799}`:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		`{"exp":1E0}`:              time.Unix(1, 0),
		`{"exp":1e-999}`:           time.Unix(0, 0),
		`{"exp":1900000000.5}`:     time.Unix(1900000000, 500_000_000),
		"{\"exp\":1900000000\n}":   time.Unix(1900000000, 0),
		"{\"exp\":\t1900000000 }":  time.Unix(1900000000, 0),
		"{\"exp\":\r\n2 ,\"a\":1}": time.Unix(2, 0),
	} {
		t.Run(payload, func(t *testing.T) {
			g := NewWithT(t)
			c, problem := readClaims(payload)
			g.Expect(problem).To(BeEmpty())
			g.Expect(c.ExpiresAt).To(BeTemporally("==", want))
		})
	}
}
