// process_test.go does to the manager, to etcd and to its rights what happens in a
// cluster's worst hours.

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// trust makes a TrustedIssuer in the namespace default.
func (w *world) trust(g Gomega, name string, i *testissuer.Issuer, edits ...func(*api.TrustedIssuer)) *api.TrustedIssuer {
	ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	ti.Spec.IssuerSpec = specFor(i)
	for _, edit := range edits {
		edit(ti)
	}
	g.Expect(w.api.Create(context.Background(), ti)).To(Succeed())
	return ti
}

// read reads an object anew.
func (w *world) read(g Gomega, ti *api.TrustedIssuer) *api.TrustedIssuer {
	g.Expect(w.api.Get(context.Background(), client.ObjectKeyFromObject(ti), ti)).To(Succeed())
	return ti
}

func (w *world) becomesReady(g Gomega, ti *api.TrustedIssuer) {
	g.Eventually(func(g Gomega) bool {
		return meta.IsStatusConditionTrue(w.read(g, ti).Status.Conditions, api.ConditionReady)
	}).WithTimeout(mended).WithPolling(50*time.Millisecond).Should(BeTrue(), ti.Name)
}

// patch changes an object.
func (w *world) patch(g Gomega, ti *api.TrustedIssuer, edit func(*api.TrustedIssuer)) {
	base := w.read(g, ti).DeepCopy()
	edit(ti)
	g.Expect(w.api.Patch(context.Background(), ti, client.MergeFrom(base))).To(Succeed())
}

// published are the data of the ConfigMap that the verifier reads; nil for none.
func (w *world) published(g Gomega, ti *api.TrustedIssuer) map[string]string {
	return w.data(g, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: snapshot.AuthoritativeName(ti.UID)})
}

func (w *world) data(g Gomega, key client.ObjectKey) map[string]string {
	cm := &corev1.ConfigMap{}
	g.Expect(client.IgnoreNotFound(w.api.Get(context.Background(), key, cm))).To(Succeed())
	return cm.Data
}

// ask asks for a refresh.
func (w *world) ask(g Gomega, ti *api.TrustedIssuer, request string) {
	w.patch(g, ti, func(ti *api.TrustedIssuer) {
		metav1.SetMetaDataAnnotation(&ti.ObjectMeta, api.AnnotationRefresh, request)
	})
}

// A leader that is cut off in the middle of a fetch finds, when its connection is
// back, that another one leads. What it fetched it does not write.
func TestLeaderLosesTheLeaseInTheMiddleOfAFetch(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := ownWorld(t, nil)
	issuer := newIssuer(g, key1())
	t.Cleanup(issuer.Close)
	ti := w.trust(g, "auth", issuer)
	first := w.run(g, "leader", "--components=controller", "--leader-elect")
	t.Cleanup(first.end)
	w.becomesReady(g, ti)

	// The answer to the fetch comes when the test lets it: with a key of long ago.
	asked, late := make(chan struct{}), make(chan struct{})
	var requests atomic.Int32
	issuer.Respond(func(rw http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 1 {
			close(asked)
			<-late
			_, _ = fmt.Fprintf(rw, `{"keys":[%s]}`, jwk(key3()))
			return
		}
		_, _ = fmt.Fprintf(rw, `{"keys":[%s,%s]}`, jwk(key1()), jwk(key2()))
	})
	w.ask(g, ti, "now")
	g.Eventually(asked).WithTimeout(mended).Should(BeClosed())
	first.proxy.taken()
	first.proxy.takeDown()
	second := w.run(g, "successor", "--components=controller", "--leader-elect")
	t.Cleanup(second.end)
	g.Eventually(func(g Gomega) []api.KeyStatus { return w.read(g, ti).Status.Keys }).WithTimeout(2*mended).Should(HaveLen(2), "the successor's keys")
	want := w.published(g, ti)
	close(late)
	first.proxy.up()
	g.Eventually(first.Exited()).WithTimeout(2*mended).Should(BeClosed(), "who loses the lease ends")
	g.Expect(first.proxy.taken()).To(BeEmpty(), "and has written nothing")
	g.Expect(w.published(g, ti)).To(Equal(want))
	figures.add("leader cut off in the middle of a fetch", "the old leader writes nothing more", "0 writes; the successor's keys stand")
}

func jwk(k *testissuer.Key) string {
	text, err := json.Marshal(k.JWK())
	if err != nil {
		panic(err)
	}
	return string(text)
}

// etcd that is out of space refuses every write, and then all goes on.
func TestEtcdOutOfSpace(t *testing.T) {
	needsTime(t)
	t.Parallel()
	g := NewWithT(t)
	const quota = 8 << 20
	w := ownWorld(t, nil, func(env *envtest.Environment) {
		env.ControlPlane.Etcd = &envtest.Etcd{}
		env.ControlPlane.Etcd.Configure().Set("quota-backend-bytes", fmt.Sprint(quota))
	})
	issuer := newIssuer(g, key1())
	t.Cleanup(issuer.Close)
	manager := w.run(g, "manager", "--components=controller")
	t.Cleanup(manager.end)
	ti := w.trust(g, "auth", issuer)
	w.becomesReady(g, ti)
	want := w.published(g, ti)

	var filler []*corev1.ConfigMap
	g.Eventually(func() error {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "filler-"},
			Data:       map[string]string{"a": strings.Repeat("x", 500<<10)},
		}
		err := w.api.Create(context.Background(), cm)
		if err == nil {
			filler = append(filler, cm)
		}
		return err
	}).WithTimeout(mended).WithPolling(time.Millisecond).Should(MatchError(ContainSubstring("database space exceeded")))
	issuer.Publish(key1(), key2())
	g.Expect(w.published(g, ti)).To(Equal(want), "reading goes on")
	w.makeRoom(g, filler)
	w.ask(g, ti, "now")
	g.Eventually(func(g Gomega) []api.KeyStatus { return w.read(g, ti).Status.Keys }).WithTimeout(mended).Should(HaveLen(2))
	figures.add("etcd out of space", "keys stay; all goes on within 30 s of the end", "keys byte-identical, rotation taken over afterwards")
}

// makeRoom deletes the filler, compacts and disarms the alarm, as an administrator
// does, with etcd's own API in JSON.
func (w *world) makeRoom(g Gomega, filler []*corev1.ConfigMap) {
	at := w.env.ControlPlane.Etcd.URL.String()
	post := func(path, body string) string {
		resp, err := http.Post(at+path, "application/json", strings.NewReader(body)) //nolint:noctx // loopback
		g.Expect(err).NotTo(HaveOccurred())
		var out bytes.Buffer
		_, err = out.ReadFrom(resp.Body)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(resp.Body.Close()).To(Succeed())
		g.Expect(resp.StatusCode).To(Equal(http.StatusOK), out.String())
		return out.String()
	}
	for _, cm := range filler {
		g.Expect(w.api.Delete(context.Background(), cm)).To(Succeed())
	}
	_, rest, ok := strings.Cut(post("/v3/maintenance/status", "{}"), `"revision":"`)
	g.Expect(ok).To(BeTrue())
	revision, _, _ := strings.Cut(rest, `"`)
	post("/v3/kv/compaction", fmt.Sprintf(`{"revision":%q,"physical":true}`, revision))
	post("/v3/maintenance/defragment", "{}")
	_, rest, ok = strings.Cut(post("/v3/maintenance/alarm", `{"action":"GET"}`), `"memberID":"`)
	g.Expect(ok).To(BeTrue())
	member, _, _ := strings.Cut(rest, `"`)
	post("/v3/maintenance/alarm", fmt.Sprintf(`{"action":"DEACTIVATE","memberID":%q,"alarm":"NOSPACE"}`, member))
}

// The rights of the controller are taken away while it works, and given back.
func TestRightsRevokedMidway(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := ownWorld(t, nil)
	issuer := newIssuer(g, key1())
	t.Cleanup(issuer.Close)
	manager := w.launch(g, w.withOwnRights(g), "manager", "--components=controller")
	t.Cleanup(manager.end)
	manager.ready(g)
	ti := w.trust(g, "auth", issuer)
	w.becomesReady(g, ti)
	want := w.published(g, ti)

	role := &rbacv1.ClusterRole{}
	g.Expect(w.api.Get(context.Background(), client.ObjectKey{Name: "jwks-trust-controller"}, role)).To(Succeed())
	full := role.DeepCopy()
	role.Rules = nil
	g.Expect(w.api.Update(context.Background(), role)).To(Succeed())
	issuer.Publish(key1(), key2())
	w.ask(g, ti, "now")
	g.Eventually(issuer.Requests).WithTimeout(mended).Should(BeNumerically(">=", 2), "it has fetched, and may not write")
	manager.proxy.breakConnections()
	g.Consistently(func() map[string]string { return w.published(g, ti) }).WithTimeout(2 * time.Second).Should(Equal(want))
	full.ResourceVersion = role.ResourceVersion
	g.Expect(w.api.Update(context.Background(), full)).To(Succeed())
	g.Eventually(func(g Gomega) []api.KeyStatus { return w.read(g, ti).Status.Keys }).WithTimeout(mended).Should(HaveLen(2))
	g.Expect(manager.Ended()).To(BeFalse())
	figures.add("RBAC revoked while the controller works", "keys stay; all goes on within 30 s of the end", "keys byte-identical, rotation taken over afterwards")
}

// withOwnRights installs config/rbac, and gives a configuration with the rights of the
// controller alone.
func (w *world) withOwnRights(g Gomega) *rest.Config {
	w.kubectl(g, "apply", "-k", filepath.Join(harness.Root(), "config", "rbac"))
	config := rest.AnonymousClientConfig(w.config)
	config.BearerToken = strings.TrimSpace(w.kubectl(g, "create", "token", "jwks-trust-controller", "-n", harness.OperatorNamespace))
	return config
}

func (w *world) kubectl(g Gomega, args ...string) string {
	file := filepath.Join(w.dir, "admin.yaml")
	g.Expect(os.WriteFile(file, w.env.KubeConfig, 0o600)).To(Succeed())
	cmd := exec.Command(filepath.Join(harness.Assets(), "kubectl"), append([]string{"--kubeconfig", file}, args...)...)
	out, err := cmd.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	return string(out)
}

// The disk for logs is full: each line fails. The manager goes on, and starts again.
func TestLogsOnAFullDisk(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	err := failing(func(g Gomega) {
		l := w.newLife(g, api.TrustedIssuerKind, "mute")
		defer l.end()
		l.manager.log, l.manager.args = "/dev/full", append(l.manager.args, "--zap-log-level=debug")
		var acts []string
		for _, a := range lives[api.TrustedIssuerKind] {
			if !a.quick {
				continue
			}
			l.manager.Kill()
			l.manager.start(g)
			l.manager.ready(g)
			a.play(l, g, mended)
			g.Expect(l.manager.Ended()).To(BeFalse(), a.name)
			acts = append(acts, a.name)
		}
		_, err := w.seen.judge(l.object)
		g.Expect(err).NotTo(HaveOccurred())
		figures.add("the disk for logs is full", "the manager starts, and everything gets done", "%d starts and %d acts: %s", len(acts), len(acts), strings.Join(acts, ", "))
	})
	g.Expect(err).NotTo(HaveOccurred())
}

// Half of all writes meet a conflict for a while: everything gets done all the same.
func TestConflictOnHalfOfAllWrites(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	err := failing(func(g Gomega) {
		l := w.newLife(g, api.ClusterTrustedIssuerKind, "conflicts")
		defer l.end()
		var n, refused atomic.Int64
		l.manager.proxy.inject(func(c call, rw http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if c.write && n.Add(1)%2 == 1 {
				refused.Add(1)
				conflict(rw)
				return
			}
			pass(rw, r)
		})
		begun, acts := time.Now(), 0
		for acts == 0 || *full && time.Since(begun) < time.Minute { // a minute of it
			create(l, g)
			for _, a := range lives[api.ClusterTrustedIssuerKind][1:] {
				a.play(l, g, mended+a.patience)
				acts++
			}
			_, err := w.seen.judge(l.object)
			g.Expect(err).NotTo(HaveOccurred())
			l.object.SetResourceVersion("")
			l.object.SetUID("")
			l.object.SetFinalizers(nil)
		}
		figures.add("409 on half of all writes", "everything gets done; trusted keys at every moment", "%d acts, %d of %d writes refused", acts, refused.Load(), n.Load())
	})
	g.Expect(err).NotTo(HaveOccurred())
}

// broke is how long watches break in each act.
const broke = 5 * time.Second

// Watches break in the middle of a frame, and their versions are compacted away. Each
// act meets a manager that has just started: client-go waits longer after each break, up
// to a minute (docs/reliability.md).
func TestWatchesBreakAndExpire(t *testing.T) {
	needsTime(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	err := failing(func(g Gomega) {
		l := w.newLife(g, api.ClusterTrustedIssuerKind, "watches")
		defer l.end()
		var expired, broken atomic.Int64
		var healed atomic.Bool
		l.manager.proxy.inject(func(c call, rw http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			switch {
			case !c.watch || healed.Load():
				pass(rw, r)
			case expired.Add(1)%3 == 0:
				gone(rw)
			default:
				broken.Add(1)
				pass(&brief{ResponseWriter: rw, left: 2000}, r)
			}
		})
		for _, a := range lives[api.ClusterTrustedIssuerKind] {
			l.manager.Kill()
			healed.Store(true)
			l.manager.start(g)
			l.manager.ready(g)
			healed.Store(false)
			l.manager.proxy.breakConnections()
			end := time.AfterFunc(broke, func() { healed.Store(true) })
			a.play(l, g, broke+mended+a.patience)
			end.Stop()
		}
		_, err := w.seen.judge(l.object)
		g.Expect(err).NotTo(HaveOccurred())
		figures.add("watches cut in the middle of a frame, and 410", "everything gets done within 30 s", "%d watches cut, %d answered with 410", broken.Load(), expired.Load()/3)
	})
	g.Expect(err).NotTo(HaveOccurred())
}

// brief is an answer that breaks off.
type brief struct {
	http.ResponseWriter
	left int
}

func (b *brief) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		_, _ = b.ResponseWriter.Write(p[:len(p)/2]) // the connection breaks now
		_ = http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

// Unwrap lets the proxy flush.
func (b *brief) Unwrap() http.ResponseWriter { return b.ResponseWriter }
