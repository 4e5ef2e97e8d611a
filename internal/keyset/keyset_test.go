// keyset_test.go: the canonical set, choosing a key from it, and comparing two.
package keyset_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

func TestSetIsCanonical(t *testing.T) {
	a, b, c := newKey("a"), newKey("b"), testissuer.NewKey("c", "EdDSA")
	set := setOf(t, c, a, b)
	var want []string
	for _, k := range []*testissuer.Key{a, b, c} {
		jwk, err := json.Marshal(k.JWK()) // of a map: sorted, without white space
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(jwk))
	}
	if got, want := string(set.JSON()), `{"keys":[`+strings.Join(want, ",")+`]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	sum := sha256.Sum256(set.JSON())
	if want := "sha256:" + hex.EncodeToString(sum[:]); set.Digest() != want || keyset.Digest(set.JSON()) != want {
		t.Errorf("the digest is %s and %s, want %s", set.Digest(), keyset.Digest(set.JSON()), want)
	}
	if kids(set) != "a b c" || set.Len() != 3 {
		t.Errorf("%d keys: %s", set.Len(), kids(set))
	}
	for i, r := range set.Refs() {
		if k := set.Keys()[i]; r != (keyset.Ref{KeyID: k.KeyID(), Thumbprint: k.Thumbprint()}) {
			t.Errorf("key %d is referred to as %v", i, r)
		}
	}
}

// Keys without a kid are in the order of their thumbprints.
func TestNamelessKeysAreSorted(t *testing.T) {
	for range 5 {
		var keys []any
		for _, alg := range []string{"ES256", "ES384", "ES512", "EdDSA"} {
			keys = append(keys, testissuer.NewKey("", alg).JWK())
		}
		set := admit(t, document(t, keys...), keyset.Policy{}).Set
		if !slices.IsSortedFunc(set.Refs(), func(a, b keyset.Ref) int { return strings.Compare(a.Thumbprint, b.Thumbprint) }) {
			t.Errorf("got %v", set.Refs())
		}
	}
}

// Neither the order of keys nor the way in which they are written is a change.
func TestOrderIsNoChange(t *testing.T) {
	keys := []*testissuer.Key{newKey("a"), newKey("b"), testissuer.NewKey("c", "EdDSA"), rsaKey()}
	want := setOf(t, keys...)
	for range keys {
		keys = append(keys[1:], keys[0])
		for _, order := range [][]*testissuer.Key{keys, reversed(keys)} {
			if got := setOf(t, order...); got.Digest() != want.Digest() || !keyset.Diff(want.Refs(), got.Refs()).Empty() {
				t.Errorf("%s differs", kids(got))
			}
		}
	}
}

func TestFilter(t *testing.T) {
	a, b := newKey("a"), newKey("b")
	set := setOf(t, a, b)
	before := string(set.JSON())
	some := set.Filter(func(k *jose.Key) bool { return k.KeyID() == "b" })
	if some.Digest() != setOf(t, b).Digest() {
		t.Errorf("got %s", some.JSON())
	}
	none := set.Filter(func(*jose.Key) bool { return false })
	if none.Len() != 0 || string(none.JSON()) != `{"keys":[]}` {
		t.Errorf("got %s", none.JSON())
	}
	if all := set.Filter(func(*jose.Key) bool { return true }); all.Digest() != set.Digest() {
		t.Errorf("got %s", all.JSON())
	}
	if string(set.JSON()) != before || kids(set) != "a b" {
		t.Error("the set itself has changed")
	}
}

func TestSelect(t *testing.T) {
	nameless := with(testissuer.NewKey("", "EdDSA").JWK(), map[string]any{"kid": nil})
	unbound := with(rsaKey().JWK(), map[string]any{"alg": nil, "kid": "unbound"})
	set := admit(t, document(t, newKey("ec1").JWK(), newKey("ec2").JWK(), unbound, nameless), keyset.Policy{}).Set
	for name, test := range map[string]struct {
		kid    string
		hasKid bool
		alg    jose.Algorithm
		want   string
		err    error
	}{
		"by kid":                               {"ec2", true, jose.ES256, "ec2", nil},
		"an unbound key, RS":                   {"unbound", true, jose.RS256, "unbound", nil},
		"an unbound key, PS":                   {"unbound", true, jose.PS512, "unbound", nil},
		"without kid, one fits":                {"", false, jose.RS384, "unbound", nil},
		"without kid, the nameless fits":       {"", false, jose.EdDSA, "", nil},
		"THREATS 4: without kid, two fit":      {"", false, jose.ES256, "", keyset.ErrAmbiguousKey},
		"THREATS 4: without kid, none fits":    {"", false, jose.ES384, "", keyset.ErrUnknownKey},
		"THREATS 4: path traversal":            {"../ec1", true, jose.ES256, "", keyset.ErrUnknownKey},
		"THREATS 4: another case":              {"EC1", true, jose.ES256, "", keyset.ErrUnknownKey},
		"THREATS 4: a zero byte":               {"ec1\x00", true, jose.ES256, "", keyset.ErrUnknownKey},
		"THREATS 4: an empty kid":              {"", true, jose.EdDSA, "", keyset.ErrUnknownKey},
		"THREATS 15: the kid of another curve": {"ec1", true, jose.ES384, "", keyset.ErrAlgorithmMismatch},
		"THREATS 15: the kid of another type":  {"ec1", true, jose.RS256, "", keyset.ErrAlgorithmMismatch},
		"THREATS 15: an RSA kid for EdDSA":     {"unbound", true, jose.EdDSA, "", keyset.ErrAlgorithmMismatch},
	} {
		key, err := set.Select(test.kid, test.hasKid, test.alg)
		if !errors.Is(err, test.err) || (key == nil) != (err != nil) || key != nil && key.KeyID() != test.want {
			t.Errorf("%s: got %v, %v", name, key, err)
		}
	}
}

func TestDecodeReadsBack(t *testing.T) {
	nameless := with(testissuer.NewKey("", "EdDSA").JWK(), map[string]any{"kid": nil})
	unbound := with(rsaKey().JWK(), map[string]any{"alg": nil})
	odd := newKey("<&>\u2028\"\\")
	set := admit(t, document(t, newKey("a").JWK(), unbound, nameless, odd.JWK()), keyset.Policy{}).Set
	for name, s := range map[string]*keyset.Set{"some keys": set, "none": set.Filter(func(*jose.Key) bool { return false })} {
		again, err := keyset.Decode(s.JSON())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again.Digest() != s.Digest() || !slices.Equal(again.Refs(), s.Refs()) {
			t.Errorf("%s: got %s, want %s", name, again.JSON(), s.JSON())
		}
		for i, k := range again.Keys() {
			if !slices.Equal(k.Algorithms(), s.Keys()[i].Algorithms()) {
				t.Errorf("%s: key %q serves %v", name, k.KeyID(), k.Algorithms())
			}
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	a, b := newKey("a"), newKey("b")
	raw := func(k map[string]any) string {
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	keys := func(list ...string) string { return `{"keys":[` + strings.Join(list, ",") + `]}` }
	jwkA, jwkB := raw(a.JWK()), raw(b.JWK())
	if _, err := keyset.Decode([]byte(keys(jwkA, jwkB))); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":                     ``,
		"no object":                   `[` + jwkA + `]`,
		"no keys":                     `{}`,
		"keys null":                   `{"keys":null}`,
		"keys a string":               `{"keys":""}`,
		"white space":                 keys(jwkA, " "+jwkB),
		"a line break after":          keys(jwkA, jwkB) + "\n",
		"another order":               keys(jwkB, jwkA),
		"another order of members":    keys(`{"kid":"a",` + strings.Replace(jwkA[1:], `"kid":"a",`, "", 1)),
		"another member":              `{"a":1,` + keys(jwkA)[1:],
		"keys twice":                  `{"keys":[],` + keys(jwkA)[1:],
		"Keys":                        strings.Replace(keys(jwkA), "keys", "Keys", 1),
		"a key's other member":        keys(strings.Replace(jwkA, `"use":"sig"`, `"use":"sig","z":1`, 1)),
		"a key without alg":           keys(raw(with(a.JWK(), map[string]any{"alg": nil}))),
		"a key without use":           keys(raw(with(a.JWK(), map[string]any{"use": nil}))),
		"padding":                     keys(strings.Replace(jwkA, `","y"`, `=","y"`, 1)),
		"an escape":                   keys(strings.Replace(jwkA, `"kid":"a"`, `"kid":"\u0061"`, 1)),
		"a key twice":                 keys(jwkA, jwkA),
		"two keys of one kid":         keys(jwkA, raw(with(b.JWK(), map[string]any{"kid": "a"}))),
		"a nameless key among others": keys(raw(with(b.JWK(), map[string]any{"kid": nil})), jwkA),
		"THREATS 17: a private key":   keys(raw(a.PrivateJWK())),
		"THREATS 18: oct":             keys(`{"k":"AAAA","kty":"oct","use":"sig"}`),
		"a map of certificates":       `{"a":"-----BEGIN CERTIFICATE-----"}`,
		"something that is not a key": `{"keys":[null]}`,
		"bytes after it":              keys(jwkA) + "x",
	} {
		if set, err := keyset.Decode([]byte(text)); err == nil || set != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDiff(t *testing.T) {
	ref := func(kid, thumbprint string) keyset.Ref { return keyset.Ref{KeyID: kid, Thumbprint: thumbprint} }
	a, b, c := ref("a", "1"), ref("b", "2"), ref("c", "3")
	for name, test := range map[string]struct {
		old, next []keyset.Ref
		want      keyset.Change
	}{
		"nothing at all":                    {nil, nil, keyset.Change{}},
		"the same":                          {[]keyset.Ref{a, b}, []keyset.Ref{a, b}, keyset.Change{}},
		"the same in another order":         {[]keyset.Ref{a, b}, []keyset.Ref{b, a}, keyset.Change{}},
		"the first keys":                    {nil, []keyset.Ref{b, a}, keyset.Change{Added: []keyset.Ref{a, b}}},
		"one added":                         {[]keyset.Ref{a}, []keyset.Ref{b, a}, keyset.Change{Added: []keyset.Ref{b}}},
		"one removed":                       {[]keyset.Ref{a, b}, []keyset.Ref{b}, keyset.Change{Removed: []keyset.Ref{a}}},
		"all removed":                       {[]keyset.Ref{b, a}, nil, keyset.Change{Removed: []keyset.Ref{a, b}}},
		"one for another":                   {[]keyset.Ref{a, b}, []keyset.Ref{b, c}, keyset.Change{Added: []keyset.Ref{c}, Removed: []keyset.Ref{a}}},
		"THREATS 27: new material":          {[]keyset.Ref{a, b}, []keyset.Ref{ref("a", "9"), b}, keyset.Change{Replaced: []keyset.Ref{ref("a", "9")}}},
		"THREATS 27: kids exchanged":        {[]keyset.Ref{a, b}, []keyset.Ref{ref("a", "2"), ref("b", "1")}, keyset.Change{Replaced: []keyset.Ref{ref("a", "2"), ref("b", "1")}}},
		"THREATS 27: and another added":     {[]keyset.Ref{a}, []keyset.Ref{c, ref("a", "9")}, keyset.Change{Added: []keyset.Ref{c}, Replaced: []keyset.Ref{ref("a", "9")}}},
		"a new kid for the same key":        {[]keyset.Ref{a}, []keyset.Ref{ref("z", "1")}, keyset.Change{Added: []keyset.Ref{ref("z", "1")}, Removed: []keyset.Ref{a}}},
		"without kids, nothing is replaced": {[]keyset.Ref{ref("", "1")}, []keyset.Ref{ref("", "2")}, keyset.Change{Added: []keyset.Ref{ref("", "2")}, Removed: []keyset.Ref{ref("", "1")}}},
	} {
		for _, old := range [][]keyset.Ref{test.old, reversed(test.old)} {
			for _, next := range [][]keyset.Ref{test.next, reversed(test.next)} {
				got := keyset.Diff(old, next)
				if !slices.Equal(got.Added, test.want.Added) || !slices.Equal(got.Removed, test.want.Removed) || !slices.Equal(got.Replaced, test.want.Replaced) {
					t.Errorf("%s: got %+v, want %+v", name, got, test.want)
				}
				if got.Empty() != test.want.Empty() || got.Empty() != (len(got.Added)+len(got.Removed)+len(got.Replaced) == 0) {
					t.Errorf("%s: Empty is %t", name, got.Empty())
				}
			}
		}
	}
}

// A token of each algorithm, from the document to the signature.
func TestKeysOfASetVerify(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		issuer := testissuer.NewKey("k1", string(alg))
		set, err := keyset.Decode(setOf(t, issuer, newKey("k2")).JSON())
		if err != nil {
			t.Fatal(err)
		}
		token, err := jose.ParseToken(issuer.Sign(map[string]any{"iss": "https://a"}))
		if err != nil {
			t.Fatal(err)
		}
		key, err := set.Select(token.KeyID, token.HasKeyID, token.Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.Verify(token); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}
