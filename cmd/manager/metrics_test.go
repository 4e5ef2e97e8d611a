package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// TestSecureMetrics asks for metrics as Prometheus does, and as others do. Who they are,
// and whether they may, a real API server says.
func TestSecureMetrics(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane")
	}
	g := NewWithT(t)
	ca, err := harness.NewAuthority("metrics")
	g.Expect(err).NotTo(HaveOccurred())
	certificate, key, err := ca.Issue("metrics")
	g.Expect(err).NotTo(HaveOccurred())
	directory := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(directory, "tls.crt"), certificate, 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(directory, "tls.key"), key, 0o600)).To(Succeed())
	address, err := harness.FreeAddress()
	g.Expect(err).NotTo(HaveOccurred())
	s := newStage(t, func(o *options) {
		o.metricsAddress, o.metricsSecure, o.metricsCertDir = address, true, directory
	})

	s.letRead("prometheus")
	reader, other := s.serviceAccountToken("prometheus"), s.serviceAccountToken("somebody")
	scrape := s.scraper(t, address, ca.Pool())
	s.Eventually(func() error { _, _, err := scrape(""); return err }).WithTimeout(20 * time.Second).Should(Succeed())
	// Where the API server says what is wrong with a token, controller-runtime's filter
	// takes that for an error of its own.
	refused := Or(Equal(http.StatusUnauthorized), Equal(http.StatusInternalServerError))
	for name, tc := range map[string]struct {
		authorization string
		want          OmegaMatcher
	}{
		"nobody":                          {"", Equal(http.StatusUnauthorized)},
		"a token that nobody has given":   {"Bearer made-up", refused},
		"a token in another scheme":       {"Basic " + reader, Equal(http.StatusUnauthorized)},
		"somebody who may not":            {"Bearer " + other, Equal(http.StatusForbidden)},
		"somebody who may":                {"Bearer " + reader, Equal(http.StatusOK)},
		"a token of the issuers we trust": {"Bearer " + s.key.Sign(map[string]any{"iss": s.issuer.URL(), "sub": "prometheus"}), refused},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			status, body, err := scrape(tc.authorization)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(status).To(tc.want)
			if status == http.StatusOK {
				g.Expect(body).To(ContainSubstring("\njwks_trust_"))
			} else {
				g.Expect(body).NotTo(ContainSubstring("jwks_trust_"))
			}
		})
	}

	t.Run("over plain HTTP, whoever they are", func(t *testing.T) {
		// 400, or a connection that is reset before that arrives.
		status, _, err := getMetrics(t, http.DefaultClient, "http://"+address+"/metrics", "Bearer "+reader)
		if err == nil && status != http.StatusBadRequest {
			t.Errorf("status %d", status)
		}
	})
	t.Run("of a server that cannot prove who it is", func(t *testing.T) {
		_, _, err := s.scraper(t, address, x509.NewCertPool())("Bearer " + reader)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("certificate")))
	})
}

// letRead gives a service account the right that the chart's ClusterRole
// jwks-trust-metrics-reader has.
func (s *stage) letRead(account string) {
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "jwks-trust-metrics-reader"},
		Rules:      []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: role.ObjectMeta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: account}},
	}
	s.Expect(s.api.Create(s.ctx, role)).To(Succeed())
	s.Expect(s.api.Create(s.ctx, binding)).To(Succeed())
}

// serviceAccountToken makes a service account, and a token of it.
func (s *stage) serviceAccountToken(name string) string {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	s.Expect(s.api.Create(s.ctx, account)).To(Succeed())
	request := &authenticationv1.TokenRequest{}
	s.Expect(s.api.SubResource("token").Create(s.ctx, account, request)).To(Succeed())
	return request.Status.Token
}

// scraper asks for metrics over HTTPS, with an Authorization header unless it is empty.
func (s *stage) scraper(t *testing.T, address string, authority *x509.CertPool) func(authorization string) (int, string, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return func(authorization string) (int, string, error) {
		return getMetrics(t, &http.Client{Transport: transport, Timeout: 10 * time.Second}, fmt.Sprintf("https://%s/metrics", address), authorization)
	}
}

func getMetrics(t *testing.T, c *http.Client, url, authorization string) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // has been read
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
