// transitions_test.go changes every field of both specs, there and back, in every
// order of its values. Each change ends in what a fresh object with that spec has. The
// fields are read from the schemas: one that is not in the table fails the test.

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// value is a part of a spec, as a JSON merge patch in YAML over the basic one. In it
// $URI, $URL and $OTHER stand for the issuer's addresses, and $CA for its authority.
type value struct {
	patch string
	// keeps: with this value no keys are fetched, or none that count; an object that
	// had keys keeps them, so that a fresh one is no measure.
	keeps bool
}

func v(patch string) value    { return value{patch: patch} }
func kept(patch string) value { return value{patch: patch, keeps: true} }

// transitions are the values of each field, besides its absence. Fields that go
// together stand in each other's values.
var transitions = map[string][]value{
	"allowedAlgorithms":                   {v(`allowedAlgorithms: [ES256, RS256]`), v(`allowedAlgorithms: [RS256, PS256, ES256, EdDSA]`)},
	"audiences":                           {v(`audiences: [billing, orders]`), v(`audiences: [billing]`)},
	"caBundle":                            {v(`caBundle: "$CA$CA"`), kept(`caBundle: "$FOREIGN"`)},
	"caBundleRef.clusterTrustBundle.name": {kept(`{caBundle: null, caBundleRef: {clusterTrustBundle: {name: none}}}`)},
	"caBundleRef.configMap.key":           {v(`{caBundle: null, caBundleRef: {configMap: {name: $NAME-ca, key: a}}}`), kept(`{caBundle: null, caBundleRef: {configMap: {name: $NAME-ca, key: none}}}`)},
	"caBundleRef.configMap.name":          {v(`{caBundle: null, caBundleRef: {configMap: {name: $NAME-ca, key: a}}}`), kept(`{caBundle: null, caBundleRef: {configMap: {name: none, key: a}}}`)},
	"cacheTTL":                            {v(`cacheTTL: 1h`), v(`cacheTTL: 2m`)},
	"discoveryURL":                        {v(`{jwksURI: null, discoveryURL: "$URL/.well-known/openid-configuration"}`), kept(`{jwksURI: null, discoveryURL: "https://127.0.0.1:1/none"}`)},
	"jwks":                                {v(`{jwksURI: null, caBundle: null, jwks: '{"keys":[$K1,$K2]}'}`), kept(`{jwksURI: null, caBundle: null, jwks: '{"keys":[]}'}`)},
	"jwksURI":                             {v(`jwksURI: "$URI?again"`), v(`jwksURI: null`), kept(`jwksURI: "https://127.0.0.1:1/jwks.json"`)},
	"keyUses":                             {v(`keyUses: [jwt-svid, sig]`)},
	"maxRedirects":                        {v(`maxRedirects: 1`), v(`maxRedirects: 3`)},
	"revokedKeys":                         {v(`revokedKeys: [none]`)},
	"rotation.policy":                     {v(`rotation: {policy: RequireOverlap}`), kept(`rotation: {policy: RequireApproval}`)},
	"rotation.retirementGrace":            {v(`rotation: {retirementGrace: 1h}`), v(`rotation: {retirementGrace: 2h}`)},
	"snapshot.additionalFormats":          {v(`snapshot: {additionalFormats: [PEM]}`)},
	"snapshot.annotations":                {v(`snapshot: {annotations: {example.com/a: b}}`), v(`snapshot: {annotations: {example.com/a: c, example.com/d: e}}`)},
	"snapshot.configMapName":              {v(`snapshot: {configMapName: $NAME-here}`), v(`snapshot: {configMapName: $NAME-there}`)},
	"snapshot.deletionPolicy":             {v(`snapshot: {deletionPolicy: Retain}`)},
	"snapshot.expiredPolicy":              {v(`snapshot: {expiredPolicy: Remove}`)},
	"snapshot.labels":                     {v(`snapshot: {labels: {team: blue}}`), v(`snapshot: {labels: {team: red, tier: web}}`)},
	"staleTTL":                            {v(`staleTTL: 1h`), v(`staleTTL: 0s`)},
	"suspend":                             {kept(`suspend: true`)},

	"verification.claimValidationRules[].claim":         {v(`verification: {claimValidationRules: [{claim: a, requiredValue: b}]}`), v(`verification: {claimValidationRules: [{claim: c, requiredValue: b}]}`)},
	"verification.claimValidationRules[].requiredValue": {v(`verification: {claimValidationRules: [{claim: a, requiredValue: b}]}`), v(`verification: {claimValidationRules: [{claim: a, requiredValue: d}]}`)},
	"verification.claimValidationRules[].expression":    {v(`verification: {claimValidationRules: [{expression: claims.a == 'b'}]}`), v(`verification: {claimValidationRules: [{expression: claims.a ==}]}`)},
	"verification.claimValidationRules[].message":       {v(`verification: {claimValidationRules: [{expression: claims.a == 'b', message: one}]}`), v(`verification: {claimValidationRules: [{expression: claims.a == 'b', message: two}]}`)},
	"verification.cookie":                               {v(`verification: {cookie: a}`), v(`verification: {cookie: b}`)},
	"verification.leeway":                               {v(`verification: {leeway: 0s}`), v(`verification: {leeway: 5m}`)},
	"verification.maxTokenLifetime":                     {v(`verification: {maxTokenLifetime: 1h}`), v(`verification: {maxTokenLifetime: 2h}`)},
	"verification.requiredClaims":                       {v(`verification: {requiredClaims: [a]}`), v(`verification: {requiredClaims: [a, b]}`)},
	"verification.responseHeaders[].name":               {v(`verification: {responseHeaders: [{name: X-A, claim: a}]}`), v(`verification: {responseHeaders: [{name: X-B, claim: a}]}`)},
	"verification.responseHeaders[].claim":              {v(`verification: {responseHeaders: [{name: X-A, claim: a}]}`), v(`verification: {responseHeaders: [{name: X-A, claim: b}]}`)},
	"verification.responseHeaders[].expression":         {v(`verification: {responseHeaders: [{name: X-A, expression: claims.a}]}`), v(`verification: {responseHeaders: [{name: X-A, expression: claims.b}]}`)},
	"verification.tokenTypes":                           {v(`verification: {tokenTypes: [JWT]}`), v(`verification: {tokenTypes: [at+jwt]}`)},

	"kubernetesAuthentication.usernamePrefix":                        {login(``), v(`kubernetesAuthentication: {usernamePrefix: "b:"}`)},
	"kubernetesAuthentication.groupsPrefix":                          {login(`groupsPrefix: "a:"`), login(`groupsPrefix: "b:"`)},
	"kubernetesAuthentication.claimMappings.username.claim":          {mapped(`username: {claim: a}`), mapped(`username: {claim: b}`)},
	"kubernetesAuthentication.claimMappings.username.expression":     {mapped(`username: {expression: claims.a}`), mapped(`username: {expression: claims.b}`)},
	"kubernetesAuthentication.claimMappings.groups.claim":            {login(`groupsPrefix: "g:", claimMappings: {groups: {claim: a}}`), login(`groupsPrefix: "g:", claimMappings: {groups: {claim: b}}`)},
	"kubernetesAuthentication.claimMappings.groups.expression":       {login(`groupsPrefix: "g:", claimMappings: {groups: {expression: claims.a}}`), login(`groupsPrefix: "g:", claimMappings: {groups: {expression: claims.b}}`)},
	"kubernetesAuthentication.claimMappings.uid.claim":               {mapped(`uid: {claim: a}`), mapped(`uid: {claim: b}`)},
	"kubernetesAuthentication.claimMappings.uid.expression":          {mapped(`uid: {expression: claims.a}`), mapped(`uid: {expression: claims.b}`)},
	"kubernetesAuthentication.claimMappings.extra[].key":             {mapped(`extra: [{key: example.com/a, valueExpression: claims.a}]`), mapped(`extra: [{key: example.com/b, valueExpression: claims.a}]`)},
	"kubernetesAuthentication.claimMappings.extra[].valueExpression": {mapped(`extra: [{key: example.com/a, valueExpression: claims.a}]`), mapped(`extra: [{key: example.com/a, valueExpression: claims.b}]`)},
	"kubernetesAuthentication.userValidationRules[].expression":      {login(`userValidationRules: [{expression: user.username != 'a'}]`), login(`userValidationRules: [{expression: user.username != 'b'}]`)},
	"kubernetesAuthentication.userValidationRules[].message":         {login(`userValidationRules: [{expression: user.username != 'a', message: one}]`), login(`userValidationRules: [{expression: user.username != 'a', message: two}]`)},

	"namespaceSelector.matchLabels":                 {v(`namespaceSelector: {matchLabels: {transitions: a}}`), v(`namespaceSelector: {matchLabels: {transitions: b}}`)},
	"namespaceSelector.matchExpressions[].key":      {v(`namespaceSelector: {matchExpressions: [{key: transitions, operator: Exists}]}`), v(`namespaceSelector: {matchExpressions: [{key: none, operator: Exists}]}`)},
	"namespaceSelector.matchExpressions[].operator": {v(`namespaceSelector: {matchExpressions: [{key: transitions, operator: Exists}]}`), v(`namespaceSelector: {matchExpressions: [{key: transitions, operator: In, values: [a]}]}`)},
	"namespaceSelector.matchExpressions[].values":   {v(`namespaceSelector: {matchExpressions: [{key: transitions, operator: In, values: [a]}]}`), v(`namespaceSelector: {matchExpressions: [{key: transitions, operator: In, values: [a, b]}]}`)},
}

// immutable are the fields that cannot be changed: the keys of one issuer never serve
// another.
var immutable = []string{"issuer"}

func login(rest string) value {
	if rest != "" {
		rest = ", " + rest
	}
	return v(`kubernetesAuthentication: {usernamePrefix: "a:"` + rest + `}`)
}

func mapped(mapping string) value { return login(`claimMappings: {` + mapping + `}`) }

// fieldsOf are the fields of a kind's spec, from its schema.
func fieldsOf(g Gomega, plural string) (fields []string) {
	content, err := os.ReadFile(filepath.Join(harness.Root(), "config", "crd", "bases", "jwks-trust.dev_"+plural+".yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var crd apiextensionsv1.CustomResourceDefinition
	g.Expect(yaml.Unmarshal(content, &crd)).To(Succeed())
	var walk func(path string, s apiextensionsv1.JSONSchemaProps)
	walk = func(path string, s apiextensionsv1.JSONSchemaProps) {
		switch {
		case len(s.Properties) > 0:
			for name, field := range s.Properties {
				walk(strings.TrimPrefix(path+"."+name, "."), field)
			}
		case s.Type == "array" && len(s.Items.Schema.Properties) > 0:
			walk(path+"[]", *s.Items.Schema)
		default:
			fields = append(fields, path)
		}
	}
	walk("", crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
	slices.Sort(fields)
	return fields
}

// A new field needs its transitions.
func TestEveryFieldOfTheSchemasHasTransitions(t *testing.T) {
	g := NewWithT(t)
	var all []string
	for _, plural := range []string{"trustedissuers", "clustertrustedissuers"} {
		all = append(all, fieldsOf(g, plural)...)
	}
	slices.Sort(all)
	table := slices.Clone(immutable)
	for field := range transitions {
		table = append(table, field)
	}
	g.Expect(table).To(ConsistOf(slices.Compact(all)))
}

// stand is where the transitions happen: one manager for all objects.
type stand struct {
	w       *world
	id      string
	manager *instance
	objects atomic.Int32
}

func TestTransitions(t *testing.T) {
	needsTime(t)
	t.Parallel()
	g := NewWithT(t)
	w := inShared(t)
	s := &stand{w: w, id: fmt.Sprintf("stand-%d", instances.Add(1))}
	for name, label := range map[string]string{s.id: "", s.id + "-system": "", s.id + "-a": "a", s.id + "-b": "b"} {
		labels := map[string]string{}
		if label != "" {
			labels["transitions"] = label
		}
		g.Expect(w.namespace(name, labels)).To(Succeed())
	}
	s.manager = w.run(g, s.id, "--components=controller", "--issuer-selector=stand="+s.id, "--operator-namespace="+s.id+"-system")
	t.Cleanup(s.manager.end)
	var walks errgroup.Group
	walks.SetLimit(16)
	var made atomic.Int32
	for plural, kind := range map[string]string{"trustedissuers": api.TrustedIssuerKind, "clustertrustedissuers": api.ClusterTrustedIssuerKind} {
		for _, field := range fieldsOf(g, plural) {
			walks.Go(func() error {
				if err := failing(func(g Gomega) { s.walk(g, kind, field, &made) }); err != nil {
					t.Errorf("%s spec.%s: %v", kind, field, err)
				}
				return nil
			})
		}
	}
	_ = walks.Wait() // each has reported for itself
	figures.add("every spec field changed A to B to A", "ends as a fresh object; keys never lost", "%d transitions of %d fields", made.Load(), len(transitions))
}

// walk goes through all values of a field.
func (s *stand) walk(g Gomega, kind, field string, made *atomic.Int32) {
	if slices.Contains(immutable, field) {
		o := s.newObject(g, kind)
		defer o.close(g)
		o.create(g, value{})
		g.Eventually(o.settled).WithTimeout(mended).Should(BeTrue())
		g.Eventually(func() error { return o.update(g, v(field+`: https://other.example.com/`)) }).Should(MatchError(apierrors.IsInvalid, "IsInvalid"))
		return
	}
	values := append([]value{{}}, transitions[field]...)
	fresh := make([]string, len(values))
	for i := range values {
		if !values[i].keeps {
			o := s.newObject(g, kind)
			o.create(g, values[i])
			fresh[i] = o.final(g)
			o.close(g)
		}
	}
	o := s.newObject(g, kind)
	defer o.close(g)
	o.create(g, values[0])
	at := 0
	o.final(g)
	for _, next := range order(len(values)) {
		o.change(g, values[next])
		what := fmt.Sprintf("from %q to %q", values[at].patch, values[next].patch)
		if values[next].keeps {
			before := o.digest(g)
			g.Eventually(o.tried).WithTimeout(mended).WithPolling(100*time.Millisecond).Should(BeTrue(), what)
			g.Expect(o.digest(g)).To(Equal(before), what)
		} else {
			g.Eventually(func() string { return difference(o.state(g), fresh[next]) }).WithTimeout(mended).WithPolling(100*time.Millisecond).Should(BeEmpty(), what)
		}
		_, err := s.w.seen.judge(o.known())
		g.Expect(err).NotTo(HaveOccurred())
		made.Add(1)
		at = next
	}
}

// order visits values from the first one: there and back, or from each to each other.
func order(n int) (out []int) {
	for i := 1; i < n; i++ {
		out = append(out, i, 0)
	}
	for i := 1; i < n; i++ {
		for j := i + 1; j < n; j++ {
			out = append(out, i, j, i)
		}
	}
	return append(out, 0)
}
