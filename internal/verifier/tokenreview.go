// tokenreview.go answers the Kubernetes API server's token webhook
// (authentication.k8s.io/v1 and v1beta1, POST /tokenreview). What the API server
// makes of an answer decides its form:
//
//	good           200, authenticated, user
//	definite no    200, not authenticated, no error: cached; other authenticators
//	               go on
//	cannot decide  200, not authenticated, status.error and the audiences echoed:
//	               not cached (without the echo it would be)
//	overload       a bare 503: one call, not cached
//
// Never 500, 429 or Retry-After: the API server would come back, and wait.

package verifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authenticationv1beta1 "k8s.io/api/authentication/v1beta1"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

const (
	// tokenReviewPath is where the API server's webhook configuration points.
	tokenReviewPath = "/tokenreview"
	// tokenReviewDeadline is how long a review may take in all. The API server
	// would wait for 30 s, and its user with it.
	tokenReviewDeadline = 2500 * time.Millisecond
	// maxReviewSize limits the body of a review, in bytes.
	maxReviewSize = 1 << 20
	// maxReviewDepth bounds its nesting.
	maxReviewDepth = 16
	reviewKind     = "TokenReview"
	jsonType       = "application/json"
	// reservedPrefix begins the names that only Kubernetes itself gives.
	reservedPrefix = "system:"
)

// tokenReview is the handler.
type tokenReview struct {
	issuers issuers
	lookup  *lookup
	now     func() time.Time
	// apiAudiences are those of the API server itself.
	apiAudiences []string
	gate         *gate
	cache        *tokenCache
	log          logr.Logger
}

// answer is a verdict in the words of TokenReview.
type answer struct {
	verdict   Verdict
	object    string
	user      *user
	audiences []string
}

func (h *tokenReview) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status := precheck(w, r); status != 0 {
		w.WriteHeader(status)
		return
	}
	if !h.gate.enter() {
		count(protocolTokenReview, Verdict{Outcome: CannotDecide, Reason: Overloaded})
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	deadline := time.Now().Add(tokenReviewDeadline)
	review, status := readReview(deadline, w, r)
	if status != 0 {
		h.gate.leave()
		w.WriteHeader(status)
		return
	}
	a := h.within(r.Context(), deadline, review.spec)
	count(protocolTokenReview, a.verdict)
	logVerdict(h.log, a.verdict, a.object)
	writeReview(w, review.apiVersion, a)
}

// precheck refuses what is no review by the API server, before any of it is
// read. It returns the HTTP status, or 0.
func precheck(w http.ResponseWriter, r *http.Request) int {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return http.StatusForbidden
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed
	}
	if contentType := r.Header.Get("Content-Type"); contentType != jsonType {
		if mediaType, _, err := mime.ParseMediaType(contentType); err != nil || mediaType != jsonType {
			return http.StatusUnsupportedMediaType
		}
	}
	return 0
}

// readReview reads the body. Both versions have the same fields. It returns the
// HTTP status of a failure, or 0.
func readReview(deadline time.Time, w http.ResponseWriter, r *http.Request) (*question, int) {
	// Not every ResponseWriter can do this; the server's own read timeout stands in
	// that case.
	_ = http.NewResponseController(w).SetReadDeadline(deadline)
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0)+bytes.MinRead, maxReviewSize)))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxReviewSize))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge
	case err != nil:
		return nil, http.StatusBadRequest
	}
	q, ok := parseReview(body.Bytes())
	if !ok {
		return nil, http.StatusBadRequest
	}
	return q, 0
}

// question is what counts of a review.
type question struct {
	apiVersion string
	spec       authenticationv1.TokenReviewSpec
}

// parseReview reads a review, as strictly as a token.
func parseReview(body []byte) (*question, bool) {
	review, err := jose.ReadObject(body, maxReviewDepth)
	if err != nil {
		return nil, false
	}
	kind, _ := jose.Text(review.Member("kind"))
	q := &question{}
	q.apiVersion, _ = jose.Text(review.Member("apiVersion"))
	if kind != reviewKind || !supportedVersion(q.apiVersion) {
		return nil, false
	}
	spec, err := jose.ReadObject(review.Member("spec"), maxReviewDepth)
	if err != nil {
		return nil, false
	}
	ok := true
	if token := spec.Member("token"); token != nil {
		q.spec.Token, ok = jose.Text(token)
	}
	if audiences := spec.Member("audiences"); ok && audiences != nil && string(audiences) != "null" {
		q.spec.Audiences, ok = jose.Texts(audiences)
	}
	return q, ok
}

func supportedVersion(apiVersion string) bool {
	return apiVersion == authenticationv1.SchemeGroupVersion.String() ||
		apiVersion == authenticationv1beta1.SchemeGroupVersion.String()
}

// within judges a review, and gives up waiting at the deadline.
func (h *tokenReview) within(ctx context.Context, deadline time.Time, spec authenticationv1.TokenReviewSpec) answer {
	if a, ok := h.seen(spec); ok {
		h.gate.leave()
		return a
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	done := make(chan answer, 1)
	go func() { done <- h.work(ctx, spec) }()
	select {
	case a := <-done:
		return a
	case <-ctx.Done():
		return answer{verdict: Verdict{Outcome: CannotDecide, Reason: DeadlineExceeded}, audiences: spec.Audiences}
	}
}

// work judges a review and contains its panics. The place in the gate is given
// back when the work has ended, not when the waiting has, so that work which
// nobody waits for any more cannot pile up.
func (h *tokenReview) work(ctx context.Context, spec authenticationv1.TokenReviewSpec) answer {
	defer h.gate.leave()
	a := answer{audiences: spec.Audiences}
	a.verdict = contained(h.log, func() Verdict {
		a = h.judge(ctx, spec)
		return a.verdict
	})
	return a
}

// judge judges the token of a review. For a verdict other than Accept nothing
// but the audiences of the request is passed on.
func (h *tokenReview) judge(ctx context.Context, spec authenticationv1.TokenReviewSpec) answer {
	a := answer{audiences: spec.Audiences}
	c, refused := decode(spec.Token)
	if refused != nil {
		a.verdict = *refused
		return a
	}
	c.gate = h.gate
	if !h.issuers.Ready() {
		a.verdict = c.verdict(CannotDecide, NotReady)
		return a
	}
	issuer, ok := h.issuers.ForTokenReview(c.untrustedClaims.Issuer)
	if !ok {
		a.verdict = c.verdict(Refuse, UnknownIssuer)
		return a
	}
	a.object = issuer.Object.String()
	a.verdict, issuer = h.lookup.judge(ctx, c, issuer, h.now())
	if a.verdict.Outcome != Accept {
		return a
	}
	if issuer.KubernetesAuthentication == nil { // taken back while a key was looked up
		a.verdict = c.verdict(Refuse, UnknownIssuer)
		return a
	}
	h.cache.put(spec.Token, a.verdict)
	return h.accept(a.verdict, issuer, spec.Audiences)
}

// seen judges a review of a token that was accepted before.
func (h *tokenReview) seen(spec authenticationv1.TokenReviewSpec) (a answer, ok bool) {
	before := h.cache.get(spec.Token)
	if before == nil {
		return a, false
	}
	issuer, ok := h.issuers.ForTokenReview(before.claims.Issuer)
	if !ok {
		return a, false
	}
	v, ok := before.again(issuer, h.now())
	if !ok {
		return a, false
	}
	return h.accept(v, issuer, spec.Audiences), true
}

// accept is the answer for a token that the issuer's keys and policy accept.
func (h *tokenReview) accept(v Verdict, issuer *Issuer, requested []string) answer {
	a := h.identify(v, requested)
	a.object = issuer.Object.String()
	if a.verdict.Outcome != Accept {
		a.audiences = requested
		return a
	}
	issuer.used(a.verdict, h.now())
	return a
}

// identify is who an accepted token stands for, and for which of the requested
// audiences.
func (h *tokenReview) identify(v Verdict, requested []string) answer {
	a := answer{verdict: v, audiences: h.grantedAudiences(v.Claims, requested)}
	if len(requested) > 0 && len(a.audiences) == 0 {
		return answer{verdict: v.refusedFor(AudienceMismatch)}
	}
	user, refusal := v.accepted.user()
	if refusal != nil {
		refused := v.refusedFor(Reason(refusal.Reason))
		refused.Detail = refusal.Detail
		return answer{verdict: refused}
	}
	if slices.ContainsFunc(append([]string{user.Username}, user.Groups...), reserved) {
		return answer{verdict: v.refusedFor(ReservedName)}
	}
	a.user = user
	return a
}

func reserved(name string) bool { return strings.HasPrefix(name, reservedPrefix) }

// grantedAudiences are the requested ones that the token names, or that the API
// server itself is known by. That the token is meant for the issuer's audiences
// has been checked before.
func (h *tokenReview) grantedAudiences(claims *Claims, requested []string) []string {
	var granted []string
	for _, a := range requested {
		if slices.Contains(claims.Audiences, a) || slices.Contains(h.apiAudiences, a) {
			granted = append(granted, a)
		}
	}
	return granted
}

// writeReview sends an answer in the version of the question. The token is not
// sent back.
func writeReview(w http.ResponseWriter, version string, a answer) {
	body, err := a.review(version)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// review is the answer as the API server reads it, in JSON.
func (a answer) review(version string) ([]byte, error) {
	var status authenticationv1.TokenReviewStatus
	switch {
	case a.verdict.Outcome == Accept && a.user != nil && a.user.Username != "":
		return a.authenticated(version)
	case a.verdict.Outcome == Refuse:
	default:
		status.Audiences = a.audiences
		status.Error = "cannot decide: " + string(a.verdict.Reason) + ": " + a.verdict.Reason.Text()
	}
	return json.Marshal(struct {
		Kind       string                             `json:"kind"`
		APIVersion string                             `json:"apiVersion"`
		Status     authenticationv1.TokenReviewStatus `json:"status"`
	}{reviewKind, version, status})
}

// authenticated puts together what is JSON already.
func (a answer) authenticated(version string) ([]byte, error) {
	body := make([]byte, 0, len(a.user.json)+256)
	body = append(body, `{"kind":"`+reviewKind+`","apiVersion":"`...)
	body = append(body, version...) // one of two
	body = append(body, `","status":{"authenticated":true,"user":`...)
	body = append(body, a.user.json...)
	if len(a.audiences) > 0 {
		audiences, err := json.Marshal(a.audiences)
		if err != nil {
			return nil, err
		}
		body = append(append(body, `,"audiences":`...), audiences...)
	}
	return append(body, "}}"...), nil
}
