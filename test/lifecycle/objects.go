// objects.go makes TrustedIssuers, and asks forward-auth.
package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// spacing is how often an issuer is asked because of an unknown key, with a margin
// for times in status, which have whole seconds.
const spacing = 30*time.Second + 1500*time.Millisecond

// trusted is a TrustedIssuer for a scripted issuer.
func trusted(name string, i *testissuer.Issuer) *api.TrustedIssuer {
	return &api.TrustedIssuer{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.TrustedIssuerSpec{IssuerSpec: api.IssuerSpec{
			Issuer: i.URL(), Audiences: []string{audience}, JWKSURI: i.JWKSURI(), CABundle: i.CABundle(),
			CacheTTL: &metav1.Duration{Duration: neverScheduled},
		}},
	}
}

// createReady makes the objects and waits until they are Ready.
func (w *world) createReady(ctx context.Context, objects []*api.TrustedIssuer) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := w.WatchReady(watching, names(objects))
	if err != nil {
		return err
	}
	if err := w.Create(ctx, objects); err != nil {
		return err
	}
	return r.Wait(ctx, time.Minute)
}

// read is the object as it is now.
func (w *world) read(ctx context.Context, name string) (*api.TrustedIssuer, error) {
	o := &api.TrustedIssuer{}
	return o, w.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o)
}

func names(objects []*api.TrustedIssuer) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.Name)
	}
	return out
}

// sleep waits and says what for.
func sleep(ctx context.Context, d time.Duration, why string) error {
	if d > time.Second {
		harness.Say("Waiting %s: %s ...", d.Round(time.Second), why)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// fetches notes when an issuer is asked for its keys, to about 5 ms.
type fetches struct {
	issuer *testissuer.Issuer
	stop   context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	count int
	at    []time.Time
}

// noteFetches begins to note.
func noteFetches(ctx context.Context, i *testissuer.Issuer) *fetches {
	ctx, stop := context.WithCancel(ctx)
	f := &fetches{issuer: i, stop: stop, ended: make(chan struct{}), count: i.Requests()}
	go func() {
		defer close(f.ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				f.look()
			}
		}
	}()
	return f
}

func (f *fetches) close() {
	f.stop()
	<-f.ended
}

func (f *fetches) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := f.issuer.Requests(); f.count < n; f.count++ {
		f.at = append(f.at, time.Now())
	}
}

// since is when the issuer was asked after a time.
func (f *fetches) since(start time.Time) []time.Time {
	f.look()
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, at := range f.at {
		if !at.Before(start) {
			return append([]time.Time{}, f.at[n:]...)
		}
	}
	return nil
}

// quiet waits until the issuer has not been asked for so long that the next unknown
// key would make the manager ask at once. What was requested before is over then.
func (f *fetches) quiet(ctx context.Context) error {
	started := time.Now()
	return harness.Within(ctx, 4*spacing, 100*time.Millisecond, "30 s without a fetch", func() (bool, error) {
		last := started
		if all := f.since(started); len(all) > 0 {
			last = all[len(all)-1]
		}
		return time.Since(last) >= spacing, nil
	})
}

// verifiers asks forward-auth over connections that stay open.
type verifiers struct{ client *http.Client }

func newVerifiers(connections int) verifiers {
	return verifiers{&http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: connections, IdleConnTimeout: 90 * time.Second},
	}}
}

func (v verifiers) close() { v.client.CloseIdleConnections() }

// ask gives the status of the answer, and its reason where it is not 200.
func (v verifiers) ask(ctx context.Context, m *replica, name, token string) (status int, reason string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.address+"/forward-auth/ns/"+namespace+"/"+name, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Jwks-Trust-Reason"), errors.Join(err, resp.Body.Close())
}

// good is a token that is valid for an hour.
func good(i *testissuer.Issuer, key *testissuer.Key) string {
	return key.Sign(testissuer.Claims(i.URL(), "alice", audience, time.Now(), time.Hour))
}
