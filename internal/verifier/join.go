// join.go makes what the verifier knows of one issuer out of three things: the
// issuer object, the content of its authoritative ConfigMap, and what was known
// before. It is pure.
//
// A key set counts only while the issuer's status names its digest. Write access
// to a ConfigMap is therefore not key injection:
//
//	content's digest is in status ────────────> trusted
//	else: the held set's digest is in status ─> trusted
//	else: the held set goes on, with the expiry it had, and only with those of
//	      its keys that status still calls Active or Retiring
//
// A forged status alone adds no key either. It can make the keys that the
// ConfigMap holds count, and make them count for as long as spec says; and it can
// take keys away.

package verifier

import (
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/policy"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// Object names an issuer object.
type Object struct {
	// Kind is api.TrustedIssuerKind or api.ClusterTrustedIssuerKind.
	Kind string
	// Namespace is empty for the cluster kind.
	Namespace string
	// Name is metadata.name.
	Name string
}

// String is the object as people write it: kind namespace/name.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Issuer is all that the verifier knows of one issuer object. It never changes:
// news make another one.
type Issuer struct {
	// Object is whom it speaks of, and UID which one of that name.
	Object Object
	UID    types.UID
	// Issuer is the exact "iss".
	Issuer string
	// KubernetesAuthentication is nil where the issuer's tokens must not
	// authenticate to the Kubernetes API.
	KubernetesAuthentication *api.KubernetesAuthentication

	created    time.Time
	audiences  []string
	algorithms []api.Algorithm
	// policy is what else is demanded of a token; nil where it cannot be compiled.
	// verification is the part of spec that it was compiled from, together with
	// KubernetesAuthentication.
	policy       *policy.Policy
	verification *api.VerificationSpec

	// trust changes whenever anything does that a verdict rests on but the time.
	trust *trust

	// usable are the keys that may verify tokens now, and mirrored those of them that fit
	// an algorithm which spec allows: who reads them does not ask for that. Both are nil
	// when there are none.
	usable, mirrored *keyset.Set
	// window is the time during which they may.
	window snapshot.Window
	// revoked are keys of the held set that must not; nil when there are none.
	revoked *keyset.Set
	// revokedIDs are the kids of revoked keys, those that are not held included.
	revokedIDs []string

	// uses has the counters of the usable keys, by thumbprint; unknown those of
	// tokens with unknown keys.
	uses    map[string]*usedKey
	unknown *unknownCounts
	// removedIDs are the kids of keys that were trusted once.
	removedIDs map[string]bool

	// held is the last key set that status named.
	held held
	// recorded is the last success as status has it; success is the one that is
	// counted from.
	recorded, success time.Time
	// keysGeneration is the generation of the spec that gave the keys.
	keysGeneration int64
	static         bool

	// attempted is the last fetch that status has; lookedUp the last one that was
	// asked for and succeeded, and failed the last one that did not.
	attempted, lookedUp, failed time.Time
	// attendance says whether a controller works on it.
	attendance attendance
	// settled: what is held is the trusted set, and no other one is on its way.
	settled bool
	// replaced is closed when there is news, and this is no longer what is
	// known.
	replaced chan struct{}
}

// held is a key set with the window that it had when status last named it.
type held struct {
	set    *keyset.Set
	digest string
	window snapshot.Window
}

// allows reports whether spec lets a token use the algorithm.
func (i *Issuer) allows(a jose.Algorithm) bool {
	return len(i.algorithms) == 0 || slices.Contains(i.algorithms, api.Algorithm(a))
}

// join is what is known of the issuer after an event. data is that of its
// authoritative ConfigMap, nil when there is none; before is the result of the
// last join, nil for none. An object with another UID is another issuer:
// nothing of what was before carries over.
func join(object api.Issuer, data map[string]string, before *Issuer, now time.Time) *Issuer {
	next := specOf(object)
	if before == nil || before.UID != next.UID {
		before = &Issuer{}
	}
	next.compile(before)
	status := object.IssuerStatus()
	recorded := recordedBy(status)
	own := next.date(object, before, now)
	endorsed := next.hold(recorded, data, before, own)
	next.admit(status, object.IssuerSpec().RevokedKeys, endorsed)
	next.countKeys(status, before)
	next.recordFetches(status)
	next.attendance = attendanceOf(object)
	next.trust = next.trustOf(before)
	next.settled = endorsed && recorded.PendingDigest == "" && next.held.digest == recorded.Digest
	return next
}

// recordedBy is what status says of the published keys.
func recordedBy(status *api.IssuerStatus) *api.SnapshotStatus {
	if status.Snapshot == nil {
		return &api.SnapshotStatus{}
	}
	return status.Snapshot
}

// date notes from when on the keys' time counts, and returns the window that follows.
func (i *Issuer) date(object api.Issuer, before *Issuer, now time.Time) snapshot.Window {
	recorded, spec := recordedBy(object.IssuerStatus()), object.IssuerSpec()
	i.recorded, i.success = lastSuccess(object, recorded, before, now)
	i.keysGeneration = recorded.ObservedGeneration
	i.static = keysAreStatic(object, recorded, before)
	return snapshot.Window{LastSuccess: i.success, Static: i.static, CacheTTL: spec.CacheTTLOrDefault(), StaleTTL: spec.StaleTTLOrDefault()}
}

// recordFetches notes when the issuer was last asked for its keys, and which it
// once had.
func (i *Issuer) recordFetches(status *api.IssuerStatus) {
	if status.Rotation != nil && len(status.Rotation.History) > 0 {
		i.removedIDs = make(map[string]bool, len(status.Rotation.History))
		for _, k := range status.Rotation.History {
			i.removedIDs[k.KeyID] = true
		}
	}
	if a := status.LastAttempt; a != nil {
		i.attempted = a.Time.Time
	}
	if h := status.HandledRefresh; h != nil {
		if h.StartTime.After(i.attempted) {
			i.attempted = h.StartTime.Time
		}
		if h.Outcome == api.ReasonSucceeded {
			i.lookedUp = h.StartTime.Time
		} else {
			i.failed = h.StartTime.Time
		}
	}
}

// compile compiles the policy, unless that has been done. One that cannot be used
// leaves nil: no token is judged by rules of another time.
func (i *Issuer) compile(before *Issuer) {
	if before.policy != nil && reflect.DeepEqual(i.verification, before.verification) &&
		reflect.DeepEqual(i.KubernetesAuthentication, before.KubernetesAuthentication) {
		i.policy = before.policy
		return
	}
	if compiled, err := policy.Compile(i.verification, i.KubernetesAuthentication); err == nil {
		i.policy = compiled
	}
}

// specOf is the part that comes from spec.
func specOf(object api.Issuer) *Issuer {
	spec := object.IssuerSpec()
	return &Issuer{
		Object:                   objectOf(object),
		UID:                      object.GetUID(),
		Issuer:                   spec.Issuer,
		KubernetesAuthentication: authenticationOf(object),
		created:                  object.GetCreationTimestamp().Time,
		audiences:                spec.Audiences,
		algorithms:               spec.AllowedAlgorithms,
		verification:             spec.Verification,
		replaced:                 make(chan struct{}),
	}
}

func objectOf(object api.Issuer) Object {
	return Object{Kind: object.IssuerKind(), Namespace: object.GetNamespace(), Name: object.GetName()}
}

// authenticationOf is nil also where the schema's promise of a user name prefix
// is not kept: without one a token could name anybody.
func authenticationOf(object api.Issuer) *api.KubernetesAuthentication {
	ka := object.KubernetesAuthentication()
	if ka == nil || ka.UsernamePrefix == "" {
		return nil
	}
	return ka
}

// lastSuccess is the time of the last success, as recorded and as it counts. A
// time that lies too far in the future is brought back once, when it is first
// seen: bringing it back at every event would move it along with the clock. Keys that
// were given inline until now age from then on, too, until the controller records that.
func lastSuccess(object api.Issuer, recorded *api.SnapshotStatus, before *Issuer, now time.Time) (asRecorded, asCounted time.Time) {
	if recorded.LastSuccessTime.IsZero() {
		return time.Time{}, time.Time{}
	}
	t := recorded.LastSuccessTime.Time
	inlineUntilNow := !object.IssuerSpec().Static() && recorded.ObservedGeneration != object.GetGeneration() &&
		recorded.Digest != "" && recorded.ExpiresAt == nil
	if inlineUntilNow && (before.static || before.recorded.IsZero()) {
		return t, now
	}
	if !before.recorded.IsZero() && before.recorded.Equal(t) {
		return t, before.success
	}
	return t, snapshot.Window{LastSuccess: t}.Capped(now).LastSuccess
}

// keysAreStatic reports whether the keys in use were given inline, and so never
// expire. Where the spec has changed since it gave the keys, they are static
// only if they were so before: an edit from jwksURI to inline keys that cannot
// be used must not give fetched keys eternal life. Right after a start nothing
// is known of before; then status tells, which has an expiry for fetched keys.
func keysAreStatic(object api.Issuer, recorded *api.SnapshotStatus, before *Issuer) bool {
	switch {
	case !object.IssuerSpec().Static():
		return false
	case recorded.ObservedGeneration == object.GetGeneration():
		return true
	case before.held.set != nil && before.keysGeneration == recorded.ObservedGeneration:
		return before.static
	default:
		return recorded.ExpiresAt == nil
	}
}

// hold picks the key set and its window, and reports whether status names it.
func (i *Issuer) hold(recorded *api.SnapshotStatus, data map[string]string, before *Issuer, own snapshot.Window) (endorsed bool) {
	if set, digest := trustedContent(recorded, data, before.held); set != nil {
		i.held = held{set: set, digest: digest, window: own}
		return true
	}
	i.held = before.held
	if names(recorded, i.held.digest) {
		i.held.window = own
		return true
	}
	// The expiry that it had stands. Where spec has become stricter, that counts.
	i.held.window.Static = i.held.window.Static && own.Static
	i.held.window.CacheTTL = min(i.held.window.CacheTTL, own.CacheTTL)
	i.held.window.StaleTTL = min(i.held.window.StaleTTL, own.StaleTTL)
	return false
}

// trustedContent reads the key set of data if status names its digest. A set
// that is held already is not read again.
func trustedContent(recorded *api.SnapshotStatus, data map[string]string, have held) (*keyset.Set, string) {
	digest := snapshot.Digest(data)
	if !names(recorded, digest) {
		return nil, ""
	}
	if digest == have.digest {
		return have.set, digest
	}
	set, digest, err := snapshot.Decode(data)
	if err != nil {
		return nil, ""
	}
	return set, digest
}

// names reports whether status names the digest, as that of the trusted set or
// of the one that is being published.
func names(recorded *api.SnapshotStatus, digest string) bool {
	return digest != "" && (digest == recorded.Digest || digest == recorded.PendingDigest)
}

// admit picks those of the held keys that may verify tokens.
func (i *Issuer) admit(status *api.IssuerStatus, revokedKeys []string, endorsed bool) {
	i.window = i.held.window
	revoked := i.revocations(status, revokedKeys)
	if i.held.set == nil {
		return
	}
	states := make(map[string]api.KeyState, len(status.Keys))
	for _, k := range status.Keys {
		states[k.Thumbprint] = k.State
	}
	isRevoked := func(k *jose.Key) bool {
		return revoked[k.Thumbprint()] || k.KeyID() != "" && slices.Contains(revokedKeys, k.KeyID())
	}
	i.revoked = subset(i.held.set, isRevoked)
	i.usable = subset(i.held.set, func(k *jose.Key) bool {
		state, listed := states[k.Thumbprint()]
		trusted := state == api.KeyActive || state == api.KeyRetiring
		// Keys of a set that is being published are not listed yet.
		return !isRevoked(k) && (trusted || endorsed && !listed)
	})
	if i.usable != nil {
		i.mirrored = subset(i.usable, func(k *jose.Key) bool { return slices.ContainsFunc(k.Algorithms(), i.allows) })
	}
}

// revocations are the thumbprints that are refused always. Their kids are kept.
// revokedKeys, from spec, are kids or thumbprints, and count as both.
func (i *Issuer) revocations(status *api.IssuerStatus, revokedKeys []string) map[string]bool {
	thumbprints := map[string]bool{}
	for _, name := range revokedKeys {
		thumbprints[name] = true
		i.revokedIDs = append(i.revokedIDs, name)
	}
	revoke := func(thumbprint, kid string) {
		thumbprints[thumbprint] = true
		if kid != "" {
			i.revokedIDs = append(i.revokedIDs, kid)
		}
	}
	for _, k := range status.CompromisedKeys {
		revoke(k.Thumbprint, k.KeyID)
	}
	for _, k := range status.Keys {
		if k.State == api.KeyRevoked {
			revoke(k.Thumbprint, k.KeyID)
		}
	}
	return thumbprints
}

// subset is the part of a set that keep wants: the set itself when that is all
// of it, nil when it is none.
func subset(set *keyset.Set, keep func(*jose.Key) bool) *keyset.Set {
	wanted := 0
	for _, k := range set.Keys() {
		if keep(k) {
			wanted++
		}
	}
	switch wanted {
	case 0:
		return nil
	case set.Len():
		return set
	}
	return set.Filter(keep)
}

// older orders objects for the same issuer: the first one answers TokenReview.
func older(a, b *Issuer) int {
	if c := a.created.Compare(b.created); c != 0 {
		return c
	}
	return strings.Compare(a.Object.Name, b.Object.Name)
}

// deleting reports whether the object is being deleted: trust ends at once.
func deleting(object metav1.Object) bool { return !object.GetDeletionTimestamp().IsZero() }
