// fetching.go fetches from this machine, with the controller's bounds.

package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

// egressOptions say where this machine may fetch from.
type egressOptions struct{ allow []string }

func (o *egressOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&o.allow, "egress-allow-cidr", nil, "Addresses, besides public ones, that keys may be fetched from; those of the controller's flag, where its Deployment can be read, without it")
}

// fetcher fetches within the administrator's egress policy.
func (c *cli) fetcher(ctx context.Context, o egressOptions) (*fetch.Fetcher, error) {
	allow := o.allow
	if allow == nil {
		allow = c.controllersEgress(ctx)
	}
	egress, err := fetch.ParseEgress(allow)
	if err != nil {
		return nil, fmt.Errorf("--egress-allow-cidr: %w", err)
	}
	return fetch.New(fetch.Options{Egress: egress, UserAgent: version.Get().UserAgent(programName)}), nil
}

// controllersEgress is the policy of the running controller; none for those who may
// not read its Deployment.
func (c *cli) controllersEgress(ctx context.Context) []string {
	deployments, err := c.deployments(ctx)
	if err != nil {
		return nil
	}
	var allow []string
	for i := range deployments {
		allow = append(allow, argumentValues(&deployments[i], "egress-allow-cidr")...)
	}
	return allow
}

// deployments are those of jwks-trust-manager.
func (c *cli) deployments(ctx context.Context) ([]appsv1.Deployment, error) {
	kube, err := c.connect()
	if err != nil {
		return nil, err
	}
	var list appsv1.DeploymentList
	if err := kube.List(ctx, &list, client.InNamespace(c.operatorNamespace)); err != nil {
		return nil, err
	}
	var ours []appsv1.Deployment
	for i := range list.Items {
		if managerOf(&list.Items[i]) != nil {
			ours = append(ours, list.Items[i])
		}
	}
	return ours, nil
}

// managerOf is the container that runs the manager; nil where there is none.
func managerOf(d *appsv1.Deployment) *corev1.Container {
	for i := range d.Spec.Template.Spec.Containers {
		if c := &d.Spec.Template.Spec.Containers[i]; c.Name == "manager" {
			return c
		}
	}
	return nil
}

// arguments are the manager's as its container gets them: Kubernetes puts variables of
// the environment in for $(NAME), and one dollar for two. Those that the Deployment does
// not say, but for the namespace's, stay as they are.
func arguments(d *appsv1.Deployment) []string {
	known := map[string]string{}
	for _, variable := range managerOf(d).Env {
		switch from := variable.ValueFrom; {
		case from == nil:
			known[variable.Name] = variable.Value
		case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.namespace":
			known[variable.Name] = d.Namespace
		}
	}
	var args []string
	for _, arg := range managerOf(d).Args {
		args = append(args, reference.ReplaceAllStringFunc(arg, func(found string) string {
			if value, ok := known[strings.Trim(found, "$()")]; ok {
				return value
			}
			return strings.Replace(found, "$$", "$", 1)
		}))
	}
	return args
}

// reference is what Kubernetes replaces in arguments.
var reference = regexp.MustCompile(`\$\$|\$\([^$()]+\)`)

// argumentValues are the values of a flag of the manager's, which may be given
// several times, and with commas.
func argumentValues(d *appsv1.Deployment, name string) []string {
	var values []string
	args := arguments(d)
	for i, arg := range args {
		flag := strings.TrimLeft(arg, "-")
		switch value, found := strings.CutPrefix(flag, name+"="); {
		case found:
			values = append(values, strings.Split(value, ",")...)
		case flag == name && flag != arg && i+1 < len(args):
			values = append(values, strings.Split(args[i+1], ",")...)
		}
	}
	return values
}

// fetchKeys gets the issuer's document, from where it says that its keys are.
func (c *cli) fetchKeys(ctx context.Context, f *fetch.Fetcher, issuer api.Issuer) (*fetch.Document, string, error) {
	spec := issuer.IssuerSpec()
	roots, err := c.caBundle(ctx, issuer)
	if err != nil {
		return nil, "", err
	}
	request := fetch.Request{CABundle: roots, NoCache: true}
	if spec.MaxRedirects != nil {
		request.MaxRedirects = int(*spec.MaxRedirects)
	}
	if request.URL = spec.JWKSURI; request.URL == "" {
		if request.URL, err = f.Discover(ctx, request, spec.Issuer, spec.DiscoveryURL); err != nil {
			return nil, "", err
		}
	}
	doc, err := f.Fetch(ctx, request)
	return doc, request.URL, err
}

// caBundle is the PEM text that the spec gives or names; nil for this machine's
// roots, which may differ from those of the controller's image.
func (c *cli) caBundle(ctx context.Context, issuer api.Issuer) ([]byte, error) {
	spec := issuer.IssuerSpec()
	ref := spec.CABundleRef
	if spec.CABundle != "" {
		return []byte(spec.CABundle), nil
	}
	if ref == nil {
		return nil, nil
	}
	kube, err := c.connect()
	if err != nil {
		return nil, err
	}
	switch {
	case ref.ConfigMap != nil:
		at := client.ObjectKey{Namespace: issuer.GetNamespace(), Name: ref.ConfigMap.Name}
		if at.Namespace == "" {
			at.Namespace = c.operatorNamespace
		}
		var cm corev1.ConfigMap
		if err := kube.Get(ctx, at, &cm); err != nil {
			return nil, fmt.Errorf("spec.caBundleRef.configMap: %w", err)
		}
		return []byte(cm.Data[ref.ConfigMap.Key]), nil // empty text is refused, and does not widen trust
	case ref.ClusterTrustBundle != nil:
		var bundle certificatesv1.ClusterTrustBundle
		if err := kube.Get(ctx, client.ObjectKey{Name: ref.ClusterTrustBundle.Name}, &bundle); err != nil {
			return nil, fmt.Errorf("spec.caBundleRef.clusterTrustBundle: %w", err)
		}
		return []byte(bundle.Spec.TrustBundle), nil
	}
	return nil, advise("Set configMap or clusterTrustBundle.", "spec.caBundleRef of %s names nothing", describedAs(issuer))
}
