// diff.go is `kubectl jwks diff`: what the issuer publishes, and what is trusted.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// difference is the answer.
type difference struct {
	// Seen is who saw what is compared: "this machine" or "the controller".
	Seen string `json:"seen"`
	URL  string `json:"url,omitempty"`
	// Digest is that of what is published, once admitted.
	Digest   string       `json:"digest,omitempty"`
	Same     bool         `json:"same"`
	Added    []diffKey    `json:"added,omitempty"`
	Removed  []diffKey    `json:"removed,omitempty"`
	Replaced []diffKey    `json:"replaced,omitempty"`
	Skipped  []skippedKey `json:"skipped,omitempty"`
	// Exposed are keys that are published with their private part.
	Exposed []string `json:"exposed,omitempty"`
	// Next is what happens with the difference.
	Next string `json:"next,omitempty"`
	// Unknown is what the difference may leave out.
	Unknown string `json:"unknown,omitempty"`
}

type diffKey struct {
	KeyID      string `json:"kid,omitempty"`
	Thumbprint string `json:"thumbprint"`
	Key        string `json:"key,omitempty"`
}

type skippedKey struct {
	KeyID  string `json:"kid,omitempty"`
	Reason string `json:"reason"`
}

func newDiff(c *cli) *cobra.Command {
	var candidate bool
	var output string
	var egress egressOptions
	cmd := &cobra.Command{
		Use:   "diff NAME",
		Short: "Compare what the issuer publishes now with what is trusted",
		Long: `Fetch the issuer's keys from this machine, within the controller's bounds, admit
them as the controller does, and compare them with the trusted ones. With --candidate,
compare the quarantined set that the controller saw instead, and fetch nothing.

Exit codes: 0 no difference, 2 a difference, 1 the command failed.`,
		Example:           "  kubectl jwks diff auth0 -n orders\n  kubectl jwks diff auth0 -n orders --candidate",
		Args:              oneName,
		ValidArgsFunction: c.completeIssuer,
		RunE: func(cmd *cobra.Command, args []string) error {
			issuer, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var d difference
			if candidate {
				d, err = candidateDifference(issuer)
			} else {
				d, err = c.publishedDifference(cmd.Context(), issuer, egress)
			}
			if err != nil {
				return err
			}
			return c.printDifference(d, output)
		},
	}
	cmd.Flags().BoolVar(&candidate, "candidate", false, "Compare the quarantined set that the controller saw")
	egress.register(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// publishedDifference fetches.
func (c *cli) publishedDifference(ctx context.Context, issuer api.Issuer, egress egressOptions) (difference, error) {
	if issuer.IssuerSpec().Static() {
		return difference{}, advise("kubectl jwks describe "+argumentsFor(issuer)+" shows them.", "the keys of %s are given inline: nothing is fetched", describedAs(issuer))
	}
	f, err := c.fetcher(ctx, egress)
	if err != nil {
		return difference{}, err
	}
	defer f.Close()
	doc, uri, err := c.fetchKeys(ctx, f, issuer)
	if err != nil {
		return difference{}, fromHere(err)
	}
	parsed, err := keyset.Parse(doc.Body, admission(issuer))
	d := difference{Seen: "this machine", URL: uri}
	for _, s := range parsed.Skipped {
		d.Skipped = append(d.Skipped, skippedKey{s.KeyID, s.Reason})
	}
	for _, k := range parsed.Compromised {
		d.Exposed = append(d.Exposed, keyName(k.KeyID))
	}
	if err != nil {
		var problem *keyset.Error
		if errors.As(err, &problem) {
			do := "The last good keys stay trusted until they expire."
			if len(d.Exposed) > 0 {
				do = "Once the controller has seen it, these keys are refused, the last good copy included: kubectl jwks refresh " + argumentsFor(issuer)
			}
			return difference{}, advise(do, "%s publishes no usable keys (%s): %s", uri, problem.Reason, problem.Message)
		}
		return difference{}, err
	}
	d.Digest = parsed.Set.Digest()
	d.compare(issuer, parsed.Set.Refs(), describeSet(parsed.Set))
	d.Next = nextStep(issuer, d, parsed.Set)
	return d, nil
}

// candidateDifference compares the quarantined keys that status lists. Which trusted ones
// their set has too is not recorded; but where that is why it waits, it has none.
func candidateDifference(issuer api.Issuer) (difference, error) {
	r := issuer.IssuerStatus().Rotation
	if r == nil || r.CandidateDigest == "" {
		return difference{}, advise("Without --candidate, diff asks the issuer from this machine.", "no key set of %s waits for approval", describedAs(issuer))
	}
	d := difference{Seen: "the controller", URL: issuer.IssuerStatus().JWKSURI, Digest: r.CandidateDigest}
	next := refsOf(keysIn(issuer, api.KeyQuarantined))
	if c := meta.FindStatusCondition(issuer.IssuerStatus().Conditions, api.ConditionRotationSuspended); c == nil || c.Reason != api.ReasonNoOverlap {
		next = append(next, refsIn(issuer)...)
		d.Unknown = "Which trusted keys it leaves out is not recorded; without --candidate, diff asks the issuer."
	}
	d.compare(issuer, next, map[string]string{})
	d.Next = "Nothing of it is trusted until somebody approves it: kubectl jwks approve " + argumentsFor(issuer)
	return d, nil
}

// describeSet says what each key of a set is, by thumbprint.
func describeSet(set *keyset.Set) map[string]string {
	known := map[string]string{}
	for _, k := range set.Keys() {
		known[k.Thumbprint()] = size(api.KeyStatus{KeyType: k.KeyType(), Curve: k.Curve(), Bits: int32(k.Bits())}) + " " + string(k.Algorithm()) //nolint:gosec // at most 8192
	}
	return known
}

// compare fills in the difference between the trusted keys and the next ones.
func (d *difference) compare(issuer api.Issuer, next []keyset.Ref, known map[string]string) {
	for _, k := range issuer.IssuerStatus().Keys {
		if known[k.Thumbprint] == "" {
			known[k.Thumbprint] = size(k) + " " + k.Algorithm
		}
	}
	change := keyset.Diff(refsIn(issuer), next)
	keys := func(refs []keyset.Ref) []diffKey {
		var out []diffKey
		for _, r := range refs {
			out = append(out, diffKey{r.KeyID, r.Thumbprint, strings.TrimSpace(known[r.Thumbprint])})
		}
		return out
	}
	d.Added, d.Removed, d.Replaced = keys(change.Added), keys(change.Removed), keys(change.Replaced)
	d.Same = change.Empty()
}

// nextStep says what the controller will make of a published set.
func nextStep(issuer api.Issuer, d difference, set *keyset.Set) string {
	refresh := "kubectl jwks refresh " + argumentsFor(issuer)
	fresh := len(d.Added) + len(d.Replaced)
	switch policy := issuer.IssuerSpec().RotationPolicyOrDefault(); {
	case d.Same:
		return ""
	case issuer.IssuerSpec().Suspended():
		return "Nothing happens: spec.suspend stops all fetches."
	case policy == api.RotationRequireApproval && fresh > 0,
		policy == api.RotationRequireOverlap && len(refsIn(issuer)) > 0 && fresh == set.Len():
		return "The controller will quarantine this set: ask the issuer's owner, then: " + refresh + "; kubectl jwks approve " + argumentsFor(issuer)
	case fresh == 0:
		return "Keys that are missing are dropped after a second look, " + grace(issuer) + ". To have the first look now: " + refresh
	}
	return "The controller takes it over at the next refresh. To have that now: " + refresh
}

func grace(issuer api.Issuer) string {
	if g := issuer.IssuerSpec().RetirementGraceOrDefault(); g > 0 {
		return "and a grace period of " + g.String()
	}
	return "30 s later"
}

// fromHere says that an error of a fetch is this machine's.
func fromHere(err error) error {
	var problem *fetch.Error
	if !errors.As(err, &problem) {
		return err
	}
	do := "The controller may fare better: kubectl jwks describe shows its last attempt. diff --candidate fetches nothing."
	if problem.Reason == fetch.EgressBlocked {
		do = "Give the controller's policy: --egress-allow-cidr=CIDR (as in the flag of its Deployment)."
	}
	return advise(do, "from this machine: %s", problem.Error())
}

func (c *cli) printDifference(d difference, output string) error {
	if structured(output) {
		if err := encode(c.Out, output, d); err != nil {
			return err
		}
	} else if err := d.print(c.Out); err != nil {
		return err
	}
	if d.Same {
		return nil
	}
	return exitCode(exitNo)
}

func (d difference) print(w io.Writer) error {
	if d.URL != "" {
		fmt.Fprintf(w, "Published at %s, as seen by %s, against what is trusted:\n\n", d.URL, d.Seen)
	} else {
		fmt.Fprintf(w, "Published, as seen by %s, against what is trusted:\n\n", d.Seen)
	}
	var rows [][]string
	add := func(sign, what string, keys []diffKey) {
		for _, k := range keys {
			rows = append(rows, []string{sign, keyName(k.KeyID), orDash(k.Key), k.Thumbprint, what})
		}
	}
	add("+", "new", d.Added)
	add("~", "NEW KEY UNDER AN OLD KID: ask the issuer why", d.Replaced)
	add("-", "no longer published", d.Removed)
	for _, s := range d.Skipped {
		rows = append(rows, []string{"!", keyName(s.KeyID), "-", "-", "left out: " + s.Reason})
	}
	if d.Same {
		fmt.Fprintln(w, "  No difference.")
	}
	if err := table(w, "  ", rows); err != nil {
		return err
	}
	if len(d.Exposed) > 0 {
		fmt.Fprintf(w, "\nPUBLISHED WITH THEIR PRIVATE PART: %s. Have the issuer make new keys, at once.\n", strings.Join(d.Exposed, ", "))
	}
	if d.Digest != "" {
		fmt.Fprintf(w, "\nDigest of the published set: %s\n", d.Digest)
	}
	for _, line := range []string{d.Next, d.Unknown} {
		if line != "" {
			fmt.Fprintln(w, line)
		}
	}
	return nil
}

// writeChange shows a change by kid.
func writeChange(w io.Writer, change keyset.Change) error {
	var rows [][]string
	for _, part := range []struct {
		sign, what string
		refs       []keyset.Ref
	}{{"+", "new", change.Added}, {"~", "NEW KEY UNDER AN OLD KID", change.Replaced}, {"-", "no longer trusted", change.Removed}} {
		for _, r := range part.refs {
			rows = append(rows, []string{part.sign, keyName(r.KeyID), r.Thumbprint, part.what})
		}
	}
	return table(w, "  ", rows)
}
