// Command ratios compares the verifier with the bare signature check, with other
// libraries and with bare HTTPS servers, side by side. In test/bench:
//
//	go run ./cmd/ratios                   all of it, about two minutes
//	go run ./cmd/ratios -only verify      whole verifications
//	go run ./cmd/ratios -only https       requests per second
//	go test                               that all contenders do the same work
//	go test -run - -bench Verify/.*/verifier -cpuprofile cpu.out
//
// The contenders take turns, in many short rounds, and the median of each counts.
// There is no target to miss here: the figures depend on the machine, the ratios
// much less.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/jwks-trust/jwks-trust-manager/test/bench"
)

// options are the command line.
type options struct {
	only   string
	rounds int
	batch  time.Duration
	load   bench.Load
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "verify or https; both when empty")
	flag.IntVar(&o.rounds, "rounds", 100, "rounds of verifications")
	flag.DurationVar(&o.batch, "batch", 20*time.Millisecond, "how long a contender is at work in a round")
	flag.IntVar(&o.load.Rounds, "https-rounds", 20, "rounds of requests")
	flag.IntVar(&o.load.Requests, "requests", 1000, "requests to a server in a round")
	flag.IntVar(&o.load.Connections, "connections", 16, "connections to a server")
	flag.Parse()
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context, out io.Writer) error {
	fmt.Fprintf(out, "%s %s/%s, %d CPUs\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	if o.only != "https" {
		fmt.Fprintf(out, "\nTime of a whole verification, as a ratio to the floor (%d rounds):\n\n", o.rounds)
		if err := bench.CompareVerification(ctx, out, o.rounds, o.batch); err != nil {
			return err
		}
	}
	if o.only != "verify" {
		fmt.Fprintf(out, "\nRequests over HTTPS, client on the same CPUs (%d rounds of %d requests, %d connections):\n\n",
			o.load.Rounds, o.load.Requests, o.load.Connections)
		if err := bench.CompareHTTPS(ctx, out, o.load); err != nil {
			return err
		}
		fmt.Fprintf(out, "\nExternal authorization over gRPC, client on the same CPUs (%d rounds of %d requests, %d connections):\n\n",
			o.load.Rounds, o.load.Requests, o.load.Connections)
		return bench.CompareGRPC(ctx, out, o.load)
	}
	return nil
}
