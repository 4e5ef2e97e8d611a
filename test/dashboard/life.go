// life.go is the story: what happens to whom, and when.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// audience is what all tokens are meant for.
const audience = "https://orders.example.com"

// The issuers, by the paths of their objects.
const (
	login    = "cluster/company-login"
	shop     = "ns/shop/better-auth"
	billing  = "ns/billing/auth0"
	partner  = "ns/partners/partner"
	legacy   = "ns/legacy/old-sso"
	misspelt = "ns/preview/keycloak"
)

// namespaces all get a copy of the keys of login.
var namespaces = []string{"shop", "billing", "partners", "legacy", "preview"}

const minute = time.Minute

// event is a line of the story.
type event struct {
	at   time.Duration
	what string
	do   func(context.Context, *world) error
}

var story = []event{
	{0, "five issuers are trusted, one of them once its keys are approved; a namespace refuses its copy", begin},
	{3 * minute, "old-sso falls silent: stale after 2 minutes, expired after 5", func(_ context.Context, w *world) error {
		w.issuers[legacy].Stop()
		return nil
	}},
	{4 * minute, "company-login publishes a second key, and one of its servers signs with it", turn(login, mostlyOlder, mostlyOlder)},
	{5 * minute, "company-login signs with the second key everywhere", turn(login, mostlyOlder, newer)},
	{6 * minute, "partner publishes a key that nobody has approved", turn(partner, mostlyOlder, older)},
	{7 * minute, "the namespace takes its copy", func(ctx context.Context, w *world) error { return w.Client.Delete(ctx, inTheWay()) }},
	{8 * minute, "company-login takes the first key away, and one of its servers still signs with it", turn(login, newer, mostlyNewer)},
	{9 * minute, "an issuer with a misspelt URL is added", func(ctx context.Context, w *world) error {
		return w.trust(ctx, misspelt, 10*minute, func(s *api.IssuerSpec) { s.JWKSURI += ".jsno" })
	}},
	{10 * minute, "old-sso is back", func(_ context.Context, w *world) error { return w.issuers[legacy].Restart() }},
	{11 * minute, "the controllers are rolled: one comes, the first one goes", func(ctx context.Context, w *world) error {
		err := w.startController(ctx)
		w.controllers[0].Stop()
		return err
	}},
	{13 * minute, "auth0 replaces all of its keys at once", turn(billing, newer, newer)},
	{15 * minute, "that was it", func(context.Context, *world) error { return nil }},
}

// live lets it all happen, with traffic from the beginning.
func (w *world) live(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	start := time.Now()
	for n, e := range story {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Until(start.Add(e.at))):
		}
		harness.Say("%2.0f min  %s", e.at.Minutes(), e.what)
		if err := e.do(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
		if n == 0 {
			go func() { stop(w.serve(ctx)) }()
		}
	}
	return context.Cause(ctx)
}

func begin(ctx context.Context, w *world) error {
	if err := errors.Join(
		w.Client.Create(ctx, inTheWay()),
		w.trust(ctx, login, 5*minute, func(s *api.IssuerSpec) {
			s.Rotation = &api.RotationSpec{RetirementGrace: &metav1.Duration{Duration: time.Hour}}
		}),
		w.trust(ctx, shop, 3*minute, nil),
		w.trust(ctx, billing, 6*minute, nil),
		w.trust(ctx, legacy, 2*minute, func(s *api.IssuerSpec) { s.StaleTTL = &metav1.Duration{Duration: 5 * minute} }),
		w.trust(ctx, partner, 4*minute, func(s *api.IssuerSpec) { s.Rotation = &api.RotationSpec{Policy: api.RotationRequireApproval} }),
	); err != nil {
		return err
	}
	return w.approve(ctx, w.issuers[partner].object)
}

// inTheWay is somebody's ConfigMap where a copy would go.
func inTheWay() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "preview", Name: "company-login-jwks"}}
}

// approve waits for a quarantined set, and approves of it.
func (w *world) approve(ctx context.Context, o api.Issuer) error {
	return harness.Within(ctx, time.Minute, 200*time.Millisecond, "a key set to approve", func() (bool, error) {
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return false, err
		}
		r := o.IssuerStatus().Rotation
		if r == nil || r.CandidateDigest == "" {
			return false, nil
		}
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, api.AnnotationApprove, r.CandidateDigest)
		return true, w.Client.Patch(ctx, o, client.RawPatch("application/merge-patch+json", patch))
	})
}

// issuer is a server with two keys, and the object that trusts it.
type issuer struct {
	*testissuer.Issuer

	older, newer *testissuer.Key
	signs        atomic.Pointer[[]*testissuer.Key]
	object       api.Issuer
	trusted      atomic.Bool // the object is there
}

// Keys of an issuer, the one that is used most first.
func older(i *issuer) []*testissuer.Key       { return []*testissuer.Key{i.older} }
func newer(i *issuer) []*testissuer.Key       { return []*testissuer.Key{i.newer} }
func mostlyOlder(i *issuer) []*testissuer.Key { return []*testissuer.Key{i.older, i.newer} }
func mostlyNewer(i *issuer) []*testissuer.Key { return []*testissuer.Key{i.newer, i.older} }

// turn changes what an issuer publishes, and what it signs with.
func turn(path string, publishes, signs func(*issuer) []*testissuer.Key) func(context.Context, *world) error {
	return func(_ context.Context, w *world) error {
		i := w.issuers[path]
		i.Publish(publishes(i)...)
		keys := signs(i)
		i.signs.Store(&keys)
		return nil
	}
}

func (w *world) startIssuers() error {
	for _, path := range []string{login, shop, billing, partner, legacy, misspelt} {
		server, err := testissuer.Start()
		if err != nil {
			return err
		}
		w.issuers[path] = &issuer{Issuer: server, older: testissuer.NewKey("2026-10", "ES256"), newer: testissuer.NewKey("2026-11", "ES256")}
		if err := turn(path, older, older)(context.Background(), w); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) stopIssuers() {
	for _, i := range w.issuers {
		i.Close()
	}
}

// trust makes an object for an issuer, whose keys are fresh for so long.
func (w *world) trust(ctx context.Context, path string, fresh time.Duration, change func(*api.IssuerSpec)) error {
	i := w.issuers[path]
	spec := api.IssuerSpec{
		Issuer: i.URL(), Audiences: []string{audience}, JWKSURI: i.JWKSURI(), CABundle: i.CABundle(), CacheTTL: &metav1.Duration{Duration: fresh},
	}
	if change != nil {
		change(&spec)
	}
	of := strings.Split(path, "/")
	if len(of) == 2 {
		i.object = &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: of[1]}, Spec: api.ClusterTrustedIssuerSpec{
			IssuerSpec: spec, NamespaceSelector: everyTeam(), KubernetesAuthentication: &api.KubernetesAuthentication{UsernamePrefix: "company:"},
		}}
	} else {
		i.object = &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: of[1], Name: of[2]}, Spec: api.TrustedIssuerSpec{IssuerSpec: spec}}
	}
	i.trusted.Store(true)
	return w.Client.Create(ctx, i.object)
}

// everyTeam selects namespaces, by the label that Kubernetes gives each.
func everyTeam() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: namespaces},
	}}
}
