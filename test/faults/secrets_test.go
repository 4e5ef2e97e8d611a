// secrets_test.go looks for what must never be written down.

package faults

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// A key that an issuer publishes with its private part is told of, and no byte of the
// private part reaches etcd's files or a log.
func TestNoPrivateKeyByteReachesEtcd(t *testing.T) {
	needsControlPlane(t)
	t.Parallel()
	g := NewWithT(t)
	w := ownWorld(t, nil)
	issuer := newIssuer(g, key1())
	t.Cleanup(issuer.Close)
	m := w.run(g, "exposed", "--zap-log-level=debug", "--verifier-http-bind-address=127.0.0.1:0")
	t.Cleanup(m.end)
	ti := w.trust(g, "auth", issuer)
	w.becomesReady(g, ti)
	exposed := testissuer.NewKey("the-exposed-key", "RS256")
	private, err := json.Marshal(exposed.PrivateJWK())
	g.Expect(err).NotTo(HaveOccurred())
	issuer.Respond(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(rw, `{"keys":[%s,%s]}`, jwk(key1()), private) // to a client of ours
	})
	w.ask(g, ti, "now")
	g.Eventually(func(g Gomega) []api.CompromisedKey { return w.read(g, ti).Status.CompromisedKeys }).WithTimeout(mended).Should(HaveLen(1))

	secrets := map[string][]byte{}
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi"} {
		text, ok := exposed.PrivateJWK()[member].(string)
		g.Expect(ok).To(BeTrue(), member)
		secrets[member] = []byte(text[:24])
	}
	public := []byte(exposed.ID)
	found := map[string]int{}
	scan := func(content []byte) {
		for name, secret := range secrets {
			raw, err := base64.RawURLEncoding.DecodeString(string(secret))
			g.Expect(err).NotTo(HaveOccurred())
			if bytes.Contains(content, secret) || bytes.Contains(content, raw) {
				found[name]++
			}
		}
		if bytes.Contains(content, public) {
			found["kid"]++
		}
	}
	size := 0
	g.Expect(filepath.WalkDir(w.env.ControlPlane.Etcd.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		scan(content)
		size += len(content)
		return err
	})).To(Succeed())
	log, err := os.ReadFile(m.LogPath)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(HaveKey("kid"), "the scan finds what is there")
	scan(log)
	delete(found, "kid")
	g.Expect(found).To(BeEmpty())
	figures.add("an issuer publishes a private key", "no byte of it in etcd's files or the log at debug level", "0 in %d MiB, 6 members looked for", size>>20)
}
