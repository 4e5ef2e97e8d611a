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
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// DefaultTokenCacheSize is how much memory accepted tokens may take, in bytes,
// unless ServerOptions says otherwise: some 12,000 of the usual size.
const DefaultTokenCacheSize = 32 << 20

// accepted is an accepted token. It is shared and does not change.
type accepted struct {
	trust      *trust
	policy     *policy.Policy
	claims     Claims
	members    jose.Object
	thumbprint string

	// What the issuer's policy makes of the claims is computed when it is first
	// asked for.
	identified  sync.Once
	who         *user
	notAUser    *policy.Refusal
	headed      sync.Once
	headerTexts []string
	noHeaders   *policy.Refusal
}

// user is a user of the Kubernetes API, and the JSON of it, which is most of the
// work of an answer.
type user struct {
	authenticationv1.UserInfo

	json []byte
}

// user is the user of the Kubernetes API.
func (a *accepted) user() (*user, *policy.Refusal) {
	a.identified.Do(func() {
		var info authenticationv1.UserInfo
		if info, a.notAUser = a.policy.Evaluate(a.members).User(); a.notAUser != nil {
			return
		}
		text, err := json.Marshal(info)
		if err != nil { // strings alone
			panic(err)
		}
		a.who = &user{info, text}
	})
	return a.who, a.notAUser
}

// headers are the values of the policy's headers.
func (a *accepted) headers() ([]string, *policy.Refusal) {
	a.headed.Do(func() { a.headerTexts, a.noHeaders = a.policy.Evaluate(a.members).HeaderValues() })
	return a.headerTexts, a.noHeaders
}

// accept is the record of a candidate whose checks have all been passed.
func (c *candidate) accept(issuer *Issuer, thumbprint string) *accepted {
	return &accepted{
		trust: issuer.trust, policy: issuer.policy, claims: c.untrustedClaims, members: c.token.Claims, thumbprint: thumbprint,
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

// tokenCache finds accepted tokens by their SHA-256. It does not keep the tokens
// themselves. A nil one is always empty.
type tokenCache struct {
	tokens *otter.Cache[[sha256.Size]byte, *accepted]
}

// newTokenCache makes a cache of that many bytes; nil for 0.
func newTokenCache(size uint64, now func() time.Time) (*tokenCache, error) {
	if size == 0 {
		return nil, nil //nolint:nilnil // a nil cache is one that is always empty
	}
	tokens, err := otter.New(&otter.Options[[sha256.Size]byte, *accepted]{
		MaximumWeight: size,
		Weigher:       func(_ [sha256.Size]byte, a *accepted) uint32 { return a.weight() },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[[sha256.Size]byte, *accepted]) time.Duration {
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

// weight is about how many bytes a token takes: its claims, and what is made of
// them.
func (a *accepted) weight() uint32 {
	return acceptedOverhead + 2*uint32(min(a.claims.size, jose.MaxTokenSize)) //nolint:gosec // a length
}

// nameOf is the SHA-256 of a token, without memory of its own for most.
func nameOf(token string) [sha256.Size]byte {
	var usual [2048]byte
	if len(token) > len(usual) {
		return sha256.Sum256([]byte(token))
	}
	return sha256.Sum256(usual[:copy(usual[:], token)])
}

// get is the token if it was accepted before.
func (c *tokenCache) get(token string) *accepted {
	if c == nil || len(token) > jose.MaxTokenSize {
		return nil
	}
	a, _ := c.tokens.GetIfPresent(nameOf(token))
	return a
}

// put remembers a token that was accepted.
func (c *tokenCache) put(token string, v Verdict) {
	if c != nil && v.Outcome == Accept && v.accepted != nil {
		c.tokens.Set(nameOf(token), v.accepted)
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
