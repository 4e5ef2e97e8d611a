// issuers.go measures many TrustedIssuers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// issuerWorkers is how many issuers the controller works on at a time
// (internal/controller).
const issuerWorkers = 16

// crowd is what came of one number of issuers.
type crowd struct {
	many        int
	each        []time.Duration // from the first object's creation
	ready       time.Duration
	bare, steps time.Duration // a bare client, each object once and in as many writes
	working     writes        // until all were Ready
	rest        resting
	processes   map[string]*lifetime
}

// resting is a time in which nothing changes.
type resting struct {
	took     time.Duration
	writes   writes
	requests int // to the issuers
}

// lifetime is what a process has used: empty, when all were Ready, and at rest before
// and after.
type lifetime struct{ empty, ready, rested usage }

func measureIssuers(ctx context.Context, o *options, r *harness.Report) error {
	numbers, err := o.numbers()
	if err != nil {
		return err
	}
	var all []*crowd
	for _, many := range numbers {
		c, err := measureCrowd(ctx, o, many)
		if err != nil {
			return err
		}
		reportCrowd(r, o, c)
		all = append(all, c)
	}
	reportGrowth(r, all)
	return nil
}

func measureCrowd(ctx context.Context, o *options, many int) (*crowd, error) {
	f, err := newFleet(o.servers, always(o.cacheTTL))
	if err != nil {
		return nil, err
	}
	defer f.close()
	out := &crowd{many: many, processes: map[string]*lifetime{}}
	var written *objects
	harness.Say("%d issuers: starting etcd, kube-apiserver, a controller and a verifier ...", many)
	err = harness.InCluster(ctx, func(c *harness.Cluster) error {
		processes, err := startBoth(ctx, c, o)
		if err != nil {
			return err
		}
		if err := out.settle(ctx, c, o, f, processes); err != nil {
			return err
		}
		if err := out.look(ctx, c, o, f, processes); err != nil {
			return err
		}
		written, err = readObjects(ctx, c)
		return err
	}, namespace)
	if err != nil {
		return nil, err
	}
	for _, bare := range []struct {
		what  string
		write func(context.Context, *harness.Cluster, *api.TrustedIssuer) error
		took  *time.Duration
	}{
		{"each once", once, &out.bare},
		{"in as many writes", inSteps, &out.steps},
	} {
		harness.Say("Writing the same objects with a bare client, %s, into an empty cluster ...", bare.what)
		if err := harness.InCluster(ctx, func(c *harness.Cluster) error {
			started := time.Now()
			err := written.write(ctx, c, bare.write)
			*bare.took = time.Since(started)
			return err
		}, namespace); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// startBoth starts a controller and a verifier.
func startBoth(ctx context.Context, c *harness.Cluster, o *options) ([]*process, error) {
	controller, err := start(ctx, c, o, harness.Controller, harness.Controller, "--leader-elect")
	if err != nil {
		return nil, err
	}
	verifier, err := start(ctx, c, o, harness.Verifier, harness.Verifier, "--verifier-http-bind-address", "127.0.0.1:0")
	return []*process{controller, verifier}, err
}

// settle creates the issuers and waits until all are Ready.
func (out *crowd) settle(ctx context.Context, c *harness.Cluster, o *options, f *fleet, processes []*process) error {
	all := f.objects(out.many + 1)
	first, all := all[out.many:], all[:out.many]
	if err := createReady(ctx, c, first, time.Minute); err != nil {
		return err // no leader was elected, or not everything was started
	}
	for _, p := range processes {
		u, err := p.used(ctx)
		if err != nil {
			return err
		}
		out.processes[p.Name] = &lifetime{empty: u}
	}
	before, err := countWrites(ctx, c)
	if err != nil {
		return err
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	ready, err := c.WatchReady(watching, names(all))
	if err != nil {
		return err
	}
	started := time.Now()
	if err := c.Create(ctx, all); err != nil {
		return err
	}
	harness.Say("They were created in %s.", harness.Round(time.Since(started)))
	if err := ready.Wait(ctx, o.limit); err != nil {
		return err
	}
	out.each = ready.Since(started)
	out.ready = slices.Max(out.each)
	harness.Say("All are Ready after %s.", harness.Round(out.ready))
	if err := quiet(ctx, c, o.limit); err != nil {
		return err
	}
	after, err := countWrites(ctx, c)
	if err != nil {
		return err
	}
	out.working = after.since(before)
	delete(out.working, "trustedissuers POST") // our own
	for _, p := range processes {
		if out.processes[p.Name].ready, err = p.used(ctx); err != nil {
			return err
		}
	}
	return nil
}

// createReady creates issuers and waits until they are Ready.
func createReady(ctx context.Context, c *harness.Cluster, all []*api.TrustedIssuer, limit time.Duration) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	ready, err := c.WatchReady(watching, names(all))
	if err != nil {
		return err
	}
	if err := c.Create(ctx, all); err != nil {
		return err
	}
	return ready.Wait(ctx, limit)
}

// quiet waits until no ConfigMap and no event is written any more, so that what follows
// has nothing to do with what went before.
func quiet(ctx context.Context, c *harness.Cluster, limit time.Duration) error {
	last := -1
	return harness.Within(ctx, limit, 2*time.Second, "the last writes", func() (bool, error) {
		w, err := countWrites(ctx, c)
		if err != nil {
			return false, err
		}
		now := w.of("configmaps", "events")
		ended := now == last
		last = now
		return ended, nil
	})
}

// look sees what happens at rest.
func (out *crowd) look(ctx context.Context, c *harness.Cluster, o *options, f *fleet, processes []*process) error {
	rest, err := look(ctx, c, o.rest, f)
	if err != nil {
		return err
	}
	out.rest = *rest
	for _, p := range processes {
		if out.processes[p.Name].rested, err = p.used(ctx); err != nil {
			return err
		}
		if err := p.profile(ctx, o.profiles, fmt.Sprintf("%s-%d.pprof", p.Name, out.many)); err != nil {
			return err
		}
	}
	return nil
}

func look(ctx context.Context, c *harness.Cluster, d time.Duration, f *fleet) (*resting, error) {
	before, err := countWrites(ctx, c)
	if err != nil {
		return nil, err
	}
	started, asked := time.Now(), f.allAsked()
	harness.Say("Looking at what happens at rest, for %s ...", d)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d):
	}
	after, err := countWrites(ctx, c)
	return &resting{took: time.Since(started), writes: after.since(before), requests: f.allAsked() - asked}, err
}

// profile writes a heap profile into the folder, if there is one.
func (p *process) profile(ctx context.Context, folder, name string) error {
	if folder == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.profiles+"/debug/pprof/heap?gc=1", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name), body, 0o600)
}

// objects are what was written, by the user and by the controller.
type objects struct {
	issuers    []api.TrustedIssuer
	configMaps []corev1.ConfigMap
	events     []eventsv1.Event
}

func readObjects(ctx context.Context, c *harness.Cluster) (*objects, error) {
	var issuers api.TrustedIssuerList
	var configMaps corev1.ConfigMapList
	var events eventsv1.EventList
	err := errors.Join(
		c.Client.List(ctx, &issuers),
		c.Client.List(ctx, &configMaps, client.MatchingLabels{api.LabelSnapshot: "true"}),
		c.Client.List(ctx, &events, client.InNamespace(namespace)),
	)
	return &objects{issuers.Items, configMaps.Items, events.Items}, err
}

// write writes them with as many workers as the controller has.
func (all *objects) write(ctx context.Context, c *harness.Cluster, write func(context.Context, *harness.Cluster, *api.TrustedIssuer) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(issuerWorkers)
	for i := range all.issuers {
		group.Go(func() error { return write(ctx, c, all.issuers[i].DeepCopy()) })
	}
	for i := range all.configMaps {
		group.Go(func() error { return createAsNew(ctx, c, all.configMaps[i].DeepCopy()) })
	}
	for i := range all.events {
		group.Go(func() error { return createAsNew(ctx, c, all.events[i].DeepCopy()) })
	}
	return group.Wait()
}

// once writes an issuer, and its status, which is a write of its own.
func once(ctx context.Context, c *harness.Cluster, o *api.TrustedIssuer) error {
	status := o.Status
	if err := createAsNew(ctx, c, o); err != nil {
		return err
	}
	o.Status = status
	return c.Client.Status().Update(ctx, o)
}

// inSteps writes an issuer in as many writes as the user and the controller need: the
// finalizer by one of its own, and status in three, by server-side apply.
func inSteps(ctx context.Context, c *harness.Cluster, o *api.TrustedIssuer) error {
	status, finalizers := o.Status, o.Finalizers
	o.Finalizers = nil
	if err := createAsNew(ctx, c, o); err != nil {
		return err
	}
	before := o.DeepCopy()
	o.Finalizers = finalizers
	if err := c.Client.Patch(ctx, o, client.MergeFrom(before)); err != nil {
		return err
	}
	for step := range int64(3) {
		status.ObservedGeneration = step
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
		if err != nil {
			return err
		}
		u := &unstructured.Unstructured{Object: map[string]any{"status": fields}}
		u.SetGroupVersionKind(api.GroupVersion.WithKind(api.TrustedIssuerKind))
		u.SetName(o.Name)
		u.SetNamespace(o.Namespace)
		if err := c.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("bare"), client.ForceOwnership); err != nil {
			return err
		}
	}
	return nil
}

// createAsNew creates an object without what the API server had added to it.
func createAsNew(ctx context.Context, c *harness.Cluster, o client.Object) error {
	o.SetUID("")
	o.SetResourceVersion("")
	o.SetGeneration(0)
	o.SetCreationTimestamp(metav1.Time{})
	o.SetManagedFields(nil)
	return c.Client.Create(ctx, o)
}

func reportCrowd(r *harness.Report, o *options, c *crowd) {
	n := float64(c.many)
	name := func(what string) string { return fmt.Sprintf("%d issuers: %s", c.many, what) }
	for _, bare := range []struct {
		what string
		took time.Duration
	}{{"the same objects", c.bare}, {"as many writes", c.steps}} {
		ratio := c.ready.Seconds() / bare.took.Seconds()
		r.Goal(name("all Ready, against "+bare.what+" by a bare client"), ratio <= 1.5, "<= 1.5",
			"%.2f (%s and %s; median of each %s)", ratio, harness.Round(c.ready), harness.Round(bare.took), harness.Round(harness.Median(c.each)))
	}
	r.Figure(name("writes until Ready, each"), "%.1f (%s)", float64(c.working.of(ours...))/n, c.working)
	r.Figure(name("writes a second meanwhile"), "%.0f (bare client: %.0f, 5 for each; %.0f, 8 for each)",
		float64(c.working.of(ours...)+c.many)/c.ready.Seconds(), 5*n/c.bare.Seconds(), 8*n/c.steps.Seconds())

	w, ttls := c.rest.writes, c.rest.took.Seconds()/o.cacheTTL.Seconds()
	most := int(c.rest.took.Seconds()/(0.72*o.cacheTTL.Seconds())) + 1
	r.Figure(name("at rest"), "%s, cacheTTL %s", harness.Round(c.rest.took), o.cacheTTL)
	r.Target(name("writes to ConfigMaps at rest"), w.of("configmaps") == 0, "0", "%d", w.of("configmaps"))
	r.Target(name("requests to an issuer at rest"), c.rest.requests <= most*(c.many+1), fmt.Sprintf("<= %d", most),
		"%.2f, %.2f per cacheTTL", float64(c.rest.requests)/n, float64(c.rest.requests)/n/ttls)
	r.Target(name("writes of a status for a refresh"), w.status() <= c.rest.requests, "<= 1",
		"%.2f (%.2f per issuer and cacheTTL)", float64(w.status())/max(1, float64(c.rest.requests)), float64(w.status())/n/ttls)
	r.Figure(name("all writes at rest"), "%s", w)
	for _, p := range []string{harness.Controller, harness.Verifier} {
		l := c.processes[p]
		each := func(bytes int) float64 { return float64(bytes) / n / 1024 }
		r.Figure(name(p+", memory for each at rest"), "%.1f KiB (%.0f MiB in all, %.0f MiB of it without issuers; heap %.1f KiB)",
			each(l.rested.rss-l.empty.rss), mib(l.rested.rss), mib(l.empty.rss), each(l.rested.heap-l.empty.heap))
		r.Figure(name(p+", CPU"), "%s for each until Ready, %.1f %% of one at rest", harness.Round((l.ready.cpu-l.empty.cpu)/time.Duration(c.many)),
			100*(l.rested.cpu-l.ready.cpu).Seconds()/c.rest.took.Seconds())
	}
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// reportGrowth compares each number with the one before: what one more issuer costs, by
// what one of the first cost.
func reportGrowth(r *harness.Report, all []*crowd) {
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		name := func(what string) string { return fmt.Sprintf("%d -> %d issuers: %s", a.many, b.many, what) }
		grows := func(what string, before, after float64) {
			ratio := after / float64(b.many) / (before / float64(a.many))
			r.Goal(name(what+" for each, ratio"), ratio <= 1.1, "<= 1.1", "%.2f", ratio)
		}
		grows("time until Ready", a.ready.Seconds(), b.ready.Seconds())
		grows("writes until Ready", float64(a.working.of(ours...)), float64(b.working.of(ours...)))
		for _, p := range []string{harness.Controller, harness.Verifier} {
			x, y := a.processes[p], b.processes[p]
			grows(p+", CPU until Ready", (x.ready.cpu - x.empty.cpu).Seconds(), (y.ready.cpu - y.empty.cpu).Seconds())
			more := float64(y.rested.rss-x.rested.rss) / float64(b.many-a.many) / 1024
			r.Goal(name(p+", memory for each one more"), more <= 30, "<= 30 KiB", "%.1f KiB", more)
		}
	}
}
