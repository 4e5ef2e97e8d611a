package controller

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

var _ = Describe("spec.snapshot", func() {
	at := func(s *scene, name string) client.ObjectKey {
		return client.ObjectKey{Namespace: s.key.Namespace, Name: name}
	}

	It("names the ConfigMap, which moves when the name changes", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(snapshotOf(func(sn *api.SnapshotSpec) { sn.ConfigMapName = "keys" }))
		s.reconcile()
		data := configMap(ctx, at(s, "keys")).Data
		Expect(s.status().Snapshot.ConfigMapName).To(Equal("keys"))

		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot.ConfigMapName = "" })
		s.reconcile()
		Expect(configMap(ctx, s.copyKey()).Data).To(Equal(data))
		Expect(server.Get(ctx, at(s, "keys"), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
		Expect(s.status().Snapshot.ConfigMapName).To(Equal("auth-jwks"))
	})

	It("never takes another's ConfigMap, and keeps the one it has", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		before := configMap(ctx, s.copyKey())
		theirs := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: "theirs"}, Data: map[string]string{"jwks.json": "{}"}}
		Expect(server.Create(ctx, theirs)).To(Succeed())
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot = &api.SnapshotSpec{ConfigMapName: "theirs"} })
		s.reconcile()
		Expect(configMap(ctx, at(s, "theirs")).Data).To(Equal(theirs.Data))
		Expect(configMap(ctx, s.copyKey()).Data).To(Equal(before.Data), "who mounts it goes on")
		Expect(s.status()).To(condition(api.ConditionSnapshotPublished, metav1.ConditionFalse, api.ReasonConfigMapConflict))

		Expect(server.Delete(ctx, theirs)).To(Succeed())
		s.after(time.Minute)
		Expect(configMap(ctx, at(s, "theirs")).Data).To(Equal(before.Data))
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
	})

	It("adds labels and annotations to what applications mount, and takes them away again", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(snapshotOf(func(sn *api.SnapshotSpec) {
			sn.Labels = map[string]api.LabelValue{"example.com/team": "orders", "tier": "1"}
			sn.Annotations = map[string]api.AnnotationValue{"example.com/reload": "true"}
		}))
		s.reconcile()
		cm := configMap(ctx, s.copyKey())
		Expect(cm.Labels).To(And(HaveKeyWithValue("example.com/team", "orders"), HaveKeyWithValue("tier", "1"), HaveKeyWithValue(api.LabelSnapshot, "true")))
		Expect(cm.Annotations).To(HaveKeyWithValue("example.com/reload", "true"))
		Expect(configMap(ctx, s.authoritativeKey()).Labels).NotTo(HaveKey("tier"))

		metav1.SetMetaDataLabel(&cm.ObjectMeta, "theirs", "stays")
		Expect(server.Update(ctx, cm)).To(Succeed())
		s.edit(func(ti *api.TrustedIssuer) {
			ti.Spec.Snapshot.Labels, ti.Spec.Snapshot.Annotations = map[string]api.LabelValue{"tier": "2"}, nil
		})
		s.reconcile()
		cm = configMap(ctx, s.copyKey())
		Expect(cm.Labels).To(And(HaveKeyWithValue("tier", "2"), Not(HaveKey("example.com/team")), HaveKeyWithValue("theirs", "stays")))
		Expect(cm.Annotations).NotTo(HaveKey("example.com/reload"))

		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot.Labels = nil })
		s.reconcile()
		Expect(configMap(ctx, s.copyKey()).Labels).NotTo(HaveKey("tier"))
		s.writes.take()
		s.reconcile()
		Expect(s.writes.take()).To(BeEmpty())
	})

	It("publishes PEM as well", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2(), key3())
		s.create(snapshotOf(func(sn *api.SnapshotSpec) { sn.AdditionalFormats = []api.SnapshotFormat{api.FormatPEM} }))
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1", "k2", "k3"}), "and the same bytes in both ConfigMaps")
		rest := []byte(configMap(ctx, s.copyKey()).Data[snapshot.KeyPEM])
		for _, key := range []*testissuer.Key{key1(), key2(), key3()} {
			var block *pem.Block
			block, rest = pem.Decode(rest)
			Expect(block).NotTo(BeNil())
			Expect(block.Type).To(Equal("PUBLIC KEY"))
			Expect(x509.ParsePKIXPublicKey(block.Bytes)).To(Equal(key.Public()))
		}
		Expect(strings.TrimSpace(string(rest))).To(BeEmpty())

		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.Snapshot.AdditionalFormats = nil })
		s.reconcile()
		Expect(configMap(ctx, s.copyKey()).Data).NotTo(HaveKey(snapshot.KeyPEM))
		Expect(configMap(ctx, s.authoritativeKey()).Data).NotTo(HaveKey(snapshot.KeyPEM))
	})

	It("keeps what applications mount when the object goes, if it is to be retained", func(ctx context.Context) {
		s := newScene(ctx)
		s.create(snapshotOf(func(sn *api.SnapshotSpec) { sn.DeletionPolicy = api.DeletionRetain }))
		s.reconcile()
		ours, data := s.authoritativeKey(), configMap(ctx, s.copyKey()).Data
		s.events()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		kept := configMap(ctx, s.copyKey())
		Expect(kept.Data).To(Equal(data))
		Expect(kept.Annotations).To(HaveKey(api.AnnotationReleased))
		Expect(s.events()).To(ContainElement(And(ContainSubstring(api.ReasonSnapshotReleased), ContainSubstring("Retain"))))
		Expect(server.Get(ctx, ours, &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound), "the verifier has nothing left to trust")
		Expect(server.Get(ctx, s.key, &api.TrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))
	})
})

func snapshotOf(change func(*api.SnapshotSpec)) func(*api.IssuerSpec) {
	return func(spec *api.IssuerSpec) {
		spec.Snapshot = &api.SnapshotSpec{}
		change(spec.Snapshot)
	}
}
