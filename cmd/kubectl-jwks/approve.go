// approve.go is `kubectl jwks approve`: make a quarantined key set trusted.

package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
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
changed meanwhile is not approved, and the annotation is taken back.

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
	shown := refsOf(keysIn(issuer, api.KeyQuarantined))
	if err != nil || len(shown) == 0 { // a set whose keys are all trusted waits for nobody
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
	a := &approval{cli: c, issuer: issuer, uid: issuer.GetUID(), digest: d.Digest, shown: shown}
	return a.approve(ctx, o.timeout)
}

// confirmed asks. Anything but yes is a no, and so is the end of the input.
func (c *cli) confirmed() bool {
	fmt.Fprint(c.ErrOut, "\nDid the issuer's owner confirm them? Type yes to trust them: ")
	line, _ := bufio.NewReader(c.In).ReadString('\n') // what was read before an error counts
	return strings.TrimSpace(line) == "yes"
}

// approval is somebody's consent to a key set, and what comes of it.
type approval struct {
	*cli

	// issuer is the object as it was last read, and uid which one of that name was shown.
	issuer api.Issuer
	uid    types.UID
	// digest is that of the set, and shown those of its keys that were not trusted.
	digest string
	shown  []keyset.Ref
	// value is what the annotation was set to.
	value string
}

// approve approves of what was shown, and says what came of it.
func (a *approval) approve(ctx context.Context, timeout time.Duration) error {
	waits, err := a.give(ctx)
	if err != nil {
		return err
	}
	_, trusted := a.ended(a.issuer) // by somebody else's approval, perhaps
	whyNot := a.whyNot()
	if waits {
		fmt.Fprintln(a.ErrOut, "Approved; waiting until the controller trusts them ...")
		if trusted, whyNot, err = a.wait(ctx, timeout); err != nil {
			return err
		}
	}
	if !trusted {
		fmt.Fprintln(a.ErrOut, "Not approved: "+whyNot)
		return exitCode(exitNo)
	}
	fmt.Fprintf(a.Out, "Trusted: %s.\n", count(len(refsIn(a.issuer)), "key"))
	return nil
}

// wait waits until the set is trusted, or its wait has ended in another way: the issuer
// may publish another one by then. An approval that has come to nothing is taken back, or
// the set would be trusted after a no.
func (a *approval) wait(ctx context.Context, timeout time.Duration) (trusted bool, whyNot string, err error) {
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		err := a.await(ctx, a.issuer, timeout, func(now api.Issuer) (over bool) {
			over, trusted = a.ended(now)
			return over
		})
		if err != nil || trusted {
			return err
		}
		whyNot = a.whyNot()
		return a.takeBack(ctx) // fails, and the object is judged again, where it has changed since
	})
	return trusted, whyNot, err
}

// give sets the annotation, if what was shown still waits: on the very object that was
// looked at.
func (a *approval) give(ctx context.Context) (waits bool, err error) {
	kube, err := a.connect()
	if err != nil {
		return false, err
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if err := kube.Get(ctx, client.ObjectKeyFromObject(a.issuer), a.issuer); err != nil {
			return err
		}
		if waits = a.issuer.GetUID() == a.uid && candidateOf(a.issuer) == a.digest; !waits {
			return nil
		}
		a.value = api.Approval(a.issuer, a.digest)
		return a.annotate(ctx, a.issuer, api.AnnotationApprove, a.value, unchanged)
	})
	return waits, err
}

// ended reports whether the wait of the set is over, and whether it is trusted now: all
// the keys that were shown are. That it waits no longer does not say so, and neither does
// that the approval is used up.
func (a *approval) ended(now api.Issuer) (over, trusted bool) {
	if now.GetUID() != a.uid {
		return true, false
	}
	known := refsIn(now)
	if !slices.ContainsFunc(a.shown, func(k keyset.Ref) bool { return !slices.Contains(known, k) }) {
		return true, true
	}
	s := now.IssuerStatus().Snapshot
	publishing := s != nil && s.PendingDigest != ""
	return candidateOf(now) != a.digest && !publishing, false
}

// takeBack removes the annotation, unless it says something else by now.
func (a *approval) takeBack(ctx context.Context) error {
	if a.issuer.GetAnnotations()[api.AnnotationApprove] != a.value {
		return nil
	}
	return a.annotate(ctx, a.issuer, api.AnnotationApprove, "", unchanged)
}

// whyNot says why the set has not been trusted, and where to look.
func (a *approval) whyNot() string {
	name := argumentsFor(a.issuer)
	switch {
	case a.issuer.GetUID() != a.uid:
		return "the object was deleted and made again. Look again: kubectl jwks describe " + name
	case candidateOf(a.issuer) == "":
		return "that key set waits no longer, and it is not trusted. The issuer may publish another one by now: kubectl jwks diff " + name
	}
	return "another key set waits by now. Look again: kubectl jwks diff --candidate " + name
}

// candidateOf is the digest of the set that waits; empty for none.
func candidateOf(issuer api.Issuer) string {
	if r := issuer.IssuerStatus().Rotation; r != nil {
		return r.CandidateDigest
	}
	return ""
}
