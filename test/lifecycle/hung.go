// hung.go measures what hosts that never answer do to the issuers that do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// hungEvery is which part of the issuers is at a hung host.
const hungEvery = 10

// attemptSpacing is how soon after a fetch an annotation may cause another one, with a
// margin for times in status, which have whole seconds.
const attemptSpacing = 7 * time.Second

// hungHost accepts connections, reads what comes, and never answers.
type hungHost struct {
	listener net.Listener
	accepted atomic.Int64
	open     sync.WaitGroup
}

func startHungHost(address string) (*hungHost, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	h := &hungHost{listener: l}
	h.open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			h.accepted.Add(1)
			h.open.Go(func() {
				_, _ = io.Copy(io.Discard, c) // until the other side gives up
				_ = c.Close()
			})
		}
	})
	return h, nil
}

// close waits for those who are connected, so it comes after the managers' end.
func (h *hungHost) close() {
	_ = h.listener.Close()
	h.open.Wait()
}

// crowd is many issuers.
type crowd struct {
	servers []*testissuer.Issuer
	old     []*testissuer.Key // of each server
	hosts   []*hungHost

	healthy, hung []*api.TrustedIssuer
}

func newCrowd(o *options) (c *crowd, err error) {
	c = &crowd{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	for range o.servers {
		i, err := testissuer.Start()
		if err != nil {
			return c, err
		}
		key := testissuer.NewKey("old", "ES256")
		i.Publish(key)
		c.servers, c.old = append(c.servers, i), append(c.old, key)
	}
	for n := range o.hungHosts {
		h, err := startHungHost(fmt.Sprintf("127.0.0.%d:0", n+2))
		if err != nil {
			return c, err
		}
		c.hosts = append(c.hosts, h)
	}
	for n := range o.issuers {
		if n%hungEvery == 0 {
			c.hung = append(c.hung, c.hungIssuer(n, o.ownURLs))
		} else {
			c.healthy = append(c.healthy, c.healthyIssuer(n, o.ownURLs))
		}
	}
	return c, nil
}

// healthyIssuer is at one of the servers, in turn.
func (c *crowd) healthyIssuer(n int, ownURL bool) *api.TrustedIssuer {
	i := trusted(fmt.Sprintf("issuer-%05d", n), c.servers[len(c.healthy)%len(c.servers)])
	return withOwnURL(i, ownURL)
}

// hungIssuer is at one of the hung hosts, in turn. No certificate is ever seen.
func (c *crowd) hungIssuer(n int, ownURL bool) *api.TrustedIssuer {
	i := trusted(fmt.Sprintf("issuer-%05d", n), c.servers[0])
	i.Spec.Issuer = "https://" + c.hosts[len(c.hung)%len(c.hosts)].listener.Addr().String()
	i.Spec.JWKSURI = i.Spec.Issuer + "/jwks.json"
	return withOwnURL(i, ownURL)
}

func withOwnURL(i *api.TrustedIssuer, own bool) *api.TrustedIssuer {
	if own {
		i.Spec.JWKSURI += "?of=" + i.Name
	}
	return i
}

func (c *crowd) close() {
	for _, i := range c.servers {
		i.Close()
	}
	for _, h := range c.hosts {
		h.close()
	}
}

// connections is how often the hung hosts were called.
func (c *crowd) connections() (n int64) {
	for _, h := range c.hosts {
		n += h.accepted.Load()
	}
	return n
}

func (c *crowd) requests() (n int) {
	for _, i := range c.servers {
		n += i.Requests()
	}
	return n
}

// crowdResult is what one run showed.
type crowdResult struct {
	created, ready time.Duration
	each           []time.Duration // each healthy issuer's way to Ready
	refreshed      []time.Duration
	requests       int
	connections    int64
}

func measureHungHosts(ctx context.Context, o *options, r *harness.Report) error {
	without, err := measureCrowd(ctx, o, false)
	if err != nil {
		return err
	}
	with, err := measureCrowd(ctx, o, true)
	if err != nil {
		return err
	}
	reportHungHosts(r, o, without, with)
	return nil
}

func measureCrowd(ctx context.Context, o *options, hung bool) (out crowdResult, err error) {
	c, err := newCrowd(o)
	if err != nil {
		return out, err
	}
	defer c.close() // after the managers, who are its clients
	err = inWorld(ctx, o.manager, func(w *world) error {
		objects := slices.Clone(c.healthy)
		if hung {
			objects = append(objects, c.hung...)
			// By their names, so that the hung ones come between the others.
			slices.SortFunc(objects, func(a, b *api.TrustedIssuer) int { return strings.Compare(a.Name, b.Name) })
		}
		if err := c.settle(ctx, w, objects, o.settleLimit, &out); err != nil {
			return err
		}
		if err := sleep(ctx, attemptSpacing, "no annotation brings two fetches closer together than 5 s"); err != nil {
			return err
		}
		err := c.refresh(ctx, w, o.refreshes, &out)
		out.connections = c.connections()
		return err
	})
	return out, err
}

// settle creates the objects and waits until the healthy ones are Ready.
func (c *crowd) settle(ctx context.Context, w *world, objects []*api.TrustedIssuer, limit time.Duration, out *crowdResult) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := w.WatchReady(watching, names(c.healthy))
	if err != nil {
		return err
	}
	// Only then has a leader been elected, and has everything been started.
	if err := w.createReady(ctx, []*api.TrustedIssuer{trusted("warm-up", c.servers[0])}); err != nil {
		return err
	}
	before := c.requests()
	harness.Say("Creating %d issuers, %d of them at hung hosts ...", len(objects), len(objects)-len(c.healthy))
	start := time.Now()
	if err := w.Create(ctx, objects); err != nil {
		return err
	}
	out.created = time.Since(start)
	harness.Say("They were created in %s.", harness.Round(out.created))
	if err := r.Wait(ctx, limit); err != nil {
		return err
	}
	out.each = r.Since(start)
	out.ready, out.requests = slices.Max(out.each), c.requests()-before
	harness.Say("All %d healthy ones are Ready after %s.", len(c.healthy), harness.Round(out.ready))
	return nil
}

// refresh rotates some healthy issuers, one after the other, and asks for their keys by
// the annotation. Each has a server whose key was not yet rotated, as long as there are.
func (c *crowd) refresh(ctx context.Context, w *world, n int, out *crowdResult) error {
	for k := range min(n, len(c.healthy)) {
		server := k % len(c.servers)
		key := testissuer.NewKey(fmt.Sprintf("new-%d", k), "ES256")
		c.servers[server].Publish(c.old[server], key)
		took, err := w.refreshOne(ctx, c.healthy[k], key.ID)
		if err != nil {
			return err
		}
		harness.Say("A rotated issuer, refreshed by annotation, showed the new key after %s.", harness.Round(took))
		out.refreshed = append(out.refreshed, took)
	}
	return nil
}

// refreshOne annotates the object and waits until its status shows the key.
func (w *world) refreshOne(ctx context.Context, o *api.TrustedIssuer, kid string) (time.Duration, error) {
	watching, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	stream, err := w.Client.Watch(watching, &api.TrustedIssuerList{}, client.InNamespace(namespace), client.MatchingFields{"metadata.name": o.Name})
	if err != nil {
		return 0, err
	}
	defer stream.Stop()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, api.AnnotationRefresh, kid))
	start := time.Now()
	if err := w.Client.Patch(ctx, o.DeepCopy(), patch); err != nil {
		return 0, err
	}
	for event := range stream.ResultChan() {
		if o, ok := event.Object.(*api.TrustedIssuer); ok && slices.ContainsFunc(o.Status.Keys, func(k api.KeyStatus) bool { return k.KeyID == kid }) {
			return time.Since(start), nil
		}
	}
	return 0, errors.Join(ctx.Err(), fmt.Errorf("the status of %s did not show the key %s within 5 minutes", o.Name, kid))
}

func reportHungHosts(r *harness.Report, o *options, without, with crowdResult) {
	healthy := len(without.each)
	name := fmt.Sprintf("hung: %d healthy issuers", healthy)
	r.Figure(name+" all Ready, without hung ones", "%s (median of each %s, creating took %s, %d fetches)",
		harness.Round(without.ready), harness.Round(harness.Median(without.each)), harness.Round(without.created), without.requests)
	r.Figure(fmt.Sprintf("%s all Ready, beside %d hung ones", name, o.issuers-healthy), "%s (median of each %s, creating took %s, %d fetches)",
		harness.Round(with.ready), harness.Round(harness.Median(with.each)), harness.Round(with.created), with.requests)
	r.Figure("hung: ratio of the two", "%.2f", with.ready.Seconds()/without.ready.Seconds())
	r.Times("hung: annotation -> new key in status, without hung ones", without.refreshed)
	r.Times("hung: annotation -> new key in status, beside hung ones", with.refreshed)
	r.Figure("hung: connections to hung hosts", "%d", with.connections)
}
