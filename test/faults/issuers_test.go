// issuers_test.go has a tenth of many issuers misbehave, each in its own way: the server
// itself, the network before it, or the DNS server.

package faults

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// misbehaviours are what an issuer's server may do, and what status calls it.
var misbehaviours = []struct {
	name   string
	answer http.HandlerFunc
	reason string
}{
	{"says 500", testissuer.Status(http.StatusInternalServerError), api.ReasonUnexpectedStatus},
	{"says 404", testissuer.Status(http.StatusNotFound), api.ReasonUnexpectedStatus},
	{"shows a login page", testissuer.HTML(), api.ReasonNotAKeySet},
	{"sends elsewhere", testissuer.Redirect("https://127.0.0.1:1/jwks.json"), api.ReasonRedirectRefused},
	{"sends a bomb", testissuer.GzipBomb(), api.ReasonTooLarge},
	{"drips", testissuer.Drip(100 * time.Millisecond), api.ReasonTimeout},
	{"never answers", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, api.ReasonTimeout},
	{"resets the stream (HTTP/2)", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, api.ReasonInvalidResponse},
	{"says that nothing has changed", testissuer.Status(http.StatusNotModified), api.ReasonUnexpectedStatus},
	{"has endless headers", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 2000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
	}, api.ReasonInvalidResponse},
}

// networks are what may happen on the way to a server that is well.
var networks = []struct {
	name   string
	spoil  func(g Gomega, l *link)
	reason string
}{
	{"connections are reset", func(g Gomega, l *link) {
		l.add(g, "reset_peer", toClient, map[string]any{"timeout": 0})
	}, api.ReasonTLSFailed},
	{"nothing comes through", func(g Gomega, l *link) { l.cut(g) }, api.ReasonTimeout},
	{"connections end in the middle of the handshake", func(g Gomega, l *link) {
		l.add(g, "limit_data", toClient, map[string]any{"bytes": 300})
	}, api.ReasonTLSFailed},
	{"answers take longer than anybody waits", func(g Gomega, l *link) {
		l.add(g, "latency", toClient, map[string]any{"latency": 20000})
	}, api.ReasonTimeout},
}

// crowd is a manager with many issuers.
type crowd struct {
	*WithT
	w  *world
	id string
}

// misbehaving are as many ways to misbehave as there are here, as specs with what status
// says of them.
func (c *crowd) misbehaving(t *testing.T, names *nameServer) (specs []api.IssuerSpec, told []string, ways []string) {
	add := func(way, reason string, spec api.IssuerSpec) {
		specs, told, ways = append(specs, spec), append(told, reason), append(ways, way)
	}
	start := func(options ...testissuer.Option) *testissuer.Issuer {
		issuer, err := testissuer.Start(options...)
		c.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(issuer.Close)
		issuer.Publish(key1())
		return issuer
	}
	for _, m := range misbehaviours {
		issuer := start()
		issuer.Respond(m.answer)
		add(m.name, m.reason, specFor(issuer))
	}
	for _, m := range networks {
		issuer := start()
		l := newLink(t, strings.TrimPrefix(issuer.URL(), "https://"))
		m.spoil(c, l)
		spec := specFor(issuer)
		spec.JWKSURI = "https://" + l.address + "/jwks.json"
		add(m.name, m.reason, spec)
	}
	if names == nil {
		return specs, told, ways
	}
	issuer := start(testissuer.WithNames("*." + domain))
	_, port, err := net.SplitHostPort(strings.TrimPrefix(issuer.URL(), "https://"))
	c.Expect(err).NotTo(HaveOccurred())
	for i, m := range lies {
		spec := specFor(issuer)
		spec.JWKSURI = fmt.Sprintf("https://%s:%s/jwks.json", names.name(fmt.Sprint("lie-", i), m.reply), port)
		add(m.name, m.reason, spec)
	}
	return specs, told, ways
}

func TestATenthOfTheIssuersMisbehaves(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	c := &crowd{WithT: NewWithT(t), w: inShared(t), id: fmt.Sprintf("crowd-%d", instances.Add(1))}
	c.Expect(c.w.namespace(c.id+"-system", nil)).To(Succeed())
	c.Expect(c.w.namespace(c.id, nil)).To(Succeed())
	m := c.w.prepare(c, c.w.config, c.id, "--components=controller", "--issuer-selector=crowd="+c.id, "--operator-namespace="+c.id+"-system")
	var names *nameServer
	if mayAsk() {
		names = newNameServer(t)
		m.program = names.asking(c, c.w.dir)
	}
	m.start(c)
	t.Cleanup(m.end)
	m.ready(c)
	specs, told, ways := c.misbehaving(t, names)
	bad := len(specs)
	if *full {
		bad = 100
	}
	good := newIssuer(c, key1())
	t.Cleanup(good.Close)
	started := time.Now()
	for i := range 10 * bad {
		spec := specFor(good)
		spec.JWKSURI += fmt.Sprintf("?%d", i) // no two share a fetch
		if i%10 == 0 {
			spec = specs[i/10%len(specs)]
		}
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: c.id, Name: fmt.Sprintf("i%d", i), Labels: map[string]string{"crowd": c.id}}}
		ti.Spec.IssuerSpec = spec
		c.Expect(c.w.api.Create(context.Background(), ti)).To(Succeed())
	}
	c.Eventually(c.ready).WithTimeout(5*time.Minute).WithPolling(time.Second).Should(Equal(9*bad), "the good ones")
	took := time.Since(started)
	for i := range bad {
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: c.id, Name: fmt.Sprintf("i%d", 10*i)}}
		c.Eventually(func(g Gomega) string {
			a := c.w.read(g, ti).Status.LastAttempt
			if a == nil {
				return ""
			}
			return a.Reason
		}).WithTimeout(2*mended).Should(Equal(told[i%len(told)]), ways[i%len(ways)])
	}
	c.Expect(c.ready()).To(Equal(9*bad), "and no other")
	figures.add("a tenth of the issuers misbehaves", "the others are Ready, and each bad one is told by its reason",
		"%d of %d Ready after %s; the others in %d ways", 9*bad, 10*bad, took.Round(100*time.Millisecond), len(ways))
}

// ready is how many objects are Ready.
func (c *crowd) ready() (count int) {
	var list api.TrustedIssuerList
	if c.w.api.List(context.Background(), &list, client.InNamespace(c.id)) != nil {
		return -1
	}
	for i := range list.Items {
		if meta.IsStatusConditionTrue(list.Items[i].Status.Conditions, api.ConditionReady) {
			count++
		}
	}
	return count
}
