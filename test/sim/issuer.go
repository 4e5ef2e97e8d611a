// issuer.go is the modelled issuer: it rotates, lies and vanishes. It stands where
// the product's fetcher does.

package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// signer is a key of the model, with a token that it has signed.
type signer struct {
	key        *testissuer.Key
	name       string
	kid        string
	thumbprint string
	token      string
}

// signers are all keys: those of the issuer, one that takes over the first one's
// kid, and the attacker's, of which one bears the first one's kid as well.
var signers = []*signer{
	newSigner("a", "a"), newSigner("b", "b"), newSigner("c", "c"), newSigner("a, renewed", "a"),
	newSigner("the attacker's a", "a"), newSigner("the attacker's x", "x"),
}

// published is how many of them the issuer may publish.
const published = 4

func newSigner(name, kid string) *signer {
	s := &signer{key: testissuer.NewKey(kid, "EdDSA"), name: name, kid: kid}
	s.token = s.key.Sign(testissuer.Claims(issuerName, "alice", "orders", start, 100*365*24*time.Hour))
	parsed, err := keyset.Parse(document([]*signer{s}, nil), keyset.Policy{})
	if err != nil {
		panic(err) // it was just made
	}
	s.thumbprint = parsed.Set.Keys()[0].Thumbprint()
	return s
}

// document is a key set; leaked is published with its private part.
func document(keys []*signer, leaked *signer) []byte {
	var jwks []any
	for _, s := range keys {
		if s == leaked {
			jwks = append(jwks, s.key.PrivateJWK())
		} else {
			jwks = append(jwks, s.key.JWK())
		}
	}
	text, err := json.Marshal(map[string]any{"keys": jwks})
	if err != nil {
		panic(err) // maps of strings
	}
	return text
}

// mode is how the issuer's server behaves.
type mode int

const (
	honest mode = iota
	down
	html
	empty
	stale // caches in front of it show the set before the last change
	modes
)

var modeNames = [modes]string{"answers", "is down", "answers with HTML", "answers with an empty set", "is hidden by a cache that shows an older set"}

// issuerServer is the issuer.
type issuerServer struct {
	mode         mode
	keys, before []*signer
	leaked       *signer
	// place counts the places where the keys have been, and left has what old ones show
	// still.
	place int
	left  map[string][]*signer
}

// url is where the keys are.
func (i *issuerServer) url() string {
	if i.place == 0 {
		return jwksURI
	}
	return fmt.Sprintf("https://keys%d.example.com/jwks.json", i.place)
}

// move puts the keys somewhere else.
func (i *issuerServer) move(leaves bool) {
	if leaves {
		if i.left == nil {
			i.left = map[string][]*signer{}
		}
		i.left[i.url()] = i.keys
	}
	i.place++
}

// set changes what is published.
func (i *issuerServer) set(keys []*signer) {
	if len(keys) > 0 {
		i.before, i.keys = i.keys, keys
	}
}

// publish adds a key to those that are published.
func (i *issuerServer) publish(s *signer) {
	if !slices.ContainsFunc(i.keys, func(k *signer) bool { return k.kid == s.kid }) {
		i.set(append(slices.Clone(i.keys), s))
	}
}

// reply is what the server says: keys, or a body that holds none, or nothing.
func (i *issuerServer) reply(afresh bool) (keys []*signer, body []byte, failure error) {
	keys = i.keys
	switch i.mode {
	case down:
		failure = &fetch.Error{Reason: fetch.ConnectionFailed, Message: "refused"}
	case html:
		body = []byte("<html>")
	case empty:
		body = []byte(`{"keys":[]}`)
	case stale:
		if !afresh && i.before != nil {
			keys = i.before
		}
	case honest, modes:
	}
	return keys, body, failure
}

// fetcher is a manager's way to the issuer.
type fetcher struct{ p *manager }

// Get asks the issuer. What it answers is decided when the request arrives; the
// answer may take its time, or never come.
func (f fetcher) Get(_ context.Context, want fetch.Want) fetch.Answer {
	p, w := f.p, f.p.world
	if kept := p.kept[want.URL]; kept.willDo(want, w.now) {
		return kept.Answer
	}
	answer := f.ask(want)
	p.kept[want.URL] = keptAnswer{answer}
	return answer
}

// keptAnswer is the newest answer, which does for others who want one that is no
// newer, as in fetch.Shared.
type keptAnswer struct{ fetch.Answer }

func (a keptAnswer) willDo(want fetch.Want, now time.Time) bool {
	switch {
	case a.Started.IsZero(), now.Before(a.Started), want.NoCache && !a.Afresh:
		return false
	case !want.NotBefore.IsZero() && !a.Started.Before(want.NotBefore):
		return true
	}
	return a.Err == nil && want.MaxAge > 0 && now.Sub(a.Started) <= want.MaxAge
}

// ask is a request.
func (f fetcher) ask(want fetch.Want) fetch.Answer {
	p, w := f.p, f.p.world
	if fate := p.await("ask the issuer for its keys"); fate >= diesBefore && fate < fates {
		p.die()
	}
	answer := fetch.Answer{Started: w.now, Afresh: want.NoCache}
	w.checks.asked(p, want.URL)
	keys, body, failure := w.issuer.reply(want.NoCache)
	if left, is := w.issuer.left[want.URL]; want.URL != w.issuer.url() && w.setting.Discovery && failure == nil && body == nil {
		if keys = left; !is {
			failure = &fetch.Error{Reason: fetch.UnexpectedStatus, Status: http.StatusNotFound, Message: "404"}
		}
	}
	if failure == nil && body == nil {
		body = document(keys, w.issuer.leaked)
		w.checks.served(keys, want.NoCache)
	}
	useless := w.issuer.mode == html || w.issuer.mode == empty || !slices.ContainsFunc(keys, func(s *signer) bool { return !w.checks.everRefused[s] })
	switch p.await("take the issuer's answer") {
	case diesBefore, diesAfter:
		p.die()
	case unavailable, late:
		failure = &fetch.Error{Reason: fetch.Timeout, Message: "no answer"}
	case answered, conflicted, fates:
	}
	p.failing = failure != nil || useless
	if failure != nil {
		answer.Err = failure
		return answer
	}
	answer.Document = &fetch.Document{Body: body}
	return answer
}

// admits reports whether an answer with these keys is a success.
func (w *world) admits(keys []*signer) bool {
	ti := w.server.issuer()
	return ti != nil && slices.ContainsFunc(keys, func(s *signer) bool { return s != w.issuer.leaked && !refused(ti, s) })
}

// Discover reads the issuer's metadata.
func (f fetcher) Discover(context.Context, fetch.Want, string, string) (string, error) {
	p, w := f.p, f.p.world
	fate := p.await("ask the issuer for its metadata")
	if fate == diesBefore || fate == diesAfter {
		p.die()
	}
	w.checks.tried()
	if fate == unavailable || fate == late {
		return "", &fetch.Error{Reason: fetch.Timeout, Message: "no answer"}
	}
	switch w.issuer.mode {
	case down:
		return "", &fetch.Error{Reason: fetch.ConnectionFailed, Message: "refused"}
	case html, empty:
		return "", &fetch.Error{Reason: fetch.InvalidDiscovery, Message: "no metadata"}
	case honest, stale, modes:
	}
	return w.issuer.url(), nil
}

// Newest says nothing: nobody else reads the document.
func (fetcher) Newest(fetch.Identity) (digest [sha256.Size]byte) { return digest }

// MayLookUp sets no limit of its own: that of the plan is what is looked at.
func (fetcher) MayLookUp(string) bool { return true }

func without(keys []*signer, s *signer) []*signer {
	return slices.DeleteFunc(slices.Clone(keys), func(k *signer) bool { return k == s })
}

func has(keys []*signer, s *signer) bool { return slices.Contains(keys, s) }
