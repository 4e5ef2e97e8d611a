// issuers_test.go has a tenth of many issuers misbehave, each in its own way.

package faults

import (
	"context"
	"fmt"
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

func TestATenthOfTheIssuersMisbehaves(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	id := fmt.Sprintf("crowd-%d", instances.Add(1))
	g.Expect(w.namespace(id+"-system", nil)).To(Succeed())
	g.Expect(w.namespace(id, nil)).To(Succeed())
	m := w.run(g, id, "--components=controller", "--issuer-selector=crowd="+id, "--operator-namespace="+id+"-system")
	t.Cleanup(m.end)
	n := 100
	if *full {
		n = 1000
	}
	good := newIssuer(g, key1())
	t.Cleanup(good.Close)
	bad := make([]*testissuer.Issuer, len(misbehaviours))
	for i := range bad {
		bad[i] = newIssuer(g, key1())
		bad[i].Respond(misbehaviours[i].answer)
		t.Cleanup(bad[i].Close)
	}
	started := time.Now()
	for i := range n {
		issuer := good
		if i%10 == 0 {
			issuer = bad[i/10%len(bad)]
		}
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: id, Name: fmt.Sprintf("i%d", i), Labels: map[string]string{"crowd": id}}}
		ti.Spec.IssuerSpec = specFor(issuer)
		if i%10 != 0 {
			ti.Spec.JWKSURI += fmt.Sprintf("?%d", i) // no two share a fetch
		}
		g.Expect(w.api.Create(context.Background(), ti)).To(Succeed())
	}
	ready := func() (count int) {
		var list api.TrustedIssuerList
		if w.api.List(context.Background(), &list, client.InNamespace(id)) != nil {
			return -1
		}
		for i := range list.Items {
			if meta.IsStatusConditionTrue(list.Items[i].Status.Conditions, api.ConditionReady) {
				count++
			}
		}
		return count
	}
	g.Eventually(ready).WithTimeout(5*time.Minute).WithPolling(200*time.Millisecond).Should(Equal(n-(n+9)/10), "the good ones")
	took := time.Since(started)
	for i := 0; i < n && i/10 < len(bad); i += 10 {
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: id, Name: fmt.Sprintf("i%d", i)}}
		g.Eventually(func(g Gomega) string {
			a := w.read(g, ti).Status.LastAttempt
			if a == nil {
				return ""
			}
			return a.Reason
		}).WithTimeout(mended).Should(Equal(misbehaviours[i/10].reason), misbehaviours[i/10].name)
	}
	figures.add("a tenth of the issuers misbehaves", "the others are Ready, and each bad one is told by its reason", "%d of %d Ready after %s", ready(), n, took.Round(100*time.Millisecond))
}
