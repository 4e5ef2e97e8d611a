package jose

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"testing"
)

// FuzzDERSignature compares with encoding/asn1.
func FuzzDERSignature(f *testing.F) {
	for _, size := range []int{32, 48, 66} {
		f.Add(make([]byte, size), bytes.Repeat([]byte{0xff}, size))
		f.Add(append(make([]byte, size-1), 1), append([]byte{0x7f}, make([]byte, size-1)...))
		f.Add(append([]byte{0, 0x80}, make([]byte, size-2)...), append([]byte{0x80}, make([]byte, size-1)...))
	}
	f.Fuzz(func(t *testing.T, r, s []byte) {
		if len(r) > 66 || len(s) > 66 {
			t.Skip("longer than any coordinate")
		}
		want, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
		if err != nil {
			t.Fatal(err)
		}
		if got := derSignature(r, s); !bytes.Equal(got, want) {
			t.Errorf("%x, %x: got %x, want %x", r, s, got, want)
		}
	})
}
