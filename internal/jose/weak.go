// weak.go recognises keys that are well-formed and yet protect nothing.

package jose

import (
	"math/big"
	"slices"
)

// weakModulus reports an RSA modulus that is cheap to factor: one with a small
// factor, one with the pattern of CVE-2017-15361 (ROCA), and one whose two
// factors lie close together (CVE-2022-26320).
func weakModulus(n *big.Int) bool {
	remainders := smallRemainders(n)
	return slices.Contains(remainders, 0) || isROCA(remainders) || closeFactors(n)
}

// smallPrimes are those below 1000.
var smallPrimes = func() []int64 {
	var primes []int64
	for n := int64(2); n < 1000; n++ {
		if !slices.ContainsFunc(primes, func(p int64) bool { return n%p == 0 }) {
			primes = append(primes, n)
		}
	}
	return primes
}()

// smallRemainders is n modulo each of smallPrimes. A long division for each of
// them would be slow, so six at a time share one, by their product.
func smallRemainders(n *big.Int) []int64 {
	remainders := make([]int64, 0, len(smallPrimes))
	quotient, divisor, rest := new(big.Int), new(big.Int), new(big.Int)
	for group := range slices.Chunk(smallPrimes, 6) {
		product := int64(1)
		for _, p := range group {
			product *= p
		}
		quotient.QuoRem(n, divisor.SetInt64(product), rest)
		for _, p := range group {
			remainders = append(remainders, rest.Int64()%p)
		}
	}
	return remainders
}

// isROCA reports whether n looks as if made by the library of CVE-2017-15361:
// modulo each of the first primes, its moduli are a power of 65537 (Nemec et
// al., "The Return of Coppersmith's Attack", ACM CCS 2017, section 2). A modulus
// that is not has a chance of less than 1 in 2^100 to look like it.
func isROCA(remainders []int64) bool {
	for i, powers := range rocaPowers {
		if !powers[remainders[i]] {
			return false
		}
	}
	return true
}

// rocaPowers are the powers of 65537 modulo each of smallPrimes up to 701, the
// last one that is used for every key of 2048 bits and over.
var rocaPowers = func() []map[int64]bool {
	var all []map[int64]bool
	for _, p := range smallPrimes {
		if p > 701 {
			break
		}
		powers := map[int64]bool{}
		for x := 1 % p; !powers[x]; x = x * 65537 % p {
			powers[x] = true
		}
		all = append(all, powers)
	}
	return all
}()

// fermatRounds is how many candidates closeFactors tries. The keys of
// CVE-2022-26320 need one.
const fermatRounds = 4

// closeFactors tries Fermat's method: n = a^2 - b^2 with a just over the root of
// n. It reports squares as well.
func closeFactors(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	square := new(big.Int).Mul(a, a)
	if square.Cmp(n) == 0 {
		return true
	}
	for range fermatRounds {
		a.Add(a, big.NewInt(1))
		square.Mul(a, a)
		if isSquare(square.Sub(square, n)) {
			return true
		}
	}
	return false
}

// isSquare reports whether a positive number is a square. The remainder modulo
// 64, which squares have but 12 of, spares most of the roots.
func isSquare(n *big.Int) bool {
	const squares = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57
	low := new(big.Int).And(n, big.NewInt(63)).Uint64()
	if squares>>low&1 == 0 {
		return false
	}
	root := new(big.Int).Sqrt(n)
	return root.Mul(root, root).Cmp(n) == 0
}

// The curve of Ed25519 (RFC 8032 section 5.1): -x^2 + y^2 = 1 + d x^2 y^2 over
// the integers modulo fieldPrime.
var (
	fieldPrime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	edwardsD   = field(new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), fieldPrime)))
)

// field reduces a number to an element of the field.
func field(n *big.Int) *big.Int { return n.Mod(n, fieldPrime) }

// smallOrderY are the y of the eight points whose order divides 8: 1, -1 and 0
// of the orders 1, 2 and 4, and two of order 8.
var smallOrderY = func() []*big.Int {
	one := big.NewInt(1)
	// A root of d y^4 + 2 y^2 - 1: doubled, it gives a point of order 4.
	order8, _ := new(big.Int).SetString("2707385501144840649318225287225658788936804267575313519463743609750303402022", 10)
	return []*big.Int{one, field(big.NewInt(-1)), new(big.Int), order8, field(new(big.Int).Neg(order8))}
}()

// checkEdwards refuses encodings (RFC 8032 section 5.1.2) that are not
// canonical, that are not a point, and points of small order: for those anybody
// can make a signature.
func checkEdwards(encoded []byte) error {
	bigEndian := slices.Clone(encoded)
	slices.Reverse(bigEndian)
	bigEndian[0] &= 0x7f // the sign of x
	y := new(big.Int).SetBytes(bigEndian)
	if y.Cmp(fieldPrime) >= 0 {
		return refuse(PointNotOnCurve, "x is not a canonical encoding")
	}
	if slices.ContainsFunc(smallOrderY, func(s *big.Int) bool { return s.Cmp(y) == 0 }) {
		return refuse(SmallOrderPoint, "x is a point of small order")
	}
	// x^2 = (y^2 - 1) / (d y^2 + 1) has a root when the product does.
	square := field(new(big.Int).Mul(y, y))
	above := new(big.Int).Sub(square, big.NewInt(1))
	below := new(big.Int).Add(new(big.Int).Mul(edwardsD, square), big.NewInt(1))
	if big.Jacobi(field(above.Mul(above, below)), fieldPrime) != 1 {
		return refuse(PointNotOnCurve, "x is not a point of the curve")
	}
	return nil
}
