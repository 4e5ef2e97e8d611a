// Command release makes what is published of a version, in one folder: archives,
// chart, manifests, image, SBOMs, licences, notes, and the sums of all that.
//
//	release make -version 1.2.3     what `make release` does
//	release reproduce               builds twice, from scratch, and compares
//	release licenses                writes THIRD_PARTY_LICENSES.txt anew
//
// Whoever does the same with the same commit and the same Go gets the same bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	syscall.Umask(0o022) // what is made is for everybody to read
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	r := &release{log: out}
	f := flag.NewFlagSet("release "+name, flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&r.root, "root", ".", "the checkout")
	do := map[string]func(context.Context) error{"make": r.make, "reproduce": r.reproduceOnly, "licenses": r.writeLicenses}[name]
	switch name {
	case "make":
		r.register(f)
	case "reproduce":
		f.BoolVar(&r.allTargets, "all", false, "for all platforms, not only for linux/amd64")
	case "licenses":
	default:
		return fmt.Errorf("%q: say make, reproduce or licenses", name)
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("what is %q?", f.Arg(0))
	}
	return do(ctx)
}
