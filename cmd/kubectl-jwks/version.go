// version.go is `kubectl jwks version`.

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

// versions is the answer.
type versions struct {
	Client string `json:"client"`
	// Managers are the images that run in the cluster.
	Managers []managerVersion `json:"managers,omitempty"`
	// Problem says why they are not known.
	Problem string `json:"problem,omitempty"`
}

type managerVersion struct {
	Deployment string `json:"deployment"`
	Image      string `json:"image"`
}

func newVersion(c *cli) *cobra.Command {
	var output string
	var clientOnly bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program, and of the manager in the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: version.Get().String()}
			if !clientOnly {
				c.addManagers(cmd.Context(), &v)
			}
			if structured(output) {
				return encode(c.Out, output, v)
			}
			fmt.Fprintf(c.Out, "kubectl jwks: %s\n", v.Client)
			for _, m := range v.Managers {
				fmt.Fprintf(c.Out, "%s: %s\n", m.Deployment, m.Image)
			}
			if v.Problem != "" {
				fmt.Fprintf(c.ErrOut, "The manager's version is not known: %s\n", v.Problem)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Ask no cluster")
	outputFlag(cmd, &output)
	return cmd
}

// addManagers finds the images of the manager. A cluster that cannot be asked is no
// failure of this command.
func (c *cli) addManagers(ctx context.Context, v *versions) {
	deployments, err := c.deployments(ctx)
	if err != nil {
		v.Problem = explained(err)
		return
	}
	for i := range deployments {
		d := &deployments[i]
		v.Managers = append(v.Managers, managerVersion{d.Namespace + "/" + d.Name, managerOf(d).Image})
	}
	if len(deployments) == 0 {
		v.Problem = fmt.Sprintf("there is no Deployment of it in the namespace %s; --operator-namespace names another.", c.operatorNamespace)
	}
}
