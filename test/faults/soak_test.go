// soak_test.go rotates keys thousands of times, and watches what the manager holds on
// to.

package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// soak is one manager, controller and verifier, with issuers that rotate. Several
// objects trust each of them, and share its fetches.
type soak struct {
	*WithT
	w                     *world
	id                    string
	manager               *instance
	profiles, forwardAuth string
	issuers               []*testissuer.Issuer
	keys, gone            []*testissuer.Key // those of all issuers, now and before
	objects, round        int
	tokens                int
}

const (
	// soakKeys are replaced at a time, so that the history that status keeps, of 50
	// keys, is full before the first measurement.
	soakKeys, soakWarm = 10, 6
	// soakShare is how many objects trust an issuer.
	soakShare = 20
)

// The manager holds on to nothing: the live heap and the goroutines are the same in the
// first tenth of the rotations and in the last.
func TestSoak(t *testing.T) {
	needsControlPlane(t)
	issuers, rounds := 2, 6
	if *full {
		issuers, rounds = 10, 50
	} else {
		t.Parallel() // otherwise it would cost the others their 30 s
	}
	s := newSoak(t, issuers)
	for range soakWarm {
		s.rotate()
	}
	tenth := max(1, rounds/10)
	var heaps, routines []int
	began := time.Now()
	for range rounds {
		s.rotate()
		heaps, routines = append(heaps, s.heap()), append(routines, s.goroutines())
	}
	took := time.Since(began)
	first, last := median(heaps[:tenth]), median(heaps[rounds-tenth:])
	before, after := median(routines[:tenth]), median(routines[rounds-tenth:])
	t.Logf("heap in KiB: %v; goroutines: %v", kib(heaps), routines)
	s.Expect(float64(after)/float64(before)).To(BeNumerically("<", soakFlat), "goroutines are left: %v", routines)
	s.Expect(float64(last)/float64(first)).To(BeNumerically("<", soakFlat), "the live heap grows: %v", kib(heaps))
	figures.add("soak", "live heap and goroutines stay flat (last tenth to first tenth)",
		"%d rotations of %d objects in %s: heap %.1f to %.1f MiB (%.2f), goroutines %d to %d (%.2f); %d tokens judged as they should",
		rounds*s.objects, s.objects, took.Round(time.Second), mib(first), mib(last), float64(last)/float64(first), before, after, float64(after)/float64(before), s.tokens)
}

// soakFlat is what counts as flat, as a ratio.
const soakFlat = 1.1

func newSoak(t *testing.T, issuers int) *soak {
	g := NewWithT(t)
	s := &soak{WithT: g, w: ownWorld(t, nil), id: "soak", objects: issuers * soakShare}
	var err error
	for _, address := range []*string{&s.profiles, &s.forwardAuth} {
		*address, err = harness.FreeAddress()
		g.Expect(err).NotTo(HaveOccurred())
	}
	s.manager = s.w.prepare(g, s.w.config, s.id, "--pprof-bind-address", s.profiles, "--verifier-http-bind-address", s.forwardAuth)
	s.manager.program = wrapped(g, s.w.dir, "exec env GODEBUG=memprofilerate=4096 "+binary+` "$@"`)
	s.manager.start(g)
	t.Cleanup(s.manager.end)
	s.manager.ready(g)
	g.Expect(s.w.namespace(s.id, nil)).To(Succeed())
	for i := range soakKeys {
		s.keys = append(s.keys, testissuer.NewKey(fmt.Sprint("k", i), "EdDSA"))
	}
	for n := range issuers {
		issuer := newIssuer(g, s.keys...)
		t.Cleanup(issuer.Close)
		s.issuers = append(s.issuers, issuer)
		for i := range soakShare {
			ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: s.id, Name: fmt.Sprintf("i%d-%d", n, i)}}
			ti.Spec.IssuerSpec = specFor(issuer)
			g.Expect(s.w.api.Create(context.Background(), ti)).To(Succeed())
		}
	}
	return s
}

// rotate gives all issuers new keys, asks one object of each to look, and waits until
// all trust the new ones; then tokens are judged accordingly.
func (s *soak) rotate() {
	s.settled()
	s.round++
	s.gone, s.keys = s.keys, nil
	for i := range soakKeys {
		s.keys = append(s.keys, testissuer.NewKey(fmt.Sprint("k", i), "EdDSA"))
	}
	for n, issuer := range s.issuers {
		issuer.Publish(s.keys...)
		ti := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: s.id, Name: fmt.Sprintf("i%d-0", n)}}
		s.w.ask(s, ti, fmt.Sprint(s.round))
	}
	s.settled()
	var judged errgroup.Group
	for n, issuer := range s.issuers {
		judged.Go(func() error {
			return failing(func(g Gomega) {
				say := func(key *testissuer.Key) (int, error) {
					return askAt(http.DefaultClient, fmt.Sprintf("http://"+s.forwardAuth+"/forward-auth/ns/%s/i%d-%d", s.id, n, s.round%soakShare), tokens(issuer, key)(int64(s.round)))
				}
				g.Eventually(func() (int, error) { return say(s.keys[0]) }).WithTimeout(mended).Should(Equal(http.StatusOK))
				g.Expect(say(s.gone[0])).To(Equal(http.StatusUnauthorized), "a key that was replaced")
			})
		})
	}
	s.Expect(judged.Wait()).To(Succeed())
	s.tokens += 2 * len(s.issuers)
}

// settled waits until each object has followed all rotations.
func (s *soak) settled() {
	s.Eventually(func() (behind int) {
		var list api.TrustedIssuerList
		if s.w.api.List(context.Background(), &list, client.InNamespace(s.id)) != nil {
			return -1
		}
		for i := range list.Items {
			status := list.Items[i].Status
			if status.Snapshot == nil || status.Snapshot.PendingDigest != "" || s.round > 0 && (status.Rotation == nil || status.Rotation.Count < int64(s.round)) {
				behind++
			}
		}
		return behind
	}).WithTimeout(2*time.Minute).WithPolling(time.Second).Should(BeZero(), "objects that have not followed rotation %d", s.round)
}

// heap is what the manager's live objects take, in bytes; without what client-go's
// recorder of events remembers, which it lets go of after six to twelve minutes.
func (s *soak) heap() (bytes int) {
	s.profile("heap?gc=1") // what pools hold goes with the second collection
	taken, err := profile.ParseData(s.profile("heap?gc=1"))
	s.Expect(err).NotTo(HaveOccurred())
	last := len(taken.SampleType) - 1
	s.Expect(taken.SampleType[last].Type).To(Equal("inuse_space"))
	for _, sample := range taken.Sample {
		if !slices.ContainsFunc(sample.Location, recordsEvents) {
			bytes += int(sample.Value[last])
		}
	}
	return bytes
}

// recordsEvents reports whether an allocation was made by the recorder.
func recordsEvents(at *profile.Location) bool {
	return slices.ContainsFunc(at.Line, func(l profile.Line) bool {
		return strings.HasPrefix(l.Function.Name, "k8s.io/client-go/tools/events.")
	})
}

func (s *soak) goroutines() int {
	_, rest, ok := strings.Cut(string(s.profile("goroutine?debug=1")), "goroutine profile: total ")
	s.Expect(ok).To(BeTrue())
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	s.Expect(err).NotTo(HaveOccurred())
	return n
}

func (s *soak) profile(name string) []byte {
	resp, err := http.Get("http://" + s.profiles + "/debug/pprof/" + name) //nolint:noctx // loopback
	s.Expect(err).NotTo(HaveOccurred())
	text, err := io.ReadAll(resp.Body)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(resp.Body.Close()).To(Succeed())
	return text
}

func median(all []int) int {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func kib(all []int) (out []int) {
	for _, n := range all {
		out = append(out, n>>10)
	}
	return out
}

func mib(n int) float64 { return float64(n) / (1 << 20) }
