// check.go is `kubectl jwks check`: is everything in place, and may I?

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// The results of a check.
const (
	checkOK      = "ok"
	checkFailed  = "FAILED"
	checkWarning = "warning"
	checkSkipped = "skipped"
)

// checked is what one check found.
type checked struct {
	Group  string `json:"group"`
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
	Do     string `json:"do,omitempty"`
}

// checker makes the checks.
type checker struct {
	*cli

	ctx           context.Context //nolint:containedctx // a checker lives for one command
	allNamespaces bool
	verifierURL   string
	authority     string
	egress        egressOptions
	timeout       time.Duration
	found         []checked
}

func newCheck(c *cli) *cobra.Command {
	k := &checker{cli: c}
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that everything is in place: installation, rights, ways out, the verifier",
		Long: `Check, in this order:

  installation  the CRDs are there, Deployments available, one replica leads
  rights        what you may do, command by command
  issuers       each issuer's keys can be fetched FROM THIS MACHINE within the
                controller's egress policy (the controller's own attempts: status)
  algorithms    keys that kube-apiserver's own OIDC does not know
  verifier      it answers, at --verifier-url or through the Service

A right that you lack is a warning: others have it. Exit codes: 0 nothing failed,
2 something did, 1 the command failed.`,
		Example: "  kubectl jwks check -A\n  kubectl jwks check --verifier-url https://jwks.example.com --verifier-ca ca.crt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k.ctx = cmd.Context()
			if err := k.all(); err != nil {
				return err
			}
			return k.report(output)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&k.allNamespaces, "all-namespaces", "A", false, "The TrustedIssuers of all namespaces")
	f.StringVar(&k.verifierURL, "verifier-url", "", "URL of the verifier from this machine (default: through the API server's proxy to the Service)")
	f.StringVar(&k.authority, "verifier-ca", "", "PEM file with the authority of the verifier's certificate (default the ConfigMap "+authorityName+")")
	f.DurationVar(&k.timeout, "timeout", 10*time.Second, "How long to wait for the verifier")
	k.egress.register(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// add notes what a check found.
func (k *checker) add(group, name, result, detail, do string) {
	k.found = append(k.found, checked{group, name, result, plain(detail), do})
}

func (k *checker) all() error {
	if _, err := k.connect(); err != nil {
		return err
	}
	installed, err := k.checkCRDs()
	if err != nil {
		return err
	}
	k.checkDeployments()
	k.checkLeader()
	k.checkRights()
	if installed {
		k.checkIssuers()
	}
	k.checkVerifier()
	return nil
}

func (k *checker) report(output string) error {
	failed := 0
	for _, f := range k.found {
		if f.Result == checkFailed {
			failed++
		}
	}
	if structured(output) {
		if err := encode(k.Out, output, map[string]any{"checks": k.found, "failed": failed}); err != nil {
			return err
		}
	} else {
		k.print(failed)
	}
	if failed > 0 {
		return exitCode(exitNo)
	}
	return nil
}

func (k *checker) print(failed int) {
	var rows [][]string
	group := ""
	flush := func() {
		_ = table(k.Out, "  ", rows) // what cannot be written cannot be told either
		rows = nil
	}
	for _, f := range k.found {
		if f.Group != group {
			flush()
			group = f.Group
			fmt.Fprintf(k.Out, "%s\n", group)
		}
		rows = append(rows, []string{f.Result, f.Name, f.Detail})
		if f.Do != "" {
			rows = append(rows, []string{"", "", "-> " + f.Do})
		}
	}
	flush()
	if failed == 0 {
		fmt.Fprintln(k.Out, "\nNothing failed.")
		return
	}
	fmt.Fprintf(k.Out, "\n%s failed.\n", count(failed, "check"))
}
