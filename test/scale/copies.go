// copies.go measures one ClusterTrustedIssuer in many namespaces.
package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	// copyWorkers is how many copies the controller writes at a time
	// (internal/controller).
	copyWorkers = 32
	// issuerName is the ClusterTrustedIssuer, and selected the label of its namespaces.
	issuerName, selected = "spread", "scale"
	// betweenFetches is how soon after a fetch an annotation may cause another one,
	// with a margin for times in status, which have whole seconds.
	betweenFetches = 7 * time.Second
)

// What marks the controller's copies, and those of the bare client.
var (
	ourCopies  = client.MatchingLabels{api.LabelIssuerKind: api.ClusterTrustedIssuerKind}
	bareCopies = client.MatchingLabels{"scale": "bare"}
)

// spreading measures copies in namespaces.
type spreading struct {
	*harness.Cluster

	o          *options
	fleet      *fleet
	controller *process
	namespaces []string
}

// turn is one rotation, or one turn of the bare client: the time until each namespace
// had the new content.
type turn struct {
	each   []time.Duration
	writes writes
}

func (t *turn) all() time.Duration { return slices.Max(t.each) }

func measureCopies(ctx context.Context, o *options, r *harness.Report) error {
	f, err := newFleet(1, always(24*time.Hour))
	if err != nil {
		return err
	}
	defer f.close()
	f.addKeys(0, o.extraKeys)
	harness.Say("Starting etcd, kube-apiserver and a controller ...")
	return harness.InCluster(ctx, func(c *harness.Cluster) error {
		s := &spreading{Cluster: c, o: o, fleet: f}
		return s.measure(ctx, r)
	}, namespace)
}

// spread is what came of it.
type spread struct {
	first                 *turn
	ours, bare            []*turn
	rest                  *resting
	empty, copied, rested usage
	cpu                   time.Duration // at rest
}

func (s *spreading) measure(ctx context.Context, r *harness.Report) (err error) {
	harness.Say("Making %d namespaces ...", s.o.namespaces)
	if err := s.makeNamespaces(ctx); err != nil {
		return err
	}
	if s.controller, err = start(ctx, s.Cluster, s.o, harness.Controller, harness.Controller, "--leader-elect"); err != nil {
		return err
	}
	// Only then has a leader been elected, and has everything been started.
	if err := createReady(ctx, s.Cluster, s.fleet.objects(2)[1:], time.Minute); err != nil {
		return err
	}
	var out spread
	if out.empty, err = s.controller.used(ctx); err != nil {
		return err
	}
	if out.first, err = s.first(ctx); err != nil {
		return err
	}
	if out.copied, err = s.controller.used(ctx); err != nil {
		return err
	}
	if err := s.alternate(ctx, &out); err != nil {
		return err
	}
	before, err := s.controller.used(ctx)
	if err != nil {
		return err
	}
	if out.rest, err = look(ctx, s.Cluster, s.o.rest, s.fleet); err != nil {
		return err
	}
	if out.rested, err = s.controller.used(ctx); err != nil {
		return err
	}
	out.cpu = out.rested.cpu - before.cpu
	s.report(r, &out)
	return s.controller.profile(ctx, s.o.profiles, fmt.Sprintf("copies-%d.pprof", s.o.namespaces))
}

func (s *spreading) makeNamespaces(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copyWorkers)
	for n := range s.o.namespaces {
		name := fmt.Sprintf("app-%05d", n)
		s.namespaces = append(s.namespaces, name)
		group.Go(func() error {
			return s.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{selected: "yes"}}})
		})
	}
	return group.Wait()
}

// first creates the issuer, and measures until all namespaces have a copy.
func (s *spreading) first(ctx context.Context) (*turn, error) {
	o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: issuerName}}
	o.Spec.IssuerSpec = s.fleet.spec(0)
	o.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{selected: "yes"}}
	return s.turn(ctx, ourCopies, func(ctx context.Context) (string, error) {
		return s.trusted(ctx, "", func() error { return s.Client.Create(ctx, o) })
	})
}

// alternate lets the controller and the bare client take turns.
func (s *spreading) alternate(ctx context.Context, out *spread) error {
	if err := s.apply(ctx, nil); err != nil { // so that each turn is an update
		return err
	}
	for range s.o.rotations {
		ours, err := s.rotate(ctx)
		if err != nil {
			return err
		}
		bare, err := s.applyInTurn(ctx)
		if err != nil {
			return err
		}
		harness.Say("All %d namespaces had a new key after %s; a bare client took %s.", len(s.namespaces), harness.Round(ours.all()), harness.Round(bare.all()))
		out.ours, out.bare = append(out.ours, ours), append(out.bare, bare)
	}
	return nil
}

// rotate has the issuer publish one more key, and measures from when it is trusted.
func (s *spreading) rotate(ctx context.Context) (*turn, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(betweenFetches):
	}
	before, err := s.issuer(ctx)
	if err != nil {
		return nil, err
	}
	s.fleet.addKeys(0, 1)
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, api.AnnotationRefresh, time.Now().Format(time.RFC3339Nano)))
	out, err := s.turn(ctx, ourCopies, func(ctx context.Context) (string, error) {
		return s.trusted(ctx, before.Status.Snapshot.Digest, func() error { return s.Client.Patch(ctx, before.DeepCopy(), patch) })
	})
	if err != nil {
		return nil, err
	}
	out.writes["clustertrustedissuers PATCH"]-- // our own
	return out, nil
}

// applyInTurn measures the bare client, with the content of the authoritative
// ConfigMap.
func (s *spreading) applyInTurn(ctx context.Context) (*turn, error) {
	o, err := s.issuer(ctx)
	if err != nil {
		return nil, err
	}
	content := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(o.UID)}
	if err := s.Client.Get(ctx, key, content); err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	out, err := s.turn(ctx, bareCopies, func(ctx context.Context) (string, error) {
		go func() { failed <- s.apply(ctx, content.Data) }()
		return snapshot.Digest(content.Data), nil
	})
	if err != nil {
		return nil, err
	}
	return out, <-failed
}

// apply applies a ConfigMap in each namespace, with as many workers as the controller.
func (s *spreading) apply(ctx context.Context, data map[string]string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copyWorkers)
	for _, ns := range s.namespaces {
		group.Go(func() error {
			ac := corev1ac.ConfigMap("bare", ns).WithLabels(bareCopies).
				WithAnnotations(map[string]string{api.AnnotationDigest: snapshot.Digest(data)}).WithData(data)
			return s.Client.Apply(ctx, ac, client.FieldOwner("bare"), client.ForceOwnership)
		})
	}
	return group.Wait()
}

func (s *spreading) issuer(ctx context.Context) (*api.ClusterTrustedIssuer, error) {
	o := &api.ClusterTrustedIssuer{}
	return o, s.Client.Get(ctx, client.ObjectKey{Name: issuerName}, o)
}

// trusted does something, and waits until other keys than those of the digest are
// trusted.
func (s *spreading) trusted(ctx context.Context, before string, do func() error) (digest string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan string, 1)
	err = s.Follow(ctx, &api.ClusterTrustedIssuer{}, nil, func(o client.Object) {
		cti, ok := o.(*api.ClusterTrustedIssuer)
		if ok && cti.Status.Snapshot != nil && cti.Status.Snapshot.Digest != "" && cti.Status.Snapshot.Digest != before {
			select {
			case found <- cti.Status.Snapshot.Digest:
			default: // it was told already
			}
		}
	})
	if err != nil {
		return "", err
	}
	if err := do(); err != nil {
		return "", err
	}
	select {
	case digest = <-found:
		return digest, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// turn measures until all ConfigMaps of a label hold what begin has begun to spread:
// from when it returned, with the digest.
func (s *spreading) turn(ctx context.Context, labels client.MatchingLabels, begin func(context.Context) (string, error)) (*turn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.limit)
	defer cancel()
	seen := &sightings{at: map[string]map[string]time.Time{}}
	metadata := &metav1.PartialObjectMetadata{}
	metadata.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := s.Follow(ctx, metadata, labels, func(o client.Object) {
		if o.GetNamespace() != harness.OperatorNamespace {
			seen.note(o.GetAnnotations()[api.AnnotationDigest], o.GetNamespace())
		}
	}); err != nil {
		return nil, err
	}
	before, err := countWrites(ctx, s.Cluster)
	if err != nil {
		return nil, err
	}
	digest, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	err = harness.Within(ctx, s.o.limit, 10*time.Millisecond, "the copies", func() (bool, error) { return seen.count(digest) == len(s.namespaces), nil })
	if err != nil {
		return nil, fmt.Errorf("%d of %d namespaces have their copy: %w", seen.count(digest), len(s.namespaces), err)
	}
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	after, err := countWrites(ctx, s.Cluster)
	return &turn{each: seen.since(digest, began), writes: after.since(before)}, err
}

// settled waits until status says that all have their copies, and all is quiet.
func (s *spreading) settled(ctx context.Context) error {
	err := harness.Within(ctx, s.o.limit, 100*time.Millisecond, "status to say that all have their copies", func() (bool, error) {
		o, err := s.issuer(ctx)
		d := o.Status.Distribution
		return meta.IsStatusConditionTrue(o.Status.Conditions, api.ConditionDistributed) && d != nil && o.Status.Snapshot.Digest == d.Digest, err
	})
	if err != nil {
		return err
	}
	return quiet(ctx, s.Cluster, s.o.limit)
}

// sightings are when each namespace was first seen to have a digest.
type sightings struct {
	mu sync.Mutex
	at map[string]map[string]time.Time
}

func (s *sightings) note(digest, namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[digest] == nil {
		s.at[digest] = map[string]time.Time{}
	}
	if _, seen := s.at[digest][namespace]; !seen {
		s.at[digest][namespace] = time.Now()
	}
}

func (s *sightings) count(digest string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at[digest])
}

func (s *sightings) since(digest string, start time.Time) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []time.Duration
	for _, at := range s.at[digest] {
		out = append(out, at.Sub(start))
	}
	return out
}

func (s *spreading) report(r *harness.Report, out *spread) {
	n := len(s.namespaces)
	name := func(what string) string { return fmt.Sprintf("%d copies: %s", n, what) }
	r.Figure(name("first distribution"), "%s (%s)", harness.Round(out.first.all()), out.first.writes)
	ours, bare := medianTurn(out.ours), medianTurn(out.bare)
	ratio := ours.all().Seconds() / bare.all().Seconds()
	r.Goal(name("one rotation into all, against the same applies by a bare client"), ratio <= 1.2, "<= 1.2",
		"%.2f (medians of %d turns: %s and %s)", ratio, len(out.ours), harness.Round(ours.all()), harness.Round(bare.all()))
	r.Figure(name("from trusted to there, p50 and p99"), "%s and %s (bare client: %s and %s)",
		harness.Round(harness.Percentile(ours.each, 50)), harness.Round(harness.Percentile(ours.each, 99)),
		harness.Round(harness.Percentile(bare.each, 50)), harness.Round(harness.Percentile(bare.each, 99)))
	w := ours.writes
	r.Target(name("writes to ConfigMaps for a rotation"), w.of("configmaps") == n+1, fmt.Sprint(n+1), "%d", w.of("configmaps"))
	r.Figure(name("all writes for a rotation"), "%s", w)
	r.Target(name("writes at rest, leases aside"), out.rest.writes.of("configmaps", "events", "trustedissuers", "clustertrustedissuers") == 0, "0", "%s in %s", out.rest.writes, harness.Round(out.rest.took))
	each := float64(out.copied.rss-out.empty.rss) / float64(n) / 1024
	rested := float64(out.rested.rss-out.empty.rss) / float64(n) / 1024
	heap := float64(out.rested.heap-out.empty.heap) / float64(n) / 1024
	r.Goal(name("controller, memory for each at rest, with its namespace"), rested <= 10, "<= 10 KiB",
		"%.1f KiB (right after the first distribution %.1f KiB; heap %.1f KiB)", rested, each, heap)
	r.Figure(name("controller, CPU at rest"), "%.2f %% of one", 100*out.cpu.Seconds()/out.rest.took.Seconds())
}

// medianTurn is the one in the middle, by its end.
func medianTurn(all []*turn) *turn {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b *turn) int { return cmp.Compare(a.all(), b.all()) })
	return sorted[(len(sorted)-1)/2]
}
