package bench

import (
	"testing"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// TestContenders makes sure that all do the work that they are measured at.
func TestContenders(t *testing.T) {
	for _, algorithm := range algorithms {
		f := newFixture(algorithm)
		all, err := newContenders(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		good, bad := f.token(1), badTokens(f)
		for _, c := range all {
			t.Run(algorithm+"/"+c.name, func(t *testing.T) {
				if err := c.verify(good); err != nil {
					t.Errorf("refused a good token: %v", err)
				}
				for what, token := range bad {
					if c.verify(token) == nil {
						t.Errorf("accepted a token with %s", what)
					}
				}
			})
		}
	}
}

func badTokens(f *fixture) map[string]string {
	changed := func(name string, value any) string {
		return f.signer().Sign(f.claims(2, map[string]any{name: value}))
	}
	return map[string]string{
		"another's signature": testissuer.NewKey(f.signer().ID, f.algorithm).Sign(f.claims(2, nil)),
		"another iss":         changed("iss", "https://other.example.com/"),
		"another aud":         changed("aud", "https://other.example.com"),
		"no exp":              changed("exp", nil),
		"a past exp":          changed("exp", f.start.Add(-time.Hour).Unix()),
		"a future nbf":        changed("nbf", f.start.Add(time.Hour).Unix()),
	}
}

// TestFloor makes sure that the bare check is one.
func TestFloor(t *testing.T) {
	for _, algorithm := range algorithms {
		f := newFixture(algorithm)
		for who, want := range map[int]bool{signerIndex: true, 0: false} {
			check, err := floor(f.keys[who].Public(), f.token(1))
			if err != nil {
				t.Fatal(err)
			}
			if got := check() == nil; got != want {
				t.Errorf("%s: key %d says %v", algorithm, who, got)
			}
			if got := signatureOnly(f.keys[who].Public(), f.token(1)) == nil; got != want {
				t.Errorf("%s: signature only: key %d says %v", algorithm, who, got)
			}
		}
	}
}

// BenchmarkVerify is every contender on its own: for profiles, since numbers that
// are taken one after the other do not compare on a noisy machine.
func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range algorithms {
		runs, err := newRuns(b.Context(), algorithm)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range runs {
			b.Run(algorithm+"/"+r.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := r.once(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
