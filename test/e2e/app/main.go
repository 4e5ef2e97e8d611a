// Command app is what runs in the pods of the end-to-end test. As "app serve" it is
// an application as users write them: it verifies tokens by itself, with a stock
// library, from the key set that is mounted into its pod. As "app pause" it is the
// program that holds a pod's namespaces.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// mounted is where the ConfigMap's key set is in the pod.
const mounted = "/etc/issuer/jwks.json"

func main() {
	switch strings.Join(os.Args[1:], " ") {
	case "pause":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
		<-c
	case "serve":
		server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 5 * time.Second}
		log.Fatal(server.ListenAndServe())
	default:
		log.Fatal("usage: app pause|serve")
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		return
	}
	subject, err := verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	fmt.Fprintln(w, subject)
}

// verify reads the mounted keys afresh, so that it follows them, and returns the
// subject of a token.
func verify(token string) (string, error) {
	content, err := os.ReadFile(mounted)
	if err != nil {
		return "", err
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(content, &keys); err != nil {
		return "", err
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return "", err
	}
	var claims jwt.Claims
	if err := parsed.Claims(keys, &claims); err != nil {
		return "", err
	}
	return claims.Subject, claims.Validate(jwt.Expected{Issuer: os.Getenv("ISSUER"), AnyAudience: jwt.Audience{os.Getenv("AUDIENCE")}})
}
