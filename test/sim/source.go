// source.go is the way of a fleet's operators to the issuer: the product's own sharing
// of requests stands in between, and what it hands out is looked at.

package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
)

// source makes the requests of one operator.
type source struct{ p *operator }

// Fetch asks the issuer. What it answers is decided when the request arrives; the
// answer may take its time, or never come.
func (s source) Fetch(ctx context.Context, r fetch.Request) (*fetch.Document, error) {
	p, c := s.p, s.p.fleet.checks
	how := "under " + nameOfRoots(string(r.CABundle))
	if r.NoCache {
		how += ", afresh"
	}
	landed := c.asked(p, r)
	if f, err := p.await(ctx, "ask the issuer for its keys "+how); err != nil || f >= diesBefore {
		return nil, p.die()
	}
	keys, body, failure := p.fleet.serverOf(string(r.CABundle)).reply(r.NoCache)
	useless := body != nil
	if failure == nil && body == nil {
		body = document(keys, nil)
		useless = c.serves(string(r.CABundle), keys)
	}
	f, err := p.await(ctx, "take the issuer's answer "+how)
	switch {
	case err != nil, f == diesBefore, f == diesAfter:
		return nil, p.die()
	case f == unavailable, f == late:
		failure = &fetch.Error{Reason: fetch.Timeout, Message: "no answer"}
	}
	landed(body, useless, failure)
	if failure != nil {
		return nil, failure
	}
	sum := sha256.Sum256(body)
	tag := hex.EncodeToString(sum[:8])
	return &fetch.Document{Body: body, ETag: tag, NotModified: r.ETag == tag}, nil
}

// changed wakes all who read a document, when the scheduler lets it.
func (p *operator) changed(id fetch.Identity) {
	if _, err := p.await(context.Background(), fmt.Sprintf("wake who reads document %x", id[:4])); err == nil {
		p.wakes.Changed(id)
	}
}

// observed is the sharing of requests, with an eye on what it hands out.
type observed struct {
	*fetch.Shared

	p *operator
}

// Get gets a document for an issuer object.
func (o observed) Get(ctx context.Context, w fetch.Want) fetch.Answer {
	got := o.p.fleet.checks.wants(o.p, workOf(ctx), w)
	a := o.Shared.Get(ctx, w)
	got(a)
	return a
}

// otherRoots is what the second object trusts where it is set apart.
const otherRoots = "other roots"

func nameOfRoots(roots string) string {
	if roots == "" {
		return "the system's roots"
	}
	return roots
}

// request is one that is under way.
type request struct {
	afresh  bool
	started time.Time
}

// exchanges are what an operator has asked for one document.
type exchanges struct {
	flying []request
	// newest is the answer of the latest request that has ended.
	newest keptAnswer
	// bodies are those that were answered, and useless those without a key that may
	// be trusted.
	bodies, useless map[string]bool
}

func (c *fleetChecks) exchanges(p *operator, id fetch.Identity) *exchanges {
	if c.exchanged[p] == nil {
		c.exchanged[p] = map[fetch.Identity]*exchanges{}
	}
	if c.exchanged[p][id] == nil {
		c.exchanged[p][id] = &exchanges{bodies: map[string]bool{}, useless: map[string]bool{}}
	}
	return c.exchanged[p][id]
}

// asked: a request has been made. What is returned hears of its end.
func (c *fleetChecks) asked(p *operator, r fetch.Request) func(body []byte, useless bool, failure error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, started := c.exchanges(p, r.Identity()), c.f.Now()
	for _, other := range e.flying {
		if other.afresh || other.afresh == r.NoCache {
			c.fail("budget: a manager asks for a document while a request for it is under way")
		}
	}
	this := request{r.NoCache, started}
	e.flying = append(e.flying, this)
	c.requests[r.Identity()]++
	return func(body []byte, useless bool, failure error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, other := range e.flying {
			if other == this {
				e.flying = append(e.flying[:i:i], e.flying[i+1:]...)
				break
			}
		}
		if failure == nil {
			e.bodies[string(body)], e.useless[string(body)] = true, useless
		}
		if !e.newest.Started.After(started) { // else a later request has overtaken it
			e.newest = keptAnswer{fetch.Answer{Started: started, Afresh: r.NoCache, Err: failure}}
		}
	}
}

// wants: an issuer object wants a document. What is returned hears what it got.
func (c *fleetChecks) wants(p *operator, of work, w fetch.Want) func(fetch.Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, now := c.exchanges(p, w.Identity()), c.f.Now()
	kept, will := e.newest, e.newest.willDo(w, now)
	flying := append([]request(nil), e.flying...)
	joins := false
	for _, r := range flying {
		joins = joins || r.afresh || r.afresh == w.NoCache
	}
	if !will && !joins {
		c.spaced(p, of)
	}
	return func(a fetch.Answer) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if own := c.led[p][of]; a.Err != nil || e.useless[string(a.Document.Body)] {
			own.failed = true
			c.leads(p, of, own)
		}
		switch {
		case p.dead:
		case will && !a.Started.Equal(kept.Started):
			c.fail("budget: a manager asks for %s though an answer that will do was there", of)
		case a.Err == nil && !e.bodies[string(a.Document.Body)]:
			c.fail("wrong answer: %s got what was never answered to its request", of)
		case w.NoCache && !a.Afresh:
			c.fail("wrong answer: %s wanted a fresh copy, and got what a cache may have given", of)
		case !will && !a.Started.Before(now), !w.NotBefore.IsZero() && !a.Started.Before(w.NotBefore):
		case a.Err == nil && w.MaxAge > 0 && now.Sub(a.Started) <= w.MaxAge:
		default:
			for _, r := range flying {
				if r.started.Equal(a.Started) {
					return // it was under way already, and nobody is asked twice at a time
				}
			}
			c.fail("wrong answer: %s got one of %s, which is too old", of, a.Started.Format(time.TimeOnly))
		}
	}
}

// last is the request that an issuer object has led to last.
type last struct {
	at     time.Time
	uid    string
	failed bool
}

// spaced checks that an issuer object does not lead to requests too often.
func (c *fleetChecks) spaced(p *operator, of work) {
	before, now := c.led[p][of], c.f.Now()
	least := spacing
	if before.failed {
		least = spacingAfterFailure
	}
	uid, seen := "", ""
	if o := c.f.server.issuers[of.key]; o != nil {
		uid = string(o.GetUID())
	}
	if now := p.active[of]; now != nil {
		seen = string(now.beganWith)
	}
	if gap := now.Sub(before.at); before.uid != "" && before.uid == uid && seen == uid && gap < least {
		c.fail("budget: %s has the issuer asked again after %s, and %s is the least", of, gap, least)
	}
	c.leads(p, of, last{at: now, uid: seen})
}

func (c *fleetChecks) leads(p *operator, of work, l last) {
	if c.led[p] == nil {
		c.led[p] = map[work]last{}
	}
	c.led[p][of] = l
}
