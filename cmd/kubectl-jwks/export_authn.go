// export_authn.go writes an AuthenticationConfiguration for kube-apiserver, whose own
// OIDC authenticator then reads its keys from the mirror.

package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	apiservercel "k8s.io/apiserver/pkg/cel"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// unsupported is what kube-apiserver's OIDC authenticator does not verify.
const unsupported = "EdDSA"

func (o *exportOptions) authnConfig(ctx context.Context, issuer api.Issuer) (string, error) {
	if all, some := eddsaKeys(issuer); all {
		return "", advise("Have the API server ask the verifier instead (token webhook): "+kubernetesDocument, "kube-apiserver's own OIDC knows no EdDSA, and all keys of %s are for that", describedAs(issuer))
	} else if some {
		fmt.Fprintln(o.c.ErrOut, "Some keys are for EdDSA, which kube-apiserver's own OIDC does not know: it refuses their tokens.")
	}
	spec := issuer.IssuerSpec()
	if !plainURL(spec.Issuer) {
		return "", advise("Have the API server ask the verifier instead (token webhook): "+kubernetesDocument,
			"kube-apiserver's own OIDC needs an https URL without user information, query and fragment as issuer, and spec.issuer is none")
	}
	at, err := o.verifier(ctx)
	if err != nil {
		return "", err
	}
	ca, err := o.ca(ctx)
	if err != nil {
		return "", err
	}
	from := object{"url": spec.Issuer, "discoveryURL": at + mirrorPath(issuer) + "/.well-known/openid-configuration", "audiences": spec.Audiences}
	if len(spec.Audiences) > 1 {
		from["audienceMatchPolicy"] = "MatchAny"
	}
	if ca == "" {
		fmt.Fprintln(o.c.ErrOut, "There is no certificateAuthority in it: the ConfigMap "+authorityName+" is not there. Give --verifier-ca, unless the API server's own roots vouch for the verifier.")
	} else {
		from["certificateAuthority"] = ca
	}
	mappings, err := o.mappings(issuer)
	if err != nil {
		return "", err
	}
	authenticator := object{"issuer": from, "claimMappings": mappings, "userValidationRules": userRules(issuer)}
	if rules := claimRules(spec.Verification); len(rules) > 0 {
		authenticator["claimValidationRules"] = rules
	}
	o.unsaid("an AuthenticationConfiguration", inexpressible(spec))
	return document([]string{
		"kube-apiserver --authentication-config=FILE. The API server has to reach the",
		"verifier, which needs --mirror-url. It checks tokens itself, with these rules.",
	}, object{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": []object{authenticator}})
}

// plainURL reports whether kube-apiserver takes this for an issuer.
func plainURL(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && u.Scheme == "https" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// eddsaKeys reports whether all, or some, of the trusted keys are for EdDSA.
func eddsaKeys(issuer api.Issuer) (all, some bool) {
	keys := keysIn(issuer, api.KeyActive, api.KeyRetiring)
	n := 0
	for _, k := range keys {
		if k.Algorithm == unsupported || k.KeyType == "OKP" {
			n++
		}
	}
	return n > 0 && n == len(keys), n > 0
}

// prefixOf is what stands before each user name.
func prefixOf(issuer api.Issuer) string {
	if ka := issuer.KubernetesAuthentication(); ka != nil {
		return ka.UsernamePrefix
	}
	return issuer.GetName() + ":"
}

// mappings make up the user, as the verifier does.
func (o *exportOptions) mappings(issuer api.Issuer) (object, error) {
	ka := issuer.KubernetesAuthentication()
	if prefix := prefixOf(issuer); ka == nil {
		if prefix == reservedPrefix {
			return nil, advise("Give it another name, or, if it is a ClusterTrustedIssuer, kubernetesAuthentication.usernamePrefix.",
				"users of %s would be named %q and the token's sub, which is reserved for Kubernetes itself", describedAs(issuer), prefix)
		}
		fmt.Fprintf(o.c.ErrOut, "%s has no kubernetesAuthentication: users are named %q and the token's sub.\n", describedAs(issuer), prefix)
		return object{"username": object{"claim": "sub", "prefix": prefix}}, nil
	}
	from := api.ClaimMappings{}
	if ka.ClaimMappings != nil {
		from = *ka.ClaimMappings
	}
	username := object{"claim": "sub", "prefix": ka.UsernamePrefix}
	if u := from.Username; u != nil && u.Expression != "" {
		// The expression may end in a comment, which would take the bracket with it.
		username = object{"expression": strconv.Quote(ka.UsernamePrefix) + " + (" + u.Expression + "\n)"}
	} else if u != nil {
		username["claim"] = u.Claim
	}
	out := object{"username": username}
	if ka.GroupsPrefix != "" {
		groups := object{"claim": "groups", "prefix": ka.GroupsPrefix}
		if g := from.Groups; g != nil && g.Expression != "" {
			return nil, advise("Write the mapping by hand, with the prefix in the expression.", "claimMappings.groups of %s is an expression, which takes no prefix in an AuthenticationConfiguration", describedAs(issuer))
		} else if g != nil {
			groups["claim"] = g.Claim
		}
		out["groups"] = groups
	}
	if u := from.UID; u != nil && u.Expression != "" {
		out["uid"] = object{"expression": u.Expression}
	} else if u != nil {
		out["uid"] = object{"claim": u.Claim}
	}
	for _, e := range from.Extra {
		extra, _ := out["extra"].([]object)
		out["extra"] = append(extra, object{"key": e.Key, "valueExpression": e.ValueExpression})
	}
	return out, nil
}

// claimRules are the rules for claims that an AuthenticationConfiguration can express. It
// takes none twice.
func claimRules(v *api.VerificationSpec) []object {
	if v == nil {
		return nil
	}
	var rules []object
	add := func(rule object) {
		if !slices.ContainsFunc(rules, func(before object) bool {
			return before["expression"] == rule["expression"] && before["claim"] == rule["claim"] && before["requiredValue"] == rule["requiredValue"]
		}) {
			rules = append(rules, rule)
		}
	}
	for _, name := range v.RequiredClaims {
		key, ok := celKey(name)
		if !ok {
			continue
		}
		add(object{"expression": fmt.Sprintf("claims[?%[1]s].hasValue() && claims[%[1]s] != null", key), "message": "the claim " + name + " is required"})
	}
	if d := v.MaxTokenLifetime; d != nil {
		// Numbers may come as whole ones or not, and a claim that is not there is an error.
		add(object{
			"expression": fmt.Sprintf("double(claims.exp) - double(claims.iat) <= double(%s)", strconv.FormatFloat(d.Seconds(), 'f', -1, 64)),
			"message":    "a token has to expire at most " + d.Duration.String() + " after iat",
		})
	}
	for _, r := range v.ClaimValidationRules {
		switch {
		case r.Expression == "":
			add(object{"claim": r.Claim, "requiredValue": r.RequiredValue})
		case r.Message == "":
			add(object{"expression": r.Expression})
		default:
			add(object{"expression": r.Expression, "message": r.Message})
		}
	}
	return rules
}

// inexpressible is what spec demands of a token and an AuthenticationConfiguration cannot.
func inexpressible(spec *api.IssuerSpec) []string {
	lost := unsaidAnywhere(spec)
	if v := spec.Verification; v != nil {
		for _, name := range v.RequiredClaims {
			if _, ok := celKey(name); !ok {
				lost = append(lost, "spec.verification.requiredClaims ("+name+")")
			}
		}
	}
	return lost
}

// allowsAll reports whether spec lets a token use every algorithm that kube-apiserver
// verifies, for it can be told of none that it must not.
func allowsAll(allowed []api.Algorithm) bool {
	return len(allowed) == 0 || !slices.ContainsFunc(keyset.Algorithms(), func(a keyset.Algorithm) bool {
		return a != unsupported && !slices.Contains(allowed, api.Algorithm(a))
	})
}

// celKey is the name of a claim as an index of kube-apiserver's "claims", which is no
// map: it knows no "in", and undoes the escapes of identifiers in each key. ok is false
// for a name that it would take for another.
func celKey(name string) (literal string, ok bool) {
	if escaped, escapable := apiservercel.Escape(name); escapable {
		return strconv.Quote(escaped), true
	}
	same, valid := apiservercel.Unescape(name)
	return strconv.Quote(name), valid && same == name
}

// reservedPrefix begins the names that are Kubernetes' own. The verifier refuses a user of
// such a name, and one in such a group: a prefix alone does not keep them out, because
// together with what a claim says it may make such a name.
const reservedPrefix = "system:"

// userRules are those of spec, that no name is reserved, and that there is one: to the API
// server a prefix alone is a name, which everybody whose claim is empty or null would
// share. It takes no expression twice.
func userRules(issuer api.Issuer) []object {
	ka := issuer.KubernetesAuthentication()
	rules := []api.UserValidationRule{
		{Expression: "user.username != " + strconv.Quote(prefixOf(issuer)), Message: "a user has to have a name"},
		{Expression: "!user.username.startsWith('" + reservedPrefix + "')", Message: "user names that begin with " + reservedPrefix + " are reserved"},
		{Expression: "user.groups.all(group, !group.startsWith('" + reservedPrefix + "'))", Message: "groups that begin with " + reservedPrefix + " are reserved"},
	}
	if ka != nil {
		rules = slices.DeleteFunc(rules, func(own api.UserValidationRule) bool {
			return slices.ContainsFunc(ka.UserValidationRules, func(r api.UserValidationRule) bool { return r.Expression == own.Expression })
		})
		rules = append(rules, ka.UserValidationRules...)
	}
	out := make([]object, 0, len(rules))
	for i, r := range rules {
		if slices.ContainsFunc(rules[:i], func(before api.UserValidationRule) bool { return before.Expression == r.Expression }) {
			continue
		}
		rule := object{"expression": r.Expression}
		if r.Message != "" {
			rule["message"] = r.Message
		}
		out = append(out, rule)
	}
	return out
}
