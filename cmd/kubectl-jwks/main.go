// Command kubectl-jwks is `kubectl jwks`: what people ask about trusted issuers,
// answered in one command each. It reads what anybody may read with kubectl, and
// judges with the code that the controller and the verifier judge with.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, newRoot(newCLI(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})))
	stop()
	os.Exit(code)
}

// The exit codes. They are API: scripts build on them.
const (
	exitOK = 0
	// exitError: the command could not do its work.
	exitError = 1
	// exitNo: it could, and the answer is no: the token is refused, there is a
	// difference, a check fails, the refresh failed, the set was not approved.
	exitNo = 2
	// exitUndecided: verify cannot decide.
	exitUndecided = 3
)

// exitCode ends a command whose output says it all.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs the command and returns the exit code.
func run(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(root.ErrOrStderr(), "Interrupted.")
		return exitError
	}
	fmt.Fprintln(root.ErrOrStderr(), "Error:", explained(err))
	return exitError
}
