// trust.go finds the keys that are trusted: content of a ConfigMap counts only if
// its digest is the one in the issuer's status, wherever it comes from.

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// trusted is the key set that an issuer's status names.
type trusted struct {
	set  *keyset.Set
	data map[string]string
	// from is the ConfigMap that it was read from.
	from client.ObjectKey
}

// trustedKeys reads the trusted key set: from the operator's namespace or, for
// those who may not look there, from a copy.
func (c *cli) trustedKeys(ctx context.Context, issuer api.Issuer) (trusted, error) {
	kube, err := c.connect()
	if err != nil {
		return trusted{}, err
	}
	recorded := issuer.IssuerStatus().Snapshot
	if recorded == nil || recorded.Digest == "" && recorded.PendingDigest == "" {
		return trusted{}, advise("`kubectl jwks describe "+argumentsFor(issuer)+"` says why.", "%s has no trusted keys yet", describedAs(issuer))
	}
	places, err := c.places(issuer)
	if err != nil {
		return trusted{}, err
	}
	var problems []string
	for _, at := range places {
		var cm corev1.ConfigMap
		if err := kube.Get(ctx, at, &cm); err != nil {
			problems = append(problems, err.Error())
			continue
		}
		set, digest, err := snapshot.Decode(cm.Data)
		switch {
		case digest != "" && digest != recorded.Digest && digest != recorded.PendingDigest:
			problems = append(problems, fmt.Sprintf("ConfigMap %s holds other keys (%s) than the trusted ones (%s)", at, digest, recorded.Digest))
		case err != nil:
			problems = append(problems, fmt.Sprintf("ConfigMap %s: %v", at, err))
		default:
			return trusted{set: set, data: cm.Data, from: at}, nil
		}
	}
	return trusted{}, advise("One of these has to be readable and hold the trusted keys. The controller repairs what it owns within seconds; `kubectl jwks check` says whether it runs, and which rights you lack.",
		"the trusted keys of %s cannot be read:\n  %s", describedAs(issuer), strings.Join(problems, "\n  "))
}

// notTrusted reports an object that is being deleted: the verifier knows it no more, from
// the moment on that somebody has asked for that, although its keys may still be there.
func notTrusted(issuer api.Issuer) error {
	if issuer.GetDeletionTimestamp().IsZero() {
		return nil
	}
	return advise("kubectl jwks status shows what else there is; once the object is gone it can be made again.", "%s is being deleted: its tokens are refused, and its keys are nobody's to trust", describedAs(issuer))
}

// places are the ConfigMaps that may hold the trusted keys.
func (c *cli) places(issuer api.Issuer) ([]client.ObjectKey, error) {
	places := []client.ObjectKey{{Namespace: c.operatorNamespace, Name: snapshot.AuthoritativeName(issuer.GetUID())}}
	ns := issuer.GetNamespace()
	if ns == "" {
		if issuer.NamespaceSelector() == nil {
			return places, nil
		}
		var err error
		if ns, err = c.namespace(); err != nil {
			return nil, err
		}
	}
	return append(places, client.ObjectKey{Namespace: ns, Name: issuer.IssuerSpec().SnapshotName(issuer.GetName())}), nil
}

// windowOf is the time during which the keys are trusted, as a verifier that starts now
// sees it.
func windowOf(issuer api.Issuer, now time.Time) snapshot.Window {
	w := verifier.WindowOf(issuer, now)
	if s := issuer.IssuerStatus().Snapshot; s == nil || s.Digest+s.PendingDigest == "" {
		w.LastSuccess = time.Time{} // there are no keys
	}
	return w
}

// tryAgain is what to do for keys that have grown old.
func tryAgain(issuer api.Issuer) string {
	if issuer.IssuerSpec().Static() { // those of a spec before, for the inline ones cannot be used
		return "Correct spec.jwks."
	}
	return "kubectl jwks refresh " + argumentsFor(issuer)
}

// timeOf is a time of a window; nil for none.
func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}

// admission is how the controller admits the issuer's keys.
func admission(issuer api.Issuer) keyset.Policy {
	spec := issuer.IssuerSpec()
	p := keyset.Policy{Algorithms: keyset.Algorithms(), Revoked: map[string]struct{}{}}
	if len(spec.AllowedAlgorithms) > 0 {
		p.Algorithms = nil
		for _, a := range spec.AllowedAlgorithms {
			p.Algorithms = append(p.Algorithms, keyset.Algorithm(a))
		}
	}
	for _, u := range spec.KeyUses {
		p.Uses = append(p.Uses, string(u))
	}
	for _, name := range spec.RevokedKeys {
		p.Revoked[name] = struct{}{}
	}
	for _, k := range issuer.IssuerStatus().CompromisedKeys {
		p.Revoked[k.Thumbprint] = struct{}{}
	}
	return p
}

// revokedAmong are the keys of a set that must not be used, although it is the
// trusted one: the controller has not yet taken them out.
func revokedAmong(set *keyset.Set, issuer api.Issuer) []string {
	revoked := admission(issuer).Revoked
	var kids []string
	for _, k := range set.Keys() {
		_, byThumbprint := revoked[k.Thumbprint()]
		_, byKeyID := revoked[k.KeyID()]
		if byThumbprint || byKeyID && k.KeyID() != "" {
			kids = append(kids, keyName(k.KeyID()))
		}
	}
	return kids
}

// keysIn are the keys of status in one of these states.
func keysIn(issuer api.Issuer, states ...api.KeyState) []api.KeyStatus {
	var keys []api.KeyStatus
	for _, k := range issuer.IssuerStatus().Keys {
		if slices.Contains(states, k.State) {
			keys = append(keys, k)
		}
	}
	return keys
}

// keyName is a kid for people.
func keyName(kid string) string {
	if kid == "" {
		return "(no kid)"
	}
	return plain(kid)
}

// size is the size or curve of a key.
func size(k api.KeyStatus) string {
	if k.Curve != "" {
		return k.KeyType + " " + k.Curve
	}
	return fmt.Sprintf("%s %d", k.KeyType, k.Bits)
}
