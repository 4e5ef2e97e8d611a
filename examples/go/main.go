// Says who sent a token, or null.
//
//	go run . SOURCE ISSUER AUDIENCE      tokens on standard input, one a line
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// algorithms are those that are accepted. go-oidc accepts RS256 alone unless told.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// errUnavailable means that there are no keys to judge by. That is no verdict about a
// token: answer 503, not 401.
var errUnavailable = errors.New("no trusted keys")

type verifier struct {
	from   source
	tokens *oidc.IDTokenVerifier
}

// newVerifier takes its keys from the file of a mounted ConfigMap, or from the mirror's
// URL; SSL_CERT_FILE names the file of the authority that the mirror's certificate is of.
func newVerifier(from, issuer, audience string) *verifier {
	var keys source = &mounted{path: from}
	if strings.HasPrefix(from, "https://") {
		keys = &mirrored{url: from}
	}
	config := &oidc.Config{ClientID: audience}
	for _, algorithm := range algorithms {
		config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, string(algorithm))
	}
	return &verifier{keys, oidc.NewVerifier(issuer, keySet{keys}, config)}
}

// verify is errUnavailable where it cannot tell, and any other error for a bad token.
func (v *verifier) verify(ctx context.Context, token string) (*oidc.IDToken, error) {
	verified, err := v.tokens.Verify(ctx, token)
	if err == nil && verified.Subject == "" {
		err = errors.New("the token has no subject")
	}
	if err != nil {
		if why := v.from.unavailable(); why != nil { // go-oidc hands on its text alone
			return nil, fmt.Errorf("%w: %w", errUnavailable, why)
		}
		return nil, err
	}
	return verified, nil
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: go run . SOURCE ISSUER AUDIENCE")
	}
	verifier := newVerifier(os.Args[1], os.Args[2], os.Args[3])
	tokens := bufio.NewScanner(os.Stdin)
	for tokens.Scan() {
		token, err := verifier.verify(context.Background(), tokens.Text())
		switch {
		case errors.Is(err, errUnavailable):
			fmt.Println("unavailable:", err)
		case err != nil:
			fmt.Println("null")
		default:
			_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"sub": token.Subject})
		}
	}
}
