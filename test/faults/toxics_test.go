// toxics_test.go breaks TCP connections: toxiproxy, a process of its own, stands
// between a client and a server and does to the bytes what it is told.

package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// toxiproxy is the process, and the address of its API.
type toxiproxy struct {
	*harness.Manager
	dir, api string
}

// startedToxiproxy is the one for all tests, built and started when the first one needs
// it.
var startedToxiproxy = sync.OnceValues(func() (*toxiproxy, error) {
	toxiproxyStarted.Store(true)
	p := &toxiproxy{}
	var err error
	if p.dir, err = os.MkdirTemp("", "jwks-trust-toxiproxy-"); err != nil {
		return p, err
	}
	program := filepath.Join(p.dir, "toxiproxy")
	cmd := exec.Command("go", "build", "-o", program, "github.com/Shopify/toxiproxy/v2/cmd/server")
	cmd.Dir = filepath.Join(harness.Root(), "test", "faults", "toxiproxy")
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("building toxiproxy: %w\n%s", err, out)
	}
	if p.api, err = harness.FreeAddress(); err != nil {
		return p, err
	}
	host, port, _ := net.SplitHostPort(p.api)
	p.Manager, err = harness.StartProgram("toxiproxy", filepath.Join(p.dir, "toxiproxy.txt"), program, "-host", host, "-port", port)
	return p, err
})

var toxiproxyStarted atomic.Bool

func closeToxiproxy() {
	if !toxiproxyStarted.Load() {
		return
	}
	p, _ := startedToxiproxy() // a test has told of the error
	p.Stop()
	_ = os.RemoveAll(p.dir)
}

// call asks the API for something.
func (p *toxiproxy) call(method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://"+p.api+path, bytes.NewReader(text)) //nolint:noctx // loopback
	if err != nil {
		return err
	}
	req.Close = true // a connection that has been idle may be closed while it is asked for more
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	said, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("toxiproxy: %s %s: %d %s", method, path, resp.StatusCode, said)
	}
	return err
}

// link is a way to a server that can be made bad.
type link struct {
	proxy         *toxiproxy
	name, address string
}

// newLink makes a way to the server at an address.
func newLink(t *testing.T, server string) *link {
	t.Helper()
	g := NewWithT(t)
	p, err := startedToxiproxy()
	g.Expect(err).NotTo(HaveOccurred())
	l := &link{proxy: p, name: fmt.Sprintf("link-%d", instances.Add(1))}
	l.address, err = harness.FreeAddress()
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error {
		return p.call(http.MethodPost, "/proxies", map[string]any{"name": l.name, "listen": l.address, "upstream": server, "enabled": true})
	}).WithTimeout(10 * time.Second).Should(Succeed())
	t.Cleanup(func() { _ = p.call(http.MethodDelete, "/proxies/"+l.name, nil) }) // the process ends anyway
	return l
}

// The directions of a link, as toxiproxy calls them.
const (
	toServer = "upstream"
	toClient = "downstream"
)

// add makes it bad in one direction, in one of toxiproxy's ways.
func (l *link) add(g Gomega, toxic, direction string, attributes map[string]any) {
	g.Expect(l.proxy.call(http.MethodPost, "/proxies/"+l.name+"/toxics", map[string]any{
		"name": toxic + "-" + direction, "type": toxic, "stream": direction, "attributes": attributes,
	})).To(Succeed())
}

// remove ends that. Connections that were cut stay so, and break.
func (l *link) remove(g Gomega, toxic, direction string) {
	g.Expect(l.proxy.call(http.MethodDelete, "/proxies/"+l.name+"/toxics/"+toxic+"-"+direction, nil)).To(Succeed())
}

// cut swallows all bytes in both directions, without a word to either end; mend ends
// that.
func (l *link) cut(g Gomega) {
	l.add(g, "timeout", toServer, map[string]any{"timeout": 0})
	l.add(g, "timeout", toClient, map[string]any{"timeout": 0})
}

func (l *link) mend(g Gomega) {
	l.remove(g, "timeout", toServer)
	l.remove(g, "timeout", toClient)
}
