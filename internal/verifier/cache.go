// cache.go remembers accepted tokens: clients send the same one until it expires,
// and its signature stays as good as it was.
//
// Nothing else about it is taken on trust. What is remembered is bound to what the
// issuer's trust consisted of at the time (its keys, revocations, policy); with any
// other one the token is judged anew. Its times, and the age of the keys, are
// judged at each request.

package verifier

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// DefaultTokenCacheSize is how much memory accepted tokens may take, in bytes,
// unless ServerOptions says otherwise: some 16,000 of the usual size.
const DefaultTokenCacheSize = 32 << 20

// accepted is an accepted token. Once it is remembered it is shared, and does not
// change.
type accepted struct {
	trust      *trust
	policy     *policy.Policy
	claims     Claims
	thumbprint string
	// evaluation makes of the claims what the policy says, within what is left of the
	// token's budget; nil once the token is remembered.
	evaluation *policy.Evaluation

	// reply is what TokenReview answered; nil where it was not asked.
	reply []byte
	// proxied are the headers for a proxy, or noHeaders why there are none; both nil
	// where no proxy asked.
	proxied   []proxyHeader
	noHeaders *policy.Refusal
}

// accept is the record of a candidate whose checks have all been passed.
func (c *candidate) accept(issuer *Issuer, thumbprint string, evaluation *policy.Evaluation) *accepted {
	return &accepted{
		trust: issuer.trust, policy: issuer.policy, claims: c.untrustedClaims, thumbprint: thumbprint,
		evaluation: evaluation,
	}
}

// trust stands for all that a verdict rests on but the time: which keys, which
// policy. It has an identity and nothing else.
type trust struct{ _ byte }

// trustOf is that of before where all of it is the same, and another one where not.
func (i *Issuer) trustOf(before *Issuer) *trust {
	same := before.trust != nil && i.policy != nil && i.policy == before.policy && i.Issuer == before.Issuer &&
		slices.Equal(i.audiences, before.audiences) && slices.Equal(i.algorithms, before.algorithms) &&
		i.usable != nil && before.usable != nil && i.usable.Digest() == before.usable.Digest()
	if same {
		return before.trust
	}
	return &trust{}
}

// tokenCache finds accepted tokens by their names. It does not keep the tokens
// themselves. A nil one is always empty.
type tokenCache struct {
	tokens *otter.Cache[tokenName, *accepted]
}

// tokenName is the SHA-256 of a token, or of the whole review that asks about it. One
// is never taken for the other.
type tokenName struct {
	sum    [sha256.Size]byte
	review bool
}

// nameOfReview is the name of a review.
func nameOfReview(body []byte) tokenName { return tokenName{sum: sha256.Sum256(body), review: true} }

// newTokenCache makes a cache of that many bytes; nil for 0.
func newTokenCache(size uint64, now func() time.Time) (*tokenCache, error) {
	if size == 0 {
		return nil, nil //nolint:nilnil // a nil cache is one that is always empty
	}
	tokens, err := otter.New(&otter.Options[tokenName, *accepted]{
		MaximumWeight: size,
		Weigher:       func(_ tokenName, a *accepted) uint32 { return a.weight() },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[tokenName, *accepted]) time.Duration {
			return max(time.Second, e.Value.claims.ExpiresAt.Sub(now()))
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("making the token cache: %w", err)
	}
	return &tokenCache{tokens}, nil
}

// acceptedOverhead is about what a remembered token takes besides its claims, in
// bytes.
const acceptedOverhead = 900

// weight is about how many bytes a token takes: its claims, and what was made of
// them.
func (a *accepted) weight() uint32 {
	made := len(a.reply)
	for _, h := range a.proxied {
		made += len(h.value[0])
	}
	return uint32(min(acceptedOverhead+a.claims.size+made, math.MaxInt32)) //nolint:gosec // a length
}

// nameOf is the name of a token, without memory of its own for most.
func nameOf(token string) tokenName {
	var usual [2048]byte
	if len(token) > len(usual) {
		return tokenName{sum: sha256.Sum256([]byte(token))}
	}
	return tokenName{sum: sha256.Sum256(usual[:copy(usual[:], token)])}
}

// get is the token if it was accepted before.
func (c *tokenCache) get(name tokenName) *accepted {
	if c == nil {
		return nil
	}
	a, _ := c.tokens.GetIfPresent(name)
	return a
}

// put remembers a token that was accepted, and of which all is made that will be
// asked for.
func (c *tokenCache) put(name tokenName, v Verdict) {
	if c != nil && v.Outcome == Accept && v.accepted != nil {
		v.accepted.evaluation = nil
		c.tokens.Set(name, v.accepted)
	}
}

// again judges a token that was accepted before. ok is false where it has to be
// judged anew.
func (a *accepted) again(issuer *Issuer, now time.Time) (v Verdict, ok bool) {
	if a == nil || a.trust != issuer.trust {
		return Verdict{}, false
	}
	state := issuer.window.State(now)
	if state != snapshot.Fresh && state != snapshot.Stale || a.claims.checkTimes(issuer.policy, now) != "" {
		return Verdict{}, false
	}
	return Verdict{Outcome: Accept, Reason: Accepted, Claims: &a.claims, accepted: a}, true
}
