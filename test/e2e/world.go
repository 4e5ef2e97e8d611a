// world.go is what the steps share: the cluster, the issuer, and the requests that go
// on all the time.

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	namespace   = "shop"
	audience    = "https://shop.example.com"
	verifierDNS = "jwks-trust-manager." + harness.OperatorNamespace + ".svc"
)

// world is what there is.
type world struct {
	*node
	options

	issuer *testissuer.Issuer
	keys   []*testissuer.Key
	// app and verifier ask the application's Service and the verifier's.
	app, verifier *asker
	load          *load
	// published is the mounted ConfigMap's data before the operator was removed.
	published string
}

// asker sends tokens to one URL.
type asker struct {
	url    string
	client *http.Client
}

// ask is the status and the body that a token gets.
func (a *asker) ask(ctx context.Context, token string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // has been read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return resp.StatusCode, strings.TrimSpace(string(body)), err
}

// answers waits for the Service to be reachable: kube-proxy may not have heard of a
// pod that has just become ready.
func (a *asker) answers(ctx context.Context) error {
	return harness.Within(ctx, time.Minute, 100*time.Millisecond, a.url, func() (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, _, err := a.ask(ctx, "")
		return err == nil, nil
	})
}

// expect asks once, and says what came.
func (a *asker) expect(ctx context.Context, who, token string, want int) error {
	status, body, err := a.ask(ctx, token)
	if err != nil {
		return err
	}
	fmt.Printf("   %s: %d %s\n", who, status, body)
	if status != want {
		return fmt.Errorf("%s answered %d, not %d: %s", who, status, want, body)
	}
	return nil
}

// serviceIP is the address of a Service.
func (w *world) serviceIP(ctx context.Context, namespace, name string) (string, error) {
	return w.output(ctx, "get", "service", "-n", namespace, name, "-o", "jsonpath={.spec.clusterIP}")
}

// findServices makes the two askers, and waits for answers. They reach the Services
// as pods do: by their cluster addresses, through kube-proxy.
func (w *world) findServices(ctx context.Context) error {
	ip, err := w.serviceIP(ctx, namespace, "app")
	if err != nil {
		return err
	}
	w.app = &asker{"http://" + ip, &http.Client{Transport: &http.Transport{}}}
	if ip, err = w.serviceIP(ctx, harness.OperatorNamespace, "jwks-trust-manager"); err != nil {
		return err
	}
	ca, err := w.output(ctx, "get", "configmap", "-n", harness.OperatorNamespace, "jwks-trust-manager-ca", "-o", `jsonpath={.data.ca\.crt}`)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return errors.New("the ConfigMap jwks-trust-manager-ca holds no certificate")
	}
	dialer := &net.Dialer{}
	w.verifier = &asker{"https://" + verifierDNS + "/forward-auth/ns/" + namespace + "/login", &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, net.JoinHostPort(ip, "443"))
		},
	}}}
	return errors.Join(w.app.answers(ctx), w.verifier.answers(ctx))
}

// token is one that is good for an hour.
func (w *world) token(key *testissuer.Key, aud string) string {
	now := time.Now()
	return key.Sign(map[string]any{
		"iss": w.issuer.URL(), "aud": aud, "sub": "ada",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
}

// kubectl shows a command and what it prints.
func (w *world) kubectl(ctx context.Context, args ...string) error {
	fmt.Println("   $ kubectl " + strings.Join(args, " "))
	out, err := w.output(ctx, args...)
	show(out)
	return err
}

// jwks shows a command of the kubectl plugin and what it prints. kubectl finds it by
// its name.
func (w *world) jwks(ctx context.Context, args ...string) (string, error) {
	fmt.Println("   $ kubectl jwks " + strings.Join(args, " "))
	command := append([]string{"env", "PATH=" + w.path("plugins") + ":" + os.Getenv("PATH"), "KUBECONFIG=" + w.path("admin.yaml"),
		filepath.Join(harness.Assets(), "kubectl"), "jwks"}, args...)
	out, err := outputOf(ctx, command...)
	show(out)
	return out, err
}

// helmDo runs helm as the administrator.
func (w *world) helmDo(ctx context.Context, args ...string) error {
	fmt.Println("   $ helm " + strings.Join(args, " "))
	return quietly(ctx, append([]string{w.helm, "--kubeconfig", w.path("admin.yaml")}, args...)...)
}

// apply applies a manifest.
func (w *world) apply(ctx context.Context, name, manifest string) error {
	if err := os.WriteFile(w.path(name), []byte(manifest), 0o600); err != nil {
		return err
	}
	return w.kubectlQuiet(ctx, "apply", "-f", w.path(name))
}

func show(out string) {
	for line := range strings.Lines(out) {
		fmt.Print("   | " + line)
	}
}

// explain prints what helps to understand a failure.
func (w *world) explain() {
	if w.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-A", "--field-selector", "type=Warning", "--sort-by=.lastTimestamp"},
		{"get", "trustedissuers", "-A", "-o", "yaml"},
		{"logs", "-n", harness.OperatorNamespace, "--all-containers", "--prefix", "--tail=30", "-l", "app.kubernetes.io/name in (jwks-trust-controller, jwks-trust-verifier)"},
	} {
		_ = w.kubectl(ctx, args...) // what can be had
	}
}
