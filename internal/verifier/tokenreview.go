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
	"context"
	"encoding/json"
	"errors"
	"io"
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
	tracer       *requestTracer
	log          logr.Logger
}

// answer is a verdict in the words of TokenReview.
type answer struct {
	verdict   Verdict
	object    string
	user      *authenticationv1.UserInfo
	audiences []string
}

func (h *tokenReview) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status := precheck(w, r); status != 0 {
		w.WriteHeader(status)
		return
	}
	ctx, span := h.tracer.start(r.Context(), protocolTokenReview, r.Header)
	a := h.answer(ctx, w, r)
	span.end(a.verdict, a.object)
}

// answer answers a review, and returns what; nothing for one that is none.
func (h *tokenReview) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) (a answer) {
	if !h.gate.enter() {
		a.verdict = Verdict{Outcome: CannotDecide, Reason: Overloaded}
		count(protocolTokenReview, a.verdict)
		w.WriteHeader(http.StatusServiceUnavailable)
		return a
	}
	ours := true // the place in the gate, until the work has it
	defer func() {
		if ours {
			h.gate.leave()
		}
	}()
	deadline := time.Now().Add(tokenReviewDeadline)
	body, status := readBody(deadline, w, r)
	if status != 0 {
		w.WriteHeader(status)
		return a
	}
	name := nameOfReview(body)
	if before, issuer := h.seen(name); before != nil {
		writeReview(w, before.reply)
		a.verdict = Verdict{Outcome: Accept, Reason: Accepted}
		if h.tracer != nil {
			a.object = issuer.Object.String()
		}
		return a
	}
	review, ok := parseReview(body)
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		return a
	}
	ours = false
	a = h.within(ctx, deadline, review.spec)
	count(protocolTokenReview, a.verdict)
	logVerdict(h.log, a.verdict, a.object)
	reply, err := a.review(review.apiVersion)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return a
	}
	h.remember(name, a, reply)
	writeReview(w, reply)
	return a
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

// readBody reads the body of a review. It returns the HTTP status of a failure, or 0.
func readBody(deadline time.Time, w http.ResponseWriter, r *http.Request) (body []byte, status int) {
	// Not every ResponseWriter can do this; the server's own read timeout stands in
	// that case.
	_ = http.NewResponseController(w).SetReadDeadline(deadline)
	var err error
	switch length := r.ContentLength; {
	case length > maxReviewSize:
		return nil, http.StatusRequestEntityTooLarge
	case length >= 0:
		body = make([]byte, length)
		_, err = io.ReadFull(r.Body, body)
	default:
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxReviewSize))
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge
	case err != nil:
		return nil, http.StatusBadRequest
	}
	return body, 0
}

// question is what counts of a review.
type question struct {
	apiVersion string
	spec       authenticationv1.TokenReviewSpec
}

// parseReview reads a review, as strictly as a token. Both versions have the same
// fields.
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
	a = h.identify(a.verdict, spec.Audiences)
	a.object = issuer.Object.String()
	if a.verdict.Outcome == Accept {
		issuer.used(a.verdict, h.now())
	}
	return a
}

// remember keeps the reply to a review whose token was accepted. Its name is that of
// the whole review: the API server asks the same question with the same bytes.
func (h *tokenReview) remember(name tokenName, a answer, reply []byte) {
	if a.verdict.Outcome == Accept {
		a.verdict.accepted.reply = reply
		h.cache.put(name, a.verdict)
	}
}

// seen is a review that was answered before, if its token would be accepted again; nil
// otherwise. For whom the token stands, and for which audiences, rests on the review
// and on what the token is judged by, and on nothing else.
func (h *tokenReview) seen(name tokenName) (*accepted, *Issuer) {
	before := h.cache.get(name)
	if before == nil || before.reply == nil {
		return nil, nil
	}
	issuer, ok := h.issuers.ForTokenReview(before.claims.Issuer)
	if !ok {
		return nil, nil
	}
	v, ok := before.again(issuer, h.now())
	if !ok {
		return nil, nil
	}
	issuer.used(v, h.now())
	count(protocolTokenReview, v)
	if h.log.V(1).Enabled() {
		logVerdict(h.log, v, issuer.Object.String())
	}
	return before, issuer
}

// identify is who an accepted token stands for, and for which of the requested
// audiences.
func (h *tokenReview) identify(v Verdict, requested []string) answer {
	a := answer{verdict: v, audiences: h.grantedAudiences(v.Claims, requested)}
	if len(requested) > 0 && len(a.audiences) == 0 {
		return answer{verdict: v.refusedFor(AudienceMismatch)}
	}
	user, refusal := v.accepted.evaluation.User()
	if refusal != nil {
		return answer{verdict: v.refusedBy(refusal), audiences: requested}
	}
	if reserved(user.Username) || slices.ContainsFunc(user.Groups, reserved) {
		return answer{verdict: v.refusedFor(ReservedName)}
	}
	a.user = &user
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

// writeReview sends a reply.
func writeReview(w http.ResponseWriter, reply []byte) {
	w.Header().Set("Content-Type", jsonType)
	_, _ = w.Write(reply) // the client may be gone; there is nobody else to tell
}

// review is the answer as the API server reads it, in JSON and in the version of the
// question. The token is not sent back.
func (a answer) review(version string) ([]byte, error) {
	var status authenticationv1.TokenReviewStatus
	switch {
	case a.verdict.Outcome == Accept && a.user != nil && a.user.Username != "":
		status.Authenticated, status.User, status.Audiences = true, *a.user, a.audiences
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
