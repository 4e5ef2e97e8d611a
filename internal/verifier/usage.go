// usage.go counts which keys sign the tokens that are accepted. Exact numbers are
// metrics; the issuer's status says coarsely when each key was last used, so that
// people and the controller can tell a key that is retired from one that still
// signs.
//
//	accepted token ──> counter of its key ──┬──> metrics, when they are asked for
//	                                        └──> status.keyUsage, once an hour, or at
//	                                             once where the key should not sign

package verifier

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const (
	// usageTick is how often it is looked at whether there is something to report:
	// well within the 30 s for which a key that is missing stays trusted at least.
	usageTick = 10 * time.Second
	// usageStep is how coarse the recorded times are.
	usageStep = time.Hour
	// usageManager owns status.keyUsage in server-side apply. It is not the one
	// that asks for refreshes: what a manager leaves out is taken away.
	usageManager = "jwks-trust-verifier-usage"
)

// keyUse counts the accepted tokens of one key. It lives as long as its key is
// usable.
type keyUse struct {
	accepted atomic.Int64
	// last is when the last one was accepted, in Unix nanoseconds; 0 for never.
	last atomic.Int64
	// early is the iat of a token that was signed before the key was published,
	// in Unix seconds; 0 for none.
	early atomic.Int64
}

// usedKey is a usable key with what status says of it.
type usedKey struct {
	*keyUse

	thumbprint string
	// absent is when the issuer last did not publish the key yet, and missing
	// since when it no longer does.
	absent, missing time.Time
	recorded        api.KeyUsage
}

// unknownOutcome is what became of a token with an unknown key.
type unknownOutcome int

const (
	unknownFound unknownOutcome = iota
	unknownStill
	unknownNotLookedUp
	unknownRemoved
	unknownOutcomes
)

// String is the outcome as the metric label has it.
func (o unknownOutcome) String() string {
	return [unknownOutcomes]string{"found", "still_unknown", "not_looked_up", "removed"}[o]
}

// unknownCounts counts tokens with unknown keys by what became of them. It lives
// as long as the issuer object.
type unknownCounts [unknownOutcomes]atomic.Int64

// countKeys attaches the counters of the usable keys. Those of keys that were
// usable before go on.
func (i *Issuer) countKeys(status *api.IssuerStatus, before *Issuer) {
	if i.unknown = before.unknown; i.unknown == nil {
		i.unknown = &unknownCounts{}
	}
	if i.usable == nil {
		return
	}
	i.uses = make(map[string]*usedKey, i.usable.Len())
	for _, k := range i.usable.Keys() {
		u := &usedKey{keyUse: &keyUse{}, thumbprint: k.Thumbprint()}
		if earlier := before.uses[u.thumbprint]; earlier != nil {
			u.keyUse = earlier.keyUse
		}
		i.uses[u.thumbprint] = u
	}
	for _, k := range status.Keys {
		if u := i.uses[k.Thumbprint]; u != nil {
			u.absent, u.missing = timeOf(k.LastAbsentTime), timeOf(k.MissingSince)
		}
	}
	for _, recorded := range status.KeyUsage {
		if u := i.uses[recorded.Thumbprint]; u != nil {
			u.recorded = recorded
		}
	}
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

// used counts an accepted token.
func (i *Issuer) used(v Verdict, now time.Time) {
	if v.Outcome != Accept {
		return
	}
	u := i.uses[v.accepted.thumbprint]
	if u == nil {
		return
	}
	u.accepted.Add(1)
	u.last.Store(now.UnixNano())
	// The signature vouches for iat: the key was in use before a look that did
	// not find it.
	if iat := v.Claims.IssuedAt; !u.absent.IsZero() && !iat.IsZero() && iat.Add(i.policy.Leeway).Before(u.absent) {
		u.early.CompareAndSwap(0, iat.Unix())
	}
}

// usageReport is what status.keyUsage should say; due says whether it is worth a
// write. It is pure.
func (i *Issuer) usageReport() (report []api.KeyUsage, due bool) {
	for _, u := range i.uses {
		r := u.recorded
		r.Thumbprint = u.thumbprint
		// In whole seconds, as status has the other times.
		if last := time.Unix(0, u.last.Load()).Truncate(time.Second); u.last.Load() != 0 && last.After(r.LastUsedTime.Time) {
			retiredInUse := !u.missing.IsZero() && last.After(u.missing) && !r.LastUsedTime.After(u.missing)
			due = due || last.Sub(r.LastUsedTime.Time) >= usageStep || retiredInUse
			r.LastUsedTime = metav1.NewTime(last)
		}
		if early := u.early.Load(); early != 0 && r.EarlyUseTime == nil {
			r.EarlyUseTime = &metav1.Time{Time: time.Unix(early, 0)}
			due = true
		}
		if !r.LastUsedTime.IsZero() {
			report = append(report, r)
		}
	}
	slices.SortFunc(report, func(a, b api.KeyUsage) int { return strings.Compare(a.Thumbprint, b.Thumbprint) })
	return report, due
}

// usageReporter writes the reports. Every replica does: what one has written is
// not due for the others.
type usageReporter struct {
	store  *Store
	client client.SubResourceClientConstructor
	log    logr.Logger
}

// SetupUsage lets the use of keys be seen: in metrics, and in the issuers' status; and
// in metrics which issuers no controller works on.
func SetupUsage(mgr manager.Manager, store *Store, log logr.Logger) error {
	return mgr.Add(&usageReporter{store: store, client: mgr.GetClient(), log: log})
}

// NeedLeaderElection makes it run on every replica.
func (*usageReporter) NeedLeaderElection() bool { return false }

// Start reports until the context ends.
func (r *usageReporter) Start(ctx context.Context) error {
	for _, collector := range []prometheus.Collector{usageCollector{r.store}, attendanceCollector{r.store}} {
		if err := metrics.Registry.Register(collector); err != nil {
			return fmt.Errorf("registering the metrics of issuers: %w", err)
		}
		defer metrics.Registry.Unregister(collector)
	}
	// Replicas that start together do not report together.
	timer := time.NewTimer(rand.N(usageTick)) //nolint:gosec // spreads load, guards nothing
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			r.report(ctx)
			timer.Reset(usageTick)
		}
	}
}

// report writes what is due for all issuers. What fails is due again next time.
func (r *usageReporter) report(ctx context.Context) {
	for _, issuer := range r.store.all() {
		report, due := issuer.usageReport()
		if !due {
			continue
		}
		if err := r.write(ctx, issuer, report); err != nil {
			r.log.V(1).Info("The use of keys could not be reported", "issuer", issuer.Object.String(), "error", err.Error())
		}
	}
}

func (r *usageReporter) write(ctx context.Context, issuer *Issuer, report []api.KeyUsage) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	var usage []any
	if err := json.Unmarshal(text, &usage); err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	return applyStatus(ctx, r.client, issuer, usageManager, map[string]any{"keyUsage": usage})
}

// applyStatus applies fields of the issuer's status that one field manager owns.
// The UID keeps it from writing to another object of the same name.
func applyStatus(ctx context.Context, c client.SubResourceClientConstructor, issuer *Issuer, manager string, status map[string]any) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(api.GroupVersion.WithKind(issuer.Object.Kind))
	u.SetNamespace(issuer.Object.Namespace)
	u.SetName(issuer.Object.Name)
	u.SetUID(issuer.UID)
	return c.SubResource("status").Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(manager), client.ForceOwnership)
}

var (
	acceptedTokens = prometheus.NewDesc("jwks_trust_accepted_tokens_total",
		"Accepted tokens by issuer object and the RFC 7638 thumbprint of the key that signed them, while the key is trusted.",
		[]string{"kind", "namespace", "name", "thumbprint"}, nil)
	unknownKeys = prometheus.NewDesc("jwks_trust_unknown_keys_total",
		"Tokens with good claims and a key that was not known, by issuer object and outcome (found, still_unknown, not_looked_up, removed).",
		[]string{"kind", "namespace", "name", "outcome"}, nil)
)

// usageCollector reads the counters when metrics are asked for, so that an
// accepted token costs no look-up of labels.
type usageCollector struct{ store *Store }

// Describe implements prometheus.Collector.
func (usageCollector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- acceptedTokens
	descriptions <- unknownKeys
}

// Collect implements prometheus.Collector.
func (c usageCollector) Collect(to chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n int64, o Object, last string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), o.Kind, o.Namespace, o.Name, last)
	}
	for _, issuer := range c.store.all() {
		for thumbprint, u := range issuer.uses {
			count(acceptedTokens, u.accepted.Load(), issuer.Object, thumbprint)
		}
		for o := range unknownOutcomes {
			if n := issuer.unknown[o].Load(); n > 0 {
				count(unknownKeys, n, issuer.Object, o.String())
			}
		}
	}
}
