// steps.go is the story: what is done, and what must come out.

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

type step struct {
	title string
	do    func(context.Context, *world) error
}

// smokeSteps is how many of the steps -smoke takes.
const smokeSteps = 5

var steps = []step{
	{"A node is Ready", nodeReady},
	{"Install the chart into a namespace with restricted pod security", install},
	{"Trust an issuer; an application mounts its keys", trust},
	{"A token is verified by the application itself, and by the verifier", verify},
	{"kubectl jwks finds the operator, and nothing that is amiss", plugin},
	{"The issuer rotates: the verifier and the mounted file follow", rotate},
	{"Roll the operator: no request fails", roll},
	{"Upgrade, roll back, and upgrade again: no request fails", upgrade},
	{"A controller is killed; the next rotation works all the same", kill},
	{"Uninstall: the objects and the keys stay, and the application goes on", uninstall},
	{"Install again: it goes on where it was", reinstall},
}

func nodeReady(ctx context.Context, w *world) error {
	return w.kubectl(ctx, "get", "nodes")
}

const restrictedNamespace = `apiVersion: v1
kind: Namespace
metadata:
  name: ` + harness.OperatorNamespace + `
  labels: {pod-security.kubernetes.io/enforce: restricted}
`

func install(ctx context.Context, w *world) error {
	if err := w.apply(ctx, "namespace.json", restrictedNamespace); err != nil {
		return err
	}
	if err := w.helmDo(ctx, w.release("install", oldTag)...); err != nil {
		return err
	}
	return w.kubectl(ctx, "get", "pods", "-n", harness.OperatorNamespace)
}

// release are the words that install or upgrade the chart.
func (w *world) release(verb, tag string) []string {
	return []string{
		verb, "jwks-trust-manager", filepath.Join(sources(w.dir, tag), "charts", "jwks-trust-manager"), "--namespace", harness.OperatorNamespace, "--wait", "--timeout", "3m",
		"--set", "image.repository=" + managerImage, "--set", "image.tag=" + tag, "--set", "image.pullPolicy=Never",
		"--set", "controller.egress.allowCIDRs={" + hostIP + "/32}",
	}
}

const application = `apiVersion: v1
kind: Namespace
metadata: {name: ` + namespace + `}
---
apiVersion: jwks-trust.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: login, namespace: ` + namespace + `}
spec:
  issuer: %[1]s
  audiences: [` + audience + `]
  caBundle: |
    %[2]s
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: ` + namespace + `}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: ` + namespace + `}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: app
        image: ` + appImage + `
        imagePullPolicy: Never
        args: [serve]
        env: [{name: ISSUER, value: "%[1]s"}, {name: AUDIENCE, value: "` + audience + `"}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: issuer, mountPath: /etc/issuer, readOnly: true}]
      volumes: [{name: issuer, configMap: {name: login-jwks}}]
`

func trust(ctx context.Context, w *world) error {
	var err error
	if w.issuer, err = testissuer.Start(testissuer.WithAddress(hostIP + ":8443")); err != nil {
		return err
	}
	w.publish("k1")
	manifest := fmt.Sprintf(application, w.issuer.URL(), strings.ReplaceAll(strings.TrimSpace(w.issuer.CABundle()), "\n", "\n    "))
	if err := w.apply(ctx, "application.yaml", manifest); err != nil {
		return err
	}
	if err := w.kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "-n", namespace, "trustedissuer/login"); err != nil {
		return err
	}
	if err := w.kubectl(ctx, "rollout", "status", "--timeout=120s", "-n", namespace, "deployment/app"); err != nil {
		return err
	}
	return w.kubectl(ctx, "get", "trustedissuers", "-A")
}

// publish adds a key to those that the issuer publishes.
func (w *world) publish(kid string) *testissuer.Key {
	w.keys = append(w.keys, testissuer.NewKey(kid, "ES256"))
	w.issuer.Publish(w.keys...)
	return w.keys[len(w.keys)-1]
}

func verify(ctx context.Context, w *world) error {
	if err := w.findServices(ctx); err != nil {
		return err
	}
	good, foreign := w.token(w.keys[0], audience), w.token(w.keys[0], "https://other.example.com")
	if err := errors.Join(
		w.app.expect(ctx, "the application", good, 200), w.verifier.expect(ctx, "the verifier", good, 200),
		w.app.expect(ctx, "the application, for a token for somebody else", foreign, 401),
		w.verifier.expect(ctx, "the verifier, for a token for somebody else", foreign, 401),
	); err != nil {
		return err
	}
	w.load = startLoad(ctx, good, map[string]*asker{"the application": w.app, "the verifier": w.verifier})
	return nil
}

// plugin asks `kubectl jwks` about the installation: its Deployments, lease and Service,
// whose verifier it reaches through the API server, and the issuer, from this machine.
func plugin(ctx context.Context, w *world) error {
	out, err := w.jwks(ctx, "version")
	if err != nil {
		return err
	}
	for _, deployment := range []string{"jwks-trust-controller", "jwks-trust-verifier"} {
		if want := harness.OperatorNamespace + "/" + deployment + ": " + managerImage + ":" + oldTag; !strings.Contains(out, want) {
			return fmt.Errorf("kubectl jwks version does not say %q", want)
		}
	}
	out, err = w.jwks(ctx, "check", "--all-namespaces")
	if err != nil {
		return err
	}
	for _, want := range []string{"1 usable key at", "mirror and forward-auth answer"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("kubectl jwks check does not say %q", want)
		}
	}
	for line := range strings.Lines(out) {
		amiss := strings.Contains(line, "FAILED") || strings.Contains(line, "skipped") || strings.Contains(line, "warning")
		if amiss && !strings.Contains(line, "token webhook: off") { // as it is installed here
			return fmt.Errorf("kubectl jwks check says %q", strings.TrimSpace(line))
		}
	}
	return nil
}

func rotate(ctx context.Context, w *world) error {
	// Tokens make the issuer be asked at most once in 30 s, counted from its last
	// answer of any kind, and that was just now.
	token, started := w.token(w.publish("k2"), audience), time.Now()
	if err := w.verifierKnows(ctx, token); err != nil {
		return err
	}
	if err := w.mountedKnows(ctx, token); err != nil {
		return err
	}
	fmt.Printf("   the application knows it after %s\n", time.Since(started).Round(time.Second))
	return w.load.check()
}

// verifierKnows waits for the verifier to accept a token whose key is new.
func (w *world) verifierKnows(ctx context.Context, token string) error {
	started := time.Now()
	if err := harness.Within(ctx, time.Minute, time.Second, "the verifier to know the key", func() (bool, error) {
		status, _, err := w.verifier.ask(ctx, token)
		return status == 200, err
	}); err != nil {
		return err
	}
	fmt.Printf("   the verifier accepts it after %s\n", time.Since(started).Round(time.Millisecond))
	return nil
}

// mountedKnows waits for the kubelet to bring a key to the application.
func (w *world) mountedKnows(ctx context.Context, token string) error {
	return harness.Within(ctx, 3*time.Minute, time.Second, "the mounted file to follow", func() (bool, error) {
		status, _, err := w.app.ask(ctx, token)
		return status == 200, err
	})
}

func roll(ctx context.Context, w *world) error {
	if err := w.kubectl(ctx, "rollout", "restart", "deployment", "-n", harness.OperatorNamespace); err != nil {
		return err
	}
	if err := w.kubectl(ctx, "rollout", "status", "--timeout=180s", "deployment", "-n", harness.OperatorNamespace); err != nil {
		return err
	}
	return w.load.check()
}

func upgrade(ctx context.Context, w *world) error {
	there := append(w.release("upgrade", newTag), "--reset-then-reuse-values")
	back := []string{"rollback", "jwks-trust-manager", "--namespace", harness.OperatorNamespace, "--wait", "--timeout", "3m"}
	for _, move := range []struct {
		words []string
		tag   string
	}{{there, newTag}, {back, oldTag}, {there, newTag}} {
		if err := w.helmDo(ctx, move.words...); err != nil {
			return err
		}
		if err := w.deployed(ctx, move.tag); err != nil {
			return err
		}
		if err := w.kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "-n", namespace, "trustedissuer/login"); err != nil {
			return err
		}
	}
	return w.load.check()
}

// deployed is an error unless all images have the tag.
func (w *world) deployed(ctx context.Context, tag string) error {
	images, err := w.output(ctx, "get", "deployments", "-n", harness.OperatorNamespace, "-o", `jsonpath={range .items[*]}{.spec.template.spec.containers[0].image}{"\n"}{end}`)
	if err != nil {
		return err
	}
	show(images)
	for image := range strings.Lines(images) {
		if strings.TrimSpace(image) != managerImage+":"+tag {
			return fmt.Errorf("deployed is %s, not %s", strings.TrimSpace(image), tag)
		}
	}
	return nil
}

func kill(ctx context.Context, w *world) error {
	if err := w.kubectl(ctx, "delete", "pod", "-n", harness.OperatorNamespace, "--force", "--grace-period=0", "-l", "app.kubernetes.io/name=jwks-trust-controller"); err != nil {
		return err
	}
	token := w.token(w.publish("k3"), audience)
	if err := w.verifierKnows(ctx, token); err != nil {
		return err
	}
	return w.load.check()
}

func uninstall(ctx context.Context, w *world) error {
	newest := w.token(w.keys[len(w.keys)-1], audience)
	if err := w.mountedKnows(ctx, newest); err != nil {
		return err
	}
	w.load.finish()
	if err := w.load.check(); err != nil {
		return err
	}
	var err error
	if w.published, err = w.mountedData(ctx); err != nil {
		return err
	}
	if err := w.helmDo(ctx, "uninstall", "jwks-trust-manager", "--namespace", harness.OperatorNamespace, "--wait"); err != nil {
		return err
	}
	if err := w.kubectl(ctx, "get", "crds,trustedissuers,configmaps,pods", "-A", "-l", "!kubernetes.io/bootstrapping"); err != nil {
		return err
	}
	if err := w.samePublished(ctx); err != nil {
		return err
	}
	return w.app.expect(ctx, "the application", newest, 200)
}

// mountedData is the ConfigMap that the application mounts.
func (w *world) mountedData(ctx context.Context) (string, error) {
	return w.output(ctx, "get", "configmap", "-n", namespace, "login-jwks", "-o", "jsonpath={.data}")
}

func (w *world) samePublished(ctx context.Context) error {
	now, err := w.mountedData(ctx)
	if err == nil && now != w.published {
		return fmt.Errorf("the ConfigMap has changed: %s, not %s", now, w.published)
	}
	return err
}

func reinstall(ctx context.Context, w *world) error {
	if err := w.helmDo(ctx, w.release("install", newTag)...); err != nil {
		return err
	}
	if err := w.findServices(ctx); err != nil {
		return err
	}
	newest := w.token(w.keys[len(w.keys)-1], audience)
	if err := errors.Join(w.verifier.expect(ctx, "the verifier", newest, 200), w.app.expect(ctx, "the application", newest, 200)); err != nil {
		return err
	}
	if err := w.samePublished(ctx); err != nil {
		return err
	}
	return w.kubectl(ctx, "get", "trustedissuers", "-A")
}
