// stale_test.go gives the manager old views: a second API server, whose link to etcd
// is cut, serves the past to those who accept it (watches, and lists from its cache),
// and hangs on all else.

package faults

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// staleServer is an API server of the world, besides its own, whose way to etcd can be
// cut.
type staleServer struct {
	config *rest.Config
	etcd   *link
	api    client.Client
}

func (w *world) staleServer(t *testing.T) *staleServer {
	t.Helper()
	g := NewWithT(t)
	_, args, err := process("kube-apiserver", w.env.ControlPlane.APIServer.CertDir)
	g.Expect(err).NotTo(HaveOccurred())
	s := &staleServer{config: rest.CopyConfig(w.config), etcd: newLink(t, w.env.ControlPlane.Etcd.URL.Host)}
	address, err := harness.FreeAddress()
	g.Expect(err).NotTo(HaveOccurred())
	s.config.Host = "https://" + address
	_, port, _ := strings.Cut(address, ":")
	for i, arg := range args {
		switch name, _, _ := strings.Cut(arg, "="); name {
		case "--etcd-servers":
			args[i] = name + "=http://" + s.etcd.address
		case "--secure-port":
			args[i] = name + "=" + port
		}
	}
	server, err := harness.StartProgram("kube-apiserver", filepath.Join(w.dir, "second.txt"), args[0], args[1:]...)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(server.Kill)
	s.api, err = client.New(s.config, client.Options{Scheme: w.api.Scheme()})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error {
		return s.api.List(context.Background(), &api.TrustedIssuerList{})
	}).WithTimeout(time.Minute).Should(Succeed())
	return s
}

// shows is the version of an object that the server shows to those who take what it
// has in its cache.
func (s *staleServer) shows(of *api.TrustedIssuer) (version string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var list api.TrustedIssuerList
	err = s.api.List(ctx, &list, client.InNamespace(of.Namespace), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}})
	for i := range list.Items {
		if list.Items[i].Name == of.Name {
			return list.Items[i].ResourceVersion, err
		}
	}
	return "", err
}

// tells is what it says when the answer has to be true.
func (s *staleServer) tells(of *api.TrustedIssuer) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.api.Get(ctx, client.ObjectKeyFromObject(of), of.DeepCopy())
}

// TestStaleViews: controller and verifier have an old view, while others work on with
// the other server. What they miss is made up for within 30 s of the end; nothing is
// lost, and nothing of the past comes back.
func TestStaleViews(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	w := ownWorld(t, nil)
	var err error
	w.seen, err = watchAll(w)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(w.seen.close)
	v := &oldView{past: w.staleServer(t)}
	v.service = newService(t, w, v.past.config, 1)
	v.also = w.trust(v, "also-1", v.issuer)
	w.becomesReady(v, v.also)
	part := func(name string, do func()) {
		t.Run(name, func(t *testing.T) {
			v.WithT = NewWithT(t)
			do()
		})
	}

	part("while they work", func() {
		v.steadily("an API server that serves the past", func(l *load) {
			v.miss(func() { l.goesOn(v, enough) })
		})
	})
	if *full {
		part("for a minute", func() {
			v.steadily("an API server that serves the past for a minute", func(l *load) {
				v.miss(func() {
					old, err := v.past.shows(v.object)
					v.Expect(err).NotTo(HaveOccurred())
					v.Consistently(func() (string, error) { return v.past.shows(v.object) }).WithTimeout(time.Minute).WithPolling(time.Second).Should(Equal(old))
					l.goesOn(v, enough)
				})
			})
		})
		part("while they start", func() {
			v.miss(func() {
				v.controller.Kill()
				v.controller.start(v)
				late := v.lateReplica(t)
				v.Expect(late.Ended()).To(BeFalse())
			})
			v.replicas[1].ready(v)
			v.accepts(v.addresses[1])
		})
	}
	part("reads from the past, writes to the present", v.writesFromThePast)
	_, err = w.seen.judge(v.object)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	figures.add("the API server shows the past", "trusted keys at every moment, byte for byte; what was missed is made up for within 30 s of the end",
		"%d times; slowest %s", v.missed, v.slowest.Round(100*time.Millisecond))
}

// oldView is a service whose controller and verifier have nothing but the past.
type oldView struct {
	*service
	past    *staleServer
	also    *api.TrustedIssuer // is deleted next
	missed  int
	slowest time.Duration
}

// miss cuts the server off from etcd, and makes changes that it does not show: keys are
// rotated, an object goes, and another one comes. After what the test does meanwhile,
// all of that is made up for.
func (v *oldView) miss(meanwhile func()) {
	v.missed++
	before, old := v.w.published(v, v.object), v.w.read(v, v.object).DeepCopy()
	v.Eventually(func() (string, error) { return v.past.shows(v.object) }).WithTimeout(mended).Should(Equal(old.ResourceVersion))
	v.past.etcd.cut(v)
	keys := []*testissuer.Key{key1()}
	for i := range v.missed {
		keys = append(keys, testissuer.NewKey(fmt.Sprint("n", i), "ES256"))
	}
	v.issuer.Publish(keys...)
	v.asked++
	v.w.ask(v, v.object, fmt.Sprint(v.asked))
	v.Expect(v.w.api.Delete(context.Background(), v.also)).To(Succeed())
	fresh := v.w.trust(v, fmt.Sprint("also-", v.missed+1), v.issuer)
	v.Expect(v.past.tells(v.object)).NotTo(Succeed(), "a read that has to be true hangs")
	v.Expect(v.past.shows(v.object)).To(Equal(old.ResourceVersion), "what it shows is the past")
	meanwhile()
	v.Expect(v.w.published(v, v.object)).To(Equal(before), "byte for byte")

	v.past.etcd.mend(v)
	ended := time.Now()
	v.Eventually(func(g Gomega) {
		g.Expect(v.w.read(g, v.object).Status.HandledRefresh).To(HaveValue(HaveField("Request", fmt.Sprint(v.asked))))
		g.Expect(v.w.api.Get(context.Background(), client.ObjectKeyFromObject(v.also), v.also)).To(Satisfy(apierrors.IsNotFound))
		g.Expect(v.w.published(g, v.also)).To(BeNil(), "its keys went with it")
	}).WithTimeout(mended).Should(Succeed())
	v.w.becomesReady(v, fresh)
	v.slowest = max(v.slowest, time.Since(ended))
	v.also = fresh
}

// writesFromThePast has a manager start that lists and watches the past, as behind a
// load balancer, while what it writes, and what it reads by name, is the present. It
// knows nothing of a key that was revoked, nor that an object was made again for
// another issuer; and it is alone, so that nobody would put right what it spoils.
func (v *oldView) writesFromThePast() {
	w := v.w
	v.controller.end()
	present := w.run(v, "present", "--components=controller")
	defer present.end()
	first, second := newIssuer(v, key1(), key2()), newIssuer(v, key3())
	defer first.Close()
	defer second.Close()
	revoked, again := w.trust(v, "revoked", first), w.trust(v, "again", first)
	w.becomesReady(v, revoked)
	w.becomesReady(v, again)
	for _, ti := range []*api.TrustedIssuer{revoked, again} {
		v.Eventually(func() (string, error) { return v.past.shows(ti) }).WithTimeout(mended).Should(Equal(w.read(v, ti).ResourceVersion))
	}
	v.past.etcd.cut(v)
	w.patch(v, revoked, func(ti *api.TrustedIssuer) { ti.Spec.RevokedKeys = []string{"k1"} })
	v.Expect(w.api.Delete(context.Background(), again)).To(Succeed())
	v.Eventually(func() error { return w.api.Get(context.Background(), client.ObjectKeyFromObject(again), again) }).WithTimeout(mended).Should(Satisfy(apierrors.IsNotFound))
	again = w.trust(v, "again", second)
	want := map[string]string{"revoked-jwks": kids(key2()), "again-jwks": kids(key3())}
	mounted := func(g Gomega, name string) string {
		return kidsOf(w.data(g, client.ObjectKey{Namespace: "default", Name: name}))
	}
	for name := range want {
		v.Eventually(func(g Gomega) string { return mounted(g, name) }).WithTimeout(mended).Should(Equal(want[name]), name)
	}
	w.becomesReady(v, again)
	w.becomesReady(v, revoked)
	present.end()
	versions := w.versionsIn(v, "default")
	defer versions.Stop()

	old := newProxy(v, v.past.config)
	defer old.close()
	late := w.prepare(v, w.config, "late", "--components=controller")
	// Clients before Kubernetes 1.35 list what the server's cache has; newer ones wait.
	late.program = wrapped(v, w.dir, "exec env KUBE_FEATURE_WatchListClient=false "+late.program+` "$@"`)
	var looked sync.Map
	late.proxy.inject(func(c call, rw http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		if c.watch || r.URL.Query().Get("resourceVersion") == "0" {
			old.upstream.ServeHTTP(rw, r)
			return
		}
		looked.Store(c.path[strings.LastIndexByte(c.path, '/')+1:], true)
		pass(rw, r)
	})
	late.start(v)
	defer late.end()
	late.ready(v)
	for _, name := range []string{"revoked", "again"} { // it has come to them, and asked about them
		v.Eventually(func() bool {
			_, object := looked.Load(name)
			_, copied := looked.Load(name + "-jwks")
			return object || copied
		}).WithTimeout(mended).Should(BeTrue(), name)
	}
	for name := range want {
		v.Consistently(func(g Gomega) string { return mounted(g, name) }).WithTimeout(2*time.Second).Should(Equal(want[name]), name)
	}
	v.past.etcd.mend(v)
	first.Publish(key2(), key3())
	w.ask(v, revoked, "again")
	v.Eventually(func(g Gomega) string { return mounted(g, "revoked-jwks") }).WithTimeout(mended).Should(Equal(kids(key2(), key3())))
	v.Eventually(func() (all []string) {
		for _, cm := range versions.all() {
			all = append(all, kidsOf(cm.Data))
		}
		return all
	}).WithTimeout(mended).Should(ContainElement(kids(key2(), key3())), "the last version has been seen")
	judged := 0
	for _, cm := range versions.all() {
		if want[cm.Name] != "" {
			judged++
			v.Expect(kidsOf(cm.Data)).To(BeElementOf(want[cm.Name], kids(key2(), key3())), "%s: what was taken back came again", cm.Name)
		}
	}
	for _, ti := range []*api.TrustedIssuer{revoked, again} {
		_, err := w.seen.judge(ti)
		v.Expect(err).NotTo(HaveOccurred())
	}
	figures.add("a manager that lists and watches the past, and writes to the present", "a revoked key does not come back, nor the keys of an earlier object of the same name",
		"%d versions of the mounted ConfigMaps judged", judged)
}

// kids are the names of keys, in their order.
func kids(keys ...*testissuer.Key) string {
	var out []string
	for _, k := range keys {
		out = append(out, k.ID)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
