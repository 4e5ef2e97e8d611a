// source.go obtains the keys of an issuer, from its server or from the spec,
// and turns every way in which that can fail into a reason and a message. It
// is the one translator of errors into conditions and retries.

package controller

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// maxCABundle is the size limit of referenced PEM text, in bytes: that of
// spec.caBundle.
const maxCABundle = 256 << 10

// Fetcher gets documents from issuers. *fetch.Fetcher is one.
type Fetcher interface {
	Fetch(ctx context.Context, r fetch.Request) (*fetch.Document, error)
	Discover(ctx context.Context, r fetch.Request, issuer, discoveryURL string) (jwksURI string, err error)
}

// rediscoverAfter is how long a discovered jwks_uri is used before the issuer's
// metadata are read again.
const rediscoverAfter = time.Hour

// sourced is an attempt with what only the scheduling needs to know.
type sourced struct {
	attempt
	retryAfter  time.Duration
	lifetime    time.Duration
	hasLifetime bool
	validators  validators
}

// fetchKeys asks the issuer's server for its keys.
func (r *Reconciler) fetchKeys(ctx context.Context, issuer api.Issuer, p plan, m *memory) sourced {
	spec := issuer.IssuerSpec()
	out := sourced{attempt: attempt{
		started: r.Clock.Now(), generation: issuer.GetGeneration(), uri: issuer.IssuerStatus().JWKSURI,
		request: p.request, requestedAt: p.requestedAt, afresh: !p.revalidate,
	}}
	roots, err := r.caBundle(ctx, issuer)
	if err != nil {
		return out.failed(err)
	}
	req := fetch.Request{CABundle: roots, MaxRedirects: maxRedirects(spec), NoCache: !p.revalidate}
	if req.URL, err = r.jwksURI(ctx, issuer, req, m); err != nil {
		return out.failed(err)
	}
	out.uri = req.URL
	if v := m.validators; p.revalidate && v.set != nil && v.generation == out.generation && v.uri == req.URL {
		req.ETag, req.LastModified = v.etag, v.lastModified
	}
	doc, err := r.Fetcher.Fetch(ctx, req)
	if fetch.Gone(err) && m.moved(spec) {
		// The keys are not where they were discovered: ask again where they are.
		if req.URL, err = r.jwksURI(ctx, issuer, req, m); err != nil {
			return out.failed(err)
		}
		out.uri, req.ETag, req.LastModified = req.URL, "", ""
		doc, err = r.Fetcher.Fetch(ctx, req)
	}
	if err != nil {
		return out.failed(err)
	}
	out.lifetime, out.hasLifetime = doc.Lifetime, doc.HasLifetime
	if doc.NotModified {
		out.validators = m.validators
		before := findCondition(issuer.IssuerStatus(), api.ConditionFetched)
		message := admitted(keyset.Parsed{Set: m.validators.set})
		if before != nil && before.Reason == api.ReasonSucceeded {
			message = before.Message // the same document, so the same keys were skipped
		}
		return out.succeed(m.validators.set, message)
	}
	out = out.parsed(doc.Body, issuer)
	out.validators = validators{etag: doc.ETag, lastModified: doc.LastModified, generation: out.generation, uri: req.URL, set: out.set}
	return out
}

// jwksURI is where the keys are: where spec says, or where the issuer's metadata
// do. Metadata that cannot be read now do not undo what they said before.
func (r *Reconciler) jwksURI(ctx context.Context, issuer api.Issuer, req fetch.Request, m *memory) (string, error) {
	spec, now := issuer.IssuerSpec(), r.Clock.Now()
	if spec.JWKSURI != "" {
		return spec.JWKSURI, nil
	}
	d := m.discovered
	if d.generation == issuer.GetGeneration() && d.uri != "" && now.Sub(d.at).Abs() < rediscoverAfter {
		return d.uri, nil
	}
	uri, err := r.Fetcher.Discover(ctx, req, spec.Issuer, spec.DiscoveryURL)
	if err == nil {
		m.discovered = discovered{uri: uri, at: now, generation: issuer.GetGeneration()}
		return uri, nil
	}
	s := issuer.IssuerStatus()
	confirmed := s.Snapshot != nil && s.Snapshot.ObservedGeneration == issuer.GetGeneration()
	if confirmed && s.JWKSURI != "" && !m.gone {
		log.FromContext(ctx).V(1).Info("The issuer's metadata cannot be read; the keys are fetched from where they were", "error", err.Error())
		return s.JWKSURI, nil
	}
	return "", err
}

// readStatic admits the keys that the spec holds.
func (r *Reconciler) readStatic(issuer api.Issuer) sourced {
	out := sourced{attempt: attempt{started: r.Clock.Now(), generation: issuer.GetGeneration()}}
	out = out.parsed([]byte(issuer.IssuerSpec().JWKS), issuer)
	if out.succeeded {
		out.reason = api.ReasonStatic
	} else {
		out.needsChange = true
		out.message = "spec.jwks: " + out.message
	}
	return out
}

// parsed admits the keys of a document.
func (s sourced) parsed(document []byte, issuer api.Issuer) sourced {
	spec := issuer.IssuerSpec()
	parsed, err := keyset.Parse(document, keyset.Policy{
		Algorithms: algorithms(spec),
		Uses:       keyUses(spec),
		Revoked:    revoked(issuer),
	})
	s.compromised, s.skipped = parsed.Compromised, len(parsed.Skipped)
	if err != nil {
		return s.failed(err)
	}
	return s.succeed(parsed.Set, admitted(parsed))
}

func (s sourced) succeed(set *keyset.Set, message string) sourced {
	s.succeeded, s.set, s.reason, s.message = true, set, api.ReasonSucceeded, message
	return s
}

// failed translates an error.
func (s sourced) failed(err error) sourced {
	var fe *fetch.Error
	var ke *keyset.Error
	var ce *caBundleError
	switch {
	case errors.As(err, &fe):
		s.reason, s.message = string(fe.Reason), fe.Message
		s.retryAfter, s.needsChange = fe.RetryAfter, fe.Retry == fetch.RetryAfterChange
	case errors.As(err, &ke):
		s.reason, s.message = ke.Reason, ke.Message
	case errors.As(err, &ce):
		s.reason, s.message = api.ReasonCABundleUnavailable, ce.Error()
	default:
		s.reason, s.message = api.ReasonConnectionFailed, "The fetch was broken off: "+err.Error()
	}
	return s
}

// admitted describes a set: how many keys were admitted, and which were left
// out, by reason.
func admitted(p keyset.Parsed) string {
	n := p.Set.Len()
	message := fmt.Sprintf("%d keys were admitted.", n)
	if n == 1 {
		message = "1 key was admitted."
	}
	if len(p.Skipped) == 0 {
		return message
	}
	byReason := map[string][]string{}
	for _, s := range p.Skipped {
		name := s.KeyID
		if name == "" {
			name = fmt.Sprintf("#%d", s.Index)
		}
		byReason[s.Reason] = append(byReason[s.Reason], name)
	}
	var parts []string
	for reason, kids := range byReason {
		slices.Sort(kids)
		parts = append(parts, reason+": "+list(kids))
	}
	slices.Sort(parts)
	return fmt.Sprintf("%s %d skipped (%s).", message, len(p.Skipped), strings.Join(parts, "; "))
}

// caBundleError says why the certificates for the fetch cannot be had.
type caBundleError struct{ problem string }

func (e *caBundleError) Error() string { return e.problem }

// caBundle is the PEM text that the spec gives or names; nil for the system's
// roots. References are read from the API server itself: they are few, and a
// cache of every ConfigMap in the cluster would be large.
func (r *Reconciler) caBundle(ctx context.Context, issuer api.Issuer) ([]byte, error) {
	spec := issuer.IssuerSpec()
	ref := spec.CABundleRef
	switch {
	case spec.CABundle != "":
		return []byte(spec.CABundle), nil
	case ref == nil:
		return nil, nil
	case ref.ConfigMap != nil:
		namespace := issuer.GetNamespace()
		if namespace == "" {
			namespace = r.OperatorNamespace
		}
		return r.caFromConfigMap(ctx, client.ObjectKey{Namespace: namespace, Name: ref.ConfigMap.Name}, ref.ConfigMap.Key)
	case ref.ClusterTrustBundle != nil:
		return r.caFromClusterTrustBundle(ctx, ref.ClusterTrustBundle.Name)
	}
	return nil, &caBundleError{"spec.caBundleRef names nothing: set configMap or clusterTrustBundle."}
}

func (r *Reconciler) caFromConfigMap(ctx context.Context, at client.ObjectKey, key string) ([]byte, error) {
	var cm corev1.ConfigMap
	if err := r.Reader.Get(ctx, at, &cm); err != nil {
		return nil, unavailable("spec.caBundleRef.configMap", "ConfigMap "+at.String(), err)
	}
	text, ok := cm.Data[key]
	if !ok {
		return nil, &caBundleError{fmt.Sprintf("spec.caBundleRef.configMap: ConfigMap %s has no key %q; put the PEM certificates there, or correct the key.", at, key)}
	}
	return checkedPEM("spec.caBundleRef.configMap", text)
}

func (r *Reconciler) caFromClusterTrustBundle(ctx context.Context, name string) ([]byte, error) {
	var bundle certificatesv1.ClusterTrustBundle
	if err := r.Reader.Get(ctx, client.ObjectKey{Name: name}, &bundle); err != nil {
		return nil, unavailable("spec.caBundleRef.clusterTrustBundle", "ClusterTrustBundle "+name, err)
	}
	return checkedPEM("spec.caBundleRef.clusterTrustBundle", bundle.Spec.TrustBundle)
}

func unavailable(field, object string, err error) error {
	if apierrors.IsNotFound(err) {
		return &caBundleError{fmt.Sprintf("%s: %s does not exist; create it, or correct the name.", field, object)}
	}
	return &caBundleError{fmt.Sprintf("%s: %s cannot be read: %v.", field, object, err)}
}

// checkedPEM refuses text that holds no certificate: without roots of its own
// the fetch would quietly trust the system's.
func checkedPEM(field, text string) ([]byte, error) {
	if len(text) > maxCABundle {
		return nil, &caBundleError{fmt.Sprintf("%s: the text is over %d KiB; keep only the authorities that are needed.", field, maxCABundle>>10)}
	}
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, &caBundleError{field + ": the text holds no PEM block of type CERTIFICATE; put the CA's certificate there."}
		}
		if block.Type == "CERTIFICATE" {
			return []byte(text), nil
		}
	}
}
