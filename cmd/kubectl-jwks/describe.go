// describe.go is `kubectl jwks describe`: all that is known of one issuer.

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// description is the answer for programs; people get the same in sections.
type description struct {
	statusRow

	Audiences    []string                `json:"audiences"`
	JWKSURI      string                  `json:"jwksURI,omitempty"`
	Snapshot     *api.SnapshotStatus     `json:"snapshot,omitempty"`
	LastAttempt  *api.AttemptStatus      `json:"lastAttempt,omitempty"`
	Conditions   []metav1.Condition      `json:"conditions,omitempty"`
	KeyList      []api.KeyStatus         `json:"keyList,omitempty"`
	Compromised  []api.CompromisedKey    `json:"compromisedKeys,omitempty"`
	Rotation     *api.RotationStatus     `json:"rotation,omitempty"`
	Distribution *api.DistributionStatus `json:"distribution,omitempty"`
	Events       []eventLine             `json:"events,omitempty"`
	Policy       string                  `json:"rotationPolicy"`

	issuer api.Issuer
	// eventsProblem says why there are no events.
	eventsProblem string
}

// eventLine is an event of the issuer's.
type eventLine struct {
	Time    metav1.Time `json:"time"`
	Type    string      `json:"type"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	Count   int32       `json:"count"`
}

func newDescribe(c *cli) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:               "describe NAME",
		Short:             "Show all that is known of an issuer: keys, conditions, rotations, events",
		Example:           "  kubectl jwks describe auth0 -n orders\n  kubectl jwks describe cti/login -o yaml",
		Args:              oneName,
		ValidArgsFunction: c.completeIssuer,
		RunE: func(cmd *cobra.Command, args []string) error {
			issuer, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			d := c.describe(cmd.Context(), issuer)
			if structured(output) {
				return encode(c.Out, output, d)
			}
			return d.print(c.Out, c.now())
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// oneName demands one argument.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return advise("`kubectl jwks status` shows the names; `"+cmd.CommandPath()+" --help` has an example.", "%s needs the NAME of one issuer", cmd.CommandPath())
	}
	return nil
}

func (c *cli) describe(ctx context.Context, issuer api.Issuer) description {
	s := issuer.IssuerStatus()
	d := description{
		statusRow: rowOf(issuer, c.now()), issuer: issuer,
		Audiences: issuer.IssuerSpec().Audiences, JWKSURI: s.JWKSURI, Snapshot: s.Snapshot, LastAttempt: s.LastAttempt,
		Conditions: s.Conditions, KeyList: s.Keys, Compromised: s.CompromisedKeys, Rotation: s.Rotation, Distribution: s.Distribution,
		Policy: string(issuer.IssuerSpec().RotationPolicyOrDefault()),
	}
	var err error
	if d.Events, err = c.eventsOf(ctx, issuer); err != nil {
		d.eventsProblem = err.Error()
	}
	return d
}

// maxEvents is how many events are shown.
const maxEvents = 15

// eventsOf are the issuer's newest events, the newest first.
func (c *cli) eventsOf(ctx context.Context, issuer api.Issuer) ([]eventLine, error) {
	kube, err := c.connect()
	if err != nil {
		return nil, err
	}
	ns := issuer.GetNamespace()
	if ns == "" {
		ns = metav1.NamespaceDefault // where events of objects without a namespace go
	}
	var list corev1.EventList
	if err := kube.List(ctx, &list, client.InNamespace(ns), client.MatchingFields{"involvedObject.uid": string(issuer.GetUID())}); err != nil {
		return nil, err
	}
	lines := make([]eventLine, 0, len(list.Items))
	for i := range list.Items {
		lines = append(lines, lineOf(&list.Items[i]))
	}
	slices.SortStableFunc(lines, func(a, b eventLine) int { return b.Time.Compare(a.Time.Time) })
	return lines[:min(len(lines), maxEvents)], nil
}

// lineOf reads an event in either of the forms that there are.
func lineOf(e *corev1.Event) eventLine {
	line := eventLine{Time: e.LastTimestamp, Type: e.Type, Reason: e.Reason, Message: plain(e.Message), Count: max(1, e.Count)}
	if line.Time.IsZero() {
		line.Time = metav1.NewTime(e.EventTime.Time)
	}
	if e.Series != nil {
		line.Time, line.Count = metav1.NewTime(e.Series.LastObservedTime.Time), e.Series.Count
	}
	if line.Time.IsZero() {
		line.Time = e.CreationTimestamp
	}
	return line
}

func (d description) print(w io.Writer, now time.Time) error {
	for _, section := range []func(io.Writer, time.Time) error{
		d.printHead, d.printTroubles, d.printKeys, d.printRotation, d.printDistribution, d.printConditions, d.printEvents,
	} {
		if err := section(w, now); err != nil {
			return err
		}
	}
	return nil
}

func (d description) printHead(w io.Writer, now time.Time) error {
	rows := [][]string{{"Name:", d.Name}}
	add := func(name, value string) { rows = append(rows, []string{name, value}) }
	if d.Namespace != "" {
		add("Namespace:", d.Namespace)
	}
	add("Kind:", d.Kind)
	add("Issuer:", d.Issuer)
	add("Audiences:", strings.Join(d.Audiences, ", "))
	add("Keys from:", d.source())
	add("Ready:", d.Ready)
	add("State:", d.freshness(now))
	if a := d.LastAttempt; a != nil {
		add("Last attempt:", fmt.Sprintf("%s ago: %s. %s", age(&a.Time, now), a.Reason, plain(a.Message)))
	}
	if d.NextRefreshTime != nil {
		add("Next refresh:", nextTry(d.NextRefreshTime, now))
	}
	add("New keys:", policyText(d.issuer.IssuerSpec()))
	if s := d.Snapshot; s != nil && s.Digest != "" {
		add("Digest:", s.Digest)
		if s.PendingDigest != "" {
			add("Publishing:", s.PendingDigest)
		}
		if s.ConfigMapName != "" {
			add("To mount:", "ConfigMap "+s.ConfigMapName)
		}
	}
	return table(w, "", rows)
}

// source is where the keys come from.
func (d description) source() string {
	spec := d.issuer.IssuerSpec()
	switch {
	case spec.Static():
		return "spec.jwks"
	case spec.JWKSURI != "":
		return spec.JWKSURI
	case d.JWKSURI != "":
		return d.JWKSURI + " (discovered)"
	}
	return "discovery, which has not succeeded yet"
}

// freshness is the state in a sentence.
func (d description) freshness(now time.Time) string {
	window := windowOf(d.issuer, now)
	confirmed := "confirmed " + age(d.LastSuccessTime, now) + " ago"
	switch state := window.State(now); {
	case window.Static && state == snapshot.Fresh:
		return "Fresh (static keys do not grow old)"
	case state == snapshot.Fresh:
		return fmt.Sprintf("Fresh: %s; stale %s, expires %s", confirmed, ahead(timeOf(window.FreshUntil()), now), ahead(d.ExpiresAt, now))
	case state == snapshot.Stale:
		return fmt.Sprintf("Stale: %s; still trusted, expires %s", confirmed, ahead(d.ExpiresAt, now))
	case state == snapshot.Expired:
		return fmt.Sprintf("Expired: %s; not trusted since %s", confirmed, ahead(d.ExpiresAt, now))
	}
	return "Pending: the issuer has never confirmed its keys"
}

func policyText(spec *api.IssuerSpec) string {
	text := map[api.RotationPolicy]string{
		api.RotationAutomatic:       "trusted as published (Automatic)",
		api.RotationRequireOverlap:  "approval, where none of the trusted ones is left (RequireOverlap)",
		api.RotationRequireApproval: "approval (RequireApproval)",
	}[spec.RotationPolicyOrDefault()]
	if grace := spec.RetirementGraceOrDefault(); grace > 0 {
		text += "; removed ones trusted for another " + grace.String()
	}
	return text
}

func (d description) printTroubles(w io.Writer, _ time.Time) error {
	if len(d.Troubles) == 0 {
		fmt.Fprintln(w, "\nTrouble: none")
		return nil
	}
	fmt.Fprintln(w, "\nTrouble:")
	for _, t := range d.Troubles {
		writeTrouble(w, t)
	}
	return nil
}

func writeTrouble(w io.Writer, t trouble) {
	fmt.Fprintf(w, "  %s (%s)\n", t.Reason, t.Severity)
	if t.Message != "" {
		fmt.Fprintf(w, "    %s\n", t.Message)
	}
	if t.Do != "" {
		fmt.Fprintf(w, "    %s\n", t.Do)
	}
}

func (d description) printKeys(w io.Writer, now time.Time) error {
	if len(d.KeyList) == 0 {
		fmt.Fprintln(w, "\nKeys: none")
	} else {
		fmt.Fprintln(w, "\nKeys:")
		rows := [][]string{{"KID", "TYPE", "ALG", "STATE", "FIRST SEEN", "LAST SEEN", "LAST USED", "THUMBPRINT"}}
		for _, k := range d.KeyList {
			state := string(k.State)
			if k.MissingSince != nil {
				state += " (missing " + age(k.MissingSince, now) + ")"
			}
			rows = append(rows, []string{keyName(k.KeyID), size(k), orDash(k.Algorithm), state, age(&k.FirstSeenTime, now), age(&k.LastSeenTime, now), age(k.LastUsedTime, now), k.Thumbprint})
		}
		if err := table(w, "  ", rows); err != nil {
			return err
		}
	}
	if len(d.Compromised) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nCompromised keys (refused):")
	rows := [][]string{{"KID", "SEEN", "THUMBPRINT"}}
	for _, k := range d.Compromised {
		rows = append(rows, []string{keyName(k.KeyID), age(&k.SeenTime, now), k.Thumbprint})
	}
	return table(w, "  ", rows)
}

func (d description) printRotation(w io.Writer, now time.Time) error {
	r := d.Rotation
	if r == nil {
		return nil
	}
	if r.LastRotationTime != nil {
		what := slices.DeleteFunc([]string{kids("added ", r.Added), kids("removed ", r.Removed), kids("REPLACED ", r.Replaced)}, func(s string) bool { return s == "" })
		fmt.Fprintf(w, "\nRotations: %d, the last one %s ago: %s\n", r.Count, age(r.LastRotationTime, now), strings.Join(what, "; "))
	}
	if r.CandidateDigest != "" {
		fmt.Fprintf(w, "\nWaiting for approval: %s\n", r.CandidateDigest)
	}
	if len(r.History) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nKeys that were trusted once:")
	rows := [][]string{{"KID", "FIRST SEEN", "REMOVED", "THUMBPRINT"}}
	for _, k := range r.History {
		rows = append(rows, []string{keyName(k.KeyID), age(&k.FirstSeenTime, now), age(&k.RemovedTime, now), k.Thumbprint})
	}
	return table(w, "  ", rows)
}

// kids lists kids after a word; nothing for none.
func kids(word string, ids []string) string {
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, keyName(id))
	}
	if len(names) == 0 {
		return ""
	}
	return word + strings.Join(names, ", ")
}

func (d description) printDistribution(w io.Writer, _ time.Time) error {
	s := d.Distribution
	if s == nil {
		return nil
	}
	number := func(n *int32) string {
		if n == nil {
			return "?"
		}
		return strconv.Itoa(int(*n))
	}
	fmt.Fprintf(w, "\nCopies: %s of %s namespaces have the current one\n", number(s.Current), number(s.Desired))
	for _, f := range s.Failed {
		fmt.Fprintf(w, "  %s: %s. %s\n", f.Namespace, f.Reason, plain(f.Message))
	}
	return nil
}

func (d description) printConditions(w io.Writer, now time.Time) error {
	if len(d.Conditions) == 0 {
		fmt.Fprintln(w, "\nConditions: none; is the controller running? kubectl jwks check")
		return nil
	}
	fmt.Fprintln(w, "\nConditions:")
	rows := [][]string{{"TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}}
	for _, c := range slices.SortedStableFunc(slices.Values(d.Conditions), func(a, b metav1.Condition) int { return cmp.Compare(order(a.Type), order(b.Type)) }) {
		rows = append(rows, []string{c.Type, string(c.Status), c.Reason, age(&c.LastTransitionTime, now), plain(c.Message)})
	}
	return table(w, "  ", rows)
}

// order puts the conditions that sum up first.
func order(condition string) int {
	return slices.Index([]string{
		api.ConditionKeysRetiring, api.ConditionRotationSuspended, api.ConditionStalled, api.ConditionExpired, api.ConditionStale,
		api.ConditionDistributed, api.ConditionSnapshotPublished, api.ConditionFetched, api.ConditionReady,
	}, condition) * -1
}

func (d description) printEvents(w io.Writer, now time.Time) error {
	switch {
	case d.eventsProblem != "":
		fmt.Fprintf(w, "\nEvents: cannot be read: %s\n", d.eventsProblem)
		return nil
	case len(d.Events) == 0:
		fmt.Fprintln(w, "\nEvents: none (they are kept for an hour, mostly)")
		return nil
	}
	fmt.Fprintln(w, "\nEvents:")
	rows := [][]string{{"AGE", "TYPE", "REASON", "MESSAGE"}}
	for _, e := range d.Events {
		when := age(&e.Time, now)
		if e.Count > 1 {
			when += fmt.Sprintf(" (x%d)", e.Count)
		}
		rows = append(rows, []string{when, e.Type, e.Reason, e.Message})
	}
	return table(w, "  ", rows)
}
