// source.go obtains the keys of an issuer, from its server or from the spec,
// and turns every way in which that can fail into a reason and a message. It
// is the one translator of errors into conditions and retries.

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// readTimeout bounds a read from the API server that a fetch needs: a fetch that
// never ended would be the issuer's last.
const readTimeout = 10 * time.Second

// maxCABundle is the size limit of referenced PEM text, in bytes: that of
// spec.caBundle.
const maxCABundle = 256 << 10

// Fetcher gets documents from issuers, and one for all who want the same.
// *fetch.Shared is one.
type Fetcher interface {
	Get(ctx context.Context, w fetch.Want) fetch.Answer
	Discover(ctx context.Context, w fetch.Want, issuer, discoveryURL string) (jwksURI string, err error)
	Newest(id fetch.Identity) (digest [sha256.Size]byte)
	MayLookUp(url string) bool
}

const (
	// rediscoverAfter is how long a discovered jwks_uri is used before the
	// issuer's metadata are read again.
	rediscoverAfter = time.Hour
	// shareMetadata is how old metadata may be that were read for another issuer
	// object.
	shareMetadata = 10 * time.Minute
)

// sourced is an attempt with what only the scheduling needs to know.
type sourced struct {
	attempt
	retryAfter  time.Duration
	lifetime    time.Duration
	hasLifetime bool
	// refused: there was an answer, which says something that is not taken over.
	refused bool
	// document is what the keys were read from; zero without an answer.
	document documentID
	// discovered and gone are what is to be remembered of discovery.
	discovered discovered
	gone       bool
}

// documentID names a document and the state in which it was read.
type documentID struct {
	source fetch.Identity
	digest [sha256.Size]byte
}

// fetching is a fetch with all that it needs to know, so that it can go on while
// the issuer is reconciled.
type fetching struct {
	r      *Reconciler
	issuer api.Issuer
	plan   plan
	want   fetch.Want
	out    sourced
}

// fetchKeys asks the issuer's server for its keys. It must not change issuer.
//
// A panic is a failure like any other: it happens outside of a reconciliation, where
// one issuer's answer would end the manager, and the next one, again and again.
func (r *Reconciler) fetchKeys(ctx context.Context, issuer api.Issuer, p plan, known discovered, gone bool) (got sourced) {
	f := &fetching{r: r, issuer: issuer, plan: p, out: sourced{
		attempt: attempt{
			started: r.Clock.Now(), generation: issuer.GetGeneration(), uri: issuer.IssuerStatus().JWKSURI,
			request: p.request, requestedAt: p.requestedAt, afresh: !p.revalidate,
		},
		discovered: known, gone: gone,
	}}
	ctx, span := startSpan(ctx, "get keys", attribute.String("jwks_trust.why", p.why))
	defer func() {
		span.SetAttributes(attribute.String("jwks_trust.outcome", got.reason))
		span.End()
	}()
	defer func() {
		if p := recover(); p != nil {
			// What it said could hold part of the document.
			log.FromContext(ctx).Error(errPanic, "A fetch was broken off", "stack", string(debug.Stack()))
			got = f.out.failed(errPanic)
		}
	}()
	return f.keys(ctx)
}

// errPanic is what a panic is reported as.
var errPanic = errors.New("a panic, which is a mistake in this program; the manager's log has more")

// keys gets and admits the keys.
func (f *fetching) keys(ctx context.Context) sourced {
	p, issuer := f.plan, f.issuer
	roots, err := f.r.caBundle(ctx, issuer)
	if err != nil {
		return f.out.failed(err)
	}
	f.want = fetch.Want{
		Request:   fetch.Request{CABundle: roots, MaxRedirects: maxRedirects(issuer.IssuerSpec()), NoCache: !p.revalidate},
		NotBefore: p.notBefore, MaxAge: p.maxAge,
	}
	uri, err := f.jwksURI(ctx)
	if err != nil {
		return f.out.failed(err)
	}
	answer := f.get(ctx, uri)
	if fetch.Gone(answer.Err) && issuer.IssuerSpec().JWKSURI == "" {
		// The keys are not where they were discovered: ask again where they are.
		f.out.discovered, f.out.gone = discovered{}, true
		if uri, err = f.jwksURI(ctx); err != nil {
			return f.out.failed(err)
		}
		answer = f.get(ctx, uri)
	}
	if answer.Err != nil {
		return f.out.failed(answer.Err)
	}
	doc := answer.Document
	f.out.lifetime, f.out.hasLifetime, f.out.gone = doc.Lifetime, doc.HasLifetime, false
	return f.out.parsed(doc.Body, issuer)
}

// get gets the document with the keys. What is recorded is when the request for
// it began, even if that was for another issuer object.
func (f *fetching) get(ctx context.Context, uri string) fetch.Answer {
	f.want.URL, f.out.uri = uri, uri
	answer := f.r.Fetcher.Get(ctx, f.want)
	f.out.started, f.out.afresh = answer.Started, answer.Afresh
	f.out.document = documentID{source: f.want.Identity()}
	if answer.Err == nil {
		f.out.document.digest = sha256.Sum256(answer.Document.Body)
	}
	return answer
}

// jwksURI is where the keys are: where spec says, or where the issuer's metadata
// do. Metadata that cannot be read now do not undo what they said before.
func (f *fetching) jwksURI(ctx context.Context) (string, error) {
	spec, now := f.issuer.IssuerSpec(), f.r.Clock.Now()
	if spec.JWKSURI != "" {
		return spec.JWKSURI, nil
	}
	generation := f.issuer.GetGeneration()
	d := f.out.discovered
	if d.generation == generation && d.uri != "" && now.Sub(d.at).Abs() < rediscoverAfter {
		return d.uri, nil
	}
	want := f.want
	want.NotBefore, want.MaxAge = f.plan.notBefore, shareMetadata
	if f.out.gone || d.generation != generation {
		want.MaxAge = 0
	}
	uri, err := f.r.Fetcher.Discover(ctx, want, spec.Issuer, spec.DiscoveryURL)
	if err == nil {
		f.out.discovered = discovered{uri: uri, at: now, generation: generation}
		return uri, nil
	}
	s := f.issuer.IssuerStatus()
	confirmed := s.Snapshot != nil && s.Snapshot.ObservedGeneration == generation
	if confirmed && s.JWKSURI != "" && !f.out.gone && !fetch.Contradicts(err) {
		log.FromContext(ctx).V(1).Info("The issuer's metadata cannot be read; the keys are fetched from where they were", "error", err.Error())
		return s.JWKSURI, nil
	}
	return "", err
}

// readStatic admits the keys that the spec holds.
func (r *Reconciler) readStatic(issuer api.Issuer) sourced {
	out := sourced{attempt: attempt{
		started: r.Clock.Now(), generation: issuer.GetGeneration(),
		request: shortened(issuer.GetAnnotations()[api.AnnotationRefresh]), requestedAt: issuer.IssuerStatus().RefreshRequestedAt,
	}}
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
	for _, k := range parsed.Skipped {
		if k.Thumbprint != "" {
			s.excluded = append(s.excluded, k.Thumbprint)
		}
	}
	if hint := time.Duration(parsed.RefreshHint) * time.Second; hint > 0 && (!s.hasLifetime || hint < s.lifetime) {
		s.lifetime, s.hasLifetime = hint, true
	}
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
		s.reason, s.message, s.refused = string(fe.Reason), fe.Message, fetch.Contradicts(err)
		s.retryAfter, s.needsChange = fe.RetryAfter, fe.Retry == fetch.RetryAfterChange
	case errors.As(err, &ke):
		s.reason, s.message, s.refused = ke.Reason, ke.Message, true
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
	message := countKeys(p.Set.Len(), " was admitted.", " were admitted.")
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
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
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
