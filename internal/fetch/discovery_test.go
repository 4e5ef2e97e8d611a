package fetch

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestDiscover(t *testing.T) {
	// serve answers these paths with metadata for issuer; %s is the server.
	serve := func(t *testing.T, documents map[string]string) (string, []byte) {
		return host(t, func(w http.ResponseWriter, r *http.Request) {
			doc, ok := documents[r.URL.Path]
			if !ok {
				http.NotFound(w, r)
				return
			}
			answer(fmt.Sprintf(doc, "https://"+r.Host))(w, r)
		})
	}
	const good = `{"issuer":"%[1]s/realm","jwks_uri":"%[1]s/keys"}`
	const openid, oauth = "/realm/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/realm"

	for name, tc := range map[string]struct {
		documents map[string]string
		path      string // of the issuer
		at        string // path of spec.discoveryURL
		reason    Reason
		hint      string
	}{
		"OpenID's place":                  {documents: map[string]string{openid: good}, path: "/realm"},
		"RFC 8414's place":                {documents: map[string]string{oauth: good}, path: "/realm"},
		"another place":                   {documents: map[string]string{"/meta": good}, path: "/realm", at: "/meta"},
		"nowhere":                         {path: "/realm", reason: UnexpectedStatus, hint: "the discovery document of spec.issuer"},
		"nowhere where it was said to be": {path: "/realm", at: "/meta", reason: UnexpectedStatus, hint: "spec.discoveryURL"},
		"an issuer that differs by slash": {documents: map[string]string{openid: good}, path: "/realm/", reason: IssuerMismatch, hint: "to the last slash"},
		"an issuer under another name":    {documents: map[string]string{openid: `{"Issuer":"%[1]s/realm","jwks_uri":"%[1]s/keys"}`}, path: "/realm", reason: IssuerMismatch},
		"an issuer that is a list":        {documents: map[string]string{openid: `{"issuer":["%[1]s/realm"],"jwks_uri":"%[1]s/keys"}`}, path: "/realm", reason: IssuerMismatch},
		"no jwks_uri":                     {documents: map[string]string{openid: `{"issuer":"%[1]s/realm"}`}, path: "/realm", reason: InvalidDiscovery, hint: "jwks_uri"},
		"THREATS 28: a jwks_uri of http":  {documents: map[string]string{openid: `{"issuer":"%[1]s/realm","jwks_uri":"http://x/"}`}, path: "/realm", reason: InvalidDiscovery, hint: "https"},
		"a jwks_uri without end":          {documents: map[string]string{openid: `{"issuer":"%[1]s/realm","jwks_uri":"%[1]s/keys?` + strings.Repeat("x", 2048) + `"}`}, path: "/realm", reason: InvalidDiscovery, hint: "2048"},
		"a page":                          {documents: map[string]string{openid: `<html>%[1]s`}, path: "/realm", reason: InvalidDiscovery, hint: "JSON"},
		"null":                            {documents: map[string]string{openid: `null`}, path: "/realm", reason: InvalidDiscovery},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target, roots := serve(t, tc.documents)
			at := ""
			if tc.at != "" {
				at = target + tc.at
			}
			uri, err := newFetcher(t, Options{}).Discover(context.Background(), Request{CABundle: roots}, target+tc.path, at)
			if tc.reason == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(uri).To(Equal(target + "/keys"))
				return
			}
			e := failure(t, err)
			g.Expect(e.Reason).To(Equal(tc.reason), e.Message)
			g.Expect(e.Message).To(ContainSubstring(tc.hint))
		})
	}
}

func TestDiscoverNeedsAnIssuerThatIsAURL(t *testing.T) {
	for _, issuer := range []string{"orders", "http://issuer.example.com", "https://issuer.example.com?x=1", "https://issuer.example.com#x", "https://me@issuer.example.com", "urn:x:y"} {
		_, err := newFetcher(t, Options{}).Discover(context.Background(), Request{}, issuer, "")
		e := failure(t, err)
		g := NewWithT(t)
		g.Expect(e.Reason).To(Equal(InvalidURL), issuer)
		g.Expect(e.Message).To(ContainSubstring("spec.jwksURI"))
	}
}
