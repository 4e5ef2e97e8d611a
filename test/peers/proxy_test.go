package peers

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// settings fill in the configuration of a proxy.
type settings struct {
	// Listen is where the proxy does, Application what is behind it, and Verifier
	// our server; all of them with a port.
	Listen, Application, Verifier string
	// Authority is the file of the one that our server's certificate, for
	// ServerName, is of.
	Authority, ServerName string
	// Issuer is the issuer object, as our paths have it.
	Issuer string
	// Log is the file that takes the proxy's log.
	Log string
}

// newSettings are those for a proxy between a server and an application.
func newSettings(t *testing.T, s *server, a *application) settings {
	t.Helper()
	return settings{
		Listen: freeAddress(t), Application: a.address, Verifier: s.address,
		Authority: s.authorityFile, ServerName: serverName, Issuer: trusted,
	}
}

// application is what a proxy protects. It keeps what arrives.
type application struct {
	address string

	mu      sync.Mutex
	arrived []arrival
}

type arrival struct {
	method, body string
	header       http.Header
}

const greeting, ownError = "the application's answer", "the application's own error"

func startApplication(t *testing.T) *application {
	t.Helper()
	a := &application{}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.address = s.Listener.Addr().String()
	return a
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // half a body is not the one that a test expects
	a.mu.Lock()
	a.arrived = append(a.arrived, arrival{r.Method, string(body), r.Header})
	a.mu.Unlock()
	if r.URL.Path == "/broken" {
		http.Error(w, ownError, http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, greeting) // the proxy may hang up
}

// took is what has arrived since it was last asked.
func (a *application) took() []arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.arrived
	a.arrived = nil
	return all
}

// identity are the headers that an application could take for ours: by that name,
// or by one that CGI and its heirs (WSGI, PHP) turn into the same variable.
func (a arrival) identity() map[string]string {
	out := map[string]string{}
	for name, values := range a.header {
		same := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
		if strings.HasPrefix(same, "x-auth-") {
			out[name] = strings.Join(values, " and ")
		}
	}
	return out
}

// request is what a client sends.
type request struct {
	method, path, body string
	header             http.Header
}

func send(t *testing.T, client *http.Client, to string, r request) (response *http.Response, body string) {
	t.Helper()
	if r.method == "" {
		r.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, to+r.path, strings.NewReader(r.body))
	must(t, err)
	maps.Copy(req.Header, r.header) // names as they are, unlike with Set
	resp, err := client.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(text)
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func with(header http.Header, more map[string]string) http.Header {
	header = header.Clone()
	for name, value := range more {
		header[name] = append(header[name], value)
	}
	return header
}

// spoofed are headers of clients that would like to be somebody else.
var spoofed = map[string]string{
	"X-Auth-Subject": "admin", "x-auth-issuer": "admin", "X-AUTH-EMAIL": "admin", "X-Auth-Groups": "admin",
	"X_Auth_Subject": "admin", "X-Auth_Subject": "admin", "x_auth-email": "admin", "X_AUTH_GROUPS": "admin",
	"x.auth.subject": "admin", "X.Auth.Email": "admin", "X-Auth.Groups": "admin", "X.Auth_Subject": "admin",
}

// proxyCase is a request and what is to come of it.
type proxyCase struct {
	name string
	request
	// status is that of the answer; 0 for any that says it was the client's fault.
	status int
	// challenge is in the WWW-Authenticate of the answer.
	challenge string
	// identity is what the application sees; nil where nothing must get to it.
	identity map[string]string
	// answer is what the client sees of the application.
	answer string
}

// alice are the headers for a good token.
func alice(changes map[string]string) map[string]string {
	all := map[string]string{
		"X-Auth-Subject": subject, "X-Auth-Issuer": issuerURL, "X-Auth-Email": "alice@example.com", "X-Auth-Groups": "staff,on-call",
	}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

func proxyCases(key *testissuer.Key) []proxyCase {
	return append(goodRequests(key), badRequests(key)...)
}

func goodRequests(key *testissuer.Key) []proxyCase {
	token := func(changes map[string]any) string { return key.Sign(claims(changes)) }
	good, bare := bearer(token(nil)), bearer(token(map[string]any{"email": nil, "groups": nil, "sub": nil}))
	many := strings.Repeat("a-group-with-a-long-name,", 400)
	many = many[:len(many)-1]
	return []proxyCase{
		{name: "good token", request: request{header: good}, status: 200, identity: alice(nil), answer: greeting},
		{name: "spoofed headers", request: request{header: with(good, spoofed)}, status: 200, identity: alice(nil), answer: greeting},
		{
			name: "spoofed headers for claims that are not there", request: request{header: with(bare, spoofed)}, status: 200,
			identity: map[string]string{"X-Auth-Issuer": issuerURL}, answer: greeting,
		},
		{name: "POST", request: request{method: "POST", header: good, body: "an order"}, status: 200, identity: alice(nil), answer: greeting},
		{
			name: "POST with much of a body", request: request{method: "POST", header: good, body: strings.Repeat("an order\n", 50_000)},
			status: 200, identity: alice(nil), answer: greeting,
		},
		{name: "HEAD", request: request{method: "HEAD", header: good}, status: 200, identity: alice(nil)},
		{name: "DELETE", request: request{method: "DELETE", path: "/orders/1?x=/..%2f", header: good}, status: 200, identity: alice(nil), answer: greeting},
		{
			name: "cookie", request: request{header: http.Header{"Cookie": {"theme=dark; " + cookieName + "=" + token(nil)}}},
			status: 200, identity: alice(nil), answer: greeting,
		},
		{
			name: "letters outside ASCII", request: request{header: bearer(token(map[string]any{"groups": []string{"Füchse", "on-call"}}))},
			status: 200, identity: alice(map[string]string{"X-Auth-Groups": "Füchse,on-call"}), answer: greeting,
		},
		{
			name: "many groups", request: request{header: bearer(token(map[string]any{"groups": strings.Split(many, ",")}))},
			status: 200, identity: alice(map[string]string{"X-Auth-Groups": many}), answer: greeting,
		},
		{name: "error of the application", request: request{path: "/broken", header: good}, status: 500, identity: alice(nil), answer: ownError + "\n"},
	}
}

func badRequests(key *testissuer.Key) []proxyCase {
	good := key.Sign(claims(nil))
	otherAudience := key.Sign(claims(map[string]any{"aud": "https://elsewhere.example.com"}))
	const missing, invalid = `Bearer realm="jwks-trust"`, `error="invalid_token"`
	return []proxyCase{
		{name: "no token", status: 401, challenge: missing},
		{name: "no token but spoofed headers", request: request{header: with(http.Header{}, spoofed)}, status: 401, challenge: missing},
		{name: "POST without a token", request: request{method: "POST", body: "an order"}, status: 401, challenge: missing},
		{name: "HEAD without a token", request: request{method: "HEAD"}, status: 401, challenge: missing},
		{name: "no JWT", request: request{header: bearer("secret")}, status: 401, challenge: invalid},
		{name: "tampered token", request: request{header: bearer(tampered(key))}, status: 401, challenge: invalid},
		{name: "tampered cookie", request: request{header: http.Header{"Cookie": {cookieName + "=" + tampered(key)}}}, status: 401, challenge: invalid},
		{name: "another audience", request: request{header: bearer(otherAudience)}, status: 401, challenge: invalid},
		{name: "another's key", request: request{header: bearer(testissuer.NewKey(key.ID, key.Algorithm).Sign(claims(nil)))}, status: 401, challenge: invalid},
		{name: "two tokens", request: request{header: http.Header{"Authorization": {"Bearer " + tampered(key), "Bearer " + good}}}},
		{name: "two cookies", request: request{header: http.Header{"Cookie": {cookieName + "=" + good + "; " + cookieName + "=" + good}}}, status: 401, challenge: `error="invalid_request"`},
	}
}

// run sends the request through the proxy at that URL.
func (c proxyCase) run(t *testing.T, url string, a *application) {
	resp, body := send(t, newClient(t, nil), url, c.request)
	arrived := a.took()
	if clientError := resp.StatusCode/100 == 4; resp.StatusCode != c.status && (c.status != 0 || !clientError) {
		t.Errorf("status %d, not %d", resp.StatusCode, c.status)
	}
	if got := resp.Header.Get("WWW-Authenticate"); !strings.Contains(got, c.challenge) {
		t.Errorf("WWW-Authenticate is %q and lacks %q", got, c.challenge)
	}
	if c.identity == nil {
		if len(arrived) > 0 {
			t.Errorf("it got to the application: %v", arrived)
		}
		return
	}
	if len(arrived) != 1 {
		t.Fatalf("%d requests arrived at the application", len(arrived))
	}
	if got := arrived[0]; !maps.Equal(got.identity(), c.identity) {
		t.Errorf("the application was told %v, not %v", got.identity(), c.identity)
	} else if method := resp.Request.Method; got.method != method || got.body != c.body {
		t.Errorf("%s with %d bytes became %s with %d bytes", method, len(c.body), got.method, len(got.body))
	}
	if body != c.answer {
		t.Errorf("the client was told %q, not %q", body, c.answer)
	}
}

// startProxy starts a proxy with these settings.
type startProxy func(*testing.T, settings)

// testProxy sends it all that a proxy has to get right.
func testProxy(t *testing.T, start startProxy) {
	key := testissuer.NewKey("k1", "RS256")
	s, a := startServer(t, key), startApplication(t)
	config := newSettings(t, s, a)
	start(t, config)
	for _, c := range proxyCases(key) {
		t.Run(c.name, func(t *testing.T) { c.run(t, "http://"+config.Listen, a) })
	}
}

// testUndecided sends a good token where our server cannot decide, or cannot be
// asked. Nothing may get to the application.
func testUndecided(t *testing.T, start startProxy, statuses map[string]int) {
	key := testissuer.NewKey("k1", "RS256")
	s, other, a := startServer(t, key), startServer(t), startApplication(t)
	for name, change := range map[string]func(*settings){
		"an issuer without keys":       func(c *settings) { c.Issuer = keyless },
		"no such issuer":               func(c *settings) { c.Issuer = "cluster/unheard-of" },
		"a path of no issuer":          func(c *settings) { c.Issuer = "orders/auth0" },
		"nobody listens":               func(c *settings) { c.Verifier = freeAddress(t) },
		"a certificate for others":     func(c *settings) { c.ServerName = "elsewhere.example.com" },
		"a certificate from elsewhere": func(c *settings) { c.Authority = other.authorityFile },
	} {
		t.Run(name, func(t *testing.T) {
			config := newSettings(t, s, a)
			change(&config)
			start(t, config)
			c := proxyCase{request: request{header: bearer(key.Sign(claims(nil)))}, status: statuses[name]}
			if c.status == 0 {
				c.status = statuses[""]
			}
			c.run(t, "http://"+config.Listen, a)
		})
	}
}
