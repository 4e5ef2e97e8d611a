package main

import (
	"encoding/json"
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
		"an early key": {func(i api.Issuer) { i.IssuerStatus().Keys[0].EarlyUseTime = &used }, api.ReasonKeyUsedEarly, notice},
		"suspended":    {func(i api.Issuer) { yes := true; i.IssuerSpec().Suspend = &yes }, api.ReasonSuspended, notice},
		"a new spec":   {func(i api.Issuer) { i.SetGeneration(2) }, "NotObserved", notice},
		"being deleted": {func(i api.Issuer) {
			i.SetDeletionTimestamp(&used)
			i.SetFinalizers([]string{api.FinalizerWithdraw})
		}, "Deleting", critical},
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
