// tamper_test.go changes what was published, in every way that an administrator or a
// tool could, while the issuer is down; and takes objects away under the manager.

package faults

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// tampers are what may become of a ConfigMap of ours.
var tampers = map[string]func(g Gomega, w *world, cm *corev1.ConfigMap){
	"deleted": func(g Gomega, w *world, cm *corev1.ConfigMap) {
		g.Expect(w.api.Delete(context.Background(), cm)).To(Succeed())
	},
	"other keys":          edited(func(cm *corev1.ConfigMap) { cm.Data["jwks.json"] = `{"keys":[` + jwk(key3()) + `]}` }),
	"emptied":             edited(func(cm *corev1.ConfigMap) { cm.Data = nil }),
	"one entry less":      edited(func(cm *corev1.ConfigMap) { delete(cm.Data, "issuer.json") }),
	"labels removed":      edited(func(cm *corev1.ConfigMap) { cm.Labels = nil }),
	"annotations removed": edited(func(cm *corev1.ConfigMap) { cm.Annotations = nil }),
	"other keys, and immutable": edited(func(cm *corev1.ConfigMap) {
		cm.Data["jwks.json"], cm.Immutable = `{"keys":[]}`, ptr.To(true)
	}),
	"taken over by another field manager": func(g Gomega, w *world, cm *corev1.ConfigMap) {
		theirs := corev1ac.ConfigMap(cm.Name, cm.Namespace).WithData(map[string]string{"jwks.json": `{"keys":[]}`, "jwks": "x"}).
			WithLabels(map[string]string{api.LabelSnapshot: "false"})
		g.Expect(w.api.Apply(context.Background(), theirs, client.FieldOwner("intruder"), client.ForceOwnership)).To(Succeed())
	},
}

func edited(edit func(*corev1.ConfigMap)) func(Gomega, *world, *corev1.ConfigMap) {
	return func(g Gomega, w *world, cm *corev1.ConfigMap) {
		edit(cm)
		g.Expect(w.api.Update(context.Background(), cm)).To(Succeed())
	}
}

func TestTamperingIsPutRightWhileTheIssuerIsDown(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	l := w.newLife(g, api.TrustedIssuerKind, "tampered")
	t.Cleanup(l.end)
	create(l, g)
	g.Eventually(func() bool { return isReady(l) }).WithTimeout(mended).Should(BeTrue())
	l.issuer.Stop()
	var slowest time.Duration
	for _, key := range []client.ObjectKey{{Namespace: l.id, Name: l.id + "-jwks"}, {Namespace: l.id + "-system", Name: snapshot.AuthoritativeName(l.object.GetUID())}} {
		read := func() *corev1.ConfigMap {
			cm := &corev1.ConfigMap{}
			g.Expect(client.IgnoreNotFound(w.api.Get(context.Background(), key, cm))).To(Succeed())
			return cm
		}
		want := read()
		for _, name := range slices.Sorted(maps.Keys(tampers)) {
			tampers[name](g, w, read())
			began := time.Now()
			g.Eventually(func() string {
				is := read()
				return difference(fmt.Sprint(is.Data, is.Labels, is.Annotations), fmt.Sprint(want.Data, want.Labels, want.Annotations))
			}).WithTimeout(mended).WithPolling(20*time.Millisecond).Should(BeEmpty(), "%s: %s", key, name)
			slowest = max(slowest, time.Since(began))
		}
	}
	figures.add("a ConfigMap tampered with while the issuer is down", "put right, byte for byte", "%d ways, both ConfigMaps; slowest %s", len(tampers), slowest.Round(10*time.Millisecond))
}

// Nothing is stuck when an object goes while its issuer is down, and nothing of it is
// left; one of the same name is Ready again.
func TestObjectDeletedWhileTheIssuerIsDown(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	for _, kind := range []string{api.TrustedIssuerKind, api.ClusterTrustedIssuerKind} {
		l := w.newLife(g, kind, "deleted")
		t.Cleanup(l.end)
		create(l, g)
		g.Eventually(func() bool { return isReady(l) }).WithTimeout(mended).Should(BeTrue())
		l.issuer.Stop()
		remove(l, g)
		g.Eventually(func() bool { return isGone(l) }).WithTimeout(mended).Should(BeTrue())
		g.Expect(l.state()).To(Equal("null"), "nothing is left")

		g.Expect(l.issuer.Restart()).To(Succeed())
		l.object.SetResourceVersion("")
		l.object.SetUID("")
		l.object.SetFinalizers(nil)
		create(l, g)
		g.Eventually(func() bool { return isReady(l) }).WithTimeout(mended).Should(BeTrue())
		_, err := w.seen.judge(l.object)
		g.Expect(err).NotTo(HaveOccurred())
	}
	figures.add("object deleted while the issuer is down, and made again", "gone within 30 s with all that it published; the next one is Ready", "both kinds")
}
