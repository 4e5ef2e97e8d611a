// keys.go verifies signatures with trusted keys, for go-oidc.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// source is where trusted keys are read.
type source interface {
	// keys are the current ones. It may look again where there is none of that name.
	keys(ctx context.Context, kid string) (*jose.JSONWebKeySet, error)
	// unavailable says why there were no keys at the last look; nil if there were.
	unavailable() error
}

// keySet is go-oidc's KeySet.
type keySet struct{ from source }

// VerifySignature implements oidc.KeySet.
func (s keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	header := signed.Signatures[0].Header
	keys, err := s.from.keys(ctx, header.KeyID)
	if err != nil {
		return nil, err
	}
	for _, key := range keys.Key(header.KeyID) {
		// A key with an algorithm is for that one alone.
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := signed.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no trusted key verifies the signature")
}

// parse reads a set that holds nothing but public keys.
func parse(text []byte) (*jose.JSONWebKeySet, error) {
	keys := &jose.JSONWebKeySet{}
	if err := json.Unmarshal(text, keys); err != nil {
		return nil, err
	}
	odd := func(k jose.JSONWebKey) bool { return !k.IsPublic() || !k.Valid() }
	if len(keys.Keys) == 0 || slices.ContainsFunc(keys.Keys, odd) {
		return nil, errors.New("not a set of public keys")
	}
	return keys, nil
}
