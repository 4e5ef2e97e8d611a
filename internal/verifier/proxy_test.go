package verifier

import (
	"net/http"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// verifies is an edit of spec.verification.
func verifies(v api.VerificationSpec) edit {
	return func(c *api.ClusterTrustedIssuer) { c.Spec.Verification = &v }
}

// storeWith has the ClusterTrustedIssuer main, with the key "a".
func storeWith(t *testing.T, edits ...edit) *Store {
	t.Helper()
	s, set := newStore(), keySet(t, ec("a"))
	s.put(t, cluster(append([]edit{publishes(set, start)}, edits...)...), set)
	return s
}

// askWith sends a proxy's request with these headers.
func askWith(t *testing.T, url string, header http.Header) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	request.Header = header
	response, err := http.DefaultTransport.RoundTrip(request)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestTheTokenInACookie(t *testing.T) {
	s := storeWith(t, verifies(api.VerificationSpec{Cookie: "session"}))
	without := storeWith(t)
	good := ec("a").Sign(claims(nil))
	bad := tamper(good)
	for name, tc := range map[string]struct {
		store  *Store
		header http.Header
		status int
		reason Reason
	}{
		"in the cookie":               {s, http.Header{"Cookie": {"session=" + good}}, 200, ""},
		"among others":                {s, http.Header{"Cookie": {"a=1; session=" + good + "; b=2"}}, 200, ""},
		"in the second header":        {s, http.Header{"Cookie": {"a=1", "session=" + good}}, 200, ""},
		"in quotes":                   {s, http.Header{"Cookie": {`session="` + good + `"`}}, 200, ""},
		"a bad one":                   {s, http.Header{"Cookie": {"session=" + bad}}, 401, SignatureInvalid},
		"an empty one":                {s, http.Header{"Cookie": {"session="}}, 401, TokenMissing},
		"another case":                {s, http.Header{"Cookie": {"Session=" + good}}, 401, TokenMissing},
		"two of them":                 {s, http.Header{"Cookie": {"session=" + good + "; session=" + good}}, 401, AmbiguousCredentials},
		"two of them, in two headers": {s, http.Header{"Cookie": {"session=" + good, "session=x"}}, 401, AmbiguousCredentials},
		"beside one with odd bytes":   {s, http.Header{"Cookie": {"session=" + bad + "\xe9; session=" + good}}, 401, AmbiguousCredentials},
		"beside one with a backslash": {s, http.Header{"Cookie": {`session=x\y`, "session=" + good}}, 401, AmbiguousCredentials},
		"one with odd bytes alone":    {s, http.Header{"Cookie": {"session=" + good + "\xe9"}}, 401, TokenMissing},
		"beside a bearer token":       {s, http.Header{"Cookie": {"session=" + bad}, "Authorization": {"Bearer " + good}}, 200, ""},
		"beside a bad bearer token":   {s, http.Header{"Cookie": {"session=" + good}, "Authorization": {"Bearer " + bad}}, 401, SignatureInvalid},
		"beside another scheme":       {s, http.Header{"Cookie": {"session=" + good}, "Authorization": {"Basic YTpi"}}, 200, ""},
		"beside two bearer tokens":    {s, http.Header{"Cookie": {"session=" + good}, "Authorization": {"Bearer x", "Bearer y"}}, 401, AmbiguousCredentials},
		"where the policy names none": {without, http.Header{"Cookie": {"session=" + good}}, 401, TokenMissing},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := askWith(t, forwardAuthServer(t, tc.store)+clusterPath, tc.header)
			g.Expect(r.StatusCode).To(Equal(tc.status))
			g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(tc.reason)))
		})
	}
}

// Where nothing is known of the issuer, or not all, a cookie may be the token: what
// cannot be decided about a token in the header cannot be about one in a cookie.
func TestATokenInACookieThatNobodyCanJudge(t *testing.T) {
	starting := newStore()
	starting.ready.Store(false)
	wrong := rule("claims.sub ==")
	wrong.Cookie = "session"
	for name, tc := range map[string]struct {
		store  *Store
		reason Reason
	}{
		"a replica that has just started": {starting, NotReady},
		"no such issuer":                  {newStore(), UnknownIssuer},
		"a rule that cannot be compiled":  {storeWith(t, verifies(wrong)), PolicyInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			url, token := forwardAuthServer(t, tc.store)+clusterPath, ec("a").Sign(claims(nil))
			for _, header := range []http.Header{{"Cookie": {"a=1; session=" + token}}, {"Authorization": {"Bearer " + token}}} {
				r := askWith(t, url, header)
				g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable))
				g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(tc.reason)))
			}
			g.Expect(askWith(t, url, http.Header{}).StatusCode).To(Equal(http.StatusUnauthorized), "there is no token that anybody could judge")
		})
	}
}

func TestResponseHeaders(t *testing.T) {
	headers := []api.ResponseHeader{
		{Name: "X-Auth-Email", Claim: "email"}, {Name: "X-Auth-Groups", Claim: "groups"},
		{Name: "X-Auth-Tenant", Expression: `has(claims.tenant) ? claims.tenant : "none"`},
	}
	url := forwardAuthServer(t, storeWith(t, verifies(api.VerificationSpec{ResponseHeaders: headers})))
	for name, tc := range map[string]struct {
		claims map[string]any
		want   []string // email, groups, tenant; nil when refused
	}{
		"all there":    {map[string]any{"email": "a@b.c", "groups": []string{"x", "y"}, "tenant": "blue"}, []string{"a@b.c", "x,y", "blue"}},
		"none there":   {nil, []string{"", "", "none"}},
		"not ASCII":    {map[string]any{"email": "josé@b.c"}, []string{"josé@b.c", "", "none"}},
		"a line break": {map[string]any{"email": "a\r\nX-Admin: true"}, nil},
		"a comma":      {map[string]any{"groups": []string{"x,admin", "y"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := ask(t, "GET", url+clusterPath, "Bearer "+ec("a").Sign(claims(tc.claims)))
			g.Expect(r.Header).NotTo(HaveKey("X-Admin"))
			if tc.want == nil {
				g.Expect(r.StatusCode).To(Equal(http.StatusUnauthorized))
				g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(ClaimNotHeaderSafe)))
				return
			}
			g.Expect(r.StatusCode).To(Equal(http.StatusOK))
			for i, h := range headers {
				g.Expect(r.Header.Values(h.Name)).To(Equal([]string{tc.want[i]}), h.Name)
			}
		})
	}
	g := NewWithT(t)
	r := ask(t, "GET", url+clusterPath, "Bearer "+tamper(ec("a").Sign(claims(nil))))
	g.Expect(r.Header).NotTo(HaveKey("X-Auth-Tenant"), "nothing of a refused token is passed on")
}

// A rule that cannot be compiled lets nobody in, and sends nobody away for good.
func TestAPolicyThatCannotBeCompiled(t *testing.T) {
	g := NewWithT(t)
	s := storeWith(t, verifies(rule("claims.sub ==")))
	token := ec("a").Sign(claims(nil))
	r := ask(t, "GET", forwardAuthServer(t, s)+clusterPath, "Bearer "+token)
	g.Expect(r.StatusCode).To(Equal(http.StatusServiceUnavailable))
	g.Expect(r.Header.Get(HeaderReason)).To(Equal(string(PolicyInvalid)))
	status := review(t, asAPIServer(t, newTokenReview(s)), token)
	g.Expect(status.Authenticated).To(BeFalse())
	g.Expect(status.Error).To(ContainSubstring(string(PolicyInvalid)))

	issuer, ok := s.ForObject(object)
	g.Expect(ok).To(BeTrue())
	g.Expect(Verify(ec("a").Sign(claims(map[string]any{"aud": "theirs"})), issuer, start).Reason).
		To(Equal(AudienceMismatch), "what is no without the policy stays so")
}

func TestPolicyInTokenReview(t *testing.T) {
	mapped := func(c *api.ClusterTrustedIssuer) {
		c.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{
			UsernamePrefix: "ext:", GroupsPrefix: "team:",
			ClaimMappings: &api.ClaimMappings{
				Username: &api.ClaimOrExpression{Claim: "email"}, Groups: &api.ClaimOrExpression{Expression: "claims.teams"},
				UID: &api.ClaimOrExpression{Claim: "sub"}, Extra: []api.ExtraMapping{{Key: "example.com/tenant", ValueExpression: "claims.tenant"}},
			},
			UserValidationRules: []api.UserValidationRule{{Expression: `!user.groups.exists(g, g == "team:banned")`}},
		}
	}
	handler := newTokenReview(storeWith(t, mapped, verifies(api.VerificationSpec{RequiredClaims: []string{"tenant"}})))
	cache, err := newTokenCache(1<<20, time.Now)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	handler.cache = cache
	url := asAPIServer(t, handler)
	full := map[string]any{"email": "alice@example.com", "email_verified": true, "teams": []string{"a", "b"}, "tenant": "blue", "jti": absent{}}
	with := func(name string, value any) map[string]any {
		all := map[string]any{}
		for k, v := range full {
			all[k] = v
		}
		all[name] = value
		return all
	}
	g := NewWithT(t)
	for range 2 { // the second time it has been seen before
		status := review(t, url, ec("a").Sign(claims(full)))
		g.Expect(status.Authenticated).To(BeTrue())
		g.Expect(status.User.Username).To(Equal("ext:alice@example.com"))
		g.Expect(status.User.Groups).To(Equal([]string{"team:a", "team:b"}))
		g.Expect(status.User.UID).To(Equal("alice"))
		g.Expect(status.User.Extra).To(HaveKeyWithValue("example.com/tenant", ConsistOf("blue")))
		g.Expect(review(t, url, ec("a").Sign(claims(full)), "unknown")).To(Equal(definiteNo), "seen before or not, the audiences count")
	}
	for name, bad := range map[string]map[string]any{
		"an email that is not verified": with("email_verified", false),
		"no email":                      with("email", absent{}),
		"a required claim missing":      with("tenant", absent{}),
		"groups of the wrong type":      with("teams", 7),
		"a user whom a rule refuses":    with("teams", []string{"banned"}),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				NewWithT(t).Expect(review(t, url, ec("a").Sign(claims(bad)))).To(Equal(definiteNo))
			}
		})
	}
}

// The server remembers tokens for both protocols, and what one asks does not show
// in the other.
func TestTheServerRemembersTokens(t *testing.T) {
	g := NewWithT(t)
	server, err := NewServer(ServerOptions{TokenCacheSize: 1 << 20}, ordersStore(t), logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	url := serve(t, server.HTTPHandler())
	token := ec("a").Sign(claims(nil))
	for range 3 {
		for _, path := range []string{namespacedPath, clusterPath} {
			g.Expect(ask(t, "GET", url+path, "Bearer "+token).StatusCode).To(Equal(http.StatusOK))
			g.Expect(ask(t, "GET", url+path, "Bearer "+tamper(token)).StatusCode).To(Equal(http.StatusUnauthorized))
		}
	}
	g.Expect(server.forwardAuth.cache.get(nameOf(token))).NotTo(BeNil())
	g.Expect(server.Verify(t.Context(), object, token).Outcome).To(Equal(Accept))
	g.Expect(server.Verify(t.Context(), Object{Kind: api.ClusterTrustedIssuerKind, Name: "nobody"}, token).Reason).To(Equal(UnknownIssuer))
}
