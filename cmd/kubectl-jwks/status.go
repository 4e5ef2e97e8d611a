// status.go is `kubectl jwks status`: all issuers in a table, trouble first.

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// statusRow is one issuer.
type statusRow struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Issuer    string `json:"issuer"`
	// Ready is True, False or Unknown, and State Pending, Fresh, Stale or Expired.
	Ready           string       `json:"ready"`
	State           string       `json:"state"`
	Keys            int32        `json:"keys"`
	LastSuccessTime *metav1.Time `json:"lastSuccessTime,omitempty"`
	ExpiresAt       *metav1.Time `json:"expiresAt,omitempty"`
	NextRefreshTime *metav1.Time `json:"nextRefreshTime,omitempty"`
	LastRotation    *metav1.Time `json:"lastRotationTime,omitempty"`
	Troubles        []trouble    `json:"troubles,omitempty"`

	label string
}

func newStatus(c *cli) *cobra.Command {
	var allNamespaces, fail bool
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show all issuers, those with trouble first",
		Long: `Show the TrustedIssuers of the namespace, or of all, and the
ClusterTrustedIssuers: whether they are ready, how fresh their keys are, when these
last changed, and who is failing and why. Trouble comes first.`,
		Example: `  kubectl jwks status -A
  kubectl jwks status -A -o wide               # whole messages, and what to do
  kubectl jwks status -A --fail > /dev/null || echo "look!"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows, err := c.statusRows(cmd.Context(), allNamespaces)
			if err != nil {
				return err
			}
			if err := c.printStatus(rows, output, allNamespaces); err != nil {
				return err
			}
			if fail && slices.ContainsFunc(rows, func(r statusRow) bool { return worst(r.Troubles) < notice }) {
				return exitCode(exitNo)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&allNamespaces, "all-namespaces", "A", false, "The TrustedIssuers of all namespaces")
	cmd.Flags().BoolVar(&fail, "fail", false, "Exit with 2 where an issuer is critical or degraded")
	outputFlag(cmd, &output, "wide")
	return cmd
}

func (c *cli) statusRows(ctx context.Context, allNamespaces bool) ([]statusRow, error) {
	issuers, err := c.list(ctx, allNamespaces)
	if err != nil {
		return nil, err
	}
	rows := make([]statusRow, 0, len(issuers))
	for _, issuer := range issuers {
		rows = append(rows, rowOf(issuer, c.now()))
	}
	slices.SortStableFunc(rows, func(a, b statusRow) int {
		return cmp.Or(cmp.Compare(worst(a.Troubles), worst(b.Troubles)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	return rows, nil
}

func rowOf(issuer api.Issuer, now time.Time) statusRow {
	s, window := issuer.IssuerStatus(), windowOf(issuer, now)
	state := window.State(now)
	row := statusRow{
		Kind: issuer.IssuerKind(), Namespace: issuer.GetNamespace(), Name: issuer.GetName(), Issuer: issuer.IssuerSpec().Issuer,
		Ready: string(metav1.ConditionUnknown), State: state.String(), ExpiresAt: timeOf(window.ExpiresAt()),
		NextRefreshTime: s.NextRefreshTime, Troubles: troublesOf(issuer, now), label: nameOf(issuer),
	}
	if ready := meta.FindStatusCondition(s.Conditions, api.ConditionReady); ready != nil {
		row.Ready = string(ready.Status)
	}
	if state == snapshot.Expired { // said also where no controller runs to say it
		row.Ready = string(metav1.ConditionFalse)
	}
	if s.Snapshot != nil {
		row.Keys, row.LastSuccessTime = s.Snapshot.Keys, s.Snapshot.LastSuccessTime
	}
	if s.Rotation != nil {
		row.LastRotation = s.Rotation.LastRotationTime
	}
	return row
}

func (c *cli) printStatus(rows []statusRow, output string, allNamespaces bool) error {
	if structured(output) {
		return encode(c.Out, output, map[string]any{"issuers": rows})
	}
	if len(rows) == 0 {
		where := "in this namespace (-A shows all)"
		if allNamespaces {
			where = "in this cluster"
		}
		fmt.Fprintf(c.ErrOut, "There are no TrustedIssuers %s, and no ClusterTrustedIssuers.\n", where)
		return nil
	}
	now := c.now()
	lines := [][]string{{"NAMESPACE", "NAME", "READY", "STATE", "CONFIRMED", "EXPIRES", "KEYS", "ROTATED", "NEXT", "TROUBLE"}}
	for _, r := range rows {
		line := []string{
			orDash(r.Namespace), r.label, r.Ready, r.State, age(r.LastSuccessTime, now), ahead(r.ExpiresAt, now),
			fmt.Sprint(r.Keys), age(r.LastRotation, now), nextTry(r.NextRefreshTime, now), troubleColumn(r.Troubles, output == "wide"),
		}
		lines = append(lines, line)
	}
	if err := table(c.Out, "", lines); err != nil || output != "wide" {
		return err
	}
	return c.printTroubles(rows)
}

// troubleColumn is the worst trouble, as far as a column has room for it.
func troubleColumn(found []trouble, wide bool) string {
	if len(found) == 0 {
		return "-"
	}
	text := found[0].Reason
	if more := len(found) - 1; more > 0 {
		text += fmt.Sprintf(" (+%d)", more)
	}
	if wide || found[0].Message == "" {
		return text
	}
	return short(text+": "+found[0].Message, 80)
}

// printTroubles shows all of it below the table.
func (c *cli) printTroubles(rows []statusRow) error {
	for _, r := range rows {
		if len(r.Troubles) == 0 {
			continue
		}
		fmt.Fprintf(c.Out, "\n%s %s\n", orDash(r.Namespace), r.label)
		for _, t := range r.Troubles {
			writeTrouble(c.Out, t)
		}
	}
	return nil
}
