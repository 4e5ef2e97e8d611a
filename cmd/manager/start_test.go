package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// A replica of the verifier that was started while the API server was down ended at
// once, and proxies found nobody. It has to be there, and to say that it cannot
// decide: 503 and not ready, never 401.
func TestVerifierThatStartsWhileTheAPIServerIsDownSaysThatItCannotDecide(t *testing.T) {
	g := NewWithT(t)
	s := &stage{WithT: g, ctx: t.Context()}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(os.WriteFile(kubeconfig, []byte(`apiVersion: v1
kind: Config
clusters: [{name: down, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: down, context: {cluster: down, user: nobody}}]
users: [{name: nobody, user: {}}]
current-context: down
`), 0o600)).To(Succeed())
	t.Setenv("KUBECONFIG", kubeconfig)
	o := newOptions()
	o.components = stringList{componentVerifier}
	for _, address := range []*string{&o.server.HTTPAddress, &o.probeAddress} {
		var err error
		*address, err = harness.FreeAddress()
		g.Expect(err).NotTo(HaveOccurred())
	}
	s.run(t, o)

	answer := func(url string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer a.b.c")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	tokens := "http://" + o.server.HTTPAddress + "/forward-auth/ns/default/auth"
	g.Eventually(func() (int, error) { return answer(tokens) }).WithTimeout(10 * time.Second).Should(Equal(http.StatusServiceUnavailable))
	g.Expect(answer("http://" + o.probeAddress + "/readyz")).To(Equal(http.StatusInternalServerError))
}
