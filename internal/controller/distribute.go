// distribute.go keeps copies of a ClusterTrustedIssuer's ConfigMap in the
// namespaces that spec.namespaceSelector selects.
//
// Each copy is a piece of work of its own, with its own retries, so that a
// namespace which refuses its copy delays no other. What has become of them is
// tallied in memory; status gets the sum.

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

const (
	// refusedDelay bounds the time between two tries in a namespace that refuses its
	// copy: a foreign ConfigMap of the name, a quota, an admission policy.
	refusedDelay = 5 * time.Minute
	// progressDelay is how often status says how far a distribution has come.
	progressDelay = 5 * time.Second
	// maxFailed bounds status.distribution.failed.
	maxFailed = 10
)

// target is one copy: of an issuer's keys, in a namespace.
type target struct{ issuer, namespace string }

// Target is how others than this package call it.
type Target = target

// String names the copy.
func (t target) String() string { return "the copy of " + t.issuer + " in " + t.namespace }

// Distributor reconciles targets.
type Distributor struct {
	// Reconciler is that of the ClusterTrustedIssuers.
	*Reconciler

	// Namespaces reads the metadata of namespaces.
	Namespaces client.Reader

	mu      sync.Mutex
	tallies map[string]*tally
}

// Distribute has copies kept for the issuers of the reconciler, in the namespaces that
// can be read there.
func (r *Reconciler) Distribute(namespaces client.Reader) *Distributor {
	r.distributor = &Distributor{Reconciler: r, Namespaces: namespaces}
	return r.distributor
}

// tally is what is known of the copies of one issuer object.
type tally struct {
	uid types.UID
	// writing is held while a copy is written, and taken to end that.
	writing sync.RWMutex
	closed  bool

	mu       sync.Mutex
	places   map[string]place
	expanded bool
	// news: something has changed since status was last looked at, at told.
	news    bool
	told    time.Time
	encoded encoded
	// reported is the progress that was last given, and reportedAt when.
	reported   distributed
	reportedAt time.Time
}

// place is a selected namespace.
type place struct {
	// sum is what the copy was last known to hold, keys how many keys of data that
	// were, and version the resourceVersion at which it did.
	sum, version string
	keys         int
	// refused says why the copy could not be brought up to date.
	refused *publication
}

// encoded is what the copies have to hold.
type encoded struct {
	digest     string
	generation int64
	data       map[string]string
	sum        string // of data, and of the labels and annotations with it
}

// distributed is how far the copies of an issuer have come.
type distributed struct {
	generation int64
	// invalid is what is wrong with the selector.
	invalid          string
	digest           string
	desired, current int
	failed           []api.FailedNamespace
	// settled: each namespace has its copy or has refused it.
	settled bool
}

// tallyOf is the tally of an issuer object. One of the same name but another UID
// begins anew.
func (d *Distributor) tallyOf(issuer api.Issuer) *tally {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[issuer.GetName()]
	if t == nil || t.uid != issuer.GetUID() {
		t = &tally{uid: issuer.GetUID(), places: map[string]place{}}
		if d.tallies == nil {
			d.tallies = map[string]*tally{}
		}
		d.tallies[issuer.GetName()] = t
	}
	return t
}

// closeAll ends the writing of copies for an issuer that is being deleted: once it
// returns, none is under way, and none begins.
func (d *Distributor) closeAll(issuer api.Issuer) {
	t := d.tallyOf(issuer)
	t.writing.Lock()
	defer t.writing.Unlock()
	t.closed = true
}

func (d *Distributor) forgetTally(name string) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tallies, name)
}

// selectorOf is the issuer's selector. An absent one selects nothing.
func selectorOf(issuer api.Issuer) (k8slabels.Selector, error) {
	return metav1.LabelSelectorAsSelector(issuer.NamespaceSelector())
}

// targets are the namespaces to look at after the issuer has changed: those
// that have to have a copy, and those that have one.
func (d *Distributor) targets(ctx context.Context, issuer api.Issuer) ([]target, error) {
	if !issuer.GetDeletionTimestamp().IsZero() {
		return nil, nil
	}
	selector, err := selectorOf(issuer)
	if err != nil {
		return nil, nil //nolint:nilerr // status says so, and the copies stay as they are
	}
	var all metav1.PartialObjectMetadataList
	all.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := d.Namespaces.List(ctx, &all, client.MatchingLabelsSelector{Selector: selector}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	holders, err := d.Holders(ctx, issuer.GetUID())
	if err != nil {
		return nil, fmt.Errorf("listing the issuer's ConfigMaps: %w", err)
	}
	selected := map[string]bool{}
	for i := range all.Items {
		if d.takes(&all.Items[i], selector) {
			selected[all.Items[i].Name] = true
		}
	}
	others := d.tallyOf(issuer).expand(selected)
	for i := range holders {
		others[holders[i].Namespace] = true
	}
	delete(others, d.OperatorNamespace)
	out := make([]target, 0, len(others))
	for ns := range others {
		out = append(out, target{issuer.GetName(), ns})
	}
	return out, nil
}

// takes reports whether a namespace has to have a copy. The operator's own has
// the authoritative one.
func (d *Distributor) takes(ns *metav1.PartialObjectMetadata, selector k8slabels.Selector) bool {
	return ns.Name != d.OperatorNamespace && ns.DeletionTimestamp.IsZero() && selector.Matches(k8slabels.Set(ns.Labels))
}

// expand makes the selected namespaces those that are tallied. It returns them and
// those that were until now.
func (t *tally) expand(selected map[string]bool) map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := maps.Clone(selected)
	for ns := range t.places {
		if !selected[ns] {
			delete(t.places, ns)
			all[ns] = true
		}
	}
	for ns := range selected {
		if _, ok := t.places[ns]; !ok {
			t.places[ns] = place{}
		}
	}
	t.expanded, t.news = true, true
	return all
}

// Reconcile brings one copy up to date, or removes it.
func (d *Distributor) Reconcile(ctx context.Context, at target) (reconcile.Result, error) {
	issuer := d.New()
	if err := d.Client.Get(ctx, client.ObjectKey{Name: at.issuer}, issuer); err != nil {
		if apierrors.IsNotFound(err) {
			d.forgetTally(at.issuer)
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, fmt.Errorf("reading the issuer: %w", err)
	}
	if !issuer.GetDeletionTimestamp().IsZero() {
		return reconcile.Result{}, nil // withdraw takes the copies away
	}
	t := d.tallyOf(issuer)
	t.writing.RLock()
	defer t.writing.RUnlock()
	if t.closed {
		return reconcile.Result{}, nil
	}
	err := d.bring(ctx, issuer, t, at.namespace)
	if t.hasNews() && t.tell(d.Clock.Now(), d.expected(ctx, issuer, t)) {
		d.Queue.wake(followerOf(issuer), following)
	}
	if errors.Is(err, errForeign) {
		return reconcile.Result{RequeueAfter: refusedDelay}, nil // nobody tells when it is gone
	}
	return again(ctx, 0, err)
}

// bring brings one namespace to what is wanted there.
func (d *Distributor) bring(ctx context.Context, issuer api.Issuer, t *tally, namespace string) error {
	selector, err := selectorOf(issuer)
	if err != nil {
		return nil //nolint:nilerr // status says so
	}
	var ns metav1.PartialObjectMetadata
	ns.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	switch err := d.Namespaces.Get(ctx, client.ObjectKey{Name: namespace}, &ns); {
	case apierrors.IsNotFound(err), err == nil && !ns.DeletionTimestamp.IsZero():
		t.drop(namespace) // and the copy goes with it
		return nil
	case err != nil:
		return fmt.Errorf("reading namespace %s: %w", namespace, err)
	}
	if !d.takes(&ns, selector) {
		return d.takeBack(ctx, issuer, t, &ns)
	}
	content, ready, err := d.content(ctx, issuer, t)
	if err != nil || !ready {
		t.wait(namespace)
		if err == nil {
			err = d.clearCopy(ctx, issuer, namespace)
		}
		return err
	}
	w := d.wantedCopy(issuer, namespace, content.data)
	p, err := d.ensureCopy(ctx, issuer, w, content.sum, t.at(namespace))
	switch refused := failedPublication(w.key, err); {
	case err == nil:
		t.put(namespace, p)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		t.drop(namespace)
		return nil
	case refused != nil:
		t.put(namespace, place{refused: refused})
	}
	if err != nil {
		if failed := d.keepOthers(ctx, issuer, w, err, &memory{}); failed != nil {
			return failed
		}
	}
	return err
}

// takeBack removes the copy from a namespace that is not selected. Issuer and namespace
// come from two caches, of which each may show another moment: a selector and labels that
// never stood together must not cost a namespace its copy.
func (d *Distributor) takeBack(ctx context.Context, issuer api.Issuer, t *tally, ns *metav1.PartialObjectMetadata) error {
	left, err := d.others(ctx, issuer, client.ObjectKey{Namespace: ns.Name})
	if err != nil {
		return err
	}
	if len(left) > 0 {
		if err := d.confirmBoth(ctx, issuer, ns); err != nil {
			return err
		}
	}
	t.drop(ns.Name)
	return d.letGoOf(ctx, issuer, left)
}

// confirmBoth reports a conflict where the issuer's spec, or the namespace, is not what
// the cache shows. Where both still are, they stood together when they were read from it.
func (d *Distributor) confirmBoth(ctx context.Context, issuer api.Issuer, ns *metav1.PartialObjectMetadata) error {
	now, err := d.live(ctx, issuer)
	if err != nil {
		return err
	}
	there := &metav1.PartialObjectMetadata{TypeMeta: ns.TypeMeta}
	if err := d.Reader.Get(ctx, client.ObjectKeyFromObject(ns), there); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading namespace %s: %w", ns.Name, err)
	}
	if now.GetGeneration() != issuer.GetGeneration() || there.UID != ns.UID || there.ResourceVersion != ns.ResourceVersion {
		return superseded(issuer)
	}
	return nil
}

func (d *Distributor) wantedCopy(issuer api.Issuer, namespace string, data map[string]string) wanted {
	return d.wanted(issuer, client.ObjectKey{Namespace: namespace, Name: issuer.IssuerSpec().SnapshotName(issuer.GetName())}, data)
}

// content is what copies have to hold: nothing, where the keys have expired or were
// withdrawn. ready is false while that is not settled; an event comes when it is.
func (d *Distributor) content(ctx context.Context, issuer api.Issuer, t *tally) (out encoded, ready bool, err error) {
	content, err := readConfigMap(ctx, d.Client, d.authoritativeKey(issuer))
	s := issuer.IssuerStatus().Snapshot
	if err != nil || content == nil || s == nil || s.PendingDigest != "" {
		return out, false, err
	}
	sum := func(data map[string]string) string { return d.wantedCopy(issuer, "", data).sum() }
	switch digest := snapshot.Digest(content.Data); digest {
	case "":
		return encoded{sum: sum(nil)}, s.Digest == "" || d.removesExpired(issuer), nil
	case s.Digest:
		out, err = t.encode(issuer, content, digest, sum)
		return out, err == nil, err
	}
	return out, false, nil // somebody changed it; it is being put right
}

// expected is the sum of what copies have to hold; empty while that is not known.
func (d *Distributor) expected(ctx context.Context, issuer api.Issuer, t *tally) string {
	content, ready, err := d.content(ctx, issuer, t)
	if err != nil || !ready {
		return ""
	}
	return content.sum
}

// encode encodes the trusted keys, and sums them up, once for all copies. Only the keys
// are taken from the ConfigMap, by their digest: the rest of it may have been changed by
// others.
func (t *tally) encode(issuer api.Issuer, content *corev1.ConfigMap, digest string, sum func(map[string]string) string) (encoded, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	generation := issuer.GetGeneration()
	if e := t.encoded; e.digest == digest && e.generation == generation {
		return e, nil
	}
	set, _, err := snapshot.Decode(content.Data)
	if err != nil {
		return encoded{}, fmt.Errorf("reading the trusted keys: %w", err)
	}
	data, err := encode(issuer, set)
	if err != nil {
		return encoded{}, err
	}
	t.encoded = encoded{digest, generation, data, sum(data)}
	return t.encoded, nil
}

// ensureCopy writes the copy, unless it is known to hold what is wanted. One that
// nobody has touched since our last write needs no other look; and where there is
// none, none is made to hold nothing.
func (d *Distributor) ensureCopy(ctx context.Context, issuer api.Issuer, w wanted, sum string, before place) (place, error) {
	var meta metav1.PartialObjectMetadata
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := d.Copies.Get(ctx, w.key, &meta); client.IgnoreNotFound(err) != nil {
		return place{}, err
	}
	// One of an earlier name may have come to light since: that is removed, too.
	others, err := d.others(ctx, issuer, w.key)
	if err != nil {
		return place{}, err
	}
	var version string
	switch untouched := before.version != "" && meta.ResourceVersion == before.version && len(others) == 0; {
	case len(w.data) == 0 && meta.Name == "":
		return place{sum: sum}, d.removeOthers(ctx, issuer, others)
	case untouched && before.sum == sum:
		return before, nil
	case untouched && before.keys <= len(w.data): // to apply takes nothing away
		version, err = d.applyData(ctx, &corev1.ConfigMap{ObjectMeta: meta.ObjectMeta}, w)
	default:
		if version, err = d.ensure(ctx, issuer, w); err == nil {
			err = d.removeOthers(ctx, issuer, others)
		}
	}
	return place{sum: sum, keys: len(w.data), version: version}, err
}

// at is what is known of a namespace.
func (t *tally) at(namespace string) place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.places[namespace]
}

func (t *tally) put(namespace string, p place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if before, ok := t.places[namespace]; !ok || before.sum != p.sum || !sameRefusal(before.refused, p.refused) {
		t.news = true
	}
	t.places[namespace] = p
}

func sameRefusal(a, b *publication) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// wait notes a namespace that has to have a copy.
func (t *tally) wait(namespace string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.places[namespace]; !ok {
		t.places[namespace], t.news = place{}, true
	}
}

func (t *tally) drop(namespace string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.places[namespace]; ok {
		t.news = true
	}
	delete(t.places, namespace)
}

func (t *tally) hasNews() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.news
}

// tell reports whether there is something to tell in status: when all is settled,
// and now and then before.
func (t *tally) tell(now time.Time, expected string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.news || !t.settled(expected) && now.Sub(t.told).Abs() < progressDelay {
		return false
	}
	t.told, t.news = now, false
	return true
}

// settled reports whether each namespace has its copy or has refused it.
func (t *tally) settled(expected string) bool {
	if !t.expanded || expected == "" {
		return false
	}
	for _, p := range t.places {
		if p.refused == nil && p.sum != expected {
			return false
		}
	}
	return true
}

// progress is how far the copies of an issuer have come; nil where it has no
// selector.
func (d *Distributor) progress(ctx context.Context, issuer api.Issuer) *distributed {
	if d == nil || issuer.NamespaceSelector() == nil {
		return nil
	}
	if _, err := selectorOf(issuer); err != nil {
		return &distributed{invalid: err.Error()}
	}
	t := d.tallyOf(issuer)
	expected := d.expected(ctx, issuer, t)
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &distributed{generation: issuer.GetGeneration(), desired: len(t.places), settled: t.settled(expected)}
	if s := issuer.IssuerStatus().Snapshot; s != nil {
		out.digest = s.Digest
	}
	if known := t.known(out, d.Clock.Now()); known != nil {
		return known
	}
	for ns, p := range t.places {
		switch {
		case p.refused != nil:
			out.failed = append(out.failed, api.FailedNamespace{Namespace: ns, Reason: p.refused.reason, Message: cut(p.refused.message)})
		case p.sum == expected && expected != "":
			out.current++
		}
	}
	slices.SortFunc(out.failed, func(a, b api.FailedNamespace) int { return cmp.Compare(a.Namespace, b.Namespace) })
	t.reported, t.reportedAt = *out, d.Clock.Now()
	return out
}

// known is the progress that was given a short while ago, unless this is the end: each
// write to status leads to another reconciliation, which would find other numbers.
func (t *tally) known(next *distributed, now time.Time) *distributed {
	known := t.reported
	same := known.generation == next.generation && known.digest == next.digest && known.settled == next.settled
	if next.settled || !same || now.Sub(t.reportedAt).Abs() >= progressDelay {
		return nil
	}
	return &known
}
