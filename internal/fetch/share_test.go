package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// origin is a scripted server of documents.
type origin struct {
	mu       sync.Mutex
	requests []Request
	answer   func(Request) (*Document, error)
}

func (o *origin) Fetch(_ context.Context, r Request) (*Document, error) {
	o.mu.Lock()
	o.requests = append(o.requests, r)
	answer := o.answer
	o.mu.Unlock()
	return answer(r)
}

func (o *origin) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.requests)
}

func (o *origin) serve(answer func(Request) (*Document, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

func always(body string) func(Request) (*Document, error) {
	return func(r Request) (*Document, error) {
		etag := fmt.Sprintf("%q", body[:min(len(body), 4)])
		if r.ETag == etag {
			return &Document{NotModified: true, ETag: etag, Lifetime: time.Hour, HasLifetime: true}, nil
		}
		return &Document{Body: []byte(body), ETag: etag}, nil
	}
}

// pass lets time pass in the test's bubble.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // synctest: nobody waits

func broken(Request) (*Document, error) { return nil, fail(ConnectionFailed, "broken") }

// shared runs the test in a bubble whose time is under control.
func shared(t *testing.T, test func(t *testing.T, s *Shared, o *origin, changed *int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: always("body")}
		changed := 0
		s := Share(nil, nil, func(Identity) { changed++ })
		s.from = o
		t.Cleanup(s.Close)
		test(t, s, o, &changed)
	})
}

func get(t *testing.T, s *Shared, w Want) Answer {
	t.Helper()
	if w.URL == "" {
		w.URL = "https://issuer.example.com/jwks"
	}
	a := s.Get(t.Context(), w)
	synctest.Wait()
	return a
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestOneRequestServesAllWhoAskAtTheSameTime(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		o.serve(func(r Request) (*Document, error) {
			pass(time.Second)
			return always("body")(r)
		})
		for range 500 {
			go func() {
				if a := s.Get(t.Context(), Want{Request: Request{URL: "https://issuer.example.com/jwks"}}); a.Err != nil || string(a.Document.Body) != "body" {
					t.Errorf("got %+v", a)
				}
			}()
		}
		pass(2 * time.Second)
		expect(t, "requests", o.asked(), 1)
	})
}

func TestAnAnswerThatWasOvertakenReplacesNone(t *testing.T) {
	for name, slow := range map[string]func(Request) (*Document, error){"with keys that are gone by now": always("gone"), "without any": broken} {
		t.Run(name, func(t *testing.T) {
			shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
				get(t, s, Want{})
				o.serve(func(r Request) (*Document, error) {
					if r.NoCache {
						return always("newer")(r)
					}
					pass(5 * time.Second)
					return slow(r)
				})
				pass(time.Minute)
				go s.Get(t.Context(), Want{Request: Request{URL: "https://issuer.example.com/jwks"}})
				pass(time.Second)
				get(t, s, Want{Request: Request{NoCache: true}})
				pass(time.Minute)
				a := get(t, s, Want{MaxAge: time.Hour})
				if a.Err != nil {
					t.Fatal(a.Err)
				}
				expect(t, "document", string(a.Document.Body), "newer")
				expect(t, "newest", s.Newest(Request{URL: "https://issuer.example.com/jwks"}.Identity()), sha256.Sum256([]byte("newer")))
			})
		})
	}
}

func TestRequestsThatDifferAreNotShared(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		different := []Request{
			{URL: "https://issuer.example.com/jwks"},
			{URL: "https://issuer.example.com/jwks2"},
			{URL: "https://issuer.example.com/jwks", CABundle: []byte("A")},
			{URL: "https://issuer.example.com/jwks", CABundle: []byte("B")},
			{URL: "https://issuer.example.com/jwks", CABundle: []byte{}}, // an error, not the system's roots
			{URL: "https://issuer.example.com/jwks", MaxRedirects: 1},
			{URL: "https://issuer.example.com/jwksA", CABundle: nil},
		}
		for _, r := range different {
			get(t, s, Want{Request: r, MaxAge: time.Hour})
		}
		expect(t, "requests", o.asked(), len(different))
		for _, r := range different {
			get(t, s, Want{Request: r, MaxAge: time.Hour})
		}
		expect(t, "requests, asked again", o.asked(), len(different))
	})
}

func TestHowOldAnAnswerMayBe(t *testing.T) {
	for name, tc := range map[string]struct {
		first, then func(now time.Time) Want
		fails       bool
		back        time.Duration
		want        int // requests
	}{
		"nothing said: it must be new":             {want: 2},
		"young enough":                             {then: func(time.Time) Want { return Want{MaxAge: 10 * time.Second} }, want: 1},
		"too old":                                  {then: func(time.Time) Want { return Want{MaxAge: 9 * time.Second} }, want: 2},
		"begun when it had to be":                  {then: func(now time.Time) Want { return Want{NotBefore: now.Add(-10 * time.Second)} }, want: 1},
		"begun before":                             {then: func(now time.Time) Want { return Want{NotBefore: now.Add(-9 * time.Second)} }, want: 2},
		"a failure is no success, however young":   {fails: true, then: func(time.Time) Want { return Want{MaxAge: time.Hour} }, want: 2},
		"a failure is an answer":                   {fails: true, then: func(now time.Time) Want { return Want{NotBefore: now.Add(-10 * time.Second)} }, want: 1},
		"THREATS 38: an answer from the future":    {back: time.Hour, then: func(now time.Time) Want { return Want{MaxAge: time.Hour, NotBefore: now.Add(-time.Hour)} }, want: 2},
		"from a cache, where a fresh one is asked": {then: func(time.Time) Want { return Want{Request: Request{NoCache: true}, MaxAge: time.Hour} }, want: 2},
		"a fresh one, where a cache would do": {
			first: func(time.Time) Want { return Want{Request: Request{NoCache: true}} },
			then:  func(time.Time) Want { return Want{MaxAge: time.Hour} }, want: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
				if tc.fails {
					o.serve(broken)
				}
				var first, then Want
				if tc.first != nil {
					first = tc.first(time.Now())
				}
				begun := time.Now()
				get(t, s, first)
				pass(10 * time.Second)
				s.now = func() time.Time { return time.Now().Add(-tc.back) }
				if tc.then != nil {
					then = tc.then(s.now())
				}
				a := get(t, s, then)
				expect(t, "requests", o.asked(), tc.want)
				expect(t, "failed", a.Err != nil, tc.fails)
				if tc.want == 1 {
					expect(t, "an honest start", a.Started, begun)
				}
			})
		})
	}
}

func TestNotModifiedBringsTheWholeDocument(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, changed *int) {
		get(t, s, Want{})
		o.serve(broken)
		get(t, s, Want{})
		o.serve(always("body"))
		a := get(t, s, Want{})
		expect(t, "validator, after a failure too", o.requests[2].ETag, `"body"`)
		expect(t, "body", string(a.Document.Body), "body")
		expect(t, "lifetime", a.Document.Lifetime, time.Hour)
		expect(t, "an unconditional request has no validator", get(t, s, Want{Request: Request{NoCache: true}}).Err, nil)
		expect(t, "validator", o.requests[3].ETag, "")
		expect(t, "changes", *changed, 0)
	})
}

// RFC 9111 section 4.3.4: what a 304 does not mention stays as it was.
func TestNotModifiedLeavesTheLifetimeThatItDoesNotMention(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		o.serve(func(r Request) (*Document, error) {
			if r.ETag != "" {
				return &Document{NotModified: true, ETag: r.ETag}, nil
			}
			return &Document{Body: []byte("body"), ETag: `"1"`, Lifetime: 2 * time.Minute, HasLifetime: true}, nil
		})
		get(t, s, Want{})
		d := get(t, s, Want{}).Document
		expect(t, "requests", o.asked(), 2)
		expect(t, "is said", d.HasLifetime, true)
		expect(t, "lifetime", d.Lifetime, 2*time.Minute)
	})
}

// A request that fails leaves the newest document, not the one that was newest when
// the request began.
func TestAFailureBringsNoOlderDocumentBack(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, changed *int) {
		r := Request{URL: "https://issuer.example.com/jwks"}
		get(t, s, Want{})
		o.serve(func(r Request) (*Document, error) {
			if r.NoCache {
				pass(5 * time.Second)
				return broken(r)
			}
			pass(3 * time.Second)
			return always("news")(r)
		})
		go s.Get(t.Context(), Want{Request: r})
		pass(time.Second)
		get(t, s, Want{Request: Request{NoCache: true}})
		expect(t, "newest", s.Newest(r.Identity()), sha256.Sum256([]byte("news")))
		get(t, s, Want{})
		expect(t, "changes", *changed, 1)
	})
}

func TestAChangeIsTold(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, changed *int) {
		r := Request{URL: "https://issuer.example.com/jwks"}
		get(t, s, Want{})
		first := s.Newest(r.Identity())
		o.serve(broken)
		get(t, s, Want{})
		expect(t, "a failure is no change", s.Newest(r.Identity()), first)
		o.serve(always("news"))
		get(t, s, Want{})
		expect(t, "changes", *changed, 1)
		expect(t, "digest changed", s.Newest(r.Identity()) != first, true)
		expect(t, "unknown source", s.Newest(Identity{}), [32]byte{})
	})
}

func TestAHostThatHangsHoldsNobodyElse(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		o.serve(func(r Request) (*Document, error) {
			if strings.Contains(r.URL, "hung") {
				pass(10 * time.Second)
				return nil, fail(Timeout, "hung")
			}
			return always("body")(r)
		})
		for n := range 1000 {
			go s.Get(t.Context(), Want{Request: Request{URL: fmt.Sprintf("https://hung.example.com/%d", n)}})
		}
		synctest.Wait()
		expect(t, "requests to the host that hangs", o.asked(), perHost)
		begun := time.Now()
		expect(t, "another host", get(t, s, Want{}).Err, nil)
		expect(t, "waited", time.Since(begun), 0)
		s.Close()
		pass(11 * time.Second)
		synctest.Wait()
		expect(t, "hosts remembered", len(s.hosts), 0)
		expect(t, "requests under way", len(s.flights), 0)
	})
}

// TestNoPortIsAWayAroundTheLimitsOfAHost: requests and look-ups were counted by host and
// port. Nor is a spelling: wide letters were another host.
func TestNoPortIsAWayAroundTheLimitsOfAHost(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		o.serve(func(Request) (*Document, error) {
			pass(10 * time.Second)
			return nil, fail(Timeout, "hung")
		})
		names := []string{"hung.example.com", "HUNG.example.com.", "ｈung.example。com", "[2001:db8::1]", "[2001:DB8:0::1]"}
		allowed := 0
		for n := range 1000 {
			place := fmt.Sprintf("https://%s:%d/", names[n%3], 1000+n)
			if s.MayLookUp(place) {
				allowed++
			}
			go s.Get(t.Context(), Want{Request: Request{URL: place}})
		}
		synctest.Wait()
		expect(t, "requests to one name", o.asked(), perHost)
		expect(t, "look-ups at one name", allowed, lookUpBurstPerHost)
		for n := range 1000 {
			go s.Get(t.Context(), Want{Request: Request{URL: fmt.Sprintf("https://%s:%d/", names[3+n%2], 1000+n)}})
		}
		synctest.Wait()
		expect(t, "requests to one address besides", o.asked(), 2*perHost)
		s.Close()
		pass(11 * time.Second)
		synctest.Wait()
	})
}

// TestAPanicInARequestThatIsSharedEndsNothingElse: it ended the manager.
func TestAPanicInARequestThatIsSharedEndsNothingElse(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		var told string
		s.panicked = func(stack string) { told = stack }
		get(t, s, Want{})
		o.serve(func(Request) (*Document, error) { panic("part of a secret document") })
		var fe *Error
		a := get(t, s, Want{})
		if !errors.As(a.Err, &fe) || fe.Reason != InvalidResponse || strings.Contains(a.Err.Error()+told, "secret") || told == "" {
			t.Fatalf("got %v, and in the log: %s", a.Err, told)
		}
		expect(t, "slots in use", len(s.slots)+len(s.hosts), 0)
		o.serve(always("news"))
		expect(t, "the next one", string(get(t, s, Want{}).Document.Body), "news")
	})
}

func TestWhoGivesUpSpoilsNothing(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		o.serve(func(r Request) (*Document, error) {
			pass(5 * time.Second)
			return always("body")(r)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			pass(500 * time.Millisecond)
			if a := s.Get(t.Context(), Want{Request: Request{URL: "https://issuer.example.com/jwks"}}); a.Err != nil {
				t.Errorf("who waited got %v", a.Err)
			}
		}()
		var fe *Error
		if a := s.Get(ctx, Want{Request: Request{URL: "https://issuer.example.com/jwks"}}); !errors.As(a.Err, &fe) || fe.Reason != Timeout {
			t.Errorf("who gave up got %v", a.Err)
		}
		pass(10 * time.Second)
		expect(t, "requests", o.asked(), 1)
	})
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, o *origin, _ *int) {
		o.serve(always(strings.Repeat("x", maxKept)))
		const more = 100
		for n := range maxKeptInAll/maxKept + more {
			get(t, s, Want{Request: Request{URL: fmt.Sprintf("https://issuer.example.com/%d", n)}})
		}
		if s.size > maxKeptInAll || len(s.kept) < maxKeptInAll/(maxKept+entrySize)-1 || len(s.kept) != s.order.Len() {
			t.Errorf("%d documents with %d bytes are kept", len(s.kept), s.size)
		}
		o.serve(func(r Request) (*Document, error) {
			return &Document{Body: []byte("x"), FinalURL: r.URL + "?" + strings.Repeat("x", 60<<10)}, nil
		})
		for n := range 2 * maxKeptInAll / (60 << 10) {
			get(t, s, Want{Request: Request{URL: fmt.Sprintf("https://redirects.example.com/%d", n)}})
		}
		if most := maxKeptInAll / (60 << 10); len(s.kept) > most {
			t.Errorf("%d answers with long URLs are kept, over %d", len(s.kept), most)
		}
		o.serve(always(strings.Repeat("x", maxKept+1)))
		last := Request{URL: "https://issuer.example.com/large"}
		expect(t, "a large one is given", len(get(t, s, Want{Request: last}).Document.Body), maxKept+1)
		expect(t, "and not kept", s.Newest(last.Identity()), [32]byte{})
	})
}

func TestLookUpsAreBoundedByHostAndInAll(t *testing.T) {
	shared(t, func(t *testing.T, s *Shared, _ *origin, _ *int) {
		allowed := func(hosts, each int) (n int) {
			for h := range hosts {
				for k := range each {
					if s.MayLookUp(fmt.Sprintf("https://h%d.example.com/%d", h, k)) {
						n++
					}
				}
			}
			return n
		}
		expect(t, "one host", allowed(1, 1000), lookUpBurstPerHost)
		pass(time.Minute)
		expect(t, "one host, a minute later", allowed(1, 1000), lookUpBurstPerHost)
		pass(time.Minute)
		expect(t, "all hosts", allowed(2*maxHosts, 1), lookUpBurst)
		if len(s.budgets) > maxHosts {
			t.Errorf("%d hosts are remembered", len(s.budgets))
		}
	})
}
