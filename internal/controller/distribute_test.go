package controller

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlevent "sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// fleet is a ClusterTrustedIssuer with namespaces that it selects.
type fleet struct {
	*scene

	d *Distributor
	// label is what selects the namespaces.
	label map[string]string
}

// newFleet makes a fleet of so many namespaces; the object is there, and has its
// keys, but no copy has been made.
func newFleet(ctx context.Context, namespaces int, edits ...func(*api.ClusterTrustedIssuerSpec)) (*fleet, []string) {
	GinkgoHelper()
	f := &fleet{scene: newScene(ctx)}
	f.label = map[string]string{"fleet": f.key.Namespace}
	f.key = client.ObjectKey{Name: f.key.Namespace}
	f.restart()
	names := make([]string, namespaces)
	for i := range names {
		names[i] = f.namespace(f.label)
	}
	o := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: f.key.Name}}
	o.Spec.IssuerSpec = f.spec()
	o.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: f.label}
	for _, edit := range edits {
		edit(&o.Spec)
	}
	Expect(server.Create(f.ctx, o)).To(Succeed())
	f.reconcile()
	return f, names
}

// restart gives the fleet a new manager process.
func (f *fleet) restart() {
	f.scene.restart()
	f.r.New = func() api.Issuer { return &api.ClusterTrustedIssuer{} }
	f.d = &Distributor{Reconciler: f.r, Namespaces: server}
	f.r.distributor = f.d
}

func (f *fleet) namespace(labelled map[string]string) string {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "app-", Labels: labelled}}
	Expect(server.Create(f.ctx, ns)).To(Succeed())
	return ns.Name
}

func (f *fleet) get() *api.ClusterTrustedIssuer {
	GinkgoHelper()
	o := &api.ClusterTrustedIssuer{}
	Expect(server.Get(f.ctx, f.key, o)).To(Succeed())
	return o
}

func (f *fleet) status() api.IssuerStatus {
	GinkgoHelper()
	return f.get().Status
}

func (f *fleet) edit(change func(*api.ClusterTrustedIssuerSpec)) {
	GinkgoHelper()
	o := f.get()
	base := o.DeepCopy()
	change(&o.Spec)
	Expect(server.Patch(f.ctx, o, client.MergeFrom(base))).To(Succeed())
}

// distribute looks at all copies, and returns the namespaces that failed. Status
// follows.
func (f *fleet) distribute() (failed []string) {
	GinkgoHelper()
	f.reconcile()
	all, err := f.d.targets(f.ctx, f.get())
	Expect(err).NotTo(HaveOccurred())
	for _, t := range all {
		result, err := f.d.Reconcile(f.ctx, t)
		if err != nil || result.RequeueAfter > 0 {
			failed = append(failed, t.namespace)
		}
	}
	f.reconcile()
	slices.Sort(failed)
	return failed
}

// looks looks at the copies that an event has brought into the queue.
func (f *fleet) looks(event func(queue targets)) {
	GinkgoHelper()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[target]())
	defer queue.ShutDown()
	event(queue)
	for queue.Len() > 0 {
		t, _ := queue.Get()
		_, err := f.d.Reconcile(f.ctx, t)
		Expect(err).NotTo(HaveOccurred())
		queue.Done(t)
	}
}

func (f *fleet) copyIn(namespace string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: f.key.Name + "-jwks"}
}

func (f *fleet) authoritative() *corev1.ConfigMap {
	GinkgoHelper()
	return configMap(f.ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(f.get().UID)})
}

// expectCopies expects the current copy in these namespaces.
func (f *fleet) expectCopies(namespaces ...string) {
	GinkgoHelper()
	want := f.authoritative().Data
	for _, ns := range namespaces {
		Expect(configMap(f.ctx, f.copyIn(ns)).Data).To(Equal(want), ns)
	}
}

func (f *fleet) expectNone(namespaces ...string) {
	GinkgoHelper()
	for _, ns := range namespaces {
		Expect(server.Get(f.ctx, f.copyIn(ns), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound), ns)
	}
}

// come matches a distribution by its numbers.
func come(desired, current int32) OmegaMatcher {
	return HaveField("Distribution", And(HaveField("Desired", HaveValue(Equal(desired))), HaveField("Current", HaveValue(Equal(current)))))
}

func isDistributed() OmegaMatcher {
	return condition(api.ConditionDistributed, metav1.ConditionTrue, api.ReasonDistributed)
}

var _ = Describe("A ClusterTrustedIssuer with a namespaceSelector", func() {
	It("has a byte-identical copy in each selected namespace, and in no other", func(ctx context.Context) {
		f, selected := newFleet(ctx, 3)
		other := f.namespace(nil)
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(selected...)
		f.expectNone(other, harness.OperatorNamespace)
		Expect(f.status()).To(And(come(3, 3), isDistributed(), isReady(api.ReasonFresh)))
		Expect(f.status().Distribution.Digest).To(Equal(f.status().Snapshot.Digest))
		Expect(f.status().Snapshot.ConfigMapName).To(Equal(f.key.Name + "-jwks"))
		Expect(configMap(ctx, f.copyIn(selected[0])).OwnerReferences).To(BeEmpty())

		f.writes.take()
		Expect(f.distribute()).To(BeEmpty())
		Expect(f.writes.take()).To(BeEmpty(), "nothing is written while nothing changes")
		f.restart()
		Expect(f.distribute()).To(BeEmpty())
		Expect(f.writes.take()).To(BeEmpty(), "nor by a new manager")
	})

	It("follows a rotation with one write for each copy, and says so while it lasts", func(ctx context.Context) {
		f, selected := newFleet(ctx, 3)
		f.distribute()
		f.issuer.Publish(key1(), key2())
		f.after(10 * time.Minute)
		Expect(f.status()).To(And(come(3, 0), condition(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonDistributing)),
			"what was said of the old keys does not stand for the new ones")
		f.measures(0, map[string]int{"current": 0, "failed": 0, "waiting": 3})
		f.writes.take()
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(selected...)
		Expect(kidsOf(configMap(ctx, f.copyIn(selected[0])))).To(Equal([]string{"k1", "k2"}))
		Expect(f.writes.take()).To(ConsistOf("apply ConfigMap", "apply ConfigMap", "apply ConfigMap", "apply status"))
		Expect(f.status()).To(And(come(3, 3), isDistributed()))
	})

	It("says now and then how far it has come, not after each copy", func(ctx context.Context) {
		f, selected := newFleet(ctx, 3)
		f.distribute()
		f.issuer.Publish(key1(), key2())
		f.after(10 * time.Minute)
		f.reconcile() // which each write to status leads to
		f.writes.take()
		write := func(namespace string) {
			_, err := f.d.Reconcile(ctx, target{f.key.Name, namespace})
			Expect(err).NotTo(HaveOccurred())
		}
		write(selected[0])
		f.reconcile() // again: 35 writes to status were made for 1,000 copies in six seconds
		write(selected[1])
		f.reconcile()
		Expect(f.writes.take()).To(ConsistOf("apply ConfigMap", "apply ConfigMap"))
		f.after(progressDelay)
		Expect(f.status()).To(come(3, 2))
		write(selected[2])
		f.reconcile()
		Expect(f.status()).To(And(come(3, 3), isDistributed()), "the end is told at once")
		Expect(f.writes.take()).To(ConsistOf("apply status", "apply ConfigMap", "apply status"))
	})

	It("brings back copies that were looked at while the authoritative ConfigMap was gone", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2)
		f.distribute()
		Expect(server.Delete(ctx, f.authoritative())).To(Succeed())
		Expect(server.Delete(ctx, configMap(ctx, f.copyIn(selected[0])))).To(Succeed())
		_, err := f.d.Reconcile(ctx, target{f.key.Name, selected[0]})
		Expect(err).NotTo(HaveOccurred())
		f.expectNone(selected[0])
		f.reconcile() // brings the authoritative one back
		f.looks(func(queue targets) {
			f.d.onAuthoritative().Create(ctx, ctrlevent.TypedCreateEvent[client.Object]{Object: f.authoritative()}, queue)
		})
		f.expectCopies(selected...)
	})

	It("is not taken for the one before it, of the same keys, where no watch has shown that it was made again", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		before := f.get()
		f.distribute()
		Expect(server.Delete(ctx, f.get())).To(Succeed())
		f.reconcile()
		again := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: f.key.Name}, Spec: before.Spec}
		Expect(server.Create(ctx, again)).To(Succeed())
		f.after(10 * time.Second)
		Expect(digests(f.get())).To(Equal(digests(before)), "nothing but the UID is another")
		f.looks(func(queue targets) {
			f.d.Handlers().Issuer.Update(ctx, ctrlevent.TypedUpdateEvent[client.Object]{ObjectOld: before, ObjectNew: f.get()}, queue)
		})
		f.expectCopies(selected...)
	})

	It("has a copy in a namespace again that was made again, where no watch has shown that", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.distribute()
		Expect(server.Delete(ctx, configMap(ctx, f.copyIn(selected[0])))).To(Succeed(), "it went with the namespace")
		now := &metav1.PartialObjectMetadata{}
		now.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
		Expect(server.Get(ctx, client.ObjectKey{Name: selected[0]}, now)).To(Succeed())
		before := now.DeepCopy()
		before.UID = "another"
		f.looks(func(queue targets) {
			f.d.Handlers().Namespace.Update(ctx, ctrlevent.TypedUpdateEvent[*metav1.PartialObjectMetadata]{ObjectOld: before, ObjectNew: now}, queue)
		})
		f.expectCopies(selected...)
	})

	It("follows namespaces that come, change their labels, and go", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2)
		f.distribute()
		newcomer := f.namespace(f.label)
		leaver := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: selected[0]}}
		Expect(server.Patch(ctx, leaver, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"fleet":null}}}`)))).To(Succeed())
		Expect(server.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: selected[1]}})).To(Succeed()) // and is terminating for ever here
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(newcomer)
		f.expectNone(selected[0])
		Expect(f.status()).To(And(come(1, 1), isDistributed()))
	})

	It("takes its copies back when the selector no longer matches, selects nothing, or is gone", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2)
		f.distribute()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.NamespaceSelector.MatchLabels = map[string]string{"fleet": "another"}
		})
		f.restart() // which must not forget them
		Expect(f.distribute()).To(BeEmpty())
		f.expectNone(selected...)
		Expect(f.status()).To(And(come(0, 0), condition(api.ConditionDistributed, metav1.ConditionTrue, api.ReasonNothingSelected)))

		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.NamespaceSelector.MatchLabels = f.label })
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(selected...)
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.NamespaceSelector = nil })
		Expect(f.distribute()).To(BeEmpty())
		f.expectNone(selected...)
		Expect(f.status().Distribution).To(BeNil())
		Expect(findCondition(ptr.To(f.status()), api.ConditionDistributed)).To(BeNil())
		Expect(series("jwks_trust_issuer_distributed", f.key)).To(BeEmpty())
		Expect(series("jwks_trust_issuer_copies", f.key)).To(BeEmpty())
	})

	It("says that a selector cannot be understood, and touches no copy", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.distribute()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}
		})
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(selected...)
		Expect(f.status()).To(condition(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonInvalidSelector))
		Expect(series("jwks_trust_issuer_distributed", f.key)).To(Equal([]float64{0}))
	})

	It("goes on with the keys where a selector is wrong at greater length than a condition can say", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.distribute()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.NamespaceSelector.MatchLabels["team"] = strings.Repeat("a", 40_000)
		})
		f.after(8 * time.Minute)
		f.expectCopies(selected...)
		Expect(f.status()).To(And(isReady(api.ReasonFresh), condition(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonInvalidSelector)))
		Expect(f.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon.Add(8*time.Minute)))
	})

	It("goes on where a namespace has a ConfigMap of that name, or no room; status names them", func(ctx context.Context) {
		f, selected := newFleet(ctx, 4)
		slices.Sort(selected)
		foreign, full, rest := selected[0], selected[1], selected[2:]
		theirs := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: foreign, Name: f.key.Name + "-jwks"}, Data: map[string]string{"a": "b"}}
		Expect(server.Create(ctx, theirs)).To(Succeed())
		quota := f.noConfigMaps(full)

		Expect(f.distribute()).To(Equal([]string{foreign, full}))
		f.expectCopies(rest...)
		Expect(configMap(ctx, f.copyIn(foreign)).Data).To(Equal(theirs.Data))
		Expect(f.status()).To(And(come(4, 2), condition(api.ConditionDistributed, metav1.ConditionFalse, api.ReasonNamespacesFailed), isReady(api.ReasonFresh)))
		Expect(f.status().Distribution.Failed).To(HaveExactElements(
			And(HaveField("Namespace", foreign), HaveField("Reason", api.ReasonConfigMapConflict)),
			And(HaveField("Namespace", full), HaveField("Reason", api.ReasonPublishFailed), HaveField("Message", ContainSubstring("exceeded quota")))))
		Expect(f.events()).To(ContainElement(And(ContainSubstring(api.ReasonNamespacesFailed), ContainSubstring(foreign), ContainSubstring(full))))
		f.measures(0, map[string]int{"current": 2, "failed": 2, "waiting": 0})

		Expect(server.Delete(ctx, theirs)).To(Succeed())
		Expect(server.Delete(ctx, quota)).To(Succeed())
		Eventually(f.distribute).WithTimeout(10 * time.Second).Should(BeEmpty())
		f.expectCopies(selected...)
		Expect(f.status()).To(And(come(4, 4), isDistributed()))
		Expect(f.status().Distribution.Failed).To(BeEmpty())
		f.measures(1, map[string]int{"current": 4, "failed": 0, "waiting": 0})
	})

	It("names only so many namespaces, and counts them all", func(ctx context.Context) {
		f, selected := newFleet(ctx, 12)
		for _, ns := range selected {
			Expect(server.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: f.key.Name + "-jwks"}})).To(Succeed())
		}
		Expect(f.distribute()).To(HaveLen(12))
		Expect(f.status()).To(come(12, 0))
		Expect(f.status().Distribution.Failed).To(HaveLen(10))
		Expect(findCondition(ptr.To(f.status()), api.ConditionDistributed).Message).To(ContainSubstring("and 2 more"))
		f.measures(0, map[string]int{"current": 0, "failed": 12, "waiting": 0})
	})

	It("does not share a name with another issuer: the first one has it", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.distribute()
		want := configMap(ctx, f.copyIn(selected[0]))
		second, _ := newFleet(ctx, 0, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.NamespaceSelector.MatchLabels = f.label
			spec.Snapshot = &api.SnapshotSpec{ConfigMapName: f.key.Name + "-jwks"}
		})
		Expect(second.distribute()).To(Equal(selected))
		Expect(second.status().Distribution.Failed).To(ConsistOf(HaveField("Reason", api.ReasonConfigMapConflict)))
		Expect(configMap(ctx, f.copyIn(selected[0]))).To(Equal(want))
	})

	It("puts a copy right that somebody has changed or deleted", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2)
		f.distribute()
		cm := configMap(ctx, f.copyIn(selected[0]))
		cm.Data["jwks.json"] = `{"keys":[]}`
		Expect(server.Update(ctx, cm)).To(Succeed())
		Expect(server.Delete(ctx, configMap(ctx, f.copyIn(selected[1])))).To(Succeed())
		Expect(f.distribute()).To(BeEmpty())
		f.expectCopies(selected...)
		Expect(f.events()).To(ContainElement(ContainSubstring(api.ReasonSnapshotRepaired)))
	})

	It("copies nothing that somebody has put into the authoritative ConfigMap", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		want := f.authoritative()
		tampered := want.DeepCopy()
		tampered.Data["issuer.json"] = `{"issuer":"https://evil.example.com"}`
		Expect(server.Update(ctx, tampered)).To(Succeed())
		result, err := f.d.Reconcile(ctx, target{f.key.Name, selected[0]})
		Expect(err).NotTo(HaveOccurred())
		Expect(result).To(Equal(reconcile.Result{}))
		Expect(configMap(ctx, f.copyIn(selected[0])).Data).To(Equal(want.Data), "keys count by their digest, and nothing else is read")

		tampered = f.authoritative()
		tampered.Data["jwks.json"] = `{"keys":[]}`
		Expect(server.Update(ctx, tampered)).To(Succeed())
		_, err = f.d.Reconcile(ctx, target{f.key.Name, selected[0]})
		Expect(err).NotTo(HaveOccurred())
		Expect(configMap(ctx, f.copyIn(selected[0])).Data).To(Equal(want.Data))
	})

	It("moves its copies when their name changes, and labels them", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2)
		f.distribute()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{ConfigMapName: "login-keys", Labels: map[string]api.LabelValue{"tier": "1"}}
		})
		Expect(f.distribute()).To(BeEmpty())
		f.expectNone(selected...)
		for _, ns := range selected {
			cm := configMap(ctx, client.ObjectKey{Namespace: ns, Name: "login-keys"})
			Expect(cm.Data).To(Equal(f.authoritative().Data))
			Expect(cm.Labels).To(HaveKeyWithValue("tier", "1"))
		}
		Expect(f.status()).To(come(2, 2))
	})

	It("keeps its copies when the issuer publishes a document of 1 MiB", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.distribute()
		want := configMap(ctx, f.copyIn(selected[0]))
		f.issuer.Respond(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(bytes.Repeat([]byte(" "), 1<<20), `{"keys":[]}`...)) // to whoever reads that far
		})
		f.after(10 * time.Minute)
		Expect(f.distribute()).To(BeEmpty())
		Expect(configMap(ctx, f.copyIn(selected[0]))).To(Equal(want))
		Expect(f.status()).To(And(come(1, 1), isDistributed(), condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonTooLarge)))
	})

	It("takes a format that is no longer wanted out of its copies", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{AdditionalFormats: []api.SnapshotFormat{api.FormatPEM}}
		})
		Expect(f.distribute()).To(BeEmpty())
		Expect(configMap(ctx, f.copyIn(selected[0])).Data).To(HaveKey("keys.pem"))
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.Snapshot = nil })
		Expect(f.distribute()).To(BeEmpty())
		Expect(configMap(ctx, f.copyIn(selected[0])).Data).NotTo(HaveKey("keys.pem"))
		f.expectCopies(selected...)
	})

	It("takes revoked keys out of its copies too", func(ctx context.Context) {
		f, selected := newFleet(ctx, 1)
		f.distribute()
		f.edit(func(spec *api.ClusterTrustedIssuerSpec) { spec.RevokedKeys = []string{"k1"} })
		Expect(f.distribute()).To(BeEmpty())
		Expect(configMap(ctx, f.copyIn(selected[0])).Data).To(BeEmpty(), "an empty set is never published")
		late := f.namespace(f.label)
		Expect(f.distribute()).To(BeEmpty())
		f.expectNone(late)
		Expect(f.status()).To(And(come(2, 2), isDistributed()))
	})

	It("leaves nothing behind when it is deleted", func(ctx context.Context) {
		f, selected := newFleet(ctx, 3)
		f.distribute()
		Expect(server.Delete(ctx, f.get())).To(Succeed())
		f.reconcile()
		f.expectNone(selected...)
		Expect(server.Get(ctx, f.key, &api.ClusterTrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))
		for _, ns := range selected { // a view that is behind writes nothing any more
			_, err := f.d.Reconcile(ctx, target{f.key.Name, ns})
			Expect(err).NotTo(HaveOccurred())
		}
		f.expectNone(selected...)
	})

	It("keeps its copies when it is deleted, if they are to be retained", func(ctx context.Context) {
		f, selected := newFleet(ctx, 2, func(spec *api.ClusterTrustedIssuerSpec) {
			spec.Snapshot = &api.SnapshotSpec{DeletionPolicy: api.DeletionRetain}
		})
		f.distribute()
		Expect(server.Delete(ctx, f.get())).To(Succeed())
		f.reconcile()
		for _, ns := range selected {
			Expect(configMap(ctx, f.copyIn(ns)).Annotations).To(HaveKey(api.AnnotationReleased))
		}
		Expect(server.Get(ctx, f.key, &api.ClusterTrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))
	})
})

// measures checks what metrics say of the copies.
func (f *fleet) measures(distributed float64, copies map[string]int) {
	GinkgoHelper()
	Expect(series("jwks_trust_issuer_distributed", f.key)).To(Equal([]float64{distributed}))
	for state, n := range copies {
		Expect(series("jwks_trust_issuer_copies", f.key, "state", state)).To(Equal([]float64{float64(n)}), state)
	}
}

// noConfigMaps gives a namespace a quota of no ConfigMaps. What keeps the quota's
// status, a controller, does not run here.
func (s *scene) noConfigMaps(namespace string) *corev1.ResourceQuota {
	GinkgoHelper()
	none := corev1.ResourceList{corev1.ResourceConfigMaps: resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
	Expect(server.Create(s.ctx, quota)).To(Succeed())
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	Expect(server.Status().Update(s.ctx, quota)).To(Succeed())
	probe := func(n int) error {
		return server.Create(s.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("probe-%d", n)}}, client.DryRunAll)
	}
	n := 0
	Eventually(func() error { n++; return probe(n) }).WithTimeout(15*time.Second).Should(MatchError(ContainSubstring("exceeded quota")), "the API server has seen the quota")
	return quota
}
