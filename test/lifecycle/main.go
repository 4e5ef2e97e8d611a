// Command lifecycle measures jwks-trust-manager in the situations that it is made
// for: on a real etcd and kube-apiserver, with two replicas of the real manager
// binary, one of them elected, and with a verifier in each.
//
//	rotation   Issuers that sign with a new key the moment they have it. Measured
//	           from when an issuer publishes the key until forward-auth of each
//	           replica has accepted a token of it, both asked at once; a refused
//	           token is sent again, as its owner would. The issuer may be asked
//	           for its keys exactly once for that, by both replicas together. An
//	           issuer is asked because of an unknown key at most once in 30 s, so
//	           there is one issuer for each round, and the wait is for all.
//
//	flood      Tokens that anybody can make: right claims, a random kid, garbage
//	           for a signature; from many connections that stay open, to both
//	           replicas, for as long as several times 30 s. The issuer may be asked
//	           once per started 30 s, and once more for the border; and a good
//	           token, sent to both replicas every 100 ms, is accepted each time.
//	           Then tokens for another audience: they cause no fetch at all.
//
//	hung       Many TrustedIssuers, of which some are at hosts that accept
//	           connections and never say a word. Measured from the first object's
//	           creation until the last healthy issuer is Ready; then, for some of
//	           the healthy ones, from a rotation and the annotation
//	           jwks-trust.dev/refresh until status shows the new key. Each on a
//	           cluster of its own, once without the hung hosts and once with.
//
// cacheTTL is 24 h, so no fetch is a scheduled one. The scripted issuers differ in
// their ports and share the address 127.0.0.1, which is what their certificates are
// for; the hung hosts have addresses of their own.
//
// The table at the end says what came out. A missed target of correctness (fetches,
// acceptance) makes the exit code 1; times are for reading, since they depend on the
// machine. Everything runs on this one: the load, the issuers and the API server take
// their share of its CPUs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// options are the command line.
type options struct {
	manager string
	only    string

	rounds int

	flood        int
	floodFor     time.Duration
	floodWrong   int
	floodWorkers int

	issuers     int
	servers     int
	hungHosts   int
	refreshes   int
	ownURLs     bool
	settleLimit time.Duration
}

func (o *options) register(f *flag.FlagSet) {
	f.StringVar(&o.manager, "manager", "bin/manager", "the manager's binary")
	f.StringVar(&o.only, "only", "", "measure only these, separated by commas: rotation, flood, hung")
	f.IntVar(&o.rounds, "rounds", 20, "rotation: how many rounds, each with an issuer of its own")
	f.IntVar(&o.flood, "flood", 100_000, "flood: how many tokens with random kids at least")
	f.DurationVar(&o.floodFor, "flood-for", 65*time.Second, "flood: how long at least, so that several times 30 s pass")
	f.IntVar(&o.floodWrong, "flood-wrong", 10_000, "flood: how many tokens for another audience")
	f.IntVar(&o.floodWorkers, "flood-workers", 64, "flood: how many connections, shared by both replicas")
	f.IntVar(&o.issuers, "issuers", 1000, "hung: how many TrustedIssuers, a tenth of them at hung hosts")
	f.IntVar(&o.servers, "servers", 20, "hung: how many scripted issuers serve the healthy ones")
	f.IntVar(&o.hungHosts, "hung-hosts", 1, "hung: how many hosts are hung")
	f.IntVar(&o.refreshes, "refreshes", 5, "hung: how many healthy issuers are rotated and refreshed by annotation")
	f.BoolVar(&o.ownURLs, "own-urls", false, "hung: give each issuer a URL of its own, so that no two can share a fetch")
	f.DurationVar(&o.settleLimit, "settle-limit", 10*time.Minute, "hung: how long to wait for the healthy issuers")
}

// check reports what is wrong with the command line.
func (o *options) check() error {
	for _, part := range o.parts() {
		if !slices.ContainsFunc(measurements, func(m measurement) bool { return m.name == part }) {
			return fmt.Errorf("-only: there is no measurement %q", part)
		}
	}
	if o.rounds < 1 || o.flood < 1 || o.floodWrong < 1 || o.floodWorkers < 2 || o.issuers < 10 || o.servers < 1 || o.refreshes < 1 {
		return fmt.Errorf("too small a number: at least one of each, 2 -flood-workers and 10 -issuers")
	}
	if o.hungHosts < 1 || o.hungHosts > 200 {
		return fmt.Errorf("-hung-hosts must be from 1 to 200: each has a loopback address of its own")
	}
	return nil
}

func (o *options) parts() []string {
	if o.only == "" {
		return nil
	}
	return strings.Split(o.only, ",")
}

func (o *options) wants(name string) bool {
	return o.only == "" || slices.Contains(o.parts(), name)
}

// measurement is one part of the program.
type measurement struct {
	name string
	run  func(context.Context, *options, *harness.Report) error
}

var measurements = []measurement{
	{"rotation", measureRotation},
	{"flood", measureFlood},
	{"hung", measureHungHosts},
}

func main() {
	var o options
	o.register(flag.CommandLine)
	flag.Parse()
	log.SetLogger(logr.Discard()) // envtest and the client have nothing to say
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, &o)
	stop()
	os.Exit(code)
}

// run is 0 when all is well, 1 when a target was missed or something failed, and 2
// for a wrong command line.
func run(ctx context.Context, o *options) int {
	if err := o.check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	started := time.Now()
	var r harness.Report
	for _, m := range measurements {
		if !o.wants(m.name) {
			continue
		}
		fmt.Printf("\n── %s\n", m.name)
		if err := m.run(ctx, o, &r); err != nil {
			r.Print(os.Stdout)
			fmt.Fprintf(os.Stderr, "\nThe measurement %s FAILED: %v\n", m.name, err)
			return 1
		}
	}
	r.Print(os.Stdout)
	fmt.Printf("\nMeasured in %s.\n", harness.Round(time.Since(started)))
	if r.Missed() {
		return 1
	}
	return 0
}
