package servingcert

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// +kubebuilder:rbac:groups="",resources=secrets,verbs=create,namespace=jwks-trust-system
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;update,resourceNames=jwks-trust-manager-tls;jwks-trust-manager-ca,namespace=jwks-trust-system
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;create;update,namespace=jwks-trust-system

const (
	// SecretName is the Secret with the certificate (tls.crt, tls.key), which the
	// verifier mounts.
	SecretName = "jwks-trust-manager-tls"
	// AuthorityName is the Secret with the authority's key, which nobody else needs,
	// and the ConfigMap with its certificate (ca.crt), which clients trust.
	AuthorityName = "jwks-trust-manager-ca"
	// Marker is the annotation of what is kept by the Keeper.
	Marker = "jwks-trust.dev/self-signed"

	keyAuthority = "ca.crt"
	// keyPrevious and keyPreviousKey are the authority before this one.
	keyPrevious, keyPreviousKey = "previous.crt", "previous.key"
	// interval is how often the Keeper looks. It is short because a Secret that is
	// lost keeps new pods waiting.
	interval = time.Minute
)

// Keeper keeps the certificate. It works on the elected leader.
type Keeper struct {
	// Client writes, and Reader reads from the API server itself: a cache would need
	// the right to list all Secrets.
	Client client.Writer
	Reader client.Reader
	// Namespace is the operator's.
	Namespace string
	// Names are the DNS names of the verifier; at least one.
	Names []string
	Clock clock.WithTicker
	Log   logr.Logger
}

var (
	_ manager.Runnable               = (*Keeper)(nil)
	_ manager.LeaderElectionRunnable = (*Keeper)(nil)
)

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Keeper) NeedLeaderElection() bool { return true }

// Start keeps the certificate until the context ends.
func (k *Keeper) Start(ctx context.Context) error {
	ticker := k.Clock.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := k.Keep(ctx); err != nil && ctx.Err() == nil {
			k.Log.Error(err, "The serving certificate could not be kept; trying again in a minute")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// Keep looks once, and mends what is missing, wrong or near its end.
func (k *Keeper) Keep(ctx context.Context) error {
	serving, err := k.secret(ctx, SecretName)
	if err != nil {
		return err
	}
	if foreign(serving) {
		return nil
	}
	now := k.Clock.Now()
	known, signer, err := k.authorities(ctx, now)
	if err != nil {
		return err
	}
	trusted, err := k.publish(ctx, known)
	if err != nil {
		return err
	}
	if current, err := pairOf(serving); err == nil && current.serves(k.Names) && !current.renewal(certificateRenewal, now) && signedByOneOf(current, trusted) {
		return nil
	}
	next, err := newServing(signer, k.Names, now)
	if err != nil {
		return err
	}
	if err := k.store(ctx, serving, SecretName, next, nil); err != nil {
		return err
	}
	k.Log.Info("Made a serving certificate", "secret", SecretName, "expires", next.parsed.NotAfter)
	return nil
}

// authorities are the newest authority, made where there is none that is good for
// long enough, and the one before it, whose certificates may still be in use; and
// the one of them that signs now: clients have a while to learn of another one
// before it does.
func (k *Keeper) authorities(ctx context.Context, now time.Time) (known []*pair, signer *pair, err error) {
	stored, err := k.secret(ctx, AuthorityName)
	if err != nil {
		return nil, nil, err
	}
	if foreign(stored) {
		return nil, nil, fmt.Errorf("the Secret %s/%s was not made by this program: rename it, or give the verifier a certificate in %s", k.Namespace, AuthorityName, SecretName)
	}
	current, err := pairOf(stored)
	usable := err == nil && current.parsed.IsCA && now.Before(current.parsed.NotAfter)
	if usable && !current.renewal(authorityRenewal, now) {
		previous := former(stored, now)
		if previous == nil {
			return []*pair{current}, current, nil
		}
		signer = current
		if fresh := now.Before(current.parsed.NotBefore.Add(announcement)); fresh && !previous.renewal(certificateLife, now) {
			signer = previous
		}
		return []*pair{current, previous}, signer, nil
	}
	next, err := newAuthority(now)
	if err != nil {
		return nil, nil, err
	}
	k.Log.Info("Made an authority for the serving certificate", "secret", AuthorityName, "expires", next.parsed.NotAfter)
	known, signer = []*pair{next}, next
	extra := map[string][]byte{}
	if usable {
		known = append(known, current)
		extra[keyPrevious], extra[keyPreviousKey] = current.certificate, current.key
		if !current.renewal(certificateLife, now) {
			signer = current
		}
	}
	return known, signer, k.store(ctx, stored, AuthorityName, next, extra)
}

// former is the authority before the one of today; nil without one that is good.
func former(stored *corev1.Secret, now time.Time) *pair {
	p, err := parsePair(stored.Data[keyPrevious], stored.Data[keyPreviousKey])
	if err != nil || !now.Before(p.parsed.NotAfter) {
		return nil
	}
	return p
}

// publish puts the authorities' certificates into the ConfigMap, and returns them.
// What else it held goes: whoever may write ConfigMaps shall not name authorities.
func (k *Keeper) publish(ctx context.Context, known []*pair) ([]byte, error) {
	cm := &corev1.ConfigMap{}
	err := k.Reader.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: AuthorityName}, cm)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, fmt.Errorf("reading ConfigMap %s: %w", AuthorityName, err)
	}
	var content []byte
	for _, authority := range known {
		content = append(content, authority.certificate...)
	}
	if cm.Data[keyAuthority] == string(content) {
		return content, nil
	}
	cm.Namespace, cm.Name, cm.Data = k.Namespace, AuthorityName, map[string]string{keyAuthority: string(content)}
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, Marker, "true")
	if missing {
		err = k.Client.Create(ctx, cm)
	} else {
		err = k.Client.Update(ctx, cm)
	}
	if err != nil {
		return nil, fmt.Errorf("writing ConfigMap %s: %w", AuthorityName, err)
	}
	return content, nil
}

// secret is the Secret of that name; an empty one where there is none.
func (k *Keeper) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := k.Reader.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: name}, s)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return s, nil
}

// store writes a pair. A Secret that was changed since it was read is not
// overwritten.
func (k *Keeper) store(ctx context.Context, s *corev1.Secret, name string, p *pair, extra map[string][]byte) error {
	s.Data = map[string][]byte{corev1.TLSCertKey: p.certificate, corev1.TLSPrivateKeyKey: p.key}
	maps.Copy(s.Data, extra)
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, Marker, "true")
	var err error
	if s.ResourceVersion == "" {
		s.Namespace, s.Name, s.Type = k.Namespace, name, corev1.SecretTypeTLS
		err = k.Client.Create(ctx, s)
	} else {
		err = k.Client.Update(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", name, err)
	}
	return nil
}

// foreign reports that somebody else keeps the Secret.
func foreign(s *corev1.Secret) bool {
	return s.ResourceVersion != "" && s.Annotations[Marker] != "true"
}

func pairOf(s *corev1.Secret) (*pair, error) {
	if s.ResourceVersion == "" {
		return nil, errors.New("there is none")
	}
	return parsePair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
}

// signedByOneOf reports whether clients that trust these authorities trust the
// certificate.
func signedByOneOf(p *pair, authorities []byte) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorities)
	_, err := p.parsed.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: p.parsed.NotBefore.Add(backdated), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err == nil
}
