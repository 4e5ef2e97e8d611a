// export.go is `kubectl jwks export`: the trusted keys, or where to find them, in the
// form that others read.

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// What the shipped manifests are called.
const (
	serviceName   = "jwks-trust-manager"
	authorityName = "jwks-trust-manager-ca"
	authorityKey  = "ca.crt"
)

type exportOptions struct {
	c           *cli
	format      string
	target      string
	verifierURL string
	authority   string
	useMirror   bool
}

// exporter writes an issuer in one form.
type exporter func(*exportOptions, context.Context, api.Issuer) (string, error)

var exporters = map[string]exporter{
	"jwks": (*exportOptions).jwks, "pem": (*exportOptions).pem,
	"istio": (*exportOptions).istio, "envoy-gateway": (*exportOptions).envoyGateway,
	"nginx": (*exportOptions).nginx, "authn-config": (*exportOptions).authnConfig,
}

func newExport(c *cli) *cobra.Command {
	o := &exportOptions{c: c}
	formats := slices.Sorted(maps.Keys(exporters))
	cmd := &cobra.Command{
		Use:   "export NAME --format FORMAT",
		Short: "Write the trusted keys, or where they are, as others read them",
		Long: `Write the issuer in one of these forms:

  jwks           the trusted key set, to the byte (RFC 7517)
  pem            the trusted keys as PEM blocks
  istio          a RequestAuthentication with the trusted keys inline (a picture of
                 now: export again after a rotation), or with the mirror's URL
                 (--use-mirror: istiod has to reach it, and trust its certificate)
  envoy-gateway  a SecurityPolicy whose localJWKS reads the ConfigMap
  nginx          forward-auth by the verifier: a part of a server block
  authn-config   an AuthenticationConfiguration for kube-apiserver, which reads its
                 keys from the mirror

Keys are those whose digest stands in the issuer's status; there is no export of keys
that have expired, of a set with a revoked key in it, or of an object that is being
deleted.`,
		Example: `  kubectl jwks export auth0 -n orders --format jwks > keys.json
  kubectl jwks export auth0 -n orders --format envoy-gateway --target HTTPRoute/orders | kubectl apply -f -
  kubectl jwks export cti/login --format authn-config > authentication.yaml`,
		Args:              oneName,
		ValidArgsFunction: c.completeIssuer,
		RunE: func(cmd *cobra.Command, args []string) error {
			write, known := exporters[o.format]
			switch {
			case o.format == "":
				return advise("One of: "+strings.Join(formats, ", ")+".", "export needs --format")
			case !known:
				return advise("Choose one of: "+strings.Join(formats, ", ")+".", "--format: %q is none of the forms", o.format)
			}
			issuer, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := notTrusted(issuer); err != nil {
				return err
			}
			text, err := write(o, cmd.Context(), issuer)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.Out, text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "One of "+strings.Join(formats, ", "))
	f.StringVar(&o.target, "target", "", "envoy-gateway: what the policy is for, as KIND/NAME (default HTTPRoute/<name of the issuer>)")
	f.StringVar(&o.verifierURL, "verifier-url", "", "istio, nginx, authn-config: URL of the verifier as its client reaches it (default that of the Service)")
	f.StringVar(&o.authority, "verifier-ca", "", "authn-config: PEM file with the authority of the verifier's certificate (default the ConfigMap "+authorityName+")")
	f.BoolVar(&o.useMirror, "use-mirror", false, "istio: the mirror's URL in place of the keys")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return cmd
}

// exportable are the trusted keys, if they may be handed on.
func (o *exportOptions) exportable(ctx context.Context, issuer api.Issuer) (trusted, error) {
	now := o.c.now()
	if windowOf(issuer, now).State(now) == snapshot.Expired {
		return trusted{}, advise(tryAgain(issuer), "the keys of %s have expired: nobody should trust them", describedAs(issuer))
	}
	keys, err := o.c.trustedKeys(ctx, issuer)
	if err != nil {
		return trusted{}, err
	}
	if kids := revokedAmong(keys.set, issuer); len(kids) > 0 {
		return trusted{}, advise("The controller takes them out within seconds; try again. kubectl jwks check says whether it runs.",
			"the key set of %s still has keys that are revoked: %s", describedAs(issuer), strings.Join(kids, ", "))
	}
	return keys, nil
}

func (o *exportOptions) jwks(ctx context.Context, issuer api.Issuer) (string, error) {
	keys, err := o.exportable(ctx, issuer)
	if err != nil {
		return "", err
	}
	return string(keys.set.JSON()), nil // to the byte: no line break at the end
}

func (o *exportOptions) pem(ctx context.Context, issuer api.Issuer) (string, error) {
	keys, err := o.exportable(ctx, issuer)
	if err != nil {
		return "", err
	}
	data, err := snapshot.Encode(keys.set, snapshot.Descriptor{}, snapshot.PEM)
	return data[snapshot.KeyPEM], err
}

// object is a Kubernetes object, or a part of one.
type object = map[string]any

// document is an object as YAML, after comments.
func document(comments []string, o object) (string, error) {
	text, err := yaml.Marshal(o)
	if err != nil {
		return "", err
	}
	var head strings.Builder
	for _, c := range comments {
		fmt.Fprintln(&head, "# "+c)
	}
	return head.String() + string(text), nil
}

// namespaceFor is the namespace that a consumer's object is written for.
func (o *exportOptions) namespaceFor(issuer api.Issuer) (string, error) {
	if ns := issuer.GetNamespace(); ns != "" {
		return ns, nil
	}
	return o.c.namespace()
}

func (o *exportOptions) istio(ctx context.Context, issuer api.Issuer) (string, error) {
	ns, err := o.namespaceFor(issuer)
	if err != nil {
		return "", err
	}
	spec := issuer.IssuerSpec()
	rule := object{"issuer": spec.Issuer, "audiences": spec.Audiences}
	comments := []string{"A request without a token passes a RequestAuthentication: deny it with an", "AuthorizationPolicy that asks for requestPrincipals."}
	if o.useMirror {
		at, err := o.verifier(ctx)
		if err != nil {
			return "", err
		}
		rule["jwksUri"] = at + mirrorPath(issuer) + "/jwks.json"
	} else {
		keys, err := o.exportable(ctx, issuer)
		if err != nil {
			return "", err
		}
		rule["jwks"] = string(keys.set.JSON())
		comments = append(comments, "The keys are those of now: export again after a rotation.")
	}
	o.unsaid("a RequestAuthentication", beyondKeys(spec))
	return document(comments, object{
		"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
		"metadata": object{"name": issuer.GetName(), "namespace": ns},
		"spec":     object{"jwtRules": []object{rule}},
	})
}

func (o *exportOptions) envoyGateway(ctx context.Context, issuer api.Issuer) (string, error) {
	if issuer.GetNamespace() == "" && issuer.NamespaceSelector() == nil {
		return "", advise("Set spec.namespaceSelector, so that the namespace of the route gets a copy.", "%s has no ConfigMap that a SecurityPolicy could read", describedAs(issuer))
	}
	ns, err := o.namespaceFor(issuer)
	if err != nil {
		return "", err
	}
	keys, err := o.exportable(ctx, issuer)
	if err != nil {
		return "", err
	}
	configMap := issuer.IssuerSpec().SnapshotName(issuer.GetName())
	if err := o.hasConfigMap(ctx, issuer, client.ObjectKey{Namespace: ns, Name: configMap}, keys); err != nil {
		return "", err
	}
	kind, name := "HTTPRoute", issuer.GetName()
	if o.target != "" {
		var found bool
		if kind, name, found = strings.Cut(o.target, "/"); !found || kind == "" || name == "" {
			return "", advise("Such as --target HTTPRoute/orders.", "--target: %q is not KIND/NAME", o.target)
		}
	}
	spec := issuer.IssuerSpec()
	o.unsaid("a JWT provider", beyondKeys(spec))
	return document([]string{"Envoy Gateway follows the ConfigMap: a rotation needs nothing."}, object{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy",
		"metadata": object{"name": issuer.GetName(), "namespace": ns},
		"spec": object{
			"targetRefs": []object{{"group": "gateway.networking.k8s.io", "kind": kind, "name": name}},
			"jwt": object{"providers": []object{{
				"name": issuer.GetName(), "issuer": spec.Issuer, "audiences": spec.Audiences,
				"localJWKS": object{"type": "ValueRef", "valueRef": object{"group": "", "kind": "ConfigMap", "name": configMap}},
			}}},
		},
	})
}

// unsaid tells what spec demands of a token and the exported object does not: whom the
// verifier refuses for that gets in there.
func (o *exportOptions) unsaid(what string, demands []string) {
	if len(demands) > 0 {
		fmt.Fprintf(o.c.ErrOut, "Not in it, because %s cannot say it: %s.\n", what, strings.Join(demands, ", "))
	}
}

// unsaidAnywhere is what spec demands of a token and no exported object can say.
func unsaidAnywhere(spec *api.IssuerSpec) (demands []string) {
	if !allowsAll(spec.AllowedAlgorithms) {
		demands = append(demands, "spec.allowedAlgorithms")
	}
	if v := spec.Verification; v != nil && v.Leeway != nil && v.Leeway.Duration != api.DefaultLeeway {
		demands = append(demands, "spec.verification.leeway")
	}
	if v := spec.Verification; v != nil && len(v.TokenTypes) > 0 {
		demands = append(demands, "spec.verification.tokenTypes")
	}
	return demands
}

// beyondKeys is what spec demands of a token besides its issuer, an audience, a time that
// has not passed and the signature of a trusted key.
func beyondKeys(spec *api.IssuerSpec) []string {
	demands, v := unsaidAnywhere(spec), spec.Verification
	if v == nil {
		return demands
	}
	if v.MaxTokenLifetime != nil {
		demands = append(demands, "spec.verification.maxTokenLifetime")
	}
	if len(v.RequiredClaims) > 0 {
		demands = append(demands, "spec.verification.requiredClaims")
	}
	if len(v.ClaimValidationRules) > 0 {
		demands = append(demands, "spec.verification.claimValidationRules")
	}
	return demands
}

// hasConfigMap reports a ConfigMap that the exported object would miss, and one whose keys
// are not the trusted ones: who reads it asks for no digest, and nobody puts right what
// somebody else has made under that name.
func (o *exportOptions) hasConfigMap(ctx context.Context, issuer api.Issuer, at client.ObjectKey, keys trusted) error {
	kube, err := o.c.connect()
	if err != nil {
		return err
	}
	var cm corev1.ConfigMap
	switch err := kube.Get(ctx, at, &cm); {
	case err != nil:
		return advise("Choose a namespace with -n that spec.namespaceSelector selects, or see kubectl jwks describe.", "the ConfigMap %s, which the policy would read, cannot be read: %v", at, err)
	case cm.Labels[api.LabelIssuerUID] != string(issuer.GetUID()):
		return advise("Remove it, or set spec.snapshot.configMapName to another name; kubectl jwks describe "+argumentsFor(issuer)+" shows when the keys are there.",
			"the ConfigMap %s, which the policy would read, is not of %s: somebody else decides which keys are in it", at, describedAs(issuer))
	case cm.Data[snapshot.KeyJWKS] != keys.data[snapshot.KeyJWKSJSON]:
		return advise("The controller puts it right within seconds; try again. kubectl jwks check says whether it runs.",
			"the ConfigMap %s, which the policy would read, holds other keys than the trusted ones", at)
	}
	return nil
}

// mirrorPath is the issuer's path on the mirror.
func mirrorPath(issuer api.Issuer) string { return "/mirror/" + pathOf(issuer) }

// pathOf is the issuer in paths of the verifier.
func pathOf(issuer api.Issuer) string {
	if ns := issuer.GetNamespace(); ns != "" {
		return "ns/" + ns + "/" + issuer.GetName()
	}
	return "cluster/" + issuer.GetName()
}

// verifier is the verifier's URL, without a slash at its end: that of the flag, or
// of the running verifier's own, or that of the shipped Service.
func (o *exportOptions) verifier(ctx context.Context) (string, error) {
	if o.verifierURL != "" {
		if !strings.HasPrefix(o.verifierURL, "https://") {
			return "", advise("Such as https://"+serviceName+"."+operatorNamespace+".svc.", "--verifier-url: %q is not an https URL", o.verifierURL)
		}
		return strings.TrimSuffix(o.verifierURL, "/"), nil
	}
	if deployments, err := o.c.deployments(ctx); err == nil { // for those who may read them
		for i := range deployments {
			if urls := argumentValues(&deployments[i], "mirror-url"); len(urls) > 0 {
				return urls[0], nil
			}
		}
	}
	return "https://" + serviceName + "." + o.c.operatorNamespace + ".svc", nil
}

// ca is the PEM text of the authority of the verifier's certificate; empty where
// nothing says which it is.
func (o *exportOptions) ca(ctx context.Context) (string, error) {
	if o.authority != "" {
		text, err := os.ReadFile(o.authority)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
			err = advise("It has to be the authority of the verifier's certificate, in PEM: ca.crt of the ConfigMap "+authorityName+", say.", "--verifier-ca: there is no certificate in %s", o.authority)
		}
		return string(text), err
	}
	kube, err := o.c.connect()
	if err != nil {
		return "", err
	}
	var cm corev1.ConfigMap
	if err := kube.Get(ctx, client.ObjectKey{Namespace: o.c.operatorNamespace, Name: authorityName}, &cm); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	return cm.Data[authorityKey], nil
}
