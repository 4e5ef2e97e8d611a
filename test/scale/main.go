// Command scale measures how jwks-trust-manager grows: on a real etcd and
// kube-apiserver, with the real controller and the real verifier, each a process of
// its own with the rights of config/rbac, and with issuers over TLS on loopback.
//
//	issuers    For each number of -issuers, on a cluster of its own: that many
//	           TrustedIssuers are created, each for an issuer that has a URL and
//	           four keys of its own. Measured are the time until all are Ready,
//	           then a time at rest: writes to the API by kind, requests to the
//	           issuers, memory and CPU of both processes. Then the same objects,
//	           to the byte, are written into an empty cluster by a bare client
//	           with as many workers, each once; and into another one by as many
//	           writes as user and controller need together. These are the times to
//	           compare with.
//
//	copies     One ClusterTrustedIssuer, and -namespaces that it selects. Measured
//	           are the times until each namespace has its copy of a new key set,
//	           from when the set is trusted; and, in turns with that, the times of
//	           the same applies to other ConfigMaps in the same namespaces by a bare
//	           client with as many workers. Then a time at rest.
//
//	failover   Two controllers, one of them elected. The leader is killed, and while
//	           nobody leads the next refresh of half of the issuers comes due: the
//	           next leader asks exactly those, once. Then that one is stopped in good
//	           order, and handed over to another.
//
// Writes are what the API server has counted (apiserver_request_total), so those of
// the bare client and of this program are kept out of the time in which they count.
// Memory and CPU are what the processes say of themselves (/metrics).
//
// The table at the end says what came out. A missed target of correctness (a write
// too many, a request too many, a copy that did not come) makes the exit code 1. What
// depends on the machine is called "not met", and decides nothing. Everything runs on
// this machine: the issuers and the API server take their share of its CPUs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
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
	only    list
	limit   time.Duration
	rest    time.Duration

	issuers  list
	servers  int
	cacheTTL time.Duration

	namespaces int
	rotations  int
	extraKeys  int

	failover int
	profiles string
}

// list is a flag with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error {
	*l = strings.Split(v, ",")
	return nil
}

func (o *options) register(f *flag.FlagSet) {
	o.issuers = list{"100", "1000"}
	f.StringVar(&o.manager, "manager", "bin/manager", "the manager's binary")
	f.Var(&o.only, "only", "measure only these, separated by commas: issuers, copies, failover")
	f.DurationVar(&o.limit, "limit", 20*time.Minute, "how long to wait for anything before it counts as failed")
	f.DurationVar(&o.rest, "rest", 2*time.Minute, "how long to look at what happens at rest")
	f.Var(&o.issuers, "issuers", "issuers: how many, one number after the other")
	f.IntVar(&o.servers, "servers", 40, "issuers: how many servers they share")
	f.DurationVar(&o.cacheTTL, "cache-ttl", 2*time.Minute, "issuers: their cacheTTL, from 2m")
	f.IntVar(&o.namespaces, "namespaces", 1000, "copies: how many namespaces")
	f.IntVar(&o.rotations, "rotations", 3, "copies: how many rotations, and as many turns of the bare client")
	f.IntVar(&o.extraKeys, "extra-keys", 0, "copies: how many keys besides the usual four, for large sets")
	f.IntVar(&o.failover, "failover-issuers", 100, "failover: how many issuers")
	f.StringVar(&o.profiles, "profiles", "", "a folder for heap profiles of both processes, taken at rest")
}

// numbers are those of -issuers.
func (o *options) numbers() ([]int, error) {
	var out []int
	for _, text := range o.issuers {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-issuers: %q is not a number of issuers", text)
		}
		out = append(out, n)
	}
	return out, nil
}

// check reports what is wrong with the command line.
func (o *options) check() error {
	for _, part := range o.only {
		if !slices.ContainsFunc(measurements, func(m measurement) bool { return m.name == part }) {
			return fmt.Errorf("-only: there is no measurement %q", part)
		}
	}
	if o.servers < 1 || o.namespaces < 1 || o.rotations < 1 || o.failover < 2 || o.extraKeys < 0 || o.extraKeys > 96 {
		return errors.New("too small a number, or more than 96 -extra-keys: an issuer has 100 keys at most")
	}
	_, err := o.numbers()
	return err
}

// measurement is one part of the program.
type measurement struct {
	name string
	run  func(context.Context, *options, *harness.Report) error
}

var measurements = []measurement{
	{"issuers", measureIssuers},
	{"copies", measureCopies},
	{"failover", measureFailover},
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
		if len(o.only) > 0 && !slices.Contains(o.only, m.name) {
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
