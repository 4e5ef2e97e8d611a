package bench

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	gojose "github.com/go-jose/go-jose/v4"
	gojosejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-logr/logr"
	golangjwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwk"        //nolint:depguard // as a contender
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt" //nolint:depguard // as a contender

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// Names of the contenders.
const (
	nameFloor = "floor (crypto/*)"
	nameOurs  = "verifier.Verify"
	nameSeen  = "verifier, seen before"
	nameMixed = "verifier, 95 % seen before"
)

// contender verifies a token as a whole: it finds the key by kid, checks the
// signature, and judges iss, aud, exp (which has to be there) and nbf, with our
// leeway where it lets itself be told.
type contender struct {
	name   string
	verify func(token string) error
}

// newContenders are all of them for one issuer. What can be prepared once for all
// tokens is prepared here.
func newContenders(ctx context.Context, f *fixture) ([]contender, error) {
	var all []contender
	for _, c := range []struct {
		name string
		make func(context.Context, *fixture) (func(string) error, error)
	}{
		{nameOurs, ours},
		{nameSeen, seen},
		{nameMixed, mixed},
		{"jwx/v2", jwx},
		{"golang-jwt/v5", golangJWT},
		{"go-jose/v4", goJOSE},
		{"go-oidc/v3", goOIDC},
	} {
		verify, err := c.make(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, contender{c.name, verify})
	}
	return all, nil
}

func ours(ctx context.Context, f *fixture) (func(string) error, error) {
	store, err := newStore(ctx, f)
	if err != nil {
		return nil, err
	}
	issuer, err := issuerOf(store)
	if err != nil {
		return nil, err
	}
	return func(token string) error {
		if v := verifier.Verify(token, issuer, time.Now()); v.Outcome != verifier.Accept {
			return errors.New(string(v.Reason))
		}
		return nil
	}, nil
}

// seen is the verifier as its server uses it, which remembers accepted tokens.
func seen(ctx context.Context, f *fixture) (func(string) error, error) {
	store, err := newStore(ctx, f)
	if err != nil {
		return nil, err
	}
	server, err := verifier.NewServer(verifier.ServerOptions{TokenCacheSize: verifier.DefaultTokenCacheSize}, store, logr.Discard())
	if err != nil {
		return nil, err
	}
	object := verifier.Object{Kind: api.ClusterTrustedIssuerKind, Name: objectName}
	return func(token string) error {
		if v := server.Verify(ctx, object, token); v.Outcome != verifier.Accept {
			return errors.New(string(v.Reason))
		}
		return nil
	}, nil
}

// mixed has never seen one token in twenty.
func mixed(ctx context.Context, f *fixture) (func(string) error, error) {
	cold, err := ours(ctx, f)
	if err != nil {
		return nil, err
	}
	warm, err := seen(ctx, f)
	if err != nil {
		return nil, err
	}
	n := 0
	return func(token string) error {
		if n++; n%20 == 0 {
			return cold(token)
		}
		return warm(token)
	}, nil
}

func jwx(_ context.Context, f *fixture) (func(string) error, error) {
	text, err := f.jwks()
	if err != nil {
		return nil, err
	}
	set, err := jwk.Parse(text)
	if err != nil {
		return nil, err
	}
	options := []jwxjwt.ParseOption{
		jwxjwt.WithKeySet(set), jwxjwt.WithValidate(true), jwxjwt.WithIssuer(issuerURL), jwxjwt.WithAudience(audience),
		jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithAcceptableSkew(api.DefaultLeeway),
	}
	return func(token string) error {
		_, err := jwxjwt.Parse([]byte(token), options...)
		return err
	}, nil
}

func golangJWT(_ context.Context, f *fixture) (func(string) error, error) {
	keys := map[string]crypto.PublicKey{}
	for _, k := range f.keys {
		keys[k.ID] = k.Public()
	}
	keyOf := func(t *golangjwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if key, ok := keys[kid]; ok {
			return key, nil
		}
		return nil, errors.New("unknown kid")
	}
	parser := golangjwt.NewParser(
		golangjwt.WithValidMethods([]string{f.algorithm}), golangjwt.WithIssuer(issuerURL), golangjwt.WithAudience(audience),
		golangjwt.WithExpirationRequired(), golangjwt.WithIssuedAt(), golangjwt.WithLeeway(api.DefaultLeeway),
	)
	return func(token string) error {
		_, err := parser.ParseWithClaims(token, &golangjwt.RegisteredClaims{}, keyOf)
		return err
	}, nil
}

func goJOSE(_ context.Context, f *fixture) (func(string) error, error) {
	text, err := f.jwks()
	if err != nil {
		return nil, err
	}
	set := &gojose.JSONWebKeySet{}
	if err := json.Unmarshal(text, set); err != nil {
		return nil, err
	}
	allowed := []gojose.SignatureAlgorithm{gojose.SignatureAlgorithm(f.algorithm)}
	expected := gojosejwt.Expected{Issuer: issuerURL, AnyAudience: gojosejwt.Audience{audience}}
	return func(token string) error {
		parsed, err := gojosejwt.ParseSigned(token, allowed)
		if err != nil {
			return err
		}
		var claims gojosejwt.Claims
		if err := parsed.Claims(set, &claims); err != nil {
			return err
		}
		if claims.Expiry == nil { // Validate would let it pass
			return errors.New("no expiry")
		}
		return claims.ValidateWithLeeway(expected.WithTime(time.Now()), api.DefaultLeeway)
	}, nil
}

// goOIDC gets its static keys in the best order for it: it tries them one after
// the other, and the first one fits.
func goOIDC(ctx context.Context, f *fixture) (func(string) error, error) {
	keys := &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{f.signer().Public()}}
	for _, k := range f.keys {
		if k != f.signer() {
			keys.PublicKeys = append(keys.PublicKeys, k.Public())
		}
	}
	config := &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{f.algorithm}}
	v := oidc.NewVerifier(issuerURL, keys, config)
	return func(token string) error {
		_, err := v.Verify(ctx, token)
		return err
	}, nil
}
