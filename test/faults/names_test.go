// names_test.go is a DNS server that answers as it is told, and a manager that asks no
// other: it has a mount namespace of its own, with another /etc/resolv.conf.

package faults

import (
	wire "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/dns/dnsmessage"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// domain is where all names of the tests are.
const domain = "names.test"

// question is one, and how it came.
type question struct {
	dnsmessage.Question

	tcp bool
}

// reply answers a question; nil answers nothing.
type reply func(q question) *dnsmessage.Message

// nameServer is authoritative for the domain.
type nameServer struct {
	address string

	mu    sync.Mutex
	names map[string]reply
}

// newNameServer starts one on port 53 of a loopback address.
func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	g := NewWithT(t)
	s := &nameServer{names: map[string]reply{}}
	var udp net.PacketConn
	var tcp net.Listener
	g.Eventually(func() (err error) {
		s.address = fmt.Sprintf("127.53.%d.%d", os.Getpid()%256, instances.Add(1)%250+1)
		if udp, err = net.ListenPacket("udp", s.address+":53"); err != nil {
			return err
		}
		if tcp, err = net.Listen("tcp", s.address+":53"); err != nil {
			return errors.Join(err, udp.Close())
		}
		return nil
	}).Should(Succeed())
	t.Cleanup(func() { _ = errors.Join(udp.Close(), tcp.Close()) })
	go s.serveUDP(udp)
	go s.serveTCP(tcp)
	return s
}

func (s *nameServer) serveUDP(conn net.PacketConn) {
	for {
		buffer := make([]byte, 4096)
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		go func() {
			if out := s.answer(buffer[:n], false); out != nil {
				_, _ = conn.WriteTo(out, from) // who asked may be gone
			}
		}()
	}
}

func (s *nameServer) serveTCP(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			defer func() { _ = conn.Close() }()
			var size uint16
			if wire.Read(conn, wire.BigEndian, &size) != nil {
				return
			}
			text := make([]byte, size)
			if _, err := io.ReadFull(conn, text); err != nil {
				return
			}
			if out := s.answer(text, true); out != nil {
				_ = wire.Write(conn, wire.BigEndian, uint16(len(out)))
				_, _ = conn.Write(out)
			}
		}()
	}
}

// answer answers one message; nil says nothing.
func (s *nameServer) answer(text []byte, tcp bool) []byte {
	var in dnsmessage.Message
	if in.Unpack(text) != nil || len(in.Questions) != 1 {
		return nil
	}
	q := question{in.Questions[0], tcp}
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	s.mu.Lock()
	r := s.names[name]
	s.mu.Unlock()
	if r == nil {
		r = says(dnsmessage.RCodeNameError)
	}
	out := r(q)
	if out == nil {
		return nil
	}
	out.ID ^= in.ID
	out.Response, out.Authoritative, out.RecursionDesired = true, true, in.RecursionDesired
	out.Questions = in.Questions
	packed, err := out.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// name makes the server answer for a name from now on, and returns it in full.
func (s *nameServer) name(name string, r reply) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name += "." + domain
	s.names[name] = r
	return name
}

// The replies.

// says answers with a code and nothing else.
func says(code dnsmessage.RCode) reply {
	return func(question) *dnsmessage.Message {
		return &dnsmessage.Message{Header: dnsmessage.Header{RCode: code}}
	}
}

// silent does not answer.
func silent(question) *dnsmessage.Message { return nil }

// forged answers with another ID, as somebody would who cannot see the question.
func forged(q question) *dnsmessage.Message {
	out := at("127.0.0.1")(q)
	out.ID = 1 // turned over in the answer's
	return out
}

// at has these addresses.
func at(addresses ...string) reply { return alias("", addresses...) }

// alias has another name, which has these addresses.
func alias(of string, addresses ...string) reply {
	return func(q question) *dnsmessage.Message {
		out, name := &dnsmessage.Message{}, q.Name
		if of != "" {
			target := dnsmessage.MustNewName(of + ".")
			out.Answers = append(out.Answers, record(name, &dnsmessage.CNAMEResource{CNAME: target}))
			name = target
		}
		for _, text := range addresses {
			switch a := netip.MustParseAddr(text); {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				out.Answers = append(out.Answers, record(name, &dnsmessage.AResource{A: a.As4()}))
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				out.Answers = append(out.Answers, record(name, &dnsmessage.AAAAResource{AAAA: a.As16()}))
			}
		}
		return out
	}
}

func record(name dnsmessage.Name, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET}, Body: body}
}

// truncated says over UDP that there is more; then says how TCP goes on.
func truncated(then reply) reply {
	return func(q question) *dnsmessage.Message {
		if q.tcp {
			return then(q)
		}
		return &dnsmessage.Message{Header: dnsmessage.Header{Truncated: true}}
	}
}

// asking is the manager as a program, with this server alone to ask for names.
func (s *nameServer) asking(g Gomega, dir string) (program string) {
	file := filepath.Join(dir, fmt.Sprintf("resolv-%d.conf", instances.Add(1)))
	g.Expect(os.WriteFile(file, fmt.Appendf(nil, "nameserver %s\noptions timeout:1 attempts:2\n", s.address), 0o600)).To(Succeed())
	return wrapped(g, dir, fmt.Sprintf(`exec unshare --mount --propagation private sh -c 'mount --bind %s /etc/resolv.conf && exec "$@"' sh %s "$@"`, file, binary))
}

// mayAsk reports whether the test may open port 53 and put another /etc/resolv.conf
// before a process.
func mayAsk() bool { return os.Getuid() == 0 }

// lies are what a DNS server may say of an issuer, and what status makes of it.
var lies = []struct {
	name   string
	reply  reply
	reason string
}{
	{"no such name", says(dnsmessage.RCodeNameError), api.ReasonDNSLookupFailed},
	{"the DNS server fails", says(dnsmessage.RCodeServerFailure), api.ReasonDNSLookupFailed},
	{"the DNS server refuses", says(dnsmessage.RCodeRefused), api.ReasonDNSLookupFailed},
	{"no address", at(), api.ReasonDNSLookupFailed},
	{"no answer from the DNS server", silent, api.ReasonDNSLookupFailed},
	{"a forged answer alone", forged, api.ReasonDNSLookupFailed},
	{"a cut answer, and no more over TCP", truncated(silent), api.ReasonDNSLookupFailed},
	{"nobody at the addresses", at("127.66.0.1", "127.66.0.2", "127.66.0.3", "127.66.0.4", "127.66.0.5"), api.ReasonConnectionFailed},
	{"the metadata service", at("169.254.169.254"), api.ReasonEgressBlocked},
	{"the metadata service, as IPv6", at("::ffff:169.254.169.254"), api.ReasonEgressBlocked},
	{"the metadata service, by another name", alias("metadata.internal", "169.254.169.254"), api.ReasonEgressBlocked},
	{"the metadata service among others", at("127.0.0.1", "169.254.169.254"), api.ReasonEgressBlocked},
	{"an address of the cluster", at("10.0.0.1"), api.ReasonEgressBlocked},
	{"loopback", at("::1"), api.ReasonEgressBlocked}, // of which tests allow that of IPv4
	{"this host", at("0.0.0.0"), api.ReasonEgressBlocked},
}

// odd are answers that lead to the issuer all the same.
var odd = map[string]reply{
	"by-another-name":         alias("elsewhere."+domain, "127.0.0.1"),
	"more-than-fits":          truncated(at("127.0.0.1")),
	"the-first-ones-are-dead": at("127.66.0.1", "127.66.0.2", "127.66.0.3", "127.0.0.1"),
	"slow": func(q question) *dnsmessage.Message {
		<-time.After(time.Second / 2)
		return at("127.0.0.1")(q)
	},
}

// named is where issuers have names that the test's DNS server knows.
type named struct {
	*WithT
	w       *world
	id      string
	server  *nameServer
	issuer  *testissuer.Issuer
	port    string
	asked   int
	manager *instance
}

func newNamed(t *testing.T) *named {
	t.Helper()
	g := NewWithT(t)
	n := &named{WithT: g, w: inShared(t), server: newNameServer(t), id: fmt.Sprintf("names-%d", instances.Add(1))}
	for _, ns := range []string{n.id, n.id + "-system"} {
		g.Expect(n.w.namespace(ns, nil)).To(Succeed())
	}
	n.manager = n.w.prepare(g, n.w.config, n.id, "--components=controller", "--issuer-selector=names="+n.id, "--operator-namespace="+n.id+"-system")
	n.manager.program = n.server.asking(g, n.w.dir)
	n.manager.start(g)
	t.Cleanup(n.manager.end)
	n.manager.ready(g)
	var err error
	n.issuer, err = testissuer.Start(testissuer.WithNames("*." + domain))
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(n.issuer.Close)
	n.issuer.Publish(key1())
	n.issuer.Header("Connection", "close") // each fetch asks for the name
	_, n.port, err = net.SplitHostPort(strings.TrimPrefix(n.issuer.URL(), "https://"))
	g.Expect(err).NotTo(HaveOccurred())
	return n
}

// trust makes an object whose keys are at a name.
func (n *named) trust(name string, r reply) *api.TrustedIssuer {
	host := n.server.name(name, r)
	return n.w.trust(n, name, n.issuer, func(ti *api.TrustedIssuer) {
		ti.Namespace, ti.Labels = n.id, map[string]string{"names": n.id}
		ti.Spec.JWKSURI = fmt.Sprintf("https://%s:%s/jwks.json", host, n.port)
	})
}

// again asks for one more fetch of each object, and tells how they ended.
func (n *named) again(all ...*api.TrustedIssuer) (outcomes []string) {
	n.asked++
	request := fmt.Sprint(n.asked)
	for _, ti := range all {
		n.w.ask(n, ti, request)
	}
	for _, ti := range all {
		n.Eventually(func(g Gomega) *api.HandledRefresh { return n.w.read(g, ti).Status.HandledRefresh }).
			WithTimeout(mended).Should(HaveValue(HaveField("Request", request)), ti.Name)
		outcomes = append(outcomes, ti.Status.HandledRefresh.Outcome)
	}
	return outcomes
}

func (n *named) published(ti *api.TrustedIssuer) map[string]string {
	return n.w.data(n, client.ObjectKey{Namespace: n.id + "-system", Name: snapshot.AuthoritativeName(ti.UID)})
}

// A DNS server that fails or lies costs nobody the keys, and leads the manager nowhere:
// what was judged is what is dialled, whatever the next answer would be.
func TestNameServerLies(t *testing.T) {
	needsControlPlane(t)
	if !mayAsk() {
		t.Skip("needs to be root, for port 53 and another /etc/resolv.conf")
	}
	t.Parallel()
	n := newNamed(t)
	n.rebind(t)
	for name, r := range odd {
		n.w.becomesReady(n, n.trust(name, r))
	}

	var liars []*api.TrustedIssuer
	var want []map[string]string
	for i := range lies {
		liars = append(liars, n.trust(fmt.Sprint("liar-", i), at("127.0.0.1")))
	}
	for _, ti := range liars {
		n.w.becomesReady(n, ti)
		want = append(want, n.published(ti))
	}
	for i, lie := range lies {
		n.server.name(fmt.Sprint("liar-", i), lie.reply)
	}
	for i, outcome := range n.again(liars...) {
		n.Expect(outcome).To(Equal(lies[i].reason), lies[i].name)
		n.Expect(n.published(liars[i])).To(Equal(want[i]), "%s: byte for byte", lies[i].name)
		n.server.name(fmt.Sprint("liar-", i), at("127.0.0.1"))
	}
	n.Expect(n.again(liars...)).To(HaveEach(api.ReasonSucceeded), "once it says the truth again")
	figures.add("the DNS server fails, lies or is slow", "keys stay; each case is told by its reason; all goes on afterwards",
		"%d ways to fail or lie, %d odd ones that lead to the keys", len(lies), len(odd))
}

// rebind has a name mean an address that may be fetched from and one that may not, by
// turns. Whoever asked once to judge and again to connect would be led to the other.
func (n *named) rebind(t *testing.T) {
	forbidden, err := net.Listen("tcp", "[::1]:"+n.port)
	if err != nil {
		t.Log("no IPv6 here, so the name is not bound anew:", err)
		return
	}
	var touched atomic.Int32
	go func() {
		for {
			conn, err := forbidden.Accept()
			if err != nil {
				return // closed
			}
			touched.Add(1)
			_ = conn.Close()
		}
	}()
	defer func() { _ = forbidden.Close() }()
	var mu sync.Mutex
	times := map[dnsmessage.Type]int{}
	ti := n.trust("rebinds", func(q question) *dnsmessage.Message {
		mu.Lock()
		defer mu.Unlock()
		if times[q.Type]++; times[q.Type]%2 == 1 {
			return at("127.0.0.1")(q)
		}
		return at("::1")(q)
	})
	n.w.becomesReady(n, ti)
	want := n.published(ti)
	outcomes := map[string]int{}
	for range 4 {
		outcomes[n.again(ti)[0]]++
		n.Expect(n.published(ti)).To(Equal(want), "byte for byte")
	}
	n.Expect(outcomes).To(And(HaveLen(2), HaveKey(api.ReasonSucceeded), HaveKey(api.ReasonEgressBlocked)))
	n.Expect(touched.Load()).To(BeZero(), "the address that may not be fetched from")
	figures.add("a name that means another address each time (DNS rebinding)", "what was judged is what is dialled",
		"0 connections to the forbidden address in %d fetches: %d kept away from it, %d good", 4, outcomes[api.ReasonEgressBlocked], outcomes[api.ReasonSucceeded])
}
