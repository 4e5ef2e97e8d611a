// tokenreview_test.go asks as the API server does, over real HTTP.

package verifier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const (
	v1      = "authentication.k8s.io/v1"
	v1beta1 = "authentication.k8s.io/v1beta1"
)

func newTokenReview(i issuers, apiAudiences ...string) *tokenReview {
	return &tokenReview{issuers: i, now: newStore().now, apiAudiences: apiAudiences, gate: newGate(1), log: logr.Discard()}
}

// asAPIServer serves a handler over real HTTP to a client whose certificate has
// been verified. server_test.go has the real handshake.
func asAPIServer(t *testing.T, h http.Handler) string {
	t.Helper()
	return serve(t, verified(h)) + tokenReviewPath
}

func verified(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
		h.ServeHTTP(w, r)
	})
}

// reviewBody is a question of the API server.
func reviewBody(apiVersion, token string, audiences ...string) []byte {
	body, err := json.Marshal(map[string]any{
		"kind": "TokenReview", "apiVersion": apiVersion,
		"metadata": map[string]any{"creationTimestamp": nil},
		"spec":     map[string]any{"token": token, "audiences": audiences},
	})
	if err != nil {
		panic(err)
	}
	return body
}

// post sends a body to a URL.
func post(t *testing.T, url, contentType string, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", contentType)
	response, err := http.DefaultTransport.RoundTrip(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return response, answer
}

// review asks about a token and insists on an answer in form.
func review(t *testing.T, url, token string, audiences ...string) authenticationv1.TokenReviewStatus {
	t.Helper()
	g := NewWithT(t)
	response, body := post(t, url, "application/json", bytes.NewReader(reviewBody(v1, token, audiences...)))
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	g.Expect(response.Header.Get("Content-Type")).To(Equal("application/json"))
	g.Expect(response.Header).NotTo(HaveKey("Retry-After"))
	var r authenticationv1.TokenReview
	g.Expect(json.Unmarshal(body, &r)).To(Succeed())
	g.Expect(r.APIVersion).To(Equal(v1))
	g.Expect(r.Kind).To(Equal("TokenReview"))
	g.Expect(r.Spec.Token).To(BeEmpty(), "the token is not sent back")
	return r.Status
}

// tamper changes the signature of a token.
func tamper(token string) string {
	at, with := len(token)-10, "A"
	if token[at] == 'A' {
		with = "B"
	}
	return token[:at] + with + token[at+1:]
}

// definiteNo is what every definite no looks like.
var definiteNo = authenticationv1.TokenReviewStatus{}

func TestTokenReviewAccepts(t *testing.T) {
	url := asAPIServer(t, newTokenReview(ordersStore(t), "https://kubernetes.default.svc"))
	for name, tc := range map[string]struct {
		claims              map[string]any
		requested, answered []string
		groups              []string
	}{
		"no audiences asked for":    {nil, nil, nil, nil},
		"the token's own audience":  {nil, []string{audience, "x"}, []string{audience}, nil},
		"the API server's audience": {nil, []string{"https://kubernetes.default.svc", "x"}, []string{"https://kubernetes.default.svc"}, nil},
		"any audience of the token": {map[string]any{"aud": []string{"z", audience, "y"}}, []string{"y", audience}, []string{"y", audience}, nil},
		"a group":                   {map[string]any{"groups": "devs"}, nil, nil, []string{"ext:devs"}},
		"groups":                    {map[string]any{"groups": []string{"devs", "", "ops"}}, nil, nil, []string{"ext:devs", "ext:ops"}},
		"groups null":               {map[string]any{"groups": nil}, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			status := review(t, url, ec("a").Sign(claims(tc.claims)), tc.requested...)
			NewWithT(t).Expect(status).To(Equal(authenticationv1.TokenReviewStatus{
				Authenticated: true,
				User:          authenticationv1.UserInfo{Username: "ext:alice", Groups: tc.groups},
				Audiences:     tc.answered,
			}))
		})
	}
}

func TestTokenReviewDefiniteNo(t *testing.T) {
	s := ordersStore(t)
	url := asAPIServer(t, newTokenReview(s, "https://kubernetes.default.svc"))
	// An issuer that authenticates to no API server, with the same key.
	set := keySet(t, ec("a"))
	s.put(t, cluster(publishes(set, start), identity("off", "off"), func(c *api.ClusterTrustedIssuer) {
		c.Spec.Issuer, c.Spec.KubernetesAuthentication = "https://off.example.com", nil
	}), set)
	leaky := keySet(t, ec("leaked"))
	s.put(t, cluster(publishes(leaky, start), compromised(leaky, "leaked"), identity("leaky", "leaky"), func(c *api.ClusterTrustedIssuer) {
		c.Spec.Issuer = "https://leaky.example.com"
	}), leaky)

	for name, tc := range map[string]struct {
		token     string
		requested []string
		reason    Reason
	}{
		"no token":                                   {"", nil, TokenMissing},
		"another authenticator's token":              {"s3cr3t", []string{audience}, MalformedToken},
		"an issuer that is not known":                {ec("a").Sign(claims(map[string]any{"iss": "https://kubernetes.default.svc"})), []string{audience}, UnknownIssuer},
		"an issuer without kubernetesAuthentication": {ec("a").Sign(claims(map[string]any{"iss": "https://off.example.com"})), []string{audience}, UnknownIssuer},
		"THREATS 12: iss in another case":            {ec("a").Sign(claims(map[string]any{"iss": strings.ToUpper(issuerName)})), nil, UnknownIssuer},
		"no iss":                                     {ec("a").Sign(claims(map[string]any{"iss": absent{}})), nil, UnknownIssuer},
		"not one of the issuer's audiences":          {ec("a").Sign(claims(map[string]any{"aud": "https://kubernetes.default.svc"})), []string{"https://kubernetes.default.svc"}, AudienceMismatch},
		"the same, with no audience asked":           {ec("a").Sign(claims(map[string]any{"aud": "x"})), nil, AudienceMismatch},
		"none of the requested audiences":            {ec("a").Sign(claims(nil)), []string{"x"}, AudienceMismatch},
		"expired":                                    {ec("a").Sign(claims(map[string]any{"exp": 1})), []string{audience}, TokenExpired},
		"a bad signature":                            {tamper(ec("a").Sign(claims(nil))), nil, SignatureInvalid},
		"THREATS 17: a compromised key":              {ec("leaked").Sign(claims(map[string]any{"iss": "https://leaky.example.com"})), []string{audience}, KeyRevoked},
		"THREATS 62: no sub":                         {ec("a").Sign(claims(map[string]any{"sub": absent{}})), []string{audience}, SubjectMissing},
		"THREATS 62: an empty sub":                   {ec("a").Sign(claims(map[string]any{"sub": ""})), nil, SubjectMissing},
		"THREATS 11: an exp that never comes":        {ec("a").Sign(claims(map[string]any{"exp": json.RawMessage("1e999")})), nil, MalformedClaims},
		"groups of the wrong type":                   {ec("a").Sign(claims(map[string]any{"groups": []any{"a", 1}})), nil, MalformedClaims},
		"THREATS 1: alg none":                        {part(map[string]any{"alg": "none"}) + "." + part(claims(nil)) + ".", []string{audience}, AlgorithmNotAllowed},
		"THREATS 10: a token over 16 KiB":            {strings.Repeat("a", 17<<10), []string{audience}, TokenTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := counted(protocolTokenReview, Refuse, tc.reason)
			status := review(t, url, tc.token, tc.requested...)
			g.Expect(status).To(Equal(definiteNo), "no error, no audiences: the API server may cache it and ask others")
			g.Expect(counted(protocolTokenReview, Refuse, tc.reason)).To(Equal(before+1), string(tc.reason))
		})
	}
}

func TestTokenReviewReservedNames(t *testing.T) {
	set := keySet(t, ec("a"))
	for name, tc := range map[string]struct {
		usernamePrefix, groupsPrefix string
		claims                       map[string]any
		reserved                     bool
	}{
		"a user of system:":                   {"sys", "", map[string]any{"sub": "tem:admin"}, true},
		"a prefix that says it":               {"system:", "", nil, true},
		"a group of system:":                  {"ext:", "sys", map[string]any{"groups": []string{"a", "tem:masters"}}, true},
		"groups without a prefix stay behind": {"ext:", "", map[string]any{"groups": []string{"system:masters"}}, false},
		"system: behind a prefix":             {"ext:", "ext:", map[string]any{"sub": "system:admin", "groups": "system:masters"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newStore()
			s.put(t, cluster(publishes(set, start), func(c *api.ClusterTrustedIssuer) {
				c.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: tc.usernamePrefix, GroupsPrefix: tc.groupsPrefix}
			}), set)
			status := review(t, asAPIServer(t, newTokenReview(s)), ec("a").Sign(claims(tc.claims)), audience)
			if tc.reserved {
				g.Expect(status).To(Equal(definiteNo))
				return
			}
			g.Expect(status.Authenticated).To(BeTrue())
			for _, name := range append(status.User.Groups, status.User.Username) {
				g.Expect(name).To(HavePrefix("ext:"))
			}
		})
	}
}

// cannotDecide insists on the one form that the API server does not cache.
func cannotDecide(t *testing.T, status authenticationv1.TokenReviewStatus, reason Reason, audiences ...string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(status.Authenticated).To(BeFalse())
	g.Expect(status.User).To(Equal(authenticationv1.UserInfo{}))
	g.Expect(status.Error).To(HavePrefix("cannot decide: " + string(reason) + ": "))
	g.Expect(status.Audiences).To(Equal(audiences), "without the echo the answer would be cached")
}

func TestTokenReviewCannotDecide(t *testing.T) {
	s := ordersStore(t)
	url := asAPIServer(t, newTokenReview(s))
	cannotDecide(t, review(t, url, ec("?").Sign(claims(nil)), audience, "x"), UnknownKey, audience, "x")

	s.setIssuer(cluster(publishes(keySet(t, ec("a")), start.Add(-time.Hour))))
	cannotDecide(t, review(t, url, ec("a").Sign(claims(nil)), audience), SnapshotExpired, audience)
	s.setIssuer(cluster())
	cannotDecide(t, review(t, url, ec("a").Sign(claims(nil)), audience), NoSnapshot, audience)

	s.ready.Store(false)
	unknown := ec("a").Sign(claims(map[string]any{"iss": "https://unknown.example.com"}))
	cannotDecide(t, review(t, url, unknown, audience), NotReady, audience)
	NewWithT(t).Expect(review(t, url, "s3cr3t", audience)).To(Equal(definiteNo), "what is no JWT is not ours, whoever has been read")
}

func TestTokenReviewVersions(t *testing.T) {
	url := asAPIServer(t, newTokenReview(ordersStore(t)))
	for _, version := range []string{v1, v1beta1} {
		t.Run(version, func(t *testing.T) {
			g := NewWithT(t)
			_, body := post(t, url, "application/json; charset=utf-8", bytes.NewReader(reviewBody(version, ec("a").Sign(claims(nil)))))
			var r authenticationv1.TokenReview
			g.Expect(json.Unmarshal(body, &r)).To(Succeed())
			g.Expect(r.APIVersion).To(Equal(version), "the answer has the version of the question")
			g.Expect(r.Status.Authenticated).To(BeTrue())
		})
	}
}

func TestTokenReviewRefusesWhatIsNoReview(t *testing.T) {
	h := newTokenReview(ordersStore(t))
	url := asAPIServer(t, h)
	good := reviewBody(v1, ec("a").Sign(claims(nil)))
	for name, tc := range map[string]struct {
		contentType string
		body        []byte
		status      int
	}{
		"THREATS 66: another apiVersion": {"application/json", reviewBody("authentication.k8s.io/v2", "x"), 400},
		"no apiVersion":                  {"application/json", reviewBody("", "x"), 400},
		"another kind":                   {"application/json", bytes.Replace(good, []byte("TokenReview"), []byte("SubjectAccessReview"), 1), 400},
		"nothing":                        {"application/json", nil, 400},
		"no JSON":                        {"application/json", []byte("token=x"), 400},
		"an array":                       {"application/json", []byte("[]"), 400},
		"a token of the wrong type":      {"application/json", []byte(`{"kind":"TokenReview","apiVersion":"` + v1 + `","spec":{"token":7}}`), 400},
		"bytes after the object":         {"application/json", append(bytes.Clone(good), 'x'), 400},
		"another content type":           {"application/x-www-form-urlencoded", good, 415},
		"YAML":                           {"application/yaml", good, 415},
		"no content type":                {"", good, 415},
		"THREATS 66: a 3 MiB body":       {"application/json", append(bytes.Repeat([]byte(" "), 3<<20), good...), 413},
		"a body over 1 MiB by a byte":    {"application/json", append(bytes.Repeat([]byte(" "), 1<<20-len(good)+1), good...), 413},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			response, body := post(t, url, tc.contentType, bytes.NewReader(tc.body))
			g.Expect(response.StatusCode).To(Equal(tc.status))
			g.Expect(body).To(BeEmpty(), "bare")
			g.Expect(response.Header).NotTo(HaveKey("Retry-After"))
		})
	}
	t.Run("a body whose length is not told", func(t *testing.T) {
		g := NewWithT(t)
		response, _ := post(t, url, "application/json", io.MultiReader(bytes.NewReader(good)))
		g.Expect(response.StatusCode).To(Equal(http.StatusOK))
		response, _ = post(t, url, "application/json", io.MultiReader(bytes.NewReader(append(bytes.Repeat([]byte(" "), 1<<20-len(good)+1), good...))))
		g.Expect(response.StatusCode).To(Equal(http.StatusRequestEntityTooLarge))
	})
	t.Run("a body of exactly 1 MiB", func(t *testing.T) {
		response, _ := post(t, url, "application/json", bytes.NewReader(append(bytes.Repeat([]byte(" "), 1<<20-len(good)), good...)))
		NewWithT(t).Expect(response.StatusCode).To(Equal(http.StatusOK), "and none of the above kept a place in the gate")
	})
	for _, method := range []string{"GET", "PUT", "DELETE", "HEAD"} {
		t.Run("THREATS 66: "+method, func(t *testing.T) {
			g := NewWithT(t)
			r := ask(t, method, url)
			g.Expect(r.StatusCode).To(Equal(http.StatusMethodNotAllowed))
			g.Expect(r.Header.Get("Allow")).To(Equal("POST"))
		})
	}
}

func TestTokenReviewNeedsAVerifiedClient(t *testing.T) {
	g := NewWithT(t)
	url := serve(t, newTokenReview(ordersStore(t))) + tokenReviewPath
	response, body := post(t, url, "application/json", bytes.NewReader(reviewBody(v1, ec("a").Sign(claims(nil)))))
	g.Expect(response.StatusCode).To(Equal(http.StatusForbidden))
	g.Expect(body).To(BeEmpty())
}

func TestTokenReviewContainsPanics(t *testing.T) {
	var logged bytes.Buffer
	h := newTokenReview(fakeIssuers{true, panics})
	h.log = funcr.New(func(_, args string) { logged.WriteString(args) }, funcr.Options{Verbosity: 1})
	url := asAPIServer(t, h)
	for range 3 { // more often than the gate has places
		cannotDecide(t, review(t, url, ec("a").Sign(claims(nil)), audience), InternalError, audience)
	}
	NewWithT(t).Expect(logged.String()).NotTo(ContainSubstring("eyJ"), "THREATS 60: what a panic says may hold a token")
}

// recordReview asks a handler without a network, for tests on a synctest clock.
func recordReview(ctx context.Context, h http.Handler, token string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, tokenReviewPath, bytes.NewReader(reviewBody(v1, token, audience)))
	r.Header.Set("Content-Type", "application/json")
	verified(h).ServeHTTP(w, r)
	return w
}

func TestTokenReviewDeadlineAndOverload(t *testing.T) {
	token := ec("a").Sign(claims(nil))
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		finish := make(chan struct{})
		h := newTokenReview(fakeIssuers{true, func() (*Issuer, bool) {
			<-finish
			return nil, false
		}})
		began := time.Now()
		w := recordReview(t.Context(), h, token)
		g.Expect(time.Since(began)).To(Equal(2500*time.Millisecond), "THREATS 61: its own deadline")
		g.Expect(w.Code).To(Equal(http.StatusOK))
		var r authenticationv1.TokenReview
		g.Expect(json.Unmarshal(w.Body.Bytes(), &r)).To(Succeed())
		cannotDecide(t, r.Status, DeadlineExceeded, audience)

		w = recordReview(t.Context(), h, token)
		g.Expect(w.Code).To(Equal(http.StatusServiceUnavailable), "THREATS 59: work that goes on keeps its place")
		g.Expect(w.Body.Len()).To(BeZero(), "THREATS 59: a bare 503")
		g.Expect(w.Header()).To(BeEmpty(), "THREATS 59: no Retry-After")
		g.Expect(time.Since(began)).To(Equal(2500*time.Millisecond), "THREATS 59: quickly")

		close(finish)
		synctest.Wait()
		w = recordReview(t.Context(), h, token)
		g.Expect(w.Code).To(Equal(http.StatusOK), "there is room again")
		g.Expect(json.Unmarshal(w.Body.Bytes(), &r)).To(Succeed())
	})
}

// A status is never authenticated without a user name, whatever a verdict says.
func TestTokenReviewStatusNeedsAName(t *testing.T) {
	g := NewWithT(t)
	for _, nobody := range []*authenticationv1.UserInfo{nil, {Groups: []string{"a"}}} {
		body, err := answer{verdict: Verdict{Outcome: Accept, Reason: Accepted}, user: nobody}.review(v1)
		g.Expect(err).NotTo(HaveOccurred())
		var review authenticationv1.TokenReview
		g.Expect(json.Unmarshal(body, &review)).To(Succeed())
		g.Expect(review.Status.Authenticated).To(BeFalse(), "THREATS 62")
		g.Expect(review.Status.Error).To(HavePrefix("cannot decide"))
	}
}
