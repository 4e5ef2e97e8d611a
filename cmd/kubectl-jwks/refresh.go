// refresh.go is `kubectl jwks refresh`: fetch the keys now, and say how it went.

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// pollEvery is how often an object that is waited for is read.
const pollEvery = 250 * time.Millisecond

func newRefresh(c *cli) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "refresh NAME",
		Short: "Have the controller fetch an issuer's keys now, and wait for the outcome",
		Long: `Set the annotation ` + api.AnnotationRefresh + `, wait until the controller has fetched, and
report the outcome. Two fetches for an issuer are at least five seconds apart.

Exit codes: 0 fetched, 2 the fetch failed, 1 the command failed (or nobody fetched
within the timeout).`,
		Example:           "  kubectl jwks refresh auth0 -n orders",
		Args:              oneName,
		ValidArgsFunction: c.completeIssuer,
		RunE: func(cmd *cobra.Command, args []string) error {
			issuer, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.refresh(cmd.Context(), issuer, timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "How long to wait for the outcome")
	return cmd
}

func (c *cli) refresh(ctx context.Context, issuer api.Issuer, timeout time.Duration) error {
	switch spec := issuer.IssuerSpec(); {
	case spec.Static():
		return advise("To change them, edit spec.jwks.", "the keys of %s are given inline: there is nothing to fetch", describedAs(issuer))
	case spec.Suspended():
		return advise("Set spec.suspend to false first.", "%s is suspended: nothing is fetched", describedAs(issuer))
	}
	request := c.now().UTC().Format(time.RFC3339) + " " + rand.Text()[:8]
	before := issuer.DeepCopyObject().(api.Issuer) //nolint:errcheck,forcetypeassert // a copy has the type of the original
	if err := c.annotate(ctx, issuer, api.AnnotationRefresh, request); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOut, "Asked for a refresh of %s; waiting for it ...\n", describedAs(issuer))
	err := c.await(ctx, issuer, timeout, func(now api.Issuer) bool { return answered(request, before, now) })
	if err != nil {
		return err
	}
	return c.reportRefresh(before, issuer)
}

// answered reports whether somebody's request has been handled: by itself, or by one that
// has taken its place in the annotation since, and so came later.
func answered(request string, before, now api.Issuer) bool {
	h := now.IssuerStatus().HandledRefresh
	if h == nil || h.Request == request {
		return h != nil
	}
	earlier := before.IssuerStatus().HandledRefresh
	return h.Request == now.GetAnnotations()[api.AnnotationRefresh] && h.Request != "" && (earlier == nil || h.Request != earlier.Request)
}

// unchanged is for a change that must not be made to an object which has changed since
// it was read: it is a conflict then.
var unchanged = client.MergeFromWithOptimisticLock{}

// annotate sets one annotation, and nothing else; no value takes it away.
func (c *cli) annotate(ctx context.Context, issuer api.Issuer, name, value string, only ...client.MergeFromOption) error {
	kube, err := c.connect()
	if err != nil {
		return err
	}
	before := issuer.DeepCopyObject().(client.Object) //nolint:errcheck,forcetypeassert // a copy has the type of the original
	annotations := map[string]string{}
	maps.Copy(annotations, issuer.GetAnnotations())
	if annotations[name] = value; value == "" {
		delete(annotations, name)
	}
	issuer.SetAnnotations(annotations)
	return kube.Patch(ctx, issuer, client.MergeFromWithOptions(before, only...), client.FieldOwner("kubectl-jwks"))
}

// await reads the object until it is as wanted.
func (c *cli) await(ctx context.Context, issuer api.Issuer, timeout time.Duration, done func(api.Issuer) bool) error {
	kube, err := c.connect()
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, pollEvery, timeout, true, func(ctx context.Context) (bool, error) {
		if err := kube.Get(ctx, client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return false, err
		}
		return done(issuer), nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Interrupted(err):
		return advise("Is the controller running? kubectl jwks check tells. It goes on with it once it runs; --timeout waits longer.", "the controller has not done it within %s", timeout)
	}
	return err
}

// reportRefresh says how the fetch went, and what it changed.
func (c *cli) reportRefresh(before, now api.Issuer) error {
	s := now.IssuerStatus()
	outcome := s.HandledRefresh.Outcome
	var message string
	if s.LastAttempt != nil {
		message = plain(s.LastAttempt.Message)
	}
	fmt.Fprintf(c.Out, "%s: %s\n", outcome, message)
	switch outcome {
	case api.ReasonSucceeded:
		change := keyset.Diff(refsIn(before), refsIn(now))
		if change.Empty() {
			fmt.Fprintln(c.Out, "The trusted keys are the same.")
			return nil
		}
		return writeChange(c.Out, change)
	case api.ReasonQuarantined:
		fmt.Fprintf(c.Out, "Look: kubectl jwks diff --candidate %s\n", argumentsFor(now))
	default:
		if d := windowOf(now, c.now()).ExpiresAt(); !d.IsZero() {
			fmt.Fprintf(c.Out, "The last good keys stay; they expire %s.\n", ahead(&metav1.Time{Time: d}, c.now()))
		}
	}
	return exitCode(exitNo)
}

// refsIn are the trusted keys that status lists.
func refsIn(issuer api.Issuer) []keyset.Ref {
	return refsOf(keysIn(issuer, api.KeyActive, api.KeyRetiring))
}

func refsOf(keys []api.KeyStatus) []keyset.Ref {
	var refs []keyset.Ref
	for _, k := range keys {
		refs = append(refs, keyset.Ref{KeyID: k.KeyID, Thumbprint: k.Thumbprint})
	}
	return refs
}
