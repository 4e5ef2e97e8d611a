package jose_test

import (
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// BenchmarkParseToken is the strict preflight of a typical token.
func BenchmarkParseToken(b *testing.B) {
	token := newSigner(b, jose.RS256).token(b, typicalHeader(jose.RS256), typicalPayload)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := jose.ParseToken(token); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is one signature check of each algorithm.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range jose.Algorithms() {
		b.Run(string(alg), func(b *testing.B) {
			signer := newSigner(b, alg)
			token, err := jose.ParseToken(signer.token(b, typicalHeader(alg), typicalPayload))
			if err != nil {
				b.Fatal(err)
			}
			key := admit(b, signer.jwk())
			b.ReportAllocs()
			for b.Loop() {
				if err := key.Verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParseKey admits one key of each kind.
func BenchmarkParseKey(b *testing.B) {
	for _, alg := range []jose.Algorithm{jose.RS256, jose.ES256, jose.ES512, jose.EdDSA} {
		b.Run(string(alg), func(b *testing.B) {
			raw := encode(b, newSigner(b, alg).jwk())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jose.ParseKey(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
