package schemas

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"testing"
	"time"

	egv1alpha1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"github.com/go-jose/go-jose/v4"
	. "github.com/onsi/gomega"
	istio "istio.io/api/security/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// issuers are the issuer objects as a command line names them, with what the exported
// objects are called.
var issuers = map[string]string{"ti/auth0": "auth0", "cti/login": "login"}

// TestExports starts all parts once, because they take longer than the tests.
func TestExports(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]func(*testing.T, *world){
		"Istio": testIstio, "Envoy Gateway": testEnvoyGateway, "keys": testKeys, "an API server": testAPIServer,
	} {
		t.Run(name, func(t *testing.T) {
			of := *w
			of.WithT = NewWithT(t)
			test(t, &of)
		})
	}
}

// accepted reports that the API server takes an object of that kind and name.
func (w *world) accepted(object []byte, kind, name string) {
	out, err := w.apply(object)
	w.Expect(err).NotTo(HaveOccurred(), "%s\n%s", out, object)
	w.Expect(out).To(Equal(kind + "/" + name + " created (server dry run)\n"))
}

// refused reports that the schemas do tell.
func (w *world) refused(object []byte, from, to, want string) {
	broken := bytes.ReplaceAll(object, []byte(from), []byte(to))
	w.Expect(broken).NotTo(Equal(object), from)
	out, err := w.apply(broken)
	w.Expect(err).To(HaveOccurred(), out)
	w.Expect(out).To(ContainSubstring(want))
}

func testIstio(_ *testing.T, w *world) {
	const kind = "requestauthentication.security.istio.io"
	for issuer, name := range issuers {
		object := w.export(issuer, "istio")
		w.accepted(object, kind, name)
		var read struct{ Spec istio.RequestAuthentication }
		w.Expect(yaml.Unmarshal(object, &read)).To(Succeed())
		w.Expect(read.Spec.JwtRules).To(HaveLen(1))
		rule := read.Spec.JwtRules[0]
		w.Expect(rule.GetIssuer()).To(Equal(w.issuer.URL()))
		w.Expect(rule.GetAudiences()).To(Equal(audiences))
		w.Expect(rule.GetJwks()).To(Equal(string(w.export(issuer, "jwks"))))

		object = w.export(issuer, "istio", "--use-mirror", "--verifier-url", w.verifierURL)
		w.accepted(object, kind, name)
		w.Expect(string(object)).To(ContainSubstring("jwksUri: " + w.verifierURL + "/mirror/"))
	}
	object := w.export("ti/auth0", "istio")
	w.refused(object, "issuer:", "isuer:", `unknown field "spec.jwtRules[0].isuer"`)
	w.refused(object, "audiences:\n    - ", "audiences:\n    - \"\"\n    - ", "spec.jwtRules[0].audiences[0]")
}

func testEnvoyGateway(_ *testing.T, w *world) {
	const kind = "securitypolicy.gateway.envoyproxy.io"
	for issuer, name := range issuers {
		object := w.export(issuer, "envoy-gateway")
		w.accepted(object, kind, name)
		var policy egv1alpha1.SecurityPolicy
		w.Expect(yaml.UnmarshalStrict(object, &policy)).To(Succeed())
		w.Expect(policy.Spec.TargetRefs).To(HaveLen(1))
		w.Expect(policy.Spec.TargetRefs[0].Kind).To(Equal(gatewayv1.Kind("HTTPRoute")))
		w.Expect(policy.Spec.JWT.Providers).To(HaveLen(1))
		provider := policy.Spec.JWT.Providers[0]
		w.Expect(provider.Issuer).To(Equal(w.issuer.URL()))
		w.Expect(provider.Audiences).To(Equal(audiences))
		read := &corev1.ConfigMap{}
		w.Expect(w.Client.Get(w.ctx, client.ObjectKey{Namespace: policy.Namespace, Name: string(provider.LocalJWKS.ValueRef.Name)}, read)).To(Succeed())
		w.Expect(read.Data).To(HaveKeyWithValue("jwks", string(w.export(issuer, "jwks"))), "the key that Envoy Gateway reads")

		w.accepted(w.export(issuer, "envoy-gateway", "--target", "GRPCRoute/orders"), kind, name)
	}
	object := w.export("ti/auth0", "envoy-gateway")
	w.refused(object, "type: ValueRef", "type: Inline", "Exactly one of inline or valueRef must be set")
	w.refused(object, "localJWKS:", "localJwks:", `unknown field "spec.jwt.providers[0].localJwks"`)
	w.refused(object, "kind: HTTPRoute", "kind: Service", "this policy can only have a targetRefs[*].kind of")
}

// testKeys reads the keys with another library, and verifies tokens with each one, out
// of either form.
func testKeys(_ *testing.T, w *world) {
	for issuer := range issuers {
		var set jose.JSONWebKeySet
		w.Expect(json.Unmarshal(w.export(issuer, "jwks"), &set)).To(Succeed())
		w.Expect(set.Keys).To(HaveLen(len(w.keys)))
		fromPEM := w.publicKeys(w.export(issuer, "pem"))
		w.Expect(fromPEM).To(HaveLen(len(w.keys)))
		for _, key := range w.keys {
			token, err := jose.ParseSigned(w.token(key), []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.EdDSA})
			w.Expect(err).NotTo(HaveOccurred())
			named := set.Key(key.ID)
			w.Expect(named).To(HaveLen(1), key.ID)
			w.Expect(named[0].IsPublic() && named[0].Valid()).To(BeTrue(), key.ID)
			_, err = token.Verify(named[0])
			w.Expect(err).NotTo(HaveOccurred(), key.ID)
			w.Expect(fromPEM).To(ContainElement(WithTransform(func(public any) error {
				_, err := token.Verify(public)
				return err
			}, Succeed())), key.ID)
		}
	}
}

// publicKeys are those of PEM text.
func (w *world) publicKeys(text []byte) []any {
	var keys []any
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return keys
		}
		w.Expect(block.Type).To(Equal("PUBLIC KEY"))
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		w.Expect(err).NotTo(HaveOccurred())
		keys = append(keys, key)
	}
}

// token is a good one of alice's, with some claims changed.
func (w *world) token(key *testissuer.Key, changes ...map[string]any) string {
	claims := testissuer.Claims(w.issuer.URL(), "alice", audiences[1], time.Now(), time.Hour)
	claims["roles"] = []string{"staff"}
	for _, required := range requiredClaims {
		claims[required] = "acme"
	}
	for _, change := range changes {
		maps.Copy(claims, change)
	}
	return key.Sign(claims)
}

// testAPIServer starts an API server with what is exported for it, which reads the keys
// from the mirror, and logs in. Both objects trust the same issuer, which stands in a
// configuration once, so each has a server of its own.
func testAPIServer(t *testing.T, w *world) {
	for issuer, want := range map[string]string{"ti/auth0": "auth0:alice", "cti/login": "salice"} {
		t.Run(issuer, func(t *testing.T) {
			g := NewWithT(t)
			file := w.Path("authentication.yaml")
			g.Expect(os.WriteFile(file, w.export(issuer, "authn-config", "--verifier-ca", w.Path("ca.crt"), "--verifier-url", w.verifierURL), 0o600)).To(Succeed())
			env, err := harness.NewControlPlane(false, map[string]string{"authentication-config": file})
			g.Expect(err).NotTo(HaveOccurred())
			admin, err := env.Start()
			g.Expect(err).NotTo(HaveOccurred())
			defer func() { g.Expect(env.Stop()).To(Succeed()) }()

			whoAmI := func(token string) (authenticationv1.UserInfo, error) {
				as := rest.AnonymousClientConfig(admin)
				as.BearerToken = token
				c, err := client.New(as, client.Options{})
				if err != nil {
					return authenticationv1.UserInfo{}, err
				}
				review := &authenticationv1.SelfSubjectReview{}
				err = c.Create(w.ctx, review)
				return review.Status.UserInfo, err
			}
			for _, key := range w.keys {
				if key.Algorithm == "EdDSA" {
					continue // kube-apiserver's own OIDC does not know it, and the command says so
				}
				g.Eventually(func() (string, error) {
					user, err := whoAmI(w.token(key))
					return user.Username, err
				}).WithTimeout(30*time.Second).WithPolling(250*time.Millisecond).Should(Equal(want), key.ID)
			}
			foreign := testissuer.NewKey(w.keys[0].ID, w.keys[0].Algorithm)
			_, err = whoAmI(w.token(foreign))
			g.Expect(err).To(MatchError(ContainSubstring("credentials")))
			refused := map[string]map[string]any{
				"another audience":         {"aud": "https://elsewhere.example.com"},
				"a required claim is null": {requiredClaims[0]: nil},
				"another one is null":      {requiredClaims[1]: nil},
				"the third one is null":    {requiredClaims[2]: nil},
				"it is good for too long":  {"exp": time.Now().Add(3 * time.Hour).Unix()},
				"nobody knows how long":    {"iat": nil},
				"the name is empty":        {"sub": ""},
				"the name is null":         {"sub": nil},
			}
			if issuer == "cti/login" { // the prefix and the claim make a name of Kubernetes' own
				refused["a user of system:"] = map[string]any{"sub": "ystem:kube-controller-manager"}
				refused["a group of system:"] = map[string]any{"roles": []string{"staff", "ystem:masters"}}
				user, err := whoAmI(w.token(w.keys[0], map[string]any{"sub": "ystem", "roles": []string{"taff", "ystem"}}))
				g.Expect(err).NotTo(HaveOccurred(), "it is the colon that makes it reserved")
				g.Expect(user.Username).To(Equal("system"))
				g.Expect(user.Groups).To(ConsistOf("staff", "system", "system:authenticated"))
			}
			for what, change := range refused {
				_, err := whoAmI(w.token(w.keys[0], change))
				g.Expect(err).To(MatchError(ContainSubstring("credentials")), what)
			}
			_, err = whoAmI(w.keys[0].Sign(testissuer.Claims(w.issuer.URL(), "alice", audiences[0], time.Now(), time.Hour)))
			g.Expect(err).To(MatchError(ContainSubstring("credentials")), "no required claim is there")
		})
	}
}
