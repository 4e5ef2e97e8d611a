// root.go puts the commands together.

package main

import (
	"github.com/spf13/cobra"
)

// operatorNamespace is where the shipped manifests install the operator.
const operatorNamespace = "jwks-trust-system"

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-jwks",
		Short: "See and steer which JWT issuers a cluster trusts",
		Long: `See and steer which JWT issuers a cluster trusts (jwks-trust-manager).

NAME is that of a TrustedIssuer in the namespace, or of a ClusterTrustedIssuer;
ti/NAME and cti/NAME tell them apart.

Exit codes: 0 all is well; 1 the command could not do its work; 2 it could, and
the answer is no (refused, different, failed); 3 verify cannot decide.`,
		Example: `  kubectl jwks status -A                       # trouble comes first
  kubectl jwks describe auth0 -n orders        # keys, conditions, events
  kubectl jwks verify - -n orders < token.txt  # why is this token refused?
  kubectl jwks check                           # is everything in place?`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl jwks"},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.ErrOut)
	c.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&c.operatorNamespace, "operator-namespace", operatorNamespace, "Namespace of jwks-trust-manager itself")
	root.AddCommand(
		newStatus(c), newDescribe(c), newVerify(c), newRefresh(c), newDiff(c), newApprove(c), newExport(c), newCheck(c), newVersion(c),
	)
	_ = root.RegisterFlagCompletionFunc("namespace", c.completeNamespace) // it fails for a flag that does not exist
	return root
}
