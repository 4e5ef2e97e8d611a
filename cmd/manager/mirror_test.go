package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// authenticationConfiguration is what docs/mirror.md gives to an API server.
const authenticationConfiguration = `
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    discoveryURL: https://%s/mirror/ns/default/auth/.well-known/openid-configuration
    audiences: [orders]
    certificateAuthority: |
%s
  claimMappings:
    username: {claim: sub, prefix: "ext:"}
`

// logsIn starts an API server whose own OIDC authenticator reads the keys from
// the mirror, and logs in with a token of the issuer. Whoever restarts an API
// server while the issuer is down starts one such as this.
func (s *stage) logsIn(t *testing.T) {
	t.Helper()
	ca := "      " + strings.ReplaceAll(strings.TrimSpace(string(s.authority.PEM())), "\n", "\n      ")
	config := s.file("authentication.yaml", fmt.Appendf(nil, authenticationConfiguration, s.issuer.URL(), s.at, ca))
	env, err := harness.NewControlPlane(false, map[string]string{"authentication-config": config})
	s.Expect(err).NotTo(HaveOccurred())
	admin, err := env.Start()
	s.Expect(err).NotTo(HaveOccurred())
	defer func() { s.Expect(env.Stop()).To(Succeed()) }()

	as := rest.AnonymousClientConfig(admin)
	as.BearerToken = s.key.Sign(testissuer.Claims(s.issuer.URL(), "alice", "orders", time.Now(), time.Hour))
	alice, err := client.New(as, client.Options{})
	s.Expect(err).NotTo(HaveOccurred())
	s.Eventually(func() (string, error) {
		review := &authenticationv1.SelfSubjectReview{}
		err := alice.Create(s.ctx, review)
		return review.Status.UserInfo.Username, err
	}).WithTimeout(30*time.Second).WithPolling(500*time.Millisecond).Should(Equal("ext:alice"), "the issuer is down; the mirror is not")
}
