// publish.go finds the key set that is trusted, and brings the authoritative
// ConfigMap to it, in two phases when it is a new one:
//
//	status.pendingDigest ─> ConfigMap ─> status.digest
//
// Whatever is interrupted is settled by lastGood the next time.

package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// publish brings the authoritative ConfigMap to the key set, in two phases when
// the set is a new one. Where users are not to have it, the keys are taken away.
//
// A manager that has lost its lease does not know that yet. So that what it writes
// late undoes nothing, each write carries the resourceVersion of a ConfigMap that was
// read before status was last seen to name the keys, or was made to: then whoever has
// come after it has written the ConfigMap since, or still goes by those keys.
func (r *Reconciler) publish(ctx context.Context, issuer api.Issuer, trusted, want *keyset.Set, content *corev1.ConfigMap, out outcome, m *memory) error {
	if out.withdrawn {
		m.trusted = nil // or a write that fails from here on would bring back what has retired
	}
	w, err := r.wantedOf(issuer, want, out)
	if err != nil || w.holds(content) && standsIn(issuer, want) {
		return err
	}
	live, err := readConfigMap(ctx, r.Reader, w.key)
	if err != nil {
		return err
	}
	if s := issuer.IssuerStatus().Snapshot; s != nil && s.PendingDigest != "" && digestOf(live) != digestOf(content) {
		return superseded(issuer) // what is pending has come, or gone, since the decision
	}
	version := issuer.GetResourceVersion()
	if live, err = r.settle(ctx, issuer, trusted, want, live, out, m); err != nil {
		return err
	}
	if s := issuer.IssuerStatus().Snapshot; want != nil && (s == nil || want.Digest() != s.Digest && want.Digest() != s.PendingDigest) {
		if err := r.saveStatus(ctx, issuer, pendingStatus(issuer, want, out), m); err != nil {
			return err
		}
	}
	if w.holds(live) {
		return nil
	}
	if issuer.GetResourceVersion() == version { // status has not been written
		if err := r.confirm(ctx, issuer); err != nil {
			return err
		}
	}
	_, err = r.bring(ctx, issuer, live, w)
	return err
}

// digestOf is the digest of the keys in a ConfigMap; empty for none.
func digestOf(cm *corev1.ConfigMap) string {
	if cm == nil {
		return ""
	}
	return snapshot.Digest(cm.Data)
}

// wantedOf is the authoritative ConfigMap with that key set.
func (r *Reconciler) wantedOf(issuer api.Issuer, set *keyset.Set, out outcome) (wanted, error) {
	if out.expired && issuer.GetNamespace() == "" {
		set = nil // users read this one
	}
	data, err := encode(issuer, set)
	return r.wanted(issuer, r.authoritativeKey(issuer), data), err
}

// standsIn reports whether status names the set, and none besides.
func standsIn(issuer api.Issuer, set *keyset.Set) bool {
	s, digest := issuer.IssuerStatus().Snapshot, ""
	if set != nil {
		digest = set.Digest()
	}
	return s != nil && (s.PendingDigest == "" && s.Digest == digest || set != nil && s.PendingDigest == digest)
}

// settle writes down what has to stand in status before the ConfigMap, read live,
// changes. It returns the ConfigMap as it is then.
//
// A set whose publication was interrupted after the ConfigMap has it becomes the
// trusted one before another set is announced: status must never name only sets
// that are nowhere. Another one that the ConfigMap does not have is given up. And keys that
// are withdrawn are refused before they are taken away: a status that still names
// them would bring them back.
func (r *Reconciler) settle(ctx context.Context, issuer api.Issuer, trusted, want *keyset.Set, live *corev1.ConfigMap, out outcome, m *memory) (*corev1.ConfigMap, error) {
	s := issuer.IssuerStatus().Snapshot
	switch {
	case s == nil || s.Digest == "" && s.PendingDigest == "":
	case out.withdrawn:
		out.published = withdrawnPublication(out, r.userKey(issuer)) // nothing may be left to say it later
		return live, r.saveStatus(ctx, issuer, nextStatus(issuer, out, r.Clock.Now()), m)
	case s.PendingDigest == "" || trusted == nil:
	case trusted.Digest() == s.PendingDigest:
		if want.Digest() != s.PendingDigest {
			interrupted := outcome{trusted: trusted, missing: out.missing, lastAbsent: out.lastAbsent, configMapName: out.configMapName, nextRefresh: out.nextRefresh, conflict: out.conflict, invalid: out.invalid, distributed: out.distributed}
			return live, r.saveStatus(ctx, issuer, nextStatus(issuer, interrupted, r.Clock.Now()), m)
		}
	case want != nil && want.Digest() == s.PendingDigest: // it goes on, whoever began it
	case trusted.Digest() == s.Digest:
		return r.giveUp(ctx, issuer, trusted, live, out, m)
	}
	return live, nil
}

// giveUp ends a publication that has not reached the ConfigMap. The manager that began
// it may only have been stopped before its last write: so the ConfigMap gets another
// resourceVersion first, on which that write fails.
func (r *Reconciler) giveUp(ctx context.Context, issuer api.Issuer, trusted *keyset.Set, live *corev1.ConfigMap, out outcome, m *memory) (*corev1.ConfigMap, error) {
	w, err := r.wantedOf(issuer, trusted, out)
	if err != nil {
		return nil, err
	}
	w.annotations[api.AnnotationFence] = issuer.GetResourceVersion()
	if err := r.confirm(ctx, issuer); err != nil {
		return nil, err
	}
	if !w.holds(live) {
		if _, err := r.bring(ctx, issuer, live, w); err != nil {
			return nil, err
		}
		if live, err = readConfigMap(ctx, r.Reader, w.key); err != nil {
			return nil, err
		}
	}
	next := issuer.IssuerStatus().DeepCopy()
	next.Snapshot.PendingDigest = ""
	return live, r.saveStatus(ctx, issuer, next, m)
}

// withdrawnLeftover reports whether a ConfigMap of the issuer's still holds keys
// that were withdrawn, or of which every one is refused, although status names none any
// more; or has lost them and still names their digest.
func (r *Reconciler) withdrawnLeftover(ctx context.Context, issuer api.Issuer, content *corev1.ConfigMap, a *attempt) (bool, error) {
	s := issuer.IssuerStatus()
	ended := namesWithdrawn(s.Snapshot)
	if s.Snapshot != nil && s.Snapshot.Digest != "" || !ended && len(s.CompromisedKeys)+len(issuer.IssuerSpec().RevokedKeys) == 0 {
		return false, nil
	}
	users, err := readConfigMap(ctx, r.Reader, r.userKey(issuer))
	if err != nil {
		return false, err
	}
	for _, cm := range []*corev1.ConfigMap{content, users} {
		if cm == nil || !r.owns(issuer, cm) {
			continue
		}
		set, _, err := snapshot.Decode(cm.Data)
		if err != nil { // no keys
			if cm.Annotations[api.AnnotationDigest] != snapshot.Digest(cm.Data) {
				return true, nil
			}
			continue
		}
		_, withdrawn := withoutRevoked(set, issuer, a)
		if withdrawn || ended && cm.Labels[api.LabelIssuerUID] == string(issuer.GetUID()) {
			return true, nil
		}
	}
	return false, nil
}

// namesWithdrawn reports that status has named keys and names none any more: they were
// withdrawn, and some may have retired, which nothing else would say of them.
func namesWithdrawn(s *api.SnapshotStatus) bool {
	return s != nil && s.Digest == "" && s.PendingDigest == "" && s.LastSuccessTime != nil
}

// encode is the data of the issuer's ConfigMaps; empty without a set.
func encode(issuer api.Issuer, set *keyset.Set) (map[string]string, error) {
	if set == nil {
		return map[string]string{}, nil
	}
	spec := issuer.IssuerSpec()
	d := snapshot.Descriptor{
		Kind: issuer.IssuerKind(), Namespace: issuer.GetNamespace(), Name: issuer.GetName(),
		Issuer: spec.Issuer, Audiences: spec.Audiences,
	}
	for _, a := range algorithms(spec) {
		d.Algorithms = append(d.Algorithms, string(a))
	}
	var also []snapshot.Format
	if spec.Snapshot != nil {
		for _, f := range spec.Snapshot.AdditionalFormats {
			also = append(also, snapshot.Format(f))
		}
	}
	return snapshot.Encode(set, d, also...)
}

// authoritative is the ConfigMap that the verifier reads, as cached; nil when
// it is not there. While a publication is pending it is read live, because what
// it holds decides how that one is settled.
func (r *Reconciler) authoritative(ctx context.Context, issuer api.Issuer) (*corev1.ConfigMap, error) {
	reader := client.Reader(r.Client)
	if s := issuer.IssuerStatus().Snapshot; s != nil && s.PendingDigest != "" {
		reader = r.Reader
	}
	return readConfigMap(ctx, reader, r.authoritativeKey(issuer))
}

func readConfigMap(ctx context.Context, reader client.Reader, key client.ObjectKey) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	if err := reader.Get(ctx, key, cm); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading ConfigMap %s: %w", key, err)
	}
	return cm, nil
}

// lastGood finds the trusted key set: in memory, in the authoritative
// ConfigMap, or in the users' copy; by its digest, so that nothing tampered
// with comes back. It is nil when there is none, or none any more.
//
// A pending digest that the ConfigMap already holds is settled by this: the set
// counts as trusted and status follows. A pending one that it does not hold is
// given up, and the next fetch finds that set again.
func (r *Reconciler) lastGood(ctx context.Context, issuer api.Issuer, content *corev1.ConfigMap, m *memory) (*keyset.Set, error) {
	s := issuer.IssuerStatus().Snapshot
	if s != nil && s.PendingDigest != "" {
		if set := withDigest(content, s.PendingDigest); set != nil {
			return set, nil
		}
	}
	// What is published and endorsed beats memory: another manager may have been
	// the leader meanwhile. A status that names nothing published does not.
	if s == nil || s.Digest == "" || m.trusted != nil && m.trusted.Digest() == s.Digest {
		return m.trusted, nil
	}
	if set := withDigest(content, s.Digest); set != nil {
		return set, nil
	}
	for _, key := range []client.ObjectKey{r.authoritativeKey(issuer), r.userKey(issuer)} {
		live, err := readConfigMap(ctx, r.Reader, key)
		if err != nil {
			return nil, err
		}
		if set := withDigest(live, s.Digest); set != nil {
			return set, nil
		}
	}
	return m.trusted, nil
}

// withDigest is the key set of a ConfigMap if it has that digest, else nil.
func withDigest(cm *corev1.ConfigMap, digest string) *keyset.Set {
	if cm == nil || snapshot.Digest(cm.Data) != digest {
		return nil
	}
	set, _, err := snapshot.Decode(cm.Data)
	if err != nil {
		return nil // written by a version with other rules: fetch anew
	}
	return set
}

// pendingStatus announces the digest of a set before the set is published. For
// the first set of an issuer it carries the freshness too, so that the verifier
// can use the set at once. Keys found compromised are refused from this moment.
func pendingStatus(issuer api.Issuer, set *keyset.Set, out outcome) *api.IssuerStatus {
	next := issuer.IssuerStatus().DeepCopy()
	if next.Snapshot == nil {
		next.Snapshot = &api.SnapshotStatus{}
	}
	s := next.Snapshot
	s.PendingDigest = set.Digest()
	if out.readmitted {
		s.ObservedGeneration = 0 // what the last success says of absent keys is not said under these rules
	}
	if a := out.attempt; a != nil {
		if s.Digest == "" && a.succeeded {
			s.LastSuccessTime = ptrTo(metav1.NewTime(inStatus(a.started)))
		}
		for _, c := range a.compromised {
			addCompromised(next, c, a.started)
		}
	}
	return next
}

// withoutRevoked takes the revoked and compromised keys out of a set. withdrawn
// means that none is left: then nothing is trusted, because an empty set must
// never be published (proxies reject it).
func withoutRevoked(set *keyset.Set, issuer api.Issuer, a *attempt) (left *keyset.Set, withdrawn bool) {
	if set == nil {
		return nil, false
	}
	refused := refusal(issuer, a)
	left = set.Filter(func(k *keyset.Key) bool { return !refused(k.KeyID(), k.Thumbprint()) })
	if left.Len() == 0 { // or none was left before: the last one has retired
		return nil, true
	}
	return left, false
}

// refusal tells which keys are revoked, or compromised, be it by the attempt's document.
func refusal(issuer api.Issuer, a *attempt) func(kid, thumbprint string) bool {
	bad := revoked(issuer)
	if a != nil {
		for _, c := range a.compromised {
			bad[c.Thumbprint] = struct{}{}
		}
	}
	return func(kid, thumbprint string) bool {
		_, byThumbprint := bad[thumbprint]
		_, byID := bad[kid]
		return byThumbprint || byID && kid != ""
	}
}

// exposed reports that of the keys which are withdrawn some are compromised. Where it is not
// known any more which those were, any at all count, unless status says otherwise.
func exposed(set *keyset.Set, issuer api.Issuer, a *attempt) bool {
	var now []keyset.Compromised
	if a != nil {
		now = a.compromised
	}
	known := issuer.IssuerStatus().CompromisedKeys
	if set == nil || set.Len() == 0 {
		c := findCondition(issuer.IssuerStatus(), api.ConditionSnapshotPublished)
		return len(now) > 0 || len(known) > 0 && (c == nil || c.Reason != api.ReasonAllKeysRevoked)
	}
	return slices.ContainsFunc(set.Keys(), func(k *keyset.Key) bool {
		return slices.ContainsFunc(known, func(c api.CompromisedKey) bool { return c.Thumbprint == k.Thumbprint() }) ||
			slices.ContainsFunc(now, func(c keyset.Compromised) bool { return c.Thumbprint == k.Thumbprint() })
	})
}
