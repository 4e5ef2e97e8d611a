package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

var errSignature = errors.New("the signature is not valid")

// floor is the bare check of one token's signature, with everything prepared:
// hashing the signing input, which no verifier gets around, and one call of the
// standard library.
func floor(public crypto.PublicKey, token string) (func() error, error) {
	input, signature, err := split(token)
	if err != nil {
		return nil, err
	}
	if key, ok := public.(*ecdsa.PublicKey); ok {
		return floorECDSA(key, input, signature)
	}
	return func() error { return checkSignature(public, input, signature) }, nil
}

// floorECDSA has the signature in the form that the standard library wants.
func floorECDSA(key *ecdsa.PublicKey, input, signature []byte) (func() error, error) {
	r, s := halves(signature)
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		return nil, err
	}
	return func() error {
		sum := sha256.Sum256(input)
		return asError(ecdsa.VerifyASN1(key, sum[:], der))
	}, nil
}

// signatureOnly takes a token apart and checks its signature with the one right
// key: the least that a verifier of tokens can do.
func signatureOnly(public crypto.PublicKey, token string) error {
	input, signature, err := split(token)
	if err != nil {
		return err
	}
	return checkSignature(public, input, signature)
}

func checkSignature(public crypto.PublicKey, input, signature []byte) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		sum := sha256.Sum256(input)
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(input)
		r, s := halves(signature)
		return asError(ecdsa.Verify(key, sum[:], r, s))
	case ed25519.PublicKey:
		return asError(ed25519.Verify(key, input, signature))
	}
	return fmt.Errorf("no check for a %T", public)
}

func asError(valid bool) error {
	if !valid {
		return errSignature
	}
	return nil
}

// halves are r and s (RFC 7518 section 3.4).
func halves(signature []byte) (r, s *big.Int) {
	half := len(signature) / 2
	return new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
}

// split is the signing input and the signature of a token.
func split(token string) (input, signature []byte, err error) {
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 {
		return nil, nil, errors.New("the token has no parts")
	}
	signature, err = base64.RawURLEncoding.DecodeString(token[dot+1:])
	return []byte(token[:dot]), signature, err
}
