// completion.go completes names from the cluster. Scripts for the shells come with
// cobra's command `completion`.

package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// completeNamespace completes the value of --namespace.
func (c *cli) completeNamespace(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
	defer cancel()
	kube, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var list corev1.NamespaceList
	if err := kube.List(ctx, &list); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for i := range list.Items {
		if strings.HasPrefix(list.Items[i].Name, toComplete) {
			names = append(names, list.Items[i].Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeIssuer completes the names of issuers, from the cluster.
func (c *cli) completeIssuer(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
	defer cancel()
	issuers, err := c.list(ctx, false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, issuer := range issuers {
		name := nameOf(issuer)
		if !strings.Contains(toComplete, "/") {
			name = issuer.GetName()
		}
		if strings.HasPrefix(name, toComplete) {
			names = append(names, name+"\t"+issuer.IssuerSpec().Issuer)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
