// weak_test.go checks the tests for weak keys, each by itself.
package jose

import (
	"crypto/rand"
	"math/big"
	"slices"
	"testing"
)

func TestSmallRemainders(t *testing.T) {
	if len(smallPrimes) != 168 || smallPrimes[0] != 2 || smallPrimes[167] != 997 {
		t.Fatalf("%d small primes, to %d", len(smallPrimes), smallPrimes[len(smallPrimes)-1])
	}
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 2048))
	if err != nil {
		t.Fatal(err)
	}
	remainders := smallRemainders(n)
	for i, p := range smallPrimes {
		if want := new(big.Int).Mod(n, big.NewInt(p)).Int64(); remainders[i] != want {
			t.Errorf("modulo %d: got %d, want %d", p, remainders[i], want)
		}
	}
}

func TestROCAUsesThePrimesTo701(t *testing.T) {
	if n := len(rocaPowers); n != 126 || smallPrimes[n-1] != 701 {
		t.Errorf("%d primes", n)
	}
	for i, powers := range rocaPowers {
		if powers[0] || !powers[1%smallPrimes[i]] || len(powers) >= int(smallPrimes[i]) {
			t.Errorf("the powers modulo %d are %v", smallPrimes[i], powers)
		}
	}
}

func TestCloseFactors(t *testing.T) {
	p := new(big.Int).Lsh(big.NewInt(3), 1022)
	p.SetBit(p, 0, 1)
	times := func(distance *big.Int) *big.Int { return new(big.Int).Mul(p, new(big.Int).Add(p, distance)) }
	for name, test := range map[string]struct {
		distance *big.Int
		want     bool
	}{
		"a square":     {big.NewInt(0), true},
		"neighbours":   {big.NewInt(2), true},
		"2^100 apart":  {new(big.Int).Lsh(big.NewInt(1), 100), true},
		"2^480 apart":  {new(big.Int).Lsh(big.NewInt(1), 480), true},
		"2^600 apart":  {new(big.Int).Lsh(big.NewInt(1), 600), false},
		"2^1000 apart": {new(big.Int).Lsh(big.NewInt(1), 1000), false},
	} {
		if got := closeFactors(times(test.distance)); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestIsSquare(t *testing.T) {
	for n := int64(1); n < 2000; n++ {
		if !isSquare(big.NewInt(n * n)) {
			t.Errorf("%d^2 is none", n)
		}
		if isSquare(big.NewInt(n*n + 1)) {
			t.Errorf("%d^2+1 is one", n)
		}
	}
}

// point is one of the curve of Ed25519.
type point struct{ x, y *big.Int }

// double adds a point to itself, by the addition law of RFC 8032 section 5.1.4
// in affine coordinates. Its denominators are never zero.
func (p point) double() point {
	one := big.NewInt(1)
	product := field(new(big.Int).Mul(p.x, p.y))
	dxy := field(new(big.Int).Mul(edwardsD, new(big.Int).Mul(product, product)))
	over := func(above, below *big.Int) *big.Int {
		return field(above.Mul(above, new(big.Int).ModInverse(field(below), fieldPrime)))
	}
	squares := new(big.Int).Add(new(big.Int).Mul(p.x, p.x), new(big.Int).Mul(p.y, p.y))
	return point{
		x: over(new(big.Int).Lsh(product, 1), new(big.Int).Add(one, dxy)),
		y: over(squares, new(big.Int).Sub(one, dxy)),
	}
}

func (p point) isIdentity() bool { return p.x.Sign() == 0 && p.y.Cmp(big.NewInt(1)) == 0 }

// xOf is an x to the y, by the equation of the curve; nil if there is none.
func xOf(y *big.Int) *big.Int {
	square := new(big.Int).Mul(y, y)
	above := new(big.Int).Sub(square, big.NewInt(1))
	below := field(new(big.Int).Add(new(big.Int).Mul(edwardsD, square), big.NewInt(1)))
	return new(big.Int).ModSqrt(field(above.Mul(above, below.ModInverse(below, fieldPrime))), fieldPrime)
}

// littleEndian is the encoding of a point with this y (RFC 8032 section 5.1.2).
func littleEndian(y *big.Int, sign byte) []byte {
	b := y.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	b[31] |= sign << 7
	return b
}

func TestSmallOrderYAreThoseOfEightPoints(t *testing.T) {
	seen := map[string]bool{}
	for _, y := range smallOrderY {
		x := xOf(y)
		if x == nil {
			t.Fatalf("%v is no point", y)
		}
		if p := (point{x, y}).double().double().double(); !p.isIdentity() {
			t.Errorf("%v has a larger order", y)
		}
		for _, x := range []*big.Int{x, field(new(big.Int).Neg(x))} {
			seen[x.String()+" "+y.String()] = true
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d points, want 8", len(seen))
	}
}

func reasonOfEdwards(encoded []byte) Reason {
	if err, ok := checkEdwards(encoded).(*Error); ok { //nolint:errorlint // the exact type is the point
		return err.Reason
	}
	return ""
}

func TestCheckEdwardsRefusesSmallOrder(t *testing.T) {
	for _, y := range smallOrderY {
		for _, sign := range []byte{0, 1} {
			if got := reasonOfEdwards(littleEndian(y, sign)); got != SmallOrderPoint {
				t.Errorf("%v, sign %d: got %q", y, sign, got)
			}
		}
	}
}

func TestCheckEdwardsTellsPointsFromOthers(t *testing.T) {
	points := 0
	for n := int64(2); n < 300; n++ {
		y := big.NewInt(n)
		want := PointNotOnCurve
		if xOf(y) != nil {
			want = ""
			points++
		}
		for _, sign := range []byte{0, 1} {
			if got := reasonOfEdwards(littleEndian(y, sign)); got != want {
				t.Errorf("y = %d: got %q, want %q", n, got, want)
			}
		}
	}
	if points < 100 || points > 200 {
		t.Errorf("%d of 298 are points, which should be about half", points)
	}
}

func TestCheckEdwardsRefusesOtherSpellings(t *testing.T) {
	for n := int64(0); n < 19; n++ { // y + 2^255 - 19 fits into 255 bits as well
		y := new(big.Int).Add(fieldPrime, big.NewInt(n))
		for _, sign := range []byte{0, 1} {
			if got := reasonOfEdwards(littleEndian(y, sign)); got != PointNotOnCurve {
				t.Errorf("p + %d: got %q", n, got)
			}
		}
	}
}
