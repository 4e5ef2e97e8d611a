// wycheproof_raw_test.go checks the signatures of Project Wycheproof's vectors,
// past the payload that they do not have.
package conformance

import (
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// What wycheproof_test.go leaves to the signature: every valid vector verifies,
// and no invalid one.
func TestWycheproofJWSSignatures(t *testing.T) {
	accepted, refused := 0, 0
	for name := range jwsFiles {
		var file vectors
		readVectors(t, name, &file)
		for _, g := range file.TestGroups {
			for _, v := range g.Tests {
				token, key, reason := g.layers(t, v)
				if reason != toSignature {
					continue
				}
				dot := strings.LastIndexByte(v.JWS, '.')
				err := key.VerifyBytes(token.Algorithm, []byte(v.JWS[:dot]), unb64(t, v.JWS[dot+1:]))
				switch {
				case err == nil && v.Result == "valid":
					accepted++
				case reasonOf(err) == string(jose.SignatureInvalid) && v.Result == "invalid":
					refused++
				default:
					t.Errorf("%s, vector %d (%s, %s): %v", name, v.ID, v.Comment, v.Result, err)
				}
			}
		}
	}
	t.Logf("%d valid ones accepted, %d invalid ones refused", accepted, refused)
	if wantAccepted, wantRefused := 33, 295; accepted != wantAccepted || refused != wantRefused {
		t.Errorf("%d accepted, %d refused; want %d and %d", accepted, refused, wantAccepted, wantRefused)
	}
}

func TestWycheproofRawSignatures(t *testing.T) {
	total := 0
	for _, f := range rawFiles {
		t.Run(f.name+" as "+string(f.alg), func(t *testing.T) {
			var file rawVectors
			readVectors(t, f.name, &file)
			valid, invalid := 0, 0
			for _, g := range file.TestGroups {
				if !f.takes(g) {
					continue
				}
				key := admit(t, string(g.jwk(t)))
				for _, v := range g.Tests {
					good := v.Result == "valid"
					if good {
						valid++
					} else {
						invalid++
					}
					err := key.VerifyBytes(f.alg, unhex(t, v.Message), unhex(t, v.Sig))
					_, also := f.also[v.ID]
					if want := good && !f.foreign || also; (err == nil) != want {
						t.Errorf("vector %d (%s, %s): %v", v.ID, v.Comment, v.Result, err)
					}
				}
			}
			total += valid + invalid
			t.Logf("%d valid, %d not", valid, invalid)
			if valid+invalid == 0 || valid != f.valid || invalid != f.invalid {
				t.Errorf("%d valid, %d not; want %d and %d", valid, invalid, f.valid, f.invalid)
			}
		})
	}
	t.Logf("%d vectors", total)
	if want := 8493; total != want {
		t.Errorf("%d vectors, want %d", total, want)
	}
}
