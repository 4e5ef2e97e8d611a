package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var (
	start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	names = []string{"jwks-trust-manager.jwks-trust-system.svc", "jwks-trust-manager.jwks-trust-system.svc.cluster.local"}
)

// scene is a Keeper with an API server of its own and a clock that the test moves.
type scene struct {
	Gomega

	ctx    context.Context
	clock  *clocktesting.FakeClock
	server client.WithWatch
	keeper *Keeper
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{Gomega: NewWithT(t), ctx: t.Context(), clock: clocktesting.NewFakeClock(start), server: fake.NewClientBuilder().Build()}
	s.keeper = &Keeper{Client: s.server, Reader: s.server, Namespace: "ns", Names: names, Clock: s.clock, Log: logr.Discard()}
	return s
}

func (s *scene) keep() { s.Expect(s.keeper.Keep(s.ctx)).To(Succeed()) }

func (s *scene) secret(name string) *corev1.Secret {
	secret := &corev1.Secret{}
	s.Expect(s.server.Get(s.ctx, client.ObjectKey{Namespace: "ns", Name: name}, secret)).To(Succeed())
	return secret
}

// trusts reports whether a client that trusts the ConfigMap trusts the certificate
// for each name, now.
func (s *scene) trusts() {
	cm := &corev1.ConfigMap{}
	s.Expect(s.server.Get(s.ctx, client.ObjectKey{Namespace: "ns", Name: AuthorityName}, cm)).To(Succeed())
	roots := x509.NewCertPool()
	s.Expect(roots.AppendCertsFromPEM([]byte(cm.Data["ca.crt"]))).To(BeTrue())
	secret := s.secret(SecretName)
	s.Expect(secret.Type).To(Equal(corev1.SecretTypeTLS))
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	s.Expect(err).NotTo(HaveOccurred())
	for _, name := range s.keeper.Names {
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: s.clock.Now()})
		s.Expect(err).NotTo(HaveOccurred())
	}
}

func TestACertificateIsMadeAndLeftAlone(t *testing.T) {
	s := newScene(t)
	s.keep()
	s.trusts()
	serving, authority := s.secret(SecretName), s.secret(AuthorityName)
	s.clock.Step(59 * 24 * time.Hour)
	s.keep()
	s.Expect(s.secret(SecretName)).To(Equal(serving))
	s.Expect(s.secret(AuthorityName)).To(Equal(authority))
	s.Expect(serving.Data).NotTo(HaveKey("ca.key"), "the verifier has no business with the authority's key")
	s.Expect(serving.Data["tls.key"]).NotTo(Equal(authority.Data["tls.key"]))
}

func TestItIsRenewedBeforeItsEnd(t *testing.T) {
	s := newScene(t)
	s.keep()
	first, authority := s.secret(SecretName), s.secret(AuthorityName)
	s.clock.Step(61 * 24 * time.Hour)
	s.keep()
	s.Expect(s.secret(SecretName).Data).NotTo(Equal(first.Data))
	s.Expect(s.secret(AuthorityName)).To(Equal(authority))
	s.trusts()
}

// For ten years and more, looked at once a week, there is never a time at which
// the certificate is not trusted, nor one at which a new authority signs that was
// not published a week before.
func TestAuthoritiesTakeOver(t *testing.T) {
	s := newScene(t)
	s.keep()
	first := s.secret(AuthorityName)
	published := map[string]bool{}
	for range 12 * 52 {
		cm := &corev1.ConfigMap{}
		s.Expect(s.server.Get(s.ctx, client.ObjectKey{Namespace: "ns", Name: AuthorityName}, cm)).To(Succeed())
		before := cm.Data["ca.crt"]
		s.clock.Step(7 * 24 * time.Hour)
		s.keep()
		s.trusts()
		published[before] = true
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(before))
		pair, err := tls.X509KeyPair(s.secret(SecretName).Data["tls.crt"], s.secret(SecretName).Data["tls.key"])
		s.Expect(err).NotTo(HaveOccurred())
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: pair.Leaf.NotBefore.Add(2 * time.Hour)})
		s.Expect(err).NotTo(HaveOccurred(), "clients of a week ago trust it")
	}
	s.Expect(s.secret(AuthorityName).Data).NotTo(Equal(first.Data))
	s.Expect(len(published)).To(BeNumerically(">=", 3), "one, both, the other one")
}

func TestASecretOfSomebodyElseIsLeftAlone(t *testing.T) {
	s := newScene(t)
	theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: SecretName}, Data: map[string][]byte{"tls.crt": []byte("half"), "tls.key": nil}}
	s.Expect(s.server.Create(s.ctx, theirs)).To(Succeed())
	s.keep()
	s.Expect(s.secret(SecretName).Data["tls.crt"]).To(Equal([]byte("half")))
	s.Expect(s.server.Get(s.ctx, client.ObjectKey{Namespace: "ns", Name: AuthorityName}, &corev1.Secret{})).NotTo(Succeed(), "no authority is needed")
}

func TestWhatIsWrongIsMended(t *testing.T) {
	for name, damage := range map[string]func(*scene){
		"the certificate is lost":     func(s *scene) { s.Expect(s.server.Delete(s.ctx, s.secret(SecretName))).To(Succeed()) },
		"the authority is lost":       func(s *scene) { s.Expect(s.server.Delete(s.ctx, s.secret(AuthorityName))).To(Succeed()) },
		"the names change":            func(s *scene) { s.keeper.Names = []string{"other.example.com"} },
		"the certificate is nonsense": func(s *scene) { s.change(SecretName, "tls.crt", "nonsense") },
		"the key is another one's":    func(s *scene) { s.change(SecretName, "tls.key", string(s.secret(AuthorityName).Data["tls.key"])) },
		"the authority is nonsense":   func(s *scene) { s.change(AuthorityName, "tls.key", "nonsense") },
		"the ConfigMap is lost": func(s *scene) {
			s.Expect(s.server.Delete(s.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: AuthorityName}})).To(Succeed())
		},
		"the clock was a year ahead": func(s *scene) { s.clock.SetTime(start.Add(-365 * 24 * time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.keep()
			damage(s)
			s.keep()
			s.trusts()
		})
	}
}

// Whoever may write ConfigMaps must not be able to name an authority that clients
// trust: one that this program did not make goes at the next look.
func TestAnAuthorityThatSomebodyAddedGoes(t *testing.T) {
	s := newScene(t)
	s.keep()
	theirs, err := newAuthority(start)
	s.Expect(err).NotTo(HaveOccurred())
	cm := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: "ns", Name: AuthorityName}
	s.Expect(s.server.Get(s.ctx, key, cm)).To(Succeed())
	ours := cm.Data["ca.crt"]
	cm.Data["ca.crt"] = ours + string(theirs.certificate)
	s.Expect(s.server.Update(s.ctx, cm)).To(Succeed())
	s.keep()
	s.Expect(s.server.Get(s.ctx, key, cm)).To(Succeed())
	s.Expect(cm.Data["ca.crt"]).To(Equal(ours))
	s.trusts()
}

func (s *scene) change(name, key, value string) {
	secret := s.secret(name)
	secret.Data[key] = []byte(value)
	s.Expect(s.server.Update(s.ctx, secret)).To(Succeed())
}

// Killed at any write, the next look ends in a certificate that clients trust.
func TestItSurvivesACrashAtEachWrite(t *testing.T) {
	for n := 1; ; n++ {
		s := newScene(t)
		writes := 0
		die := func() error {
			if writes++; writes >= n {
				return context.Canceled
			}
			return nil
		}
		s.keeper.Client = interceptor.NewClient(s.server, interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				if err := die(); err != nil {
					return err
				}
				return c.Create(ctx, o, opts...)
			},
		})
		err := s.keeper.Keep(s.ctx)
		s.keeper.Client = s.server
		s.keep()
		s.trusts()
		if err == nil {
			s.Expect(n).To(Equal(4), "three writes")
			return
		}
	}
}

func TestAForeignAuthorityIsAnError(t *testing.T) {
	s := newScene(t)
	s.Expect(s.server.Create(s.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: AuthorityName}})).To(Succeed())
	s.Expect(s.keeper.Keep(s.ctx)).To(MatchError(ContainSubstring("was not made by this program")))
}
