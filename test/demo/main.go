// Command demo shows the main job of jwks-trust-manager on a real API server:
// trust an issuer, publish its keys, verify tokens, rotate, survive an outage.
//
// Each step says what will happen, does it with real requests, and checks the
// result; a step that ends differently ends the demo with an error.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running at the end, until interrupted")
	manager := flag.String("manager", "bin/manager", "the manager's binary")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *manager, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo FAILED: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, manager string, keep bool) (err error) {
	started := time.Now()
	w, err := newWorld(ctx, manager)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.controller.PrintLog()
			w.verifier.PrintLog()
		}
		w.close()
	}()
	n, total := 0, len(steps)
	for _, s := range steps {
		n++
		fmt.Printf("\n── %d/%d  %s\n", n, total, s.title)
		if err := s.do(ctx, w); err != nil {
			return fmt.Errorf("step %d (%s): %w", n, s.title, err)
		}
	}
	fmt.Printf("\nAll %d steps went as they say, in %s.\n", total, time.Since(started).Round(time.Second))
	if keep {
		return w.wait(ctx)
	}
	return nil
}
