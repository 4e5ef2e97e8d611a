package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

var (
	env    *envtest.Environment
	server client.WithWatch // talks to the API server, uncached
	scheme = runtime.NewScheme()
)

// TestController runs the scenarios on a real API server. The pure parts have
// plain tests of their own.
func TestController(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	RegisterFailHandler(Fail)
	RunSpecs(t, "Controller")
}

var _ = BeforeSuite(func(ctx context.Context) {
	log.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme} {
		Expect(add(scheme)).To(Succeed())
	}
	var err error
	env, err = harness.NewControlPlane(true, nil)
	Expect(err).NotTo(HaveOccurred())
	cfg, err := env.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
	server, err = client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(server.Create(ctx, namespace(harness.OperatorNamespace))).To(Succeed())
})

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// scene is one TrustedIssuer in a namespace of its own, a scripted issuer, and
// a reconciler with a clock that the scenario moves.
type scene struct {
	ctx      context.Context
	issuer   *testissuer.Issuer
	clock    *clocktesting.FakePassiveClock
	recorder *events.FakeRecorder
	writes   *writes
	r        *Reconciler
	key      client.ObjectKey
}

var (
	key1 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("k1", "RS256") })
	key2 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("k2", "ES256") })
	key3 = sync.OnceValue(func() *testissuer.Key { return testissuer.NewKey("k3", "EdDSA") })
)

// newScene makes a scene whose issuer publishes k1; the object is not there yet.
func newScene(ctx context.Context) *scene {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "team-"}}
	Expect(server.Create(ctx, ns)).To(Succeed())
	iss, err := testissuer.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(iss.Close)
	iss.Publish(key1())
	s := &scene{
		ctx: context.WithoutCancel(ctx), issuer: iss, writes: &writes{},
		clock: clocktesting.NewFakePassiveClock(noon),
		key:   client.ObjectKey{Namespace: ns.Name, Name: "auth"},
	}
	s.restart()
	return s
}

// restart gives the scene a new manager process, with no memory.
func (s *scene) restart() {
	fetcher := fetch.New(fetch.Options{Egress: fetch.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	DeferCleanup(fetcher.Close)
	shared := fetch.Share(fetcher, s.clock.Now, nil)
	DeferCleanup(shared.Close)
	s.recorder = events.NewFakeRecorder(100)
	s.r = &Reconciler{
		New:    func() api.Issuer { return &api.TrustedIssuer{} },
		Client: s.writes.counted(server), Reader: server, Copies: server, Holders: holders, Authorities: authorities,
		Fetcher: shared, Recorder: s.recorder, Clock: s.clock,
		OperatorNamespace: harness.OperatorNamespace,
		Random:            func() float64 { return 0.5 },
		Siblings:          listSiblings,
	}
}

// holders is what an index of the cache answers in production.
func holders(ctx context.Context, issuer types.UID, in ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	err := server.List(ctx, &list, append(in, client.MatchingLabels{api.LabelIssuerUID: string(issuer)})...)
	return list.Items, err
}

// authorities are read from the API server.
func authorities(ctx context.Context, of types.NamespacedName) ([]types.UID, error) {
	var list corev1.ConfigMapList
	if err := server.List(ctx, &list, client.InNamespace(harness.OperatorNamespace)); err != nil {
		return nil, err
	}
	var out []types.UID
	for i := range list.Items {
		if slices.Contains(indexAuthority(&list.Items[i]), authorityKey(api.TrustedIssuerKind, of)) {
			out = append(out, types.UID(list.Items[i].Labels[api.LabelIssuerUID]))
		}
	}
	return out, nil
}

func listSiblings(ctx context.Context, issuer string) ([]api.ClusterTrustedIssuer, error) {
	var all api.ClusterTrustedIssuerList
	err := server.List(ctx, &all)
	var out []api.ClusterTrustedIssuer
	for _, o := range all.Items {
		if o.Spec.Issuer == issuer && o.Spec.KubernetesAuthentication != nil {
			out = append(out, o)
		}
	}
	return out, err
}

// spec trusts the scene's issuer.
func (s *scene) spec() api.IssuerSpec {
	return api.IssuerSpec{
		Issuer: s.issuer.URL(), Audiences: []string{"orders"},
		JWKSURI: s.issuer.JWKSURI(), CABundle: s.issuer.CABundle(),
	}
}

// create makes the TrustedIssuer, as changed by edits.
func (s *scene) create(edits ...func(*api.IssuerSpec)) {
	GinkgoHelper()
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
	ti.Spec.IssuerSpec = s.spec()
	for _, edit := range edits {
		edit(&ti.Spec.IssuerSpec)
	}
	Expect(server.Create(s.ctx, ti)).To(Succeed())
}

// edit changes the TrustedIssuer.
func (s *scene) edit(change func(*api.TrustedIssuer)) {
	GinkgoHelper()
	ti := s.get()
	base := ti.DeepCopy()
	change(ti)
	Expect(server.Patch(s.ctx, ti, client.MergeFrom(base))).To(Succeed())
}

func (s *scene) annotate(name, value string) {
	GinkgoHelper()
	s.edit(func(ti *api.TrustedIssuer) { metav1.SetMetaDataAnnotation(&ti.ObjectMeta, name, value) })
}

// verifierAsks requests a refresh as the verifier does.
func (s *scene) verifierAsks() {
	GinkgoHelper()
	s.verifierApplies("jwks-trust-verifier", map[string]any{"refreshRequestedAt": s.clock.Now().UTC().Format(metav1.RFC3339Micro)})
}

// verifierApplies fields of the status under a field manager.
func (s *scene) verifierApplies(manager string, status map[string]any) {
	GinkgoHelper()
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(api.GroupVersion.WithKind(api.TrustedIssuerKind))
	u.SetNamespace(s.key.Namespace)
	u.SetName(s.key.Name)
	Expect(server.Status().Apply(s.ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(manager), client.ForceOwnership)).To(Succeed())
}

// reconcile runs the reconciler once, and again as long as it met a conflict.
func (s *scene) reconcile() reconcile.Result {
	GinkgoHelper()
	for range 10 {
		result, err := s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key})
		Expect(err).NotTo(HaveOccurred())
		if result.RequeueAfter != conflictDelay {
			return result
		}
	}
	Fail("one conflict after the other")
	return reconcile.Result{}
}

// after moves the clock, then reconciles.
func (s *scene) after(d time.Duration) reconcile.Result {
	GinkgoHelper()
	s.clock.SetTime(s.clock.Now().Add(d))
	return s.reconcile()
}

func (s *scene) get() *api.TrustedIssuer {
	GinkgoHelper()
	ti := &api.TrustedIssuer{}
	Expect(server.Get(s.ctx, s.key, ti)).To(Succeed())
	return ti
}

func (s *scene) status() api.IssuerStatus {
	GinkgoHelper()
	return s.get().Status
}

// copyKey and authoritativeKey are where the keys are published.
func (s *scene) copyKey() client.ObjectKey {
	return client.ObjectKey{Namespace: s.key.Namespace, Name: "auth-jwks"}
}

func (s *scene) authoritativeKey() client.ObjectKey {
	return client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(s.get().UID)}
}

func configMap(ctx context.Context, key client.ObjectKey) *corev1.ConfigMap {
	GinkgoHelper()
	cm := &corev1.ConfigMap{}
	Expect(server.Get(ctx, key, cm)).To(Succeed())
	return cm
}

// kids are those of the published key set, which must be in both ConfigMaps.
func (s *scene) kids() []string {
	GinkgoHelper()
	users, ours := configMap(s.ctx, s.copyKey()), configMap(s.ctx, s.authoritativeKey())
	Expect(users.Data).To(Equal(ours.Data), "the copy is byte-identical")
	Expect(users.Data["jwks"]).To(Equal(users.Data["jwks.json"]))
	Expect(s.status().Snapshot.Digest).To(Equal(snapshot.Digest(ours.Data)), "status speaks of what is published")
	return kidsOf(users)
}

func kidsOf(cm *corev1.ConfigMap) []string {
	GinkgoHelper()
	var set struct {
		Keys []struct {
			Kid string `json:"kid"`
		} `json:"keys"`
	}
	Expect(json.Unmarshal([]byte(cm.Data["jwks.json"]), &set)).To(Succeed())
	kids := make([]string, 0, len(set.Keys))
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

// events drains what was sent so far.
func (s *scene) events() []string {
	var out []string
	for {
		select {
		case e := <-s.recorder.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// condition matches a status condition with this status and reason.
func condition(kind string, status metav1.ConditionStatus, reason string) OmegaMatcher {
	return WithTransform(func(s api.IssuerStatus) string {
		c := findCondition(&s, kind)
		if c == nil {
			return "none"
		}
		return fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason)
	}, Equal(fmt.Sprintf("%s=%s %s", kind, status, reason)))
}

func isReady(reason string) OmegaMatcher {
	return condition(api.ConditionReady, metav1.ConditionTrue, reason)
}

func isNotReady(reason string) OmegaMatcher {
	return condition(api.ConditionReady, metav1.ConditionFalse, reason)
}

// writes counts the mutating calls of a reconciler, and can make them fail.
type writes struct {
	mu    sync.Mutex
	calls []string
	// fail, if set, is asked before each call with its number, from 1, and may
	// refuse it; after is asked once the server has carried it out.
	fail, after func(n int) error
}

// take returns the calls since the last time.
func (w *writes) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

func (w *writes) note(what string, do func() error) error {
	w.mu.Lock()
	w.calls = append(w.calls, what)
	n, fail, after := len(w.calls), w.fail, w.after
	w.mu.Unlock()
	if fail != nil {
		if err := fail(n); err != nil {
			return err
		}
	}
	err := do()
	if err == nil && after != nil {
		return after(n)
	}
	return err
}

// counted wraps a client.
func (w *writes) counted(c client.WithWatch) client.Client {
	return interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return w.note("create ConfigMap", func() error { return c.Create(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return w.note("delete ConfigMap", func() error { return c.Delete(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return w.note("patch", func() error { return c.Patch(ctx, o, p, opts...) })
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			return w.note("apply ConfigMap", func() error { return c.Apply(ctx, o, opts...) })
		},
		SubResourceApply: func(ctx context.Context, c client.Client, sub string, o runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
			return w.note("apply "+sub, func() error { return c.SubResource(sub).Apply(ctx, o, opts...) })
		},
	})
}
