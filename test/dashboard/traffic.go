// traffic.go shows tokens to the verifiers, as proxies and the API server do.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// flow is so many requests a second about an issuer.
type flow struct {
	perSecond float64
	issuer    string
	ask       func(w *world, ctx context.Context, path, token string) error
	token     func(*issuer) string
}

var flows = []flow{
	{10, login, (*world).forwardAuth, good},
	{4, login, (*world).reviewToken, good},
	{6, shop, (*world).forwardAuth, good},
	{4, billing, (*world).forwardAuth, good},
	{2, legacy, (*world).forwardAuth, good},
	{1, partner, (*world).forwardAuth, good},
	{1, misspelt, (*world).forwardAuth, good},
	{1, shop, (*world).forwardAuth, expired},
	{0.5, billing, (*world).forwardAuth, forOthers},
	{0.3, login, (*world).reviewToken, tampered},
	{0.3, shop, (*world).forwardAuth, none},
	{0.2, billing, (*world).forwardAuth, madeUpKey},
	{3, login, (*world).mirror, none},
	{0.3, misspelt, (*world).mirror, none},
}

// serve sends them all, until the context ends or a verifier does not answer.
func (w *world) serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range flows {
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Duration(rand.ExpFloat64() / f.perSecond * float64(time.Second))): //nolint:gosec // as people come
				}
				group.Go(func() error {
					i := w.issuers[f.issuer]
					if !i.trusted.Load() {
						return nil
					}
					if err := f.ask(w, ctx, f.issuer, f.token(i)); ctx.Err() == nil {
						return err
					}
					return nil
				})
			}
		})
	}
	return group.Wait()
}

func (w *world) forwardAuth(ctx context.Context, path, token string) error {
	return w.send(ctx, http.MethodGet, "/forward-auth/"+path, token, nil)
}

func (w *world) mirror(ctx context.Context, path, _ string) error {
	return w.send(ctx, http.MethodGet, "/mirror/"+path+"/jwks.json", "", nil)
}

func (w *world) reviewToken(ctx context.Context, _, token string) error {
	review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}
	review.APIVersion, review.Kind = authenticationv1.SchemeGroupVersion.String(), "TokenReview"
	body, err := json.Marshal(review)
	if err != nil {
		return err
	}
	return w.send(ctx, http.MethodPost, "/tokenreview", "", body)
}

// send asks one of the verifiers. What it answers is for the dashboard to show.
func (w *world) send(ctx context.Context, method, path, token string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+w.verifiers[rand.IntN(len(w.verifiers))]+path, bytes.NewReader(body)) //nolint:gosec // any of them
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// makeCertificates makes one for the verifiers, and a client that has one too.
func (w *world) makeCertificates() error {
	ca, err := harness.NewAuthority("serving CA")
	if err != nil {
		return err
	}
	cert, key, err := ca.Issue("verifier")
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	w.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 32,
	}}
	return errors.Join(w.write("ca.crt", ca.PEM()), w.write("tls.crt", cert), w.write("tls.key", key))
}

// The tokens. Four in five are signed with the key that the issuer uses most.

func good(i *issuer) string { return i.token(nil) }
func expired(i *issuer) string {
	return i.token(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
}
func forOthers(i *issuer) string {
	return i.token(map[string]any{"aud": "https://billing.example.com"})
}
func none(*issuer) string { return "" }

func tampered(i *issuer) string {
	mine, theirs := strings.Split(i.token(nil), "."), strings.Split(i.token(map[string]any{"sub": "mallory"}), ".")
	return strings.Join([]string{mine[0], theirs[1], mine[2]}, ".")
}

func madeUpKey(i *issuer) string {
	return testissuer.NewKey("nobody-knows-it", "ES256").Sign(testissuer.Claims(i.URL(), "mallory", audience, time.Now(), time.Hour))
}

func (i *issuer) token(changes map[string]any) string {
	keys := *i.signs.Load()
	key := keys[0]
	if rand.IntN(5) == 0 { //nolint:gosec // variety, not secrecy
		key = keys[len(keys)-1]
	}
	claims := testissuer.Claims(i.URL(), "alice", audience, time.Now(), time.Hour)
	maps.Copy(claims, changes)
	return key.Sign(claims)
}
