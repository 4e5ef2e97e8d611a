// steps.go is the story: what is shown, and what must come out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// audience is what the samples expect in "aud".
const audience = "https://orders.example.com"

// apiAudience is the API server's own audience. The verifier has to know it: it
// is what a TokenReview asks for.
const apiAudience = "https://kubernetes.example.com"

// Paths of forward-auth for the issuers of config/samples.
const (
	ordersPath    = "/forward-auth/ns/orders/orders"
	apiServerPath = "/forward-auth/ns/orders/api-server"
)

// staleAfter is the cacheTTL that the demo gives the samples: the shortest one.
const staleAfter = 2 * time.Minute

type step struct {
	title string
	do    func(context.Context, *world) error
}

var steps = []step{
	{"Trust issuers: kubectl apply of config/samples, pointed at the demo's servers", trust},
	{"Ready: status says what is trusted, and how fresh it is", ready},
	{"Published: the keys are in a ConfigMap that any pod can mount", published},
	{"A token is verified by forward-auth, for nginx, Traefik or Caddy", forwardAuth},
	{"The same token logs in to the Kubernetes API", login},
	{"The issuer rotates its key; a token of the new key is accepted by itself", rotate},
	{"A tampered token, and one for somebody else, are refused with the reason", refuse},
	{"The API server's own issuer: a token of kubectl create token is verified", serviceAccount},
	{"The issuer stops: its tokens are still accepted, and Stale says so", outage},
	{"The issuer is back: everything is fresh again", recovery},
}

func trust(ctx context.Context, w *world) error {
	discovery, err := w.kubectlQuiet(ctx, "get", "--raw", "/.well-known/openid-configuration")
	if err != nil {
		return fmt.Errorf("reading the API server's discovery document: %w\n%s", err, discovery)
	}
	var found struct {
		Issuer string `json:"issuer"`
	}
	if err := json.Unmarshal([]byte(discovery), &found); err != nil {
		return err
	}
	w.apiIssuer = found.Issuer
	if err := w.writeOverlay(); err != nil {
		return err
	}
	// kube-controller-manager makes this ConfigMap on a whole cluster; and by
	// this role binding a cluster lets anybody read its service account keys.
	for _, args := range [][]string{
		{"create", "namespace", "orders"},
		{"create", "configmap", "kube-root-ca.crt", "-n", "orders", "--from-file=ca.crt=" + w.path("api-ca.crt")},
		{"create", "clusterrolebinding", "service-account-issuer-discovery", "--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated"},
	} {
		if out, err := w.kubectlQuiet(ctx, args...); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", shown(args), err, out)
		}
	}
	_, err = w.kubectl(ctx, "apply", "-k", w.path("overlay"))
	return err
}

// writeOverlay is a kustomization over config/samples, as a user would write it:
// it replaces the names of servers by those of the demo.
func (w *world) writeOverlay() error {
	samples, err := filepath.Rel(w.path("overlay"), filepath.Join(harness.Root(), "config", "samples"))
	if err != nil {
		return err
	}
	type patch map[string]any
	set := func(path string, value any) patch { return patch{"op": "add", "path": path, "value": value} }
	scripted := []patch{
		set("/spec/issuer", w.issuer.URL()), set("/spec/jwksURI", w.issuer.JWKSURI()),
		set("/spec/caBundle", w.issuer.CABundle()), set("/spec/cacheTTL", staleAfter.String()),
	}
	apiServer := "https://" + strings.Trim(strings.TrimPrefix(w.env.Config.Host, "https://"), "/")
	apiServerPatch := []patch{set("/spec/issuer", w.apiIssuer), set("/spec/jwksURI", apiServer+"/openid/v1/jwks"), set("/spec/audiences", []string{audience})}
	type target struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	}
	type entry struct {
		Target target `json:"target"`
		Patch  string `json:"patch"`
	}
	patches := make([]entry, 0, 3)
	for _, p := range []struct {
		target
		ops []patch
	}{
		{target{"TrustedIssuer", "orders"}, scripted},
		{target{"ClusterTrustedIssuer", "company-login"}, scripted},
		{target{"TrustedIssuer", "api-server"}, apiServerPatch},
	} {
		ops, err := json.Marshal(p.ops)
		if err != nil {
			return err
		}
		patches = append(patches, entry{p.target, string(ops)})
	}
	kustomization, err := json.Marshal(map[string]any{"resources": []string{samples}, "patches": patches})
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(w.path("overlay"), 0o700),
		w.write(filepath.Join("overlay", "kustomization.yaml"), kustomization),
		w.write("api-ca.crt", w.env.Config.CAData),
	)
}

func ready(ctx context.Context, w *world) error {
	if _, err := w.kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=30s", "-n", "orders", "trustedissuer/orders", "trustedissuer/api-server"); err != nil {
		return err
	}
	if _, err := w.kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=30s", "clustertrustedissuer/company-login"); err != nil {
		return err
	}
	out, err := w.kubectl(ctx, "get", "trustedissuers,clustertrustedissuers", "-A")
	return errors.Join(err, expect(out, "Fresh", "company-login"))
}

func published(ctx context.Context, w *world) error {
	out, err := w.kubectl(ctx, "get", "configmap", "orders-jwks", "-n", "orders", "-o", `jsonpath={.data.jwks\.json}{"\n"}{.data.issuer\.json}{"\n"}`)
	if err != nil {
		return err
	}
	return expect(out, `"kid":"key-1"`, `"kty":"RSA"`, `"issuer":"`+w.issuer.URL()+`"`)
}

func forwardAuth(_ context.Context, w *world) error {
	w.goodToken = w.token(w.oldKey, audience)
	return w.request(ordersPath, w.goodToken, answer{status: http.StatusOK, subject: "alice"})
}

func login(ctx context.Context, w *world) error {
	out, err := w.kubectlAs(ctx, w.goodToken, "auth", "whoami")
	return errors.Join(err, expect(out, "company:alice", "company:payments"))
}

func rotate(ctx context.Context, w *world) error {
	w.newKey = testissuer.NewKey("key-2", "ES256")
	w.issuer.Publish(w.oldKey, w.newKey)
	say("The issuer now publishes key-1 and key-2, and signs with key-2. Nobody tells the controller:")
	say("the verifier does, when it meets a good token with an unknown key. An issuer is asked for")
	say("that at most once in 30 s, so just after the start this takes a moment ...")
	token := w.token(w.newKey, audience)
	var took time.Duration
	err := harness.Within(ctx, 45*time.Second, time.Second, "the new key", func() (bool, error) {
		asked := time.Now()
		got, err := w.ask(ordersPath, token)
		took = time.Since(asked)
		return got.status == http.StatusOK, err
	})
	if err != nil {
		return err
	}
	say(fmt.Sprintf("The request that made the controller fetch the keys waited %s for them, and was accepted.", took.Round(time.Millisecond)))
	if err := errors.Join(
		w.request(ordersPath, token, answer{status: http.StatusOK, subject: "alice"}),
		w.request(ordersPath, w.goodToken, answer{status: http.StatusOK, subject: "alice"}),
	); err != nil {
		return err
	}
	out, err := w.kubectl(ctx, "get", "trustedissuer", "orders", "-n", "orders", "-o", `jsonpath={range .status.keys[*]}{.kid}{"\t"}{.alg}{"\t"}{.state}{"\n"}{end}added: {.status.rotation.added}{"\n"}`)
	return errors.Join(err, expect(out, "key-1", "key-2", "Active", `["key-2"]`))
}

func refuse(_ context.Context, w *world) error {
	parts := strings.Split(w.token(w.newKey, audience), ".")
	other := strings.Split(w.newKey.Sign(testissuer.Claims(w.issuer.URL(), "mallory", audience, time.Now(), time.Hour)), ".")
	say("A token whose claims were exchanged:")
	tampered := strings.Join([]string{parts[0], other[1], parts[2]}, ".")
	if err := w.request(ordersPath, tampered, answer{status: http.StatusUnauthorized, reason: "SignatureInvalid"}); err != nil {
		return err
	}
	say("A genuine token that was made for another application:")
	return w.request(ordersPath, w.token(w.newKey, "https://billing.example.com"), answer{status: http.StatusUnauthorized, reason: "AudienceMismatch"})
}

func serviceAccount(ctx context.Context, w *world) error {
	if out, err := w.kubectlQuiet(ctx, "create", "serviceaccount", "shop", "-n", "orders"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	say("$ kubectl create token shop -n orders --audience=" + audience)
	token, err := w.kubectlQuiet(ctx, "create", "token", "shop", "-n", "orders", "--audience="+audience)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, token)
	}
	return w.request(apiServerPath, strings.TrimSpace(token), answer{status: http.StatusOK, subject: "system:serviceaccount:orders:shop"})
}

func outage(ctx context.Context, w *world) error {
	w.issuer.Stop()
	w.stopped = time.Now()
	say(fmt.Sprintf("The issuer refuses connections. Its keys stay fresh for their cacheTTL, %s here.", staleAfter))
	token := w.token(w.newKey, audience)
	err := harness.Within(ctx, staleAfter+30*time.Second, 2*time.Second, "the keys to become stale", func() (bool, error) {
		got, err := w.ask(ordersPath, token)
		if err != nil || got.status != http.StatusOK {
			return false, errors.Join(err, fmt.Errorf("a good token got %d (%s) during the outage", got.status, got.reason))
		}
		stale, err := w.kubectlQuiet(ctx, "get", "trustedissuer", "orders", "-n", "orders", "-o", `jsonpath={.status.conditions[?(@.type=="Stale")].status}`)
		return stale == "True", err
	})
	if err != nil {
		return err
	}
	say("All the while every request with a good token was accepted; and still is:")
	if err := w.request(ordersPath, token, answer{status: http.StatusOK, subject: "alice"}); err != nil {
		return err
	}
	out, err := w.kubectl(ctx, "get", "trustedissuers", "-n", "orders")
	if err = errors.Join(err, expect(out, "ServingStale")); err != nil {
		return err
	}
	out, err = w.kubectl(ctx, "get", "trustedissuer", "orders", "-n", "orders", "-o", `jsonpath={.status.conditions[?(@.type=="Stale")].message}`)
	return errors.Join(err, expect(out, "ConnectionFailed"))
}

func recovery(ctx context.Context, w *world) error {
	if err := w.issuer.Restart(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"annotate", "-n", "orders", "trustedissuer/orders", "--overwrite", "jwks-trust.dev/refresh=back"},
		{"wait", "-n", "orders", "--for=condition=Stale=False", "--timeout=30s", "trustedissuer/orders"},
		{"wait", "-n", "orders", "--for=condition=Fetched", "--timeout=30s", "trustedissuer/orders"},
	} {
		if _, err := w.kubectl(ctx, args...); err != nil {
			return err
		}
	}
	out, err := w.kubectl(ctx, "get", "events", "-n", "orders", "--sort-by=.metadata.creationTimestamp", "-o", "custom-columns=TYPE:.type,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message")
	if err = errors.Join(err, expect(out, "KeysRotated", "ServingStale", "Recovered")); err != nil {
		return err
	}
	return w.request(ordersPath, w.token(w.newKey, audience), answer{status: http.StatusOK, subject: "alice"})
}

// token is one for alice, a member of the group payments.
func (w *world) token(key *testissuer.Key, aud string) string {
	claims := testissuer.Claims(w.issuer.URL(), "alice", aud, time.Now(), time.Hour)
	claims["groups"] = []string{"payments"}
	return key.Sign(claims)
}

// answer is what forward-auth says.
type answer struct {
	status          int
	subject, reason string
}

// request asks forward-auth, shows the exchange, and compares the answer.
func (w *world) request(path, token string, want answer) error {
	fmt.Printf("   GET https://%s%s   Authorization: Bearer %.16s…\n", w.address, path, token)
	got, err := w.ask(path, token)
	if err != nil {
		return err
	}
	fmt.Printf("     %d %s", got.status, http.StatusText(got.status))
	if got.subject != "" {
		fmt.Printf("   X-Auth-Subject: %s", got.subject)
	}
	if got.status != http.StatusOK {
		fmt.Printf("   reason: %s", got.reason)
	}
	fmt.Println()
	if want.reason == "" {
		got.reason = ""
	}
	if got != want {
		return fmt.Errorf("forward-auth answered %+v, not %+v", got, want)
	}
	return nil
}

func (w *world) ask(path, token string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+w.address+path, nil) //nolint:noctx // the client has a timeout
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	return answer{
		status: resp.StatusCode, subject: resp.Header.Get("X-Auth-Subject"), reason: resp.Header.Get("X-Jwks-Trust-Reason"),
	}, resp.Body.Close()
}

// expect reports the first of the parts that the output lacks.
func expect(output string, parts ...string) error {
	for _, p := range parts {
		if !strings.Contains(output, p) {
			return fmt.Errorf("the output lacks %q:\n%s", p, output)
		}
	}
	return nil
}
