package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// rights answers reviews: who may do everything but what is denied.
func rights(denied ...string) interceptor.Funcs {
	return interceptor.Funcs{Create: func(ctx context.Context, kube client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		review, ok := o.(*authorizationv1.SelfSubjectAccessReview)
		if !ok {
			return kube.Create(ctx, o, opts...)
		}
		a := review.Spec.ResourceAttributes
		review.Status.Allowed = true
		for _, d := range denied {
			if d == a.Verb+" "+a.Resource+" "+a.Namespace {
				review.Status.Allowed = false
			}
		}
		return nil
	}}
}

// lease is held by a controller that renewed it so long ago.
func lease(renewed time.Duration) *coordinationv1.Lease {
	at := metav1.NewMicroTime(start.Add(-renewed))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: leaseName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("controller-0"), RenewTime: &at, LeaseDurationSeconds: ptr.To(int32(15))},
	}
}

// findings runs check and returns the result of each check, by name.
func (c *cluster) findings(args ...string) map[string]checked {
	c.t.Helper()
	var answer struct{ Checks []checked }
	r := c.run(append([]string{"check", "-o", "json"}, args...)...)
	c.Expect(json.Unmarshal([]byte(r.out), &answer)).To(Succeed(), r.err)
	found := map[string]checked{}
	for _, f := range answer.Checks {
		found[f.Name] = f
	}
	return found
}

func TestCheckWhereAllIsWell(t *testing.T) {
	g := NewWithT(t)
	_, at := issuerServer(t, testissuer.NewKey("key-1", "ES256"))
	c := newCluster(t, rights(),
		trustedIssuer("auth0", fixedSet(g, "key-1"), at), lease(3*time.Second),
		deployment("jwks-trust-controller", "--egress-allow-cidr=127.0.0.0/8"), deployment("jwks-trust-verifier"))
	for name, f := range c.findings() {
		if f.Group != groupVerifier { // there is none behind a fake
			c.Expect(f.Result).To(Equal(checkOK), "%s: %s", name, f.Detail)
		}
	}
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	g := NewWithT(t)
	_, at := issuerServer(t, testissuer.NewKey("ed", "EdDSA"))
	down := deployment("jwks-trust-controller")
	down.Status.AvailableReplicas = 0
	half := deployment("jwks-trust-verifier")
	half.Spec.Replicas = ptr.To(int32(2))
	ed := keySet(g, testissuer.NewKey("ed", "EdDSA"))
	found := newCluster(t, rights("patch trustedissuers orders", "get configmaps "+operatorNamespace), trustedIssuer("auth0", ed, at), lease(time.Hour), down, half).findings()
	for name, want := range map[string][]string{
		"Deployment jwks-trust-controller": {checkFailed, "0 of 1 available"},
		"Deployment jwks-trust-verifier":   {checkWarning, "1 of 2 available"},
		"Leader of the controllers":        {checkFailed, "no longer renews it"},
		"status":                           {checkOK, ""},
		"refresh, approve":                 {checkWarning, "you may not patch trustedissuers.jwks-trust.dev in orders"},
		"verify":                           {checkWarning, "you may not get configmaps in jwks-trust-system (the command does without)"},
		"export":                           {checkWarning, "you may not get configmaps in jwks-trust-system (the command does without)"},
	} {
		g.Expect(found).To(HaveKey(name))
		g.Expect(found[name].Result).To(Equal(want[0]), name)
		g.Expect(found[name].Detail).To(ContainSubstring(want[1]), name)
	}
	var issuers []checked
	c := newCluster(t, rights(), trustedIssuer("auth0", ed, at))
	var answer struct{ Checks []checked }
	g.Expect(json.Unmarshal([]byte(c.run("check", "-o", "json").out), &answer)).To(Succeed())
	for _, f := range answer.Checks {
		if f.Name == "TrustedIssuer orders/auth0" {
			issuers = append(issuers, f)
		}
	}
	g.Expect(issuers).To(HaveLen(2))
	g.Expect(issuers[0].Detail).To(HavePrefix("EgressBlocked: "))
	g.Expect(issuers[0].Do).To(ContainSubstring("--egress-allow-cidr"))
	g.Expect(issuers[1].Detail).To(Equal("all keys are for EdDSA, which kube-apiserver's own OIDC does not know"))
	g.Expect(c.run("check").code).To(Equal(exitNo))
}

// verify finds the issuer object by the token's issuer, unless --by names it.
func TestCheckAsksForTheRightToFindWhoJudges(t *testing.T) {
	c := newCluster(t, rights("list trustedissuers orders", "list clustertrustedissuers "))
	found := c.findings()
	for name, want := range map[string][]string{
		"verify": {checkWarning, "you may not list trustedissuers.jwks-trust.dev in orders; list clustertrustedissuers.jwks-trust.dev (the command does without)"},
		"status": {checkWarning, "you may not list trustedissuers.jwks-trust.dev in orders; list clustertrustedissuers.jwks-trust.dev (the command does without)"},
		"export": {checkOK, ""},
	} {
		c.Expect([]string{found[name].Result, found[name].Detail}).To(Equal(want), name)
	}
}

// noCRDs is a cluster where nothing is installed.
func noCRDs() interceptor.Funcs {
	return interceptor.Funcs{List: func(ctx context.Context, kube client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		switch list.(type) {
		case *api.TrustedIssuerList, *api.ClusterTrustedIssuerList:
			return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: api.GroupVersion.Group, Kind: api.TrustedIssuerKind}}
		}
		return kube.List(ctx, list, opts...)
	}}
}

func TestWhereNothingIsInstalled(t *testing.T) {
	c := newCluster(t, noCRDs())
	c.Expect(c.findings()["trustedissuers.jwks-trust.dev"].Result).To(Equal(checkFailed))
	c.Expect(c.run("status")).To(Equal(result{exitError, "", "Error: this cluster does not know TrustedIssuers.\nInstall jwks-trust-manager (its CRDs first), or choose another cluster with --context.\n"}))
}

func TestCompletion(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("auth0", fixedSet(g, "key-1")), trustedIssuer("keycloak", nil), clusterIssuer("auth-login", nil))
	c.Expect(c.run("__complete", "describe", "auth").out).To(HavePrefix("auth-login\t" + issuerURL + "\nauth0\t" + issuerURL + "\n:4\n"))
	c.Expect(c.run("__complete", "refresh", "ti/").out).To(HavePrefix("ti/auth0\t" + issuerURL + "\nti/keycloak\t" + issuerURL + "\n:4\n"))
	c.Expect(c.run("__complete", "export", "auth0", "--format", "").out).To(ContainSubstring("envoy-gateway\n"))
	c.Expect(c.run("completion", "bash").out).To(ContainSubstring("kubectl-jwks"))
}
