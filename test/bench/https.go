package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
	"text/tabwriter"
)

// overHTTPS are the algorithms that are compared over HTTPS.
var overHTTPS = []string{"RS256", "ES256"}

// Load is how much is sent to each server.
type Load struct {
	Rounds, Requests, Connections int
}

// Names of the servers.
const (
	nameEmpty     = "empty handler"
	nameSignature = "signature only"
	nameServer    = "ours"
)

// server is a contender over HTTPS.
type server struct {
	name   string
	sender *sender
	rates  []float64 // requests per second in each round
}

// scene is one protocol with one algorithm.
type scene struct {
	protocol protocol
	fixture  *fixture
	servers  []*server
	// seen: the servers get the same few tokens over and over.
	seen bool
}

// seenTokens is how many they are.
const seenTokens = 100

// CompareHTTPS prints how many requests per second our server answers, beside one
// that does nothing and one that only checks signatures. Cold tokens are sent once
// to each server; those seen before again and again.
func CompareHTTPS(ctx context.Context, out io.Writer, load Load) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }() // in the system's folder for such things
	certs, err := newCertificates(directory)
	if err != nil {
		return err
	}
	var scenes []*scene
	for _, p := range protocols {
		for _, algorithm := range overHTTPS {
			s, err := newScene(ctx, certs, p, newFixture(algorithm), load.Connections)
			if err != nil {
				return err
			}
			defer s.close()
			scenes = append(scenes, s)
		}
		s, err := newScene(ctx, certs, p, newFixture(overHTTPS[0]), load.Connections)
		if err != nil {
			return err
		}
		defer s.close()
		s.seen = true
		scenes = append(scenes, s)
	}
	for round := range load.Rounds {
		for _, s := range scenes {
			if err := s.play(round, load.Requests); err != nil {
				return err
			}
		}
	}
	return printHTTPS(out, scenes)
}

// newScene starts the servers. Each scene has its own, so that none has seen a
// token before.
func newScene(ctx context.Context, certs *certificates, p protocol, f *fixture, connections int) (*scene, error) {
	s := &scene{protocol: p, fixture: f}
	first := p.request(f.token(-1)) // no round sends it
	add := func(name, address, accepted string) error {
		sender, err := dial(ctx, certs, address, connections, first, accepted)
		s.servers = append(s.servers, &server{name: name, sender: sender})
		return err
	}
	empty, err1 := serve(ctx, certs, http.HandlerFunc(emptyHandler))
	signature, err2 := serve(ctx, certs, signatureHandler(f.signer().Public(), p))
	ours, err3 := serveOurs(ctx, certs, f)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return s, errors.Join(add(nameEmpty, empty, ""), add(nameSignature, signature, ""), add(nameServer, ours, p.accepted))
}

func (s *scene) close() {
	for _, server := range s.servers {
		_ = server.sender.close() // the measurements are over
	}
}

// play sends the same requests to all servers, one server at a time.
func (s *scene) play(round, requests int) error {
	var prepared [][]byte
	if !s.seen {
		prepared = s.prepare(round*requests, requests)
	} else {
		few := s.prepare(0, seenTokens)
		for i := range requests {
			prepared = append(prepared, few[i%seenTokens])
		}
	}
	for i := range s.servers {
		server := s.servers[(i+round)%len(s.servers)]
		runtime.GC() // nobody pays for what another one has left behind
		rate, err := server.sender.send(prepared)
		if err != nil {
			return fmt.Errorf("%s, %s, %s: %w", s.protocol.name, s.fixture.algorithm, server.name, err)
		}
		server.rates = append(server.rates, rate)
	}
	return nil
}

// prepare signs tokens that are numbered from first on, on all CPUs.
func (s *scene) prepare(first, requests int) [][]byte {
	prepared := make([][]byte, requests)
	workers := runtime.GOMAXPROCS(0)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := w; i < requests; i += workers {
				prepared[i] = s.protocol.request(s.fixture.token(first + i))
			}
		})
	}
	group.Wait()
	return prepared
}

// rate is the median rate of a server.
func (s *scene) rate(name string) float64 {
	for _, server := range s.servers {
		if server.name == name {
			return median(server.rates)
		}
	}
	return 0
}

func printHTTPS(out io.Writer, scenes []*scene) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "PROTOCOL\tTOKENS\tEMPTY REQ/S\tSIGNATURE ONLY REQ/S\tOURS REQ/S\tOURS/EMPTY\tOURS/SIGNATURE ONLY")
	for _, s := range scenes {
		empty, signature, ours := s.rate(nameEmpty), s.rate(nameSignature), s.rate(nameServer)
		tokens := s.fixture.algorithm + ", cold"
		if s.seen {
			tokens = s.fixture.algorithm + ", seen before"
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.3f\t%.3f\n",
			s.protocol.name, tokens, empty, signature, ours, ours/empty, ours/signature)
	}
	return w.Flush()
}
