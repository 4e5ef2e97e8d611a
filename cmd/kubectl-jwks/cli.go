// cli.go is what all commands share: flags, the client, names of issuers.

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

// programName is how we are called in logs of others.
const programName = "kubectl-jwks"

// cli is what all commands share.
type cli struct {
	genericiooptions.IOStreams

	flags             *genericclioptions.ConfigFlags
	operatorNamespace string
	now               func() time.Time

	// client is made when it is first needed; tests put another one here.
	client client.Client
}

func newCLI(streams genericiooptions.IOStreams) *cli {
	log.SetLogger(logr.Discard()) // a library complains, to the terminal, where nobody did
	return &cli{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true), now: time.Now}
}

// scheme knows what is read and written.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	return s, nil
}

// config says how to reach the API server.
func (c *cli) config() (*rest.Config, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{} // the API server has its own limits
	config.UserAgent = version.Get().UserAgent(programName)
	return config, nil
}

// connect makes the client.
func (c *cli) connect() (client.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	c.client, err = client.New(config, client.Options{Scheme: s})
	return c.client, err
}

// namespace is the one of --namespace, or of the context.
func (c *cli) namespace() (string, error) {
	ns, _, err := c.flags.ToRawKubeConfigLoader().Namespace()
	return ns, err
}

// issuerName is what people write for an issuer object: a name, or kind/name.
type issuerName struct {
	kind string // empty for either
	name string
}

// kindNames are the names of the kinds, as kubectl takes them.
var kindNames = map[string]string{
	"ti": api.TrustedIssuerKind, "trustedissuer": api.TrustedIssuerKind, "trustedissuers": api.TrustedIssuerKind,
	"cti": api.ClusterTrustedIssuerKind, "clustertrustedissuer": api.ClusterTrustedIssuerKind, "clustertrustedissuers": api.ClusterTrustedIssuerKind,
}

// shortKind is the short name of a kind.
func shortKind(kind string) string {
	if kind == api.ClusterTrustedIssuerKind {
		return "cti"
	}
	return "ti"
}

func parseIssuerName(arg string) (issuerName, error) {
	prefix, name, found := strings.Cut(arg, "/")
	if !found {
		return issuerName{name: arg}, nil
	}
	kind := kindNames[strings.ToLower(strings.SplitN(prefix, ".", 2)[0])]
	if kind == "" || name == "" {
		return issuerName{}, advise("Write ti/NAME for a TrustedIssuer (with -n NAMESPACE), cti/NAME for a ClusterTrustedIssuer, or NAME alone.", "%q does not name an issuer", arg)
	}
	return issuerName{kind, name}, nil
}

// find reads the one issuer object that is meant: a TrustedIssuer of the namespace,
// or a ClusterTrustedIssuer.
func (c *cli) find(ctx context.Context, arg string) (api.Issuer, error) {
	n, err := parseIssuerName(arg)
	if err != nil {
		return nil, err
	}
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	kube, err := c.connect()
	if err != nil {
		return nil, err
	}
	var found []api.Issuer
	for _, candidate := range []struct {
		issuer api.Issuer
		key    client.ObjectKey
	}{
		{&api.TrustedIssuer{}, client.ObjectKey{Namespace: ns, Name: n.name}},
		{&api.ClusterTrustedIssuer{}, client.ObjectKey{Name: n.name}},
	} {
		if n.kind != "" && n.kind != candidate.issuer.IssuerKind() {
			continue
		}
		err := kube.Get(ctx, candidate.key, candidate.issuer)
		switch {
		case err == nil:
			found = append(found, candidate.issuer)
		case apierrors.IsNotFound(err):
		case apierrors.IsForbidden(err) && n.kind == "" && candidate.key.Namespace == "":
			// Tenants may not see the cluster's issuers, and mean their own.
		default:
			return nil, err
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 2:
		return nil, advise(fmt.Sprintf("Say which: ti/%[1]s or cti/%[1]s.", n.name), "there is a TrustedIssuer %s in namespace %s, and a ClusterTrustedIssuer of that name", n.name, ns)
	}
	return nil, c.notFound(n, ns)
}

func (c *cli) notFound(n issuerName, ns string) error {
	const see = "`kubectl jwks status -A` shows all that there are; -n chooses another namespace."
	switch n.kind {
	case api.TrustedIssuerKind:
		return advise(see, "there is no TrustedIssuer %s in namespace %s", n.name, ns)
	case api.ClusterTrustedIssuerKind:
		return advise(see, "there is no ClusterTrustedIssuer %s", n.name)
	}
	return advise(see, "there is no TrustedIssuer %s in namespace %s, and no ClusterTrustedIssuer of that name that you may see", n.name, ns)
}

// list reads the TrustedIssuers of the namespace, or of all, and the
// ClusterTrustedIssuers. Who may not see the latter gets the former.
func (c *cli) list(ctx context.Context, allNamespaces bool) ([]api.Issuer, error) {
	kube, err := c.connect()
	if err != nil {
		return nil, err
	}
	var in []client.ListOption
	if !allNamespaces {
		ns, err := c.namespace()
		if err != nil {
			return nil, err
		}
		in = append(in, client.InNamespace(ns))
	}
	var issuers []api.Issuer
	var own api.TrustedIssuerList
	if err := kube.List(ctx, &own, in...); err != nil {
		return nil, err
	}
	for i := range own.Items {
		issuers = append(issuers, &own.Items[i])
	}
	var cluster api.ClusterTrustedIssuerList
	if err := kube.List(ctx, &cluster); err != nil {
		if !apierrors.IsForbidden(err) {
			return nil, err
		}
		fmt.Fprintln(c.ErrOut, "ClusterTrustedIssuers are left out: you may not list them.")
	}
	for i := range cluster.Items {
		issuers = append(issuers, &cluster.Items[i])
	}
	return issuers, nil
}

// nameOf names an issuer object as the commands take it.
func nameOf(issuer api.Issuer) string { return shortKind(issuer.IssuerKind()) + "/" + issuer.GetName() }

// describedAs names an issuer object for people.
func describedAs(issuer api.Issuer) string {
	if ns := issuer.GetNamespace(); ns != "" {
		return issuer.IssuerKind() + " " + ns + "/" + issuer.GetName()
	}
	return issuer.IssuerKind() + " " + issuer.GetName()
}

// argumentsFor are those that name the issuer on a command line.
func argumentsFor(issuer api.Issuer) string {
	if ns := issuer.GetNamespace(); ns != "" {
		return nameOf(issuer) + " -n " + ns
	}
	return nameOf(issuer)
}
