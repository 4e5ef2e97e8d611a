// discovery.go finds where an issuer's keys are (OpenID Connect Discovery 1.0
// section 4, RFC 8414 section 3).

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// Discover reads an issuer's metadata and returns its jwks_uri: from discoveryURL
// where that is given, else from the two well-known places, OpenID's first. The
// metadata's issuer must be the issuer, to the byte. r says how to fetch; its URL
// is not used. Its errors are *Error.
func (f *Fetcher) Discover(ctx context.Context, r Request, issuer, discoveryURL string) (string, error) {
	r.ETag, r.LastModified = "", ""
	return discover(issuer, discoveryURL, func(place string) (*Document, error) {
		r.URL = place
		return f.Fetch(ctx, r)
	})
}

func discover(issuer, discoveryURL string, get func(url string) (*Document, error)) (string, error) {
	if discoveryURL != "" {
		uri, err := metadata(get, discoveryURL, issuer)
		return uri, about("spec.discoveryURL", err)
	}
	places, err := wellKnown(issuer)
	if err != nil {
		return "", err
	}
	var first error
	for _, place := range places {
		uri, err := metadata(get, place, issuer)
		if err == nil {
			return uri, nil
		}
		if first == nil {
			first = about("the discovery document of spec.issuer", err)
		}
		if !Gone(err) {
			break
		}
	}
	return "", first
}

// maxJWKSURI is the longest jwks_uri that is followed, in bytes: as long as
// spec.jwksURI may be, and status.jwksURI.
const maxJWKSURI = 2048

// Gone reports whether an error says that there is nothing at the URL, or no
// longer.
func Gone(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// Contradicts reports whether an error says that the issuer's metadata were read and
// say something that cannot be: what they said before counts no more.
func Contradicts(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Reason == IssuerMismatch || e.Reason == InvalidDiscovery)
}

// wellKnown are the places where an issuer's metadata may be.
func wellKnown(issuer string) ([]string, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.ContainsAny(issuer, "?#") {
		return nil, fail(InvalidURL, "spec.issuer is not an https URL without query and fragment, so its keys cannot be discovered; set spec.jwksURI or spec.discoveryURL.")
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	origin := "https://" + u.Host
	return []string{
		origin + path + "/.well-known/openid-configuration",
		origin + "/.well-known/oauth-authorization-server" + path,
	}, nil
}

// metadata reads one document.
func metadata(get func(url string) (*Document, error), place, issuer string) (string, error) {
	doc, err := get(place)
	if err != nil {
		return "", err
	}
	// By their exact names: decoding into a struct would ignore case.
	var members map[string]json.RawMessage
	if json.Unmarshal(doc.Body, &members) != nil || members == nil {
		return "", fail(InvalidDiscovery, "What is at spec.jwksURI is not a discovery document (a JSON object); check the URL.")
	}
	var found, uri string
	if json.Unmarshal(members["issuer"], &found) != nil || found != issuer {
		return "", fail(IssuerMismatch, "The metadata at spec.jwksURI is not for spec.issuer, byte for byte; make spec.issuer exactly what the document says, to the last slash, or correct the URL.")
	}
	if json.Unmarshal(members["jwks_uri"], &uri) != nil || uri == "" {
		return "", fail(InvalidDiscovery, "The metadata at spec.jwksURI has no jwks_uri; set spec.jwksURI to where the keys are.")
	}
	if _, err := checkURL(uri); err != nil {
		return "", fail(InvalidDiscovery, "The metadata at spec.jwksURI has a jwks_uri that is not an https URL without user information and fragment; set spec.jwksURI to where the keys are.")
	}
	if len(uri) > maxJWKSURI {
		return "", fail(InvalidDiscovery, "The metadata at spec.jwksURI has a jwks_uri of over 2048 bytes; set spec.jwksURI to where the keys are.")
	}
	return uri, nil
}

// about makes an error speak of the URL that it was asked for, which is not that
// of the keys.
func about(what string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Message = clean(strings.ReplaceAll(strings.Replace(e.Message, "spec.jwksURI", what, 1), "correct the host in spec.jwksURI", "correct its host"))
	return &named
}
