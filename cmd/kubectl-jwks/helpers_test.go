// helpers_test.go makes a cluster of fakes, and runs commands as a user does.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

var update = flag.Bool("update", false, "write the golden files anew")

// start is now, in the tests.
var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const issuerURL = "https://login.example.com/"

// ago is a time before now.
func ago(d time.Duration) metav1.Time { return metav1.NewTime(start.Add(-d)) }

// fixedKeys are P-256 keys whose thumbprints do not change, for golden files: the
// examples of RFC 7515 appendix A.3 and of RFC 7517 appendix A.1.
var fixedKeys = map[string]string{
	"key-1": `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"key-1","alg":"ES256","use":"sig"}`,
	"key-2": `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"key-2","alg":"ES256","use":"sig"}`,
}

// fixedSet is the admitted set of these fixed keys.
func fixedSet(g *WithT, kids ...string) *keyset.Set {
	keys := make([]string, 0, len(kids))
	for _, kid := range kids {
		keys = append(keys, fixedKeys[kid])
	}
	return parsedSet(g, []byte(`{"keys":[`+strings.Join(keys, ",")+`]}`))
}

// keySet is the admitted set of keys that can sign.
func keySet(g *WithT, keys ...*testissuer.Key) *keyset.Set {
	jwks := make([]any, 0, len(keys))
	for _, k := range keys {
		jwks = append(jwks, k.JWK())
	}
	document, err := json.Marshal(map[string]any{"keys": jwks})
	g.Expect(err).NotTo(HaveOccurred())
	return parsedSet(g, document)
}

func parsedSet(g *WithT, document []byte) *keyset.Set {
	parsed, err := keyset.Parse(document, keyset.Policy{})
	g.Expect(err).NotTo(HaveOccurred())
	return parsed.Set
}

// edit changes an issuer object.
type edit func(api.Issuer)

// trustedIssuer is a TrustedIssuer in the namespace orders, fresh, that trusts a set.
func trustedIssuer(name string, set *keyset.Set, edits ...edit) *api.TrustedIssuer {
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "orders", Name: name, UID: types.UID("uid-" + name), Generation: 1}}
	prepare(ti, set, edits)
	return ti
}

// clusterIssuer is the same for the cluster.
func clusterIssuer(name string, set *keyset.Set, edits ...edit) *api.ClusterTrustedIssuer {
	cti := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Generation: 1}}
	prepare(cti, set, edits)
	return cti
}

func prepare(issuer api.Issuer, set *keyset.Set, edits []edit) {
	spec, status := issuer.IssuerSpec(), issuer.IssuerStatus()
	spec.Issuer, spec.Audiences = issuerURL, []string{"orders"}
	spec.JWKSURI = issuerURL + "jwks.json"
	status.ObservedGeneration, status.JWKSURI = 1, spec.JWKSURI
	if set != nil {
		last := ago(12 * time.Second)
		status.Snapshot = &api.SnapshotStatus{
			ConfigMapName: spec.SnapshotName(issuer.GetName()), Digest: set.Digest(), ObservedGeneration: 1, Keys: int32(set.Len()),
			LastSuccessTime: &last, FreshUntil: timeOf(last.Add(10 * time.Minute)), ExpiresAt: timeOf(last.Add(24 * time.Hour)),
		}
		for _, k := range set.Keys() {
			status.Keys = append(status.Keys, keyStatus(k, api.KeyActive))
		}
		setCondition(issuer, api.ConditionReady, metav1.ConditionTrue, api.ReasonFresh, "The keys are fresh.")
		setCondition(issuer, api.ConditionFetched, metav1.ConditionTrue, api.ReasonSucceeded, "2 keys were admitted.")
		status.LastAttempt = &api.AttemptStatus{Time: last, Reason: api.ReasonSucceeded, Message: "2 keys were admitted."}
		status.NextRefreshTime = &metav1.Time{Time: start.Add(7 * time.Minute)}
	}
	for _, e := range edits {
		e(issuer)
	}
}

func keyStatus(k *keyset.Key, state api.KeyState) api.KeyStatus {
	return api.KeyStatus{
		KeyID: k.KeyID(), KeyType: k.KeyType(), Algorithm: string(k.Algorithm()), Curve: k.Curve(), Bits: int32(k.Bits()),
		Thumbprint: k.Thumbprint(), State: state, FirstSeenTime: ago(48 * time.Hour), LastSeenTime: ago(12 * time.Second),
	}
}

func setCondition(issuer api.Issuer, kind string, status metav1.ConditionStatus, reason, message string) {
	s := issuer.IssuerStatus()
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			s.Conditions = append(s.Conditions[:i], s.Conditions[i+1:]...)
			break
		}
	}
	s.Conditions = append(s.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: ago(time.Hour)})
}

// confirmed makes the last success so long ago.
func confirmed(d time.Duration) edit {
	return func(issuer api.Issuer) {
		last := ago(d)
		issuer.IssuerStatus().Snapshot.LastSuccessTime = &last
	}
}

// inlineInVain is an edit from jwksURI to inline keys of which none can be used: the
// fetched ones stay.
func inlineInVain(issuer api.Issuer) {
	issuer.IssuerSpec().JWKSURI, issuer.IssuerSpec().JWKS = "", `{"keys":[]}`
	issuer.SetGeneration(2)
	issuer.IssuerStatus().ObservedGeneration = 2
	failing(api.ReasonEmptyKeySet, "spec.jwks has no keys.")(issuer)
}

// beingDeleted has somebody delete the object, which its finalizer holds.
func beingDeleted(issuer api.Issuer) {
	now := metav1.NewTime(start)
	issuer.SetDeletionTimestamp(&now)
	issuer.SetFinalizers([]string{api.FinalizerWithdraw})
}

// failing makes the newest fetch a failure.
func failing(reason, message string) edit {
	return func(issuer api.Issuer) {
		setCondition(issuer, api.ConditionFetched, metav1.ConditionFalse, reason, message)
		issuer.IssuerStatus().LastAttempt = &api.AttemptStatus{Time: ago(5 * time.Second), Reason: reason, Message: message}
	}
}

// waiting makes keys of the set wait for approval.
func waiting(set *keyset.Set) edit {
	return func(issuer api.Issuer) {
		s := issuer.IssuerStatus()
		if s.Rotation == nil {
			s.Rotation = &api.RotationStatus{}
		}
		s.Rotation.CandidateDigest = set.Digest()
		for _, k := range set.Keys() {
			listed := false
			for _, known := range s.Keys {
				listed = listed || known.Thumbprint == k.Thumbprint()
			}
			if !listed {
				s.Keys = append(s.Keys, keyStatus(k, api.KeyQuarantined))
			}
		}
		setCondition(issuer, api.ConditionRotationSuspended, metav1.ConditionTrue, api.ReasonApprovalRequired,
			"The issuer publishes 2 keys, 1 of them not approved yet. Ask the issuer's owner; if they are right: kubectl annotate …")
	}
}

// published is the ConfigMap with a set: the authoritative one of the issuer.
func published(g *WithT, issuer api.Issuer, set *keyset.Set) *corev1.ConfigMap {
	data, err := snapshot.Encode(set, snapshot.Descriptor{Issuer: issuerURL})
	g.Expect(err).NotTo(HaveOccurred())
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: snapshot.AuthoritativeName(issuer.GetUID())}, Data: data}
}

// mounted is the copy that applications mount.
func mounted(g *WithT, issuer api.Issuer, set *keyset.Set) *corev1.ConfigMap {
	cm := published(g, issuer, set)
	cm.Namespace, cm.Name = "orders", issuer.IssuerSpec().SnapshotName(issuer.GetName())
	cm.Labels = map[string]string{api.LabelIssuerUID: string(issuer.GetUID())}
	return cm
}

// cluster is a fake one, and a user in the namespace orders.
type cluster struct {
	*WithT
	t    *testing.T
	kube client.Client
	now  time.Time
}

func newCluster(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) *cluster {
	t.Helper()
	g := NewWithT(t)
	s, err := scheme()
	g.Expect(err).NotTo(HaveOccurred())
	kube := fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).
		WithStatusSubresource(&api.TrustedIssuer{}, &api.ClusterTrustedIssuer{}).
		WithIndex(&corev1.Event{}, "involvedObject.uid", func(o client.Object) []string {
			return []string{string(o.(*corev1.Event).InvolvedObject.UID)} //nolint:errcheck,forcetypeassert // an index of events
		}).WithInterceptorFuncs(funcs).Build()
	return &cluster{WithT: g, t: t, kube: kube, now: start}
}

// result is what a command leaves.
type result struct {
	code     int
	out, err string
}

// run runs `kubectl jwks` with these arguments.
func (c *cluster) run(args ...string) result { return c.runWith("", args...) }

// runWith has something on standard input.
func (c *cluster) runWith(in string, args ...string) result {
	c.t.Helper()
	var out, errs bytes.Buffer
	tool := newCLI(genericiooptions.IOStreams{In: strings.NewReader(in), Out: &out, ErrOut: &errs})
	tool.flags = genericclioptions.NewConfigFlags(false)
	tool.flags.KubeConfig = ptr.To(os.DevNull)
	tool.client, tool.now = c.kube, func() time.Time { return c.now }
	root := newRoot(tool)
	root.SetArgs(slices.Insert(slices.Clone(args), 1, "--namespace", "orders"))
	code := run(context.Background(), root)
	return result{code, out.String(), errs.String()}
}

// golden compares with a file of testdata.
func (c *cluster) golden(name, got string) {
	c.t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		c.Expect(os.WriteFile(path, []byte(got), 0o600)).To(Succeed())
	}
	want, err := os.ReadFile(path)
	c.Expect(err).NotTo(HaveOccurred(), "go test -update writes it")
	c.Expect(got).To(Equal(string(want)), name)
}
