package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

var _ = Describe("A TrustedIssuer", func() {
	var s *scene
	BeforeEach(func(ctx context.Context) { s = newScene(ctx) })

	It("is published: two ConfigMaps, a status, an event", func() {
		s.create()
		result := s.reconcile()

		Expect(s.kids()).To(Equal([]string{"k1"}))
		status := s.status()
		Expect(status).To(And(
			isReady(api.ReasonFresh),
			condition(api.ConditionFetched, metav1.ConditionTrue, api.ReasonSucceeded),
			condition(api.ConditionSnapshotPublished, metav1.ConditionTrue, api.ReasonPublished),
			condition(api.ConditionStale, metav1.ConditionFalse, api.ReasonFresh),
			condition(api.ConditionExpired, metav1.ConditionFalse, api.ReasonNotExpired),
			condition(api.ConditionStalled, metav1.ConditionFalse, api.ReasonNotStalled),
		))
		Expect(status.ObservedGeneration).To(Equal(int64(1)))
		Expect(status.JWKSURI).To(Equal(s.issuer.JWKSURI()))
		Expect(status.Snapshot.ConfigMapName).To(Equal("auth-jwks"))
		Expect(status.Snapshot.PendingDigest).To(BeEmpty())
		Expect(status.Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon))
		Expect(status.Snapshot.FreshUntil.Time).To(BeTemporally("==", noon.Add(10*time.Minute)))
		Expect(status.Snapshot.ExpiresAt.Time).To(BeTemporally("==", noon.Add(24*time.Hour)))
		Expect(status.NextRefreshTime.Time).To(BeTemporally("==", noon.Add(8*time.Minute)))
		Expect(result.RequeueAfter).To(Equal(8 * time.Minute))
		Expect(status.Rotation).To(BeNil(), "the first set is not a rotation")
		Expect(status.Keys).To(HaveLen(1))
		Expect(status.Keys[0].State).To(Equal(api.KeyActive))
		Expect(status.Keys[0].FirstSeenTime.Time).To(BeTemporally("==", noon))
		Expect(status.Keys[0].Bits).To(BeNumerically("==", 2048))

		for _, key := range []client.ObjectKey{s.copyKey(), s.authoritativeKey()} {
			cm := configMap(s.ctx, key)
			Expect(cm.OwnerReferences).To(BeEmpty(), "else deleting the CRD would collect the keys")
			Expect(cm.Labels).To(HaveKeyWithValue(api.LabelSnapshot, "true"))
			Expect(cm.Labels).To(HaveKeyWithValue(api.LabelIssuerUID, string(s.get().UID)))
			Expect(cm.Annotations).To(HaveKeyWithValue(api.AnnotationIssuerName, "auth"))
			Expect(cm.Annotations).To(HaveKeyWithValue(api.AnnotationDigest, status.Snapshot.Digest))
			Expect(cm.Data["issuer.json"]).To(ContainSubstring(`"audiences":["orders"]`))
		}
		Expect(s.events()).To(ConsistOf(ContainSubstring("Normal Published")))
	})

	It("writes nothing while nothing is due, and one status per refresh (THREATS 54)", func() {
		s.create()
		s.reconcile()
		before := configMap(s.ctx, s.copyKey()).ResourceVersion
		s.writes.take()

		s.after(time.Minute)
		s.after(time.Minute)
		Expect(s.writes.take()).To(BeEmpty())
		Expect(s.issuer.Requests()).To(Equal(1))

		s.after(6 * time.Minute)
		Expect(s.issuer.Requests()).To(Equal(2))
		Expect(s.writes.take()).To(Equal([]string{"apply status"}))
		Expect(configMap(s.ctx, s.copyKey()).ResourceVersion).To(Equal(before), "an unchanged set leaves the ConfigMap alone")
		Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon.Add(8*time.Minute)))
	})

	It("records refreshes that headers made more frequent only once per 0.7 of cacheTTL", func() {
		s.issuer.Header("Cache-Control", "max-age=15")
		s.create()
		s.reconcile()
		s.writes.take()
		for range 6 {
			s.after(time.Minute)
		}
		Expect(s.issuer.Requests()).To(Equal(7), "at the floor of a minute, not every twelve seconds")
		Expect(s.writes.take()).To(BeEmpty())
		s.after(time.Minute)
		Expect(s.writes.take()).To(Equal([]string{"apply status"}))
	})

	It("follows a rotation and says what changed", func() {
		s.create()
		s.reconcile()
		s.events()
		s.issuer.Publish(key1(), key2())
		s.after(8 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		Expect(s.status().Rotation.Added).To(Equal([]string{"k2"}))
		Expect(s.status().Rotation.Count).To(Equal(int64(1)))
		Expect(s.status().Rotation.LastRotationTime.Time).To(BeTemporally("==", noon.Add(8*time.Minute)))
		Expect(s.events()).To(ContainElement(ContainSubstring("Normal KeysRotated")))

		s.issuer.Publish(key2())
		s.after(8 * time.Minute)
		s.after(30 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k2"}))
		Expect(s.status().Rotation.Removed).To(Equal([]string{"k1"}))
		Expect(s.status().Keys[0].FirstSeenTime.Time).To(BeTemporally("==", noon.Add(8*time.Minute)), "the time a key was first seen stays")
	})

	It("is measured, until it is gone", func() {
		gauge := func(name string) []float64 { return series(name, s.key) }
		s.create()
		s.reconcile()
		s.issuer.Publish(key1(), key2())
		s.after(8 * time.Minute)
		s.issuer.Stop()
		s.after(8 * time.Minute)
		success := float64(noon.Add(8 * time.Minute).Unix())
		Expect(gauge("jwks_trust_issuer_last_success_timestamp_seconds")).To(Equal([]float64{success}))
		Expect(gauge("jwks_trust_issuer_fresh_until_timestamp_seconds")).To(Equal([]float64{success + 600}))
		Expect(gauge("jwks_trust_issuer_expiry_timestamp_seconds")).To(Equal([]float64{success + 86400}))
		Expect(gauge("jwks_trust_issuer_keys")).To(Equal([]float64{2}))
		Expect(gauge("jwks_trust_issuer_ready")).To(Equal([]float64{1}))
		Expect(gauge("jwks_trust_issuer_rotations_total")).To(Equal([]float64{1}))
		Expect(gauge("jwks_trust_issuer_fetches_total")).To(ConsistOf(2.0, 1.0), "two successes and a failure")
		Expect(server.Delete(s.ctx, s.get())).To(Succeed())
		s.reconcile()
		for _, name := range []string{"last_success_timestamp_seconds", "expiry_timestamp_seconds", "keys", "ready", "compromised_keys", "rotations_total", "suspect_changes_total", "fetches_total"} {
			Expect(gauge("jwks_trust_issuer_"+name)).To(BeEmpty(), name)
		}
	})

	It("calls out a kid that got another key (THREATS 27)", func() {
		s.create()
		s.reconcile()
		s.events()
		s.issuer.Publish(testissuer.NewKey("k1", "ES384"))
		s.after(8 * time.Minute)
		Expect(s.status().Rotation.Replaced).To(Equal([]string{"k1"}))
		Expect(s.events()).To(ContainElement(ContainSubstring("Warning KeyReplaced")))
	})

	It("takes the order of keys for no change", func() {
		s.issuer.Publish(key1(), key2(), key3())
		s.create()
		s.reconcile()
		s.writes.take()
		s.issuer.Publish(key3(), key1(), key2())
		s.after(8 * time.Minute)
		Expect(s.writes.take()).To(Equal([]string{"apply status"}))
		Expect(s.status().Rotation).To(BeNil())
	})

	It("answers a refresh annotation at once, once, and says how it went", func() {
		s.create()
		s.reconcile()
		s.issuer.Publish(key1(), key2())
		s.annotate(api.AnnotationRefresh, "now")
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		Expect(s.status().HandledRefresh).To(HaveValue(And(
			HaveField("Request", "now"), HaveField("Outcome", api.ReasonSucceeded),
			HaveField("StartTime.Time", BeTemporally("==", noon.Add(10*time.Second))),
		)))
		s.after(10 * time.Second)
		Expect(s.issuer.Requests()).To(Equal(2))
	})

	It("keeps a static set, and never fetches", func() {
		jwks := fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key1().JWK()))
		s.create(func(spec *api.IssuerSpec) { spec.JWKSURI, spec.CABundle, spec.JWKS = "", "", jwks })
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(And(isReady(api.ReasonFresh), condition(api.ConditionFetched, metav1.ConditionTrue, api.ReasonStatic)))
		Expect(s.status().Snapshot.ExpiresAt).To(BeNil())
		s.writes.take()
		s.after(1000 * time.Hour)
		Expect(s.status()).To(isReady(api.ReasonFresh))
		Expect(s.writes.take()).To(BeEmpty())
		Expect(s.issuer.Requests()).To(BeZero())

		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI, ti.Spec.JWKS = "https://127.0.0.1:1/", "" })
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status().Snapshot.ExpiresAt.Time).To(BeTemporally("==", s.clock.Now().Add(24*time.Hour)), "from now on they can become stale")
		s.after(time.Hour)
		Expect(s.status()).To(condition(api.ConditionStale, metav1.ConditionTrue, api.ReasonServingStale))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI, ti.Spec.JWKS = "", "{}" })
		s.after(time.Minute)
		Expect(s.status().Snapshot.ExpiresAt).NotTo(BeNil(), "inline keys that cannot be used make fetched ones no static ones")
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKS = jwks })
		s.after(time.Minute)
		Expect(s.status().Snapshot.ExpiresAt).To(BeNil())

		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKS = `{"keys":[]}` })
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}), "a bad edit does not cost the last good keys")
		Expect(s.status()).To(And(isNotReady(api.ReasonEmptyKeySet), condition(api.ConditionStalled, metav1.ConditionTrue, api.ReasonEmptyKeySet)))
	})
})

var _ = Describe("An issuer whose keys are discovered", func() {
	var s *scene
	BeforeEach(func(ctx context.Context) {
		s = newScene(ctx)
		s.create(func(spec *api.IssuerSpec) { spec.JWKSURI = "" })
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status().JWKSURI).To(Equal(s.issuer.JWKSURI()))
	})

	It("is asked for its metadata once an hour", func() {
		for range 7 {
			s.after(8 * time.Minute)
		}
		Expect(s.issuer.DiscoveryRequests()).To(Equal(1))
		s.after(8 * time.Minute)
		Expect(s.issuer.DiscoveryRequests()).To(Equal(2))
		Expect(s.issuer.Requests()).To(Equal(9))
	})

	It("is followed at once when its keys move", func() {
		s.issuer.MoveKeys("/moved")
		s.issuer.Publish(key1(), key2())
		s.after(8 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		Expect(s.status().JWKSURI).To(HaveSuffix("/moved"))
	})

	It("goes on without its metadata, a restart included", func() {
		s.issuer.RespondDiscovery(testissuer.Status(http.StatusInternalServerError))
		s.issuer.Publish(key1(), key2())
		s.restart()
		s.after(2 * time.Hour)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})

	It("loses nothing when the metadata turn into those of another issuer", func() {
		s.issuer.RespondDiscovery(body(`{"issuer":"https://other.example.com","jwks_uri":"https://other.example.com/keys"}`))
		s.issuer.MoveKeys("/moved")
		s.after(8 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonIssuerMismatch))
	})

	It("is no success when the metadata turn into those of another issuer, the keys staying where they are", func() {
		s.issuer.RespondDiscovery(body(`{"issuer":"https://other.example.com","jwks_uri":"https://other.example.com/keys"}`))
		before := s.status().Snapshot.LastSuccessTime
		for range 8 {
			s.after(8 * time.Minute)
		}
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonIssuerMismatch))
		Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("<=", before.Add(time.Hour)), "the stale clock runs")
	})

	It("reads metadata that contradict it as a whole until they do not: mended ones may have the same ETag (THREATS 36)", func() {
		says := func(issuer string) {
			s.issuer.RespondDiscovery(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"same"`)
				if r.Header.Get("If-None-Match") == `"same"` {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				body(jsonOf(map[string]any{"issuer": issuer, "jwks_uri": s.issuer.JWKSURI()}))(w, r)
			})
		}
		says("https://other.example.com")
		s.after(2 * time.Hour)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonIssuerMismatch))
		says(s.issuer.URL())
		s.after(5 * time.Minute)
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})

	It("warns when the metadata name another host", func() {
		other, err := testissuer.Start()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(other.Close)
		other.Publish(key2())
		s.issuer.RespondDiscovery(body(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, s.issuer.URL(), other.JWKSURI())))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.CABundle += other.CABundle() })
		s.after(time.Minute)
		Expect(s.events()).NotTo(ContainElement(ContainSubstring("JWKSURIHostChanged")), "the spec was changed as well")
		before := series("jwks_trust_issuer_suspect_changes_total", s.key)[0]
		s.issuer.RespondDiscovery(nil)
		s.after(61 * time.Minute)
		Expect(s.events()).To(ContainElement(HavePrefix("Warning JWKSURIHostChanged")))
		Expect(series("jwks_trust_issuer_suspect_changes_total", s.key)[0]).To(BeNumerically(">", before))
	})
})

var _ = Describe("A failing issuer", func() {
	var s *scene
	BeforeEach(func(ctx context.Context) { s = newScene(ctx) })

	DescribeTable("costs nobody the last good keys, and is told apart",
		func(fail func(*scene), reason string, hint string) {
			s.create()
			s.reconcile()
			before := configMap(s.ctx, s.copyKey())
			ours := configMap(s.ctx, s.authoritativeKey())
			s.events()

			fail(s)
			s.after(8 * time.Minute)
			status := s.status()
			Expect(status).To(condition(api.ConditionFetched, metav1.ConditionFalse, reason))
			Expect(status.LastAttempt.Reason).To(Equal(reason))
			Expect(findCondition(&status, api.ConditionFetched).Message).To(ContainSubstring(hint))
			Expect(s.events()).To(ContainElement(HavePrefix("Warning " + reason)))
			Expect(configMap(s.ctx, s.copyKey())).To(Equal(before), "untouched to the byte")
			Expect(configMap(s.ctx, s.authoritativeKey())).To(Equal(ours))
			Expect(status.Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon))
		},
		Entry("unreachable", func(s *scene) { s.issuer.Stop() }, api.ReasonConnectionFailed, "spec.jwksURI"),
		Entry("an error page", func(s *scene) { s.issuer.Respond(testissuer.Status(http.StatusInternalServerError)) }, api.ReasonUnexpectedStatus, "500"),
		Entry("gone", func(s *scene) { s.issuer.Respond(testissuer.Status(http.StatusNotFound)) }, api.ReasonUnexpectedStatus, "404"),
		Entry("THREATS 26: HTML with status 200", func(s *scene) { s.issuer.Respond(testissuer.HTML()) }, api.ReasonNotAKeySet, "spec.jwksURI"),
		Entry("THREATS 26: a bare key", func(s *scene) { s.issuer.Respond(body(jsonOf(key1().JWK()))) }, api.ReasonNotAKeySet, ""),
		Entry("no keys", func(s *scene) { s.issuer.Respond(body(`{"keys":[]}`)) }, api.ReasonEmptyKeySet, ""),
		Entry("no usable keys", func(s *scene) { s.issuer.Respond(body(`{"keys":[{"kty":"oct","k":"AAAA","kid":"x"}]}`)) }, api.ReasonNoUsableKeys, "SymmetricKey"),
		Entry("THREATS 25: too large", func(s *scene) { s.issuer.Respond(body(strings.Repeat(" ", 600<<10))) }, api.ReasonTooLarge, "512"),
		Entry("THREATS 33: a gzip bomb", func(s *scene) { s.issuer.Respond(testissuer.GzipBomb()) }, api.ReasonTooLarge, "512"),
		Entry("THREATS 31: a redirect", func(s *scene) { s.issuer.Respond(testissuer.Redirect("/elsewhere")) }, api.ReasonRedirectRefused, "spec.maxRedirects"),
		Entry("THREATS 17: nothing but a key with its private part", func(s *scene) {
			s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key2().PrivateJWK()))))
		}, api.ReasonPrivateKeyExposed, ""),
	)

	DescribeTable("is told apart before the first success too, with the spec's field in the message",
		func(edit func(*api.IssuerSpec), reason, hint string, stalled metav1.ConditionStatus) {
			s.create(edit)
			s.reconcile()
			status := s.status()
			Expect(status).To(And(isNotReady(reason), condition(api.ConditionFetched, metav1.ConditionFalse, reason)))
			Expect(findCondition(&status, api.ConditionReady).Message).To(ContainSubstring(hint))
			Expect(findCondition(&status, api.ConditionStalled).Status).To(Equal(stalled))
			Expect(findCondition(&status, api.ConditionStale).Status).To(Equal(metav1.ConditionUnknown), "what was not reached is Unknown")
			Expect(findCondition(&status, api.ConditionSnapshotPublished).Status).To(Equal(metav1.ConditionUnknown))
			Expect(server.Get(s.ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
		},
		Entry("THREATS 34: no CA", func(spec *api.IssuerSpec) { spec.CABundle = "" }, api.ReasonTLSFailed, "spec.caBundle", metav1.ConditionFalse),
		Entry("THREATS 29: an address that egress does not allow", func(spec *api.IssuerSpec) { spec.JWKSURI = "https://10.1.2.3/jwks" }, api.ReasonEgressBlocked, "--egress-allow-cidr", metav1.ConditionTrue),
		Entry("THREATS 29: the metadata service", func(spec *api.IssuerSpec) { spec.JWKSURI = "https://169.254.169.254/latest" }, api.ReasonEgressBlocked, "169.254.169.254", metav1.ConditionTrue),
		Entry("a missing CA ConfigMap", func(spec *api.IssuerSpec) {
			spec.CABundle = ""
			spec.CABundleRef = &api.CABundleReference{ConfigMap: &api.ConfigMapKeyReference{Name: "roots", Key: "ca.crt"}}
		}, api.ReasonCABundleUnavailable, "spec.caBundleRef.configMap", metav1.ConditionFalse),
		Entry("a missing ClusterTrustBundle", func(spec *api.IssuerSpec) {
			spec.CABundle = ""
			spec.CABundleRef = &api.CABundleReference{ClusterTrustBundle: &api.ClusterTrustBundleReference{Name: "roots"}}
		}, api.ReasonCABundleUnavailable, "spec.caBundleRef.clusterTrustBundle", metav1.ConditionFalse),
	)

	It("is trusted from a CA ConfigMap in its own namespace", func() {
		Expect(server.Create(s.ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: "roots"},
			Data:       map[string]string{"ca.crt": s.issuer.CABundle(), "empty": "no certificate"},
		})).To(Succeed())
		ref := &api.ConfigMapKeyReference{Name: "roots", Key: "empty"}
		s.create(func(spec *api.IssuerSpec) {
			spec.CABundle, spec.CABundleRef = "", &api.CABundleReference{ConfigMap: ref}
		})
		s.reconcile()
		Expect(s.status()).To(isNotReady(api.ReasonCABundleUnavailable), "never quietly the system's roots")
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.CABundleRef.ConfigMap.Key = "ca.crt" })
		s.after(time.Minute)
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})

	It("is served stale, then expires, then recovers; a restart on the way changes nothing", func() {
		s.create()
		s.reconcile()
		before := configMap(s.ctx, s.copyKey())
		s.issuer.Stop()
		s.after(8 * time.Minute)
		Expect(s.status()).To(isReady(api.ReasonFresh))
		s.restart()
		s.after(2 * time.Minute)
		Expect(s.status()).To(And(isReady(api.ReasonServingStale), condition(api.ConditionStale, metav1.ConditionTrue, api.ReasonServingStale)))
		Expect(s.events()).To(ContainElement(HavePrefix("Warning ServingStale")))
		s.restart()
		s.after(23 * time.Hour)
		Expect(s.status()).To(isReady(api.ReasonServingStale))
		s.after(50 * time.Minute)
		Expect(s.status()).To(And(isNotReady(api.ReasonExpired), condition(api.ConditionExpired, metav1.ConditionTrue, api.ReasonExpired)))
		Expect(configMap(s.ctx, s.copyKey())).To(Equal(before), "mounted keys are kept")

		Expect(s.issuer.Restart()).To(Succeed())
		s.after(10 * time.Minute)
		Expect(s.status()).To(isReady(api.ReasonFresh))
		Expect(s.events()).To(ContainElement(HavePrefix("Normal Recovered")))
		Expect(configMap(s.ctx, s.copyKey())).To(Equal(before), "the same keys, so not even a new version")
	})

	It("gets few requests and few writes (THREATS 55)", func() {
		s.create()
		s.reconcile()
		s.issuer.Respond(testissuer.Status(http.StatusBadGateway))
		s.after(8 * time.Minute)
		s.writes.take()
		requests := s.issuer.Requests()
		for range 60 * 12 { // an hour, looked at every five seconds
			s.after(5 * time.Second)
		}
		Expect(s.issuer.Requests()-requests).To(BeNumerically("<=", 30), "half of five minutes, on average, between two")
		Expect(len(s.writes.take())).To(BeNumerically("<=", 10))
	})

	It("keeps the last good keys when jwksURI is edited to a dead host (THREATS 51)", func() {
		s.create()
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI = "https://127.0.0.1:1/jwks" })
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(isNotReady(api.ReasonConnectionFailed), "the new spec has not led to keys yet")
		Expect(s.status().Snapshot.ObservedGeneration).To(Equal(int64(1)))
		Expect(s.status().ObservedGeneration).To(Equal(int64(2)))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.JWKSURI = s.issuer.JWKSURI() })
		s.after(time.Minute)
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})

	It("does not make the manager forget keys when its clock jumps (THREATS 38)", func() {
		s.create()
		s.reconcile()
		s.issuer.Stop()
		s.after(-time.Hour)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
		Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon.Add(-time.Hour)), "a success from the future is brought back to now")
		s.after(2 * time.Hour)
		Expect(s.status()).To(isReady(api.ReasonServingStale))
	})
})

var _ = Describe("A key published with its private part (THREATS 17)", func() {
	It("is refused even if the issuer corrects itself before status can be written", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create()
		s.reconcile()
		down := true
		s.writes.fail = func(int) error {
			if down {
				return errors.New("the API server is down")
			}
			return nil
		}
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
		s.keepReconciling(4, 2*time.Minute)
		seen := s.issuer.Requests()
		Expect(seen).To(BeNumerically(">", 1), "the document was seen")
		s.issuer.Respond(nil)
		s.keepReconciling(5, 2*time.Minute)
		Expect(s.issuer.Requests()).To(BeNumerically(">", seen), "and its correction")
		down = false
		s.keepReconciling(3, time.Minute)
		Expect(s.status().CompromisedKeys).To(ConsistOf(HaveField("KeyID", "k2")))
		Expect(s.kids()).To(Equal([]string{"k1"}))
	})

	It("is refused everywhere, the last good set included, and stays refused until cleared", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create()
		s.reconcile()
		s.events()
		leaked := jsonOf(key2().PrivateJWK())
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), leaked)))
		s.after(8 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status().CompromisedKeys).To(ConsistOf(HaveField("KeyID", "k2")))
		Expect(s.events()).To(ContainElement(HavePrefix("Warning PrivateKeyExposed")))
		Expect(series("jwks_trust_issuer_compromised_keys", s.key)).To(Equal([]float64{1}))

		s.issuer.Respond(nil)
		s.restart()
		s.after(8 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}), "published without its private part it is still compromised")

		s.annotate(api.AnnotationClearCompromised, s.status().CompromisedKeys[0].Thumbprint)
		s.after(time.Minute)
		Expect(s.status().CompromisedKeys).To(BeEmpty())
		Expect(series("jwks_trust_issuer_compromised_keys", s.key)).To(Equal([]float64{0}))
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})

	It("is cleared again, when it was exposed again, by the same annotation taken off and set anew", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create()
		leak := func() {
			s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
			s.after(8 * time.Minute)
			s.issuer.Respond(nil)
			Expect(s.status().CompromisedKeys).To(ConsistOf(HaveField("KeyID", "k2")))
		}
		s.reconcile()
		leak()
		thumbprint := s.status().CompromisedKeys[0].Thumbprint
		s.annotate(api.AnnotationClearCompromised, thumbprint)
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))

		leak()
		s.after(8 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}), "what was said of the first time says nothing of this one")
		s.edit(func(ti *api.TrustedIssuer) { delete(ti.Annotations, api.AnnotationClearCompromised) })
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.annotate(api.AnnotationClearCompromised, thumbprint)
		s.after(time.Minute)
		Expect(s.status().CompromisedKeys).To(BeEmpty())
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})

	It("is cleared by a list that is longer than status repeats, and that has grown at its end", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key1(), key2())
		s.create()
		s.reconcile()
		before := strings.Repeat(strings.Repeat("t", 43)+",", 40)
		s.annotate(api.AnnotationClearCompromised, before)
		s.after(time.Minute)
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
		s.after(8 * time.Minute)
		s.issuer.Respond(nil)
		s.annotate(api.AnnotationClearCompromised, before+s.status().CompromisedKeys[0].Thumbprint)
		s.after(time.Minute)
		Expect(s.status().CompromisedKeys).To(BeEmpty())
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
	})

	It("takes the only key out of the ConfigMaps: nothing that is exposed stays trusted", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Publish(key2())
		s.create()
		s.reconcile()
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key2().PrivateJWK()))))
		s.after(8 * time.Minute)
		for _, key := range []client.ObjectKey{s.copyKey(), s.authoritativeKey()} {
			Expect(configMap(s.ctx, key).Data).To(BeEmpty())
		}
		Expect(s.status()).To(isNotReady(api.ReasonPrivateKeyExposed))
		Expect(s.status().Snapshot.Digest).To(BeEmpty())

		s.issuer.Respond(nil)
		s.issuer.Publish(key3())
		s.after(10 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k3"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})
})

var _ = Describe("A key that spec revokes", func() {
	for _, by := range []struct {
		name string
		of   func(api.KeyStatus) string
	}{
		{"kid", func(k api.KeyStatus) string { return k.KeyID }},
		{"thumbprint", func(k api.KeyStatus) string { return k.Thumbprint }},
	} {
		It("is taken out at once, while the issuer is down too; named by "+by.name, func(ctx context.Context) {
			s := newScene(ctx)
			s.issuer.Publish(key1(), key2())
			s.create()
			s.reconcile()
			s.issuer.Stop()
			s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{by.of(ti.Status.Keys[0])} })
			s.after(time.Minute)
			Expect(s.kids()).To(Equal([]string{"k2"}))

			s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = append(ti.Spec.RevokedKeys, "k2") })
			s.after(time.Minute)
			Expect(configMap(ctx, s.copyKey()).Data).To(BeEmpty())
			Expect(s.status()).To(isNotReady(api.ReasonAllKeysRevoked))
			s.after(time.Minute)
			Expect(s.status()).To(isNotReady(api.ReasonAllKeysRevoked), "and it goes on saying so")

			Expect(s.issuer.Restart()).To(Succeed())
			s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = nil })
			s.after(time.Minute)
			Expect(s.kids()).To(Equal([]string{"k1", "k2"}))
			Expect(s.status()).To(isReady(api.ReasonFresh))
		})
	}
})

var _ = Describe("Keys that were taken out, and may come back", func() {
	It("are called revoked where they are, though another one was exposed before", func(ctx context.Context) {
		s := newScene(ctx)
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s,%s]}`, jsonOf(key1().JWK()), jsonOf(key2().PrivateJWK()))))
		s.create()
		s.reconcile()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1"} })
		s.after(time.Minute)
		Expect(s.status()).To(isNotReady(api.ReasonAllKeysRevoked))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = nil })
		s.issuer.Stop()
		s.after(time.Minute)
		Expect(s.status()).To(isNotReady(api.ReasonConnectionFailed), "nothing is revoked any more")
	})

	It("are no longer called revoked, or compromised, while the issuer is down", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		s.issuer.Stop()
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1"} })
		s.after(time.Minute)
		Expect(s.status()).To(isNotReady(api.ReasonAllKeysRevoked))
		s.edit(func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = nil })
		s.after(time.Minute)
		Expect(s.status()).To(And(isNotReady(api.ReasonConnectionFailed), condition(api.ConditionSnapshotPublished, metav1.ConditionUnknown, api.ReasonPending)))

		Expect(s.issuer.Restart()).To(Succeed())
		s.after(10 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.issuer.Respond(body(fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key1().PrivateJWK()))))
		s.after(10 * time.Minute)
		Expect(s.status()).To(condition(api.ConditionSnapshotPublished, metav1.ConditionFalse, api.ReasonPrivateKeyExposed))
		s.issuer.Stop()
		s.annotate(api.AnnotationClearCompromised, s.status().CompromisedKeys[0].Thumbprint)
		s.after(time.Minute)
		Expect(s.status()).To(isNotReady(api.ReasonConnectionFailed))
	})
})

var _ = Describe("A ConfigMap of ours", func() {
	var s *scene
	BeforeEach(func(ctx context.Context) {
		s = newScene(ctx)
		s.create()
		s.reconcile()
		s.events()
		s.issuer.Stop() // whatever is repaired is repaired without the issuer
	})
	const forged = `{"keys":[{"kid":"evil","kty":"RSA"}]}`
	update := func(key client.ObjectKey, change func(*corev1.ConfigMap)) {
		GinkgoHelper()
		cm := configMap(s.ctx, key)
		change(cm)
		Expect(server.Update(s.ctx, cm)).To(Succeed())
	}

	for _, which := range []struct {
		name string
		key  func() client.ObjectKey
	}{
		{"users' copy", func() client.ObjectKey { return s.copyKey() }},
		{"authoritative one", func() client.ObjectKey { return s.authoritativeKey() }},
	} {
		DescribeTable("is put right: the "+which.name+" (THREATS 39, 49)",
			func(damage func(client.ObjectKey), restarted bool) {
				damage(which.key())
				if restarted {
					s.restart()
				}
				s.after(time.Second)
				Expect(s.kids()).To(Equal([]string{"k1"}))
				Expect(configMap(s.ctx, which.key()).Labels).To(HaveKeyWithValue(api.LabelSnapshot, "true"))
				s.writes.take()
				s.after(time.Second)
				Expect(s.writes.take()).To(BeEmpty())
			},
			Entry("deleted", func(key client.ObjectKey) { Expect(server.Delete(s.ctx, configMap(s.ctx, key))).To(Succeed()) }, false),
			Entry("deleted while no manager ran", func(key client.ObjectKey) { Expect(server.Delete(s.ctx, configMap(s.ctx, key))).To(Succeed()) }, true),
			Entry("keys replaced", func(key client.ObjectKey) {
				update(key, func(cm *corev1.ConfigMap) { cm.Data["jwks.json"] = forged })
				DeferCleanup(func() { Expect(s.events()).To(ContainElement(HavePrefix("Warning SnapshotRepaired"))) })
			}, false),
			Entry("keys and digest replaced", func(key client.ObjectKey) {
				update(key, func(cm *corev1.ConfigMap) {
					cm.Data["jwks.json"], cm.Annotations[api.AnnotationDigest] = forged, keyset.Digest([]byte(forged))
				})
			}, true),
			Entry("one of the two names replaced", func(key client.ObjectKey) { update(key, func(cm *corev1.ConfigMap) { cm.Data["jwks"] = forged }) }, false),
			Entry("emptied", func(key client.ObjectKey) { update(key, func(cm *corev1.ConfigMap) { cm.Data = nil }) }, false),
			Entry("label taken off", func(key client.ObjectKey) { update(key, func(cm *corev1.ConfigMap) { cm.Labels = nil }) }, true),
			Entry("made immutable", func(key client.ObjectKey) {
				update(key, func(cm *corev1.ConfigMap) { cm.Data["jwks.json"], cm.Immutable = forged, ptr.To(true) })
			}, false),
		)
	}

	It("is fetched anew when every copy is lost", func() {
		Expect(server.Delete(s.ctx, configMap(s.ctx, s.copyKey()))).To(Succeed())
		Expect(server.Delete(s.ctx, configMap(s.ctx, s.authoritativeKey()))).To(Succeed())
		s.restart()
		s.after(time.Minute)
		Expect(s.status()).To(condition(api.ConditionFetched, metav1.ConditionFalse, api.ReasonConnectionFailed))
		Expect(s.issuer.Restart()).To(Succeed())
		s.after(10 * time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
	})
})

var _ = Describe("A foreign ConfigMap of the name (THREATS 40)", func() {
	It("is never overwritten; the verifier's keys are published all the same", func(ctx context.Context) {
		s := newScene(ctx)
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: "auth-jwks"}, Data: map[string]string{"theirs": "1"}}
		Expect(server.Create(ctx, foreign)).To(Succeed())
		s.create()
		s.reconcile()
		Expect(configMap(ctx, s.copyKey())).To(Equal(foreign))
		Expect(s.status()).To(And(isNotReady(api.ReasonConfigMapConflict), condition(api.ConditionSnapshotPublished, metav1.ConditionFalse, api.ReasonConfigMapConflict)))
		Expect(s.events()).To(ContainElement(HavePrefix("Warning ConfigMapConflict")))
		Expect(kidsOf(configMap(ctx, s.authoritativeKey()))).To(Equal([]string{"k1"}))
		s.writes.take()
		Expect(s.after(time.Minute).RequeueAfter).To(Equal(maxErrorDelay), "looked at again soon")
		Expect(s.writes.take()).To(BeEmpty(), "no hot loop")

		Expect(server.Delete(ctx, foreign)).To(Succeed())
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
	})
})

var _ = Describe("Two managers at once", func() {
	It("do not undo each other's work, and do not write for ever", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		first := s.r
		s.restart()
		second := s.r
		s.issuer.Publish(key1(), key2())
		s.annotate(api.AnnotationRefresh, "now")
		s.after(10 * time.Second)
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}))

		first.Client = s.writes.counted(server)
		s.writes.take()
		for range 5 {
			s.r = first
			s.reconcile()
			s.r = second
			s.reconcile()
		}
		Expect(s.kids()).To(Equal([]string{"k1", "k2"}), "the one with the old memory follows")
		Expect(s.writes.take()).To(BeEmpty())
		Expect(s.status().Snapshot.LastSuccessTime.Time).To(BeTemporally("==", noon.Add(10*time.Second)), "time does not go back")
	})
})

var _ = Describe("A deleted TrustedIssuer", func() {
	It("is withdrawn, even while the issuer is down (THREATS 52)", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		ours := s.authoritativeKey()
		s.issuer.Stop()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		for _, key := range []client.ObjectKey{s.copyKey(), ours} {
			Expect(server.Get(ctx, key, &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
		}
		Expect(server.Get(ctx, s.key, &api.TrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))
		s.reconcile()
	})

	It("leaves a foreign ConfigMap alone", func(ctx context.Context) {
		s := newScene(ctx)
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: "auth-jwks"}}
		Expect(server.Create(ctx, foreign)).To(Succeed())
		s.create()
		s.reconcile()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.reconcile()
		Expect(configMap(ctx, s.copyKey())).To(Equal(foreign))
	})

	It("keeps its ConfigMaps when the whole CRD is being deleted; a new object of the name takes them over", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		ours := s.authoritativeKey()
		data := configMap(ctx, s.copyKey()).Data
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.r.Reader = terminatingDefinitions{server}
		s.reconcile()
		for _, key := range []client.ObjectKey{s.copyKey(), ours} {
			cm := configMap(ctx, key)
			Expect(cm.Data).To(Equal(data))
			Expect(cm.Annotations).To(HaveKey(api.AnnotationReleased))
		}
		Expect(server.Get(ctx, s.key, &api.TrustedIssuer{})).To(Satisfy(apierrors.IsNotFound))

		s.restart()
		s.create()
		s.after(time.Minute)
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(configMap(ctx, s.copyKey()).Labels).To(HaveKeyWithValue(api.LabelIssuerUID, string(s.get().UID)))
		Expect(configMap(ctx, s.copyKey()).Annotations).NotTo(HaveKey(api.AnnotationReleased))
	})

	It("leaves nothing that a new object for another issuer could pass on", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		s.reconcile()
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.r.Reader = terminatingDefinitions{server}
		s.reconcile()
		s.restart()
		s.issuer.Stop()
		s.create(func(spec *api.IssuerSpec) { spec.Issuer = "https://other.example.com" })
		s.after(time.Minute)
		Expect(server.Get(ctx, s.copyKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound), "the keys of the old issuer go at once")
	})
})

// terminatingDefinitions is a reader that sees our CRDs being deleted. Really
// deleting them would take every other scenario's objects along.
type terminatingDefinitions struct{ client.Reader }

func (r terminatingDefinitions) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	err := r.Reader.Get(ctx, key, o, opts...)
	if strings.HasSuffix(key.Name, "."+api.GroupVersion.Group) {
		o.SetDeletionTimestamp(ptr.To(metav1.Now()))
	}
	return err
}

var _ = Describe("Two ClusterTrustedIssuers for one issuer", func() {
	It("share no TokenReview: the younger one is stalled until the older one goes", func(ctx context.Context) {
		s := newScene(ctx)
		s.r.New = func() api.Issuer { return &api.ClusterTrustedIssuer{} }
		created := func(name string) client.ObjectKey {
			cti := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
			cti.Spec.IssuerSpec = s.spec()
			cti.Spec.KubernetesAuthentication = &api.KubernetesAuthentication{UsernamePrefix: "x:"}
			Expect(server.Create(ctx, cti)).To(Succeed())
			DeferCleanup(func(ctx context.Context) { s.remove(ctx, name) })
			return client.ObjectKey{Name: name}
		}
		first, second := created(s.key.Namespace+"-a"), created(s.key.Namespace+"-b")
		status := func(key client.ObjectKey) api.IssuerStatus {
			GinkgoHelper()
			_, err := s.r.Reconcile(ctx, reconcile.Request{NamespacedName: key})
			Expect(err).NotTo(HaveOccurred())
			cti := &api.ClusterTrustedIssuer{}
			Expect(server.Get(ctx, key, cti)).To(Succeed())
			return cti.Status
		}
		Expect(status(first)).To(And(isReady(api.ReasonFresh), condition(api.ConditionStalled, metav1.ConditionFalse, api.ReasonNotStalled)))
		Expect(status(second)).To(condition(api.ConditionStalled, metav1.ConditionTrue, api.ReasonIssuerConflict))
		Expect(status(first).Snapshot.ConfigMapName).To(HavePrefix("jwks-"), "the cluster kind's keys are in the operator's namespace")
		s.remove(ctx, first.Name)
		Expect(status(second)).To(condition(api.ConditionStalled, metav1.ConditionFalse, api.ReasonNotStalled))
	})
})

var _ = Describe("An object that is made anew under the name of another one", func() {
	It("gets nothing of what is remembered of that one, though the cache still shows it", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		shown := s.get()
		s.seesOnly(shown)
		s.reconcile()
		Expect(s.kids()).To(Equal([]string{"k1"}))
		s.edit(func(ti *api.TrustedIssuer) { ti.Finalizers = nil })
		Expect(server.Delete(ctx, s.get())).To(Succeed())
		s.create(func(spec *api.IssuerSpec) {
			spec.Issuer, spec.JWKSURI = "https://another.example.com/", "https://127.0.0.1:1/jwks.json"
		})
		s.keepReconciling(5, 8*time.Second)
		Expect(s.status().Keys).To(BeEmpty(), "its issuer has never answered")
		Expect(server.Get(ctx, s.authoritativeKey(), &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
	})
})

var _ = It("goes on with inline keys that are to be fetched from now on, though a write fails and the issuer is down", func(ctx context.Context) {
	s := newScene(ctx)
	s.create(func(spec *api.IssuerSpec) {
		spec.JWKSURI, spec.CABundle, spec.JWKS = "", "", fmt.Sprintf(`{"keys":[%s]}`, jsonOf(key1().JWK()))
	})
	s.reconcile()
	s.issuer.Stop()
	s.clock.SetTime(noon.Add(48 * time.Hour))
	s.edit(func(ti *api.TrustedIssuer) {
		ti.Spec.JWKS, ti.Spec.JWKSURI, ti.Spec.CABundle = "", s.issuer.JWKSURI(), s.issuer.CABundle()
		ti.Spec.Audiences = []string{"orders", "more"}
	})
	failed := false
	s.writes.take()
	s.writes.fail = func(n int) error {
		if !failed && s.writes.calls[n-1] == "apply ConfigMap" {
			failed = true
			return apierrors.NewConflict(corev1.Resource("configmaps"), "jwks", errors.New("changed meanwhile"))
		}
		return nil
	}
	s.keepReconciling(3, 10*time.Second)
	Expect(failed).To(BeTrue())
	Expect(s.status()).To(condition(api.ConditionExpired, metav1.ConditionFalse, api.ReasonNotExpired))
	Expect(s.status().Snapshot.ExpiresAt.Time).To(BeTemporally("~", noon.Add(72*time.Hour), time.Minute))
})

var _ = It("becomes stale, and expires, on time and not with the next fetch, whatever part of a second it was fetched at", func(ctx context.Context) {
	s := newScene(ctx)
	s.clock.SetTime(noon.Add(600 * time.Millisecond))
	s.create(func(spec *api.IssuerSpec) {
		spec.CacheTTL, spec.StaleTTL = &metav1.Duration{Duration: 2 * time.Minute}, &metav1.Duration{Duration: 10 * time.Minute}
	})
	next := s.reconcile().RequeueAfter
	s.issuer.Stop()
	for _, end := range []struct {
		condition, reason string
		after             time.Duration
	}{
		{api.ConditionStale, api.ReasonServingStale, 2 * time.Minute},
		{api.ConditionExpired, api.ReasonExpired, 10 * time.Minute},
	} {
		for s.clock.Now().Before(noon.Add(end.after)) {
			next = s.after(next).RequeueAfter
		}
		Expect(s.clock.Now()).To(BeTemporally("<=", noon.Add(end.after+time.Second)))
		Expect(s.status()).To(condition(end.condition, metav1.ConditionTrue, end.reason))
	}
})

// remove deletes a ClusterTrustedIssuer and reconciles that.
func (s *scene) remove(ctx context.Context, name string) {
	GinkgoHelper()
	cti := &api.ClusterTrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
	Expect(client.IgnoreNotFound(server.Delete(ctx, cti))).To(Succeed())
	_, err := s.r.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKey{Name: name}})
	Expect(err).NotTo(HaveOccurred())
}

var errCrash = errors.New("the process was killed")

// THREATS 45, 47: the process dies at each write, before or after the API server
// has carried it out; the next process ends where an undisturbed one would.
var _ = Describe("A manager that dies at a write", func() {
	final := func(s *scene) map[string]any {
		GinkgoHelper()
		status := timeless(ptr.To(s.status()))
		for i := range status.Keys {
			status.Keys[i].FirstSeenTime = metav1.Time{}
		}
		for i := range status.Conditions {
			status.Conditions[i].LastTransitionTime = metav1.Time{}
		}
		if status.Rotation != nil {
			status.Rotation.LastRotationTime = nil
		}
		return map[string]any{"status": status, "kids": s.kids(), "issuer.json": strings.ReplaceAll(configMap(s.ctx, s.copyKey()).Data["issuer.json"], s.key.Namespace, "ns")}
	}
	// kill makes the n-th write the last one; it reports whether that write came.
	kill := func(s *scene, n int, afterwards bool) (came func() bool) {
		dead := false
		s.writes.take()
		die := func(i int) error {
			if dead || i == n {
				dead = true
				return errCrash
			}
			return nil
		}
		if afterwards {
			s.writes.fail = func(int) error {
				if dead {
					return errCrash
				}
				return nil
			}
			s.writes.after = die
		} else {
			s.writes.fail = die
		}
		return func() bool { s.writes.fail, s.writes.after = nil, nil; return dead }
	}
	run := func(s *scene) { _, _ = s.r.Reconcile(s.ctx, reconcile.Request{NamespacedName: s.key}) }

	for _, when := range []struct {
		name       string
		afterwards bool
	}{{"before", false}, {"after", true}} {
		It("publishes the first set in the end; killed "+when.name+" the write took effect", func(ctx context.Context) {
			for n := 1; ; n++ {
				s := newScene(ctx)
				s.create()
				came := kill(s, n, when.afterwards)
				run(s)
				if !came() {
					Expect(n).To(BeNumerically(">", 5), "there are that many writes")
					return
				}
				s.restart()
				s.after(10 * time.Second)
				Expect(s.kids()).To(Equal([]string{"k1"}), "killed at write %d", n)
				Expect(s.status()).To(isReady(api.ReasonFresh), "killed at write %d", n)
				Expect(s.status().Snapshot.PendingDigest).To(BeEmpty())
			}
		})

		It("completes a rotation; killed "+when.name+" the write took effect", func(ctx context.Context) {
			rotated := func() *scene {
				s := newScene(ctx)
				s.create()
				s.reconcile()
				s.issuer.Publish(key1(), key2())
				s.clock.SetTime(s.clock.Now().Add(8 * time.Minute))
				return s
			}
			calm := rotated()
			calm.reconcile()
			calm.after(10 * time.Second)
			want := final(calm)
			for n := 1; ; n++ {
				s := rotated()
				came := kill(s, n, when.afterwards)
				run(s)
				if !came() {
					Expect(n).To(BeNumerically(">", 3), "there are that many writes")
					return
				}
				s.restart()
				s.after(10 * time.Second)
				got := final(s)
				Expect(got["kids"]).To(Equal(want["kids"]), "killed at write %d", n)
				Expect(s.status()).To(isReady(api.ReasonFresh), "killed at write %d", n)
				Expect(s.status().Rotation).To(HaveValue(And(HaveField("Count", int64(1)), HaveField("Added", []string{"k2"}))), "killed at write %d", n)
			}
		})
	}

	It("needs no second fetch when the API server refuses writes for a while (THREATS 47)", func(ctx context.Context) {
		s := newScene(ctx)
		s.create()
		conflict := apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("not now"))
		for n := 1; n <= 4; n++ {
			calls := 0
			s.writes.fail = func(int) error {
				if calls++; calls == n {
					return conflict
				}
				return nil
			}
			s.reconcile()
		}
		Expect(s.kids()).To(Equal([]string{"k1"}))
		Expect(s.status()).To(isReady(api.ReasonFresh))
		Expect(s.issuer.Requests()).To(Equal(1))
		Expect(s.events()).To(ConsistOf(ContainSubstring("Normal Published")), "a conflict is not worth a word")
	})
})

// body answers with this text.
func body(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(text)) // a client that hung up is its own problem
	}
}

func jsonOf(v any) string {
	GinkgoHelper()
	text, err := json.Marshal(v)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// series are the values of a metric for an issuer; with a label of its own, if one is
// given.
func series(name string, key client.ObjectKey, label ...string) []float64 {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	var values []float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			has := len(label) == 0 || labels[label[0]] == label[1]
			if f.GetName() == name && labels["namespace"] == key.Namespace && labels["name"] == key.Name && has {
				values = append(values, m.GetGauge().GetValue()+m.GetCounter().GetValue())
			}
		}
	}
	return values
}
