// approve.go is `kubectl jwks approve`: make a quarantined key set trusted.

package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

type approveOptions struct {
	yes     bool
	digest  string
	timeout time.Duration
}

func newApprove(c *cli) *cobra.Command {
	var o approveOptions
	cmd := &cobra.Command{
		Use:   "approve NAME",
		Short: "Trust a key set that waits for approval",
		Long: `Show the keys that wait for approval (spec.rotation.policy), ask, and set the
annotation ` + api.AnnotationApprove + ` to the digest of exactly what was shown. A set that
changed meanwhile is not approved.

Ask the issuer's owner first, on another way than over the issuer's own server: whoever
has taken that over says yes.

Exit codes: 0 trusted now, 2 not approved, 1 the command failed.`,
		Example:           "  kubectl jwks approve auth0 -n orders\n  kubectl jwks approve auth0 -n orders --yes --digest sha256:…",
		Args:              oneName,
		ValidArgsFunction: c.completeIssuer,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.approve(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "Do not ask")
	f.StringVar(&o.digest, "digest", "", "Approve this set alone, as the issuer's owner, or diff, has named it")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "How long to wait until the set is trusted")
	return cmd
}

func (c *cli) approve(ctx context.Context, name string, o approveOptions) error {
	issuer, err := c.find(ctx, name)
	if err != nil {
		return err
	}
	d, err := candidateDifference(issuer)
	if err != nil {
		return advise("kubectl jwks describe "+argumentsFor(issuer)+" shows the keys and their states.", "no key set of %s waits for approval", describedAs(issuer))
	}
	if o.digest != "" && o.digest != d.Digest {
		fmt.Fprintf(c.ErrOut, "Not approved: what waits is %s, and not the set that --digest names.\n", d.Digest)
		return exitCode(exitNo)
	}
	fmt.Fprintf(c.Out, "%s: these keys are to be trusted, for tokens of %s:\n\n", describedAs(issuer), issuer.IssuerSpec().Issuer)
	d.Next = ""
	if err := d.print(c.Out); err != nil {
		return err
	}
	if !o.yes && !c.confirmed() {
		fmt.Fprintln(c.ErrOut, "Not approved.")
		return exitCode(exitNo)
	}
	return c.approveDigest(ctx, issuer, d.Digest, o.timeout)
}

// confirmed asks. Anything but yes is a no, and so is the end of the input.
func (c *cli) confirmed() bool {
	fmt.Fprint(c.ErrOut, "\nDid the issuer's owner confirm them? Type yes to trust them: ")
	line, _ := bufio.NewReader(c.In).ReadString('\n') // what was read before an error counts
	return strings.TrimSpace(line) == "yes"
}

// approveDigest approves what was shown, unless another set waits by now.
func (c *cli) approveDigest(ctx context.Context, issuer api.Issuer, digest string, timeout time.Duration) error {
	kube, err := c.connect()
	if err != nil {
		return err
	}
	uid := issuer.GetUID()
	if err := kube.Get(ctx, client.ObjectKeyFromObject(issuer), issuer); err != nil {
		return err
	}
	if r := issuer.IssuerStatus().Rotation; issuer.GetUID() != uid || r == nil || r.CandidateDigest != digest {
		return c.changedMeanwhile(issuer)
	}
	if err := c.annotate(ctx, issuer, api.AnnotationApprove, api.Approval(issuer, digest)); err != nil {
		if apierrors.IsConflict(err) {
			return c.changedMeanwhile(issuer)
		}
		return err
	}
	fmt.Fprintln(c.ErrOut, "Approved; waiting until the controller trusts them ...")
	var other bool
	err = c.await(ctx, issuer, timeout, func(now api.Issuer) bool {
		r := now.IssuerStatus().Rotation
		waits := r != nil && r.CandidateDigest != ""
		other = waits && r.CandidateDigest != digest
		return !waits || other
	})
	switch {
	case err != nil:
		return err
	case other:
		return c.changedMeanwhile(issuer)
	}
	fmt.Fprintf(c.Out, "Trusted: %s.\n", count(len(refsIn(issuer)), "key"))
	return nil
}

func (c *cli) changedMeanwhile(issuer api.Issuer) error {
	fmt.Fprintf(c.ErrOut, "Not approved: another key set waits by now. Look again: kubectl jwks diff --candidate %s\n", argumentsFor(issuer))
	return exitCode(exitNo)
}
