package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// zoo has an issuer of each sort.
func zoo(g *WithT) []client.Object {
	one, both := fixedSet(g, "key-1"), fixedSet(g, "key-1", "key-2")
	return []client.Object{
		trustedIssuer("fine", both, func(i api.Issuer) {
			rotated := ago(72 * time.Hour)
			i.IssuerStatus().Rotation = &api.RotationStatus{LastRotationTime: &rotated, Count: 1, Added: []string{"key-2"}}
		}),
		clusterIssuer("login", both),
		trustedIssuer("stale", both, confirmed(time.Hour), failing(api.ReasonConnectionFailed, "spec.jwksURI: the connection to login.example.com failed: connection refused.")),
		trustedIssuer("expired", both, confirmed(25*time.Hour), failing(api.ReasonTimeout, "login.example.com did not answer spec.jwksURI completely within 10s.")),
		trustedIssuer("new", nil),
		trustedIssuer("blocked", nil, failing(api.ReasonEgressBlocked, "spec.jwksURI: 10.0.0.1 is private; allow it with --egress-allow-cidr.")),
		trustedIssuer("waits", one, waiting(both)),
		trustedIssuer("retiring", both, func(i api.Issuer) { i.IssuerStatus().Keys[0].State = api.KeyRetiring }),
	}
}

func TestStatusPutsTroubleFirst(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, zoo(NewWithT(t))...)
	r := c.run("status")
	c.Expect(r.code).To(Equal(exitOK))
	c.golden("status.txt", r.out)
	c.golden("status-wide.txt", c.run("status", "-o", "wide").out)
}

func TestStatusForPrograms(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, zoo(NewWithT(t))...)
	var answer struct{ Issuers []statusRow }
	r := c.run("status", "-o", "json")
	c.Expect(json.Unmarshal([]byte(r.out), &answer)).To(Succeed())
	c.Expect(answer.Issuers).To(HaveLen(8))
	c.Expect(answer.Issuers[0].Troubles).NotTo(BeEmpty())
	c.Expect(c.run("status", "-o", "yaml").out).To(HavePrefix("issuers:\n"))
	c.Expect(c.run("status", "-o", "xml")).To(Equal(result{exitError, "", "Error: --output: \"xml\" is none of the forms\nChoose one of: json, yaml, wide.\n"}))
}

func TestStatusFailsOnlyWhenAsked(t *testing.T) {
	g := NewWithT(t)
	fine := trustedIssuer("fine", fixedSet(g, "key-1"))
	retiring := trustedIssuer("retiring", fixedSet(g, "key-1", "key-2"), func(i api.Issuer) { i.IssuerStatus().Keys[0].State = api.KeyRetiring })
	stale := trustedIssuer("stale", fixedSet(g, "key-1"), confirmed(time.Hour))
	g.Expect(newCluster(t, interceptor.Funcs{}, fine, retiring).run("status", "--fail").code).To(Equal(exitOK), "what somebody may want to know is no failure")
	c := newCluster(t, interceptor.Funcs{}, fine, stale)
	g.Expect(c.run("status", "--fail").code).To(Equal(exitNo))
	g.Expect(c.run("status").code).To(Equal(exitOK))
}

// Conditions are the controller's. Where none runs they go on saying what once was
// true, and the time says otherwise.
func TestStatusSeesExpiryWithoutAController(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, interceptor.Funcs{}, trustedIssuer("old", fixedSet(g, "key-1"), confirmed(25*time.Hour)))
	r := c.run("status", "-o", "wide")
	c.Expect(r.out).To(MatchRegexp(`old +False +Expired`))
	c.Expect(r.out).To(ContainSubstring("Is the controller running? kubectl jwks check"))
}

// Inline keys never grow old. An edit to inline keys that cannot be used leaves the fetched
// ones, which do: the verifier trusts them no longer, and no command says otherwise.
func TestAnEditToInlineKeysGivesFetchedOnesNoEternalLife(t *testing.T) {
	g := NewWithT(t)
	set := keySet(g, signer)
	inline := func(i api.Issuer) { i.IssuerSpec().JWKSURI, i.IssuerSpec().JWKS = "", string(set.JSON()) }
	edited := func(i api.Issuer) { i.SetGeneration(2) }
	for name, tc := range map[string]struct {
		edits     []edit
		row, head string
		code      int
	}{
		"inline keys":                           {[]edit{confirmed(48 * time.Hour), inline}, `True +Fresh +2d +- `, "Fresh (static keys do not grow old)", exitOK},
		"an edit of them, not taken in yet":     {[]edit{confirmed(48 * time.Hour), inline, edited, func(i api.Issuer) { i.IssuerStatus().Snapshot.ExpiresAt = nil }}, `True +Fresh +2d +- `, "Fresh (static keys do not grow old)", exitOK},
		"inline keys until now":                 {[]edit{confirmed(48 * time.Hour), edited, func(i api.Issuer) { i.IssuerStatus().Snapshot.ExpiresAt = nil }}, `True +Fresh +2d +in 24h `, "Fresh: confirmed 2d ago; stale in 10m, expires in 24h", exitOK},
		"fetched keys, and inline ones in vain": {[]edit{confirmed(48 * time.Hour), inlineInVain}, `False +Expired +2d +24h ago `, "Expired: confirmed 2d ago; not trusted since 24h ago", exitUndecided},
		"the same, while they are young enough": {[]edit{confirmed(time.Hour), inlineInVain}, `True +Stale +60m +in 23h `, "Stale: confirmed 60m ago; still trusted, expires in 23h", exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			issuer := trustedIssuer("auth0", set, tc.edits...)
			c := newCluster(t, interceptor.Funcs{}, issuer, published(g, issuer, set))
			g.Expect(c.run("status").out).To(MatchRegexp(`ti/auth0 +` + tc.row))
			g.Expect(c.run("describe", "auth0").out).To(ContainSubstring(tc.head))
			r := c.run("verify", token(nil))
			g.Expect(r.code).To(Equal(tc.code), r.err)
			state, _, _ := strings.Cut(strings.Fields(tc.head)[0], ":")
			g.Expect(r.out).To(ContainSubstring("with 1 trusted key (" + state + ")"))
			if state == "Expired" {
				g.Expect(r.out).To(HaveSuffix("(SnapshotExpired).\nkubectl jwks describe ti/auth0 -n orders says why. Correct spec.jwks.\n"))
				g.Expect(c.run("status", "-o", "wide").out).To(ContainSubstring("    EmptyKeySet: spec.jwks has no keys.\n    Correct spec.jwks.\n"))
			}
		})
	}
}

func TestStatusOfNothing(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{})
	c.Expect(c.run("status")).To(Equal(result{exitOK, "", "There are no TrustedIssuers in this namespace (-A shows all), and no ClusterTrustedIssuers.\n"}))
	c.Expect(c.run("status", "-A").err).To(ContainSubstring("in this cluster"))
}

func TestTroubles(t *testing.T) {
	g := NewWithT(t)
	both := fixedSet(g, "key-1", "key-2")
	used := metav1.NewTime(start)
	for name, tc := range map[string]struct {
		change edit
		want   string
		severe severity
	}{
		"none":           {func(api.Issuer) {}, "", healthy},
		"fresh, failing": {failing(api.ReasonTimeout, "too slow"), api.ReasonTimeout, degraded},
		"stalled": {func(i api.Issuer) {
			setCondition(i, api.ConditionStalled, metav1.ConditionTrue, api.ReasonInvalidExpression, "x")
		}, api.ReasonInvalidExpression, critical},
		"a quarantine is one trouble, not two": {func(i api.Issuer) {
			failing(api.ReasonQuarantined, "x")(i)
			waiting(fixedSet(g, "key-2"))(i)
		}, api.ReasonApprovalRequired, degraded},
		"a copy is refused": {func(i api.Issuer) {
			setCondition(i, api.ConditionDistributed, metav1.ConditionFalse, api.ReasonNamespacesFailed, "x")
		}, api.ReasonNamespacesFailed, degraded},
		"copies are on their way": {func(i api.Issuer) {
			setCondition(i, api.ConditionDistributed, metav1.ConditionFalse, api.ReasonDistributing, "x")
		}, "", healthy},
		"a foreign ConfigMap": {func(i api.Issuer) {
			setCondition(i, api.ConditionSnapshotPublished, metav1.ConditionFalse, api.ReasonConfigMapConflict, "x")
		}, api.ReasonConfigMapConflict, degraded},
		"a private key": {func(i api.Issuer) {
			i.IssuerStatus().CompromisedKeys = []api.CompromisedKey{{KeyID: "key-1", Thumbprint: "x"}}
		}, api.ReasonPrivateKeyExposed, degraded},
		"a removed key signs": {func(i api.Issuer) {
			missing := ago(time.Minute)
			i.IssuerStatus().Keys[0].MissingSince, i.IssuerStatus().Keys[0].LastUsedTime = &missing, &used
		}, api.ReasonRetiredKeyInUse, degraded},
		"an early key":  {func(i api.Issuer) { i.IssuerStatus().Keys[0].EarlyUseTime = &used }, api.ReasonKeyUsedEarly, notice},
		"suspended":     {func(i api.Issuer) { yes := true; i.IssuerSpec().Suspend = &yes }, api.ReasonSuspended, notice},
		"a new spec":    {func(i api.Issuer) { i.SetGeneration(2) }, "NotObserved", notice},
		"being deleted": {beingDeleted, "Deleting", critical},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			found := troublesOf(trustedIssuer("x", both, tc.change), start)
			g.Expect(worst(found)).To(Equal(tc.severe))
			if tc.want == "" {
				g.Expect(found).To(BeEmpty())
				return
			}
			g.Expect(found).To(HaveLen(1))
			g.Expect(found[0].Reason).To(Equal(tc.want))
		})
	}
}

func TestDescribe(t *testing.T) {
	g := NewWithT(t)
	both := fixedSet(g, "key-1", "key-2")
	issuer := trustedIssuer("auth0", both, confirmed(time.Hour), failing(api.ReasonTLSFailed, "The certificate of login.example.com has expired."), func(i api.Issuer) {
		s := i.IssuerStatus()
		rotated, used := ago(72*time.Hour), ago(2*time.Hour)
		s.Keys[0].LastUsedTime = &used
		s.Rotation = &api.RotationStatus{
			LastRotationTime: &rotated, Count: 3, Added: []string{"key-2"}, Removed: []string{"key-0"},
			History: []api.RemovedKey{{KeyID: "key-0", Thumbprint: "4hDYqHoPGcTFaSxGMfjUJ5yZmXXhGxxUZ2DMlW8cGcs", FirstSeenTime: ago(500 * time.Hour), RemovedTime: rotated}},
		}
		desired, current := int32(3), int32(2)
		s.Distribution = &api.DistributionStatus{Desired: &desired, Current: &current, Failed: []api.FailedNamespace{{Namespace: "shop", Reason: "PublishFailed", Message: "exceeded quota"}}}
	})
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: "e1"}, InvolvedObject: corev1.ObjectReference{UID: issuer.UID},
		Type: "Warning", Reason: "TLSFailed", Message: "The certificate of login.example.com has expired.\x1b[31m", LastTimestamp: ago(3 * time.Minute), Count: 4,
	}
	other := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: "e2"}, InvolvedObject: corev1.ObjectReference{UID: "other"}, Reason: "Other"}
	c := newCluster(t, interceptor.Funcs{}, issuer, event, other)
	r := c.run("describe", "auth0")
	c.Expect(r.err).To(BeEmpty())
	c.golden("describe.txt", r.out)

	var answer map[string]any
	c.Expect(json.Unmarshal([]byte(c.run("describe", "ti/auth0", "-o", "json").out), &answer)).To(Succeed())
	c.Expect(answer).To(HaveKeyWithValue("state", "Stale"))
	c.Expect(answer["keyList"]).To(HaveLen(2))
}
