// check_network.go checks what this machine can reach.

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
)

// checkIssuers fetches each issuer's keys.
func (k *checker) checkIssuers() {
	issuers, err := k.list(k.ctx, k.allNamespaces)
	if err != nil {
		k.add(groupIssuers, "issuers", checkSkipped, err.Error(), "")
		return
	}
	if len(issuers) == 0 {
		k.add(groupIssuers, "issuers", checkSkipped, "there are none here", "-A checks those of all namespaces.")
		return
	}
	f, err := k.fetcher(k.ctx, k.egress)
	if err != nil {
		k.add(groupIssuers, "issuers", checkFailed, err.Error(), "")
		return
	}
	defer f.Close()
	for _, issuer := range issuers {
		name := describedAs(issuer)
		if issuer.IssuerSpec().Static() {
			k.add(groupIssuers, name, checkSkipped, "its keys are given inline", "")
			continue
		}
		doc, uri, err := k.fetchKeys(k.ctx, f, issuer)
		if err != nil {
			k.addFetchError(name, err)
			continue
		}
		parsed, err := keyset.Parse(doc.Body, admission(issuer))
		if err != nil {
			k.add(groupIssuers, name, checkFailed, uri+": "+err.Error(), "")
			continue
		}
		k.add(groupIssuers, name, checkOK, fmt.Sprintf("%s at %s", count(parsed.Set.Len(), "usable key"), uri), "")
	}
	for _, issuer := range issuers {
		if all, some := eddsaKeys(issuer); some {
			detail := "some keys are for EdDSA"
			if all {
				detail = "all keys are for EdDSA"
			}
			k.add(groupAlgorithms, describedAs(issuer), checkWarning, detail+", which kube-apiserver's own OIDC does not know", "To log in to Kubernetes with its tokens, use the token webhook: "+kubernetesDocument)
		}
	}
}

// addFetchError notes why keys cannot be fetched from here.
func (k *checker) addFetchError(name string, err error) {
	do := "The controller may fare better: kubectl jwks status"
	var problem *fetch.Error
	if errors.As(err, &problem) && problem.Reason == fetch.EgressBlocked {
		do = "If the controller's policy allows it, give that here too: --egress-allow-cidr"
	}
	k.add(groupIssuers, name, checkFailed, err.Error(), do)
}

// checkVerifier asks the verifier for something that it always answers in its own way:
// a path of the mirror that names no issuer.
func (k *checker) checkVerifier() {
	ctx, cancel := context.WithTimeout(k.ctx, k.timeout)
	defer cancel()
	var how string
	var answers func(path string) (int, error)
	if k.verifierURL != "" {
		how = k.verifierURL
		httpClient, err := k.verifierClient(ctx)
		if err != nil {
			k.add(groupVerifier, how, checkFailed, err.Error(), "")
			return
		}
		defer httpClient.CloseIdleConnections()
		answers = func(path string) (int, error) {
			return status(ctx, httpClient, strings.TrimSuffix(k.verifierURL, "/")+path)
		}
	} else {
		how = "Service " + k.operatorNamespace + "/" + serviceName
		proxied, at, err := k.throughAPIServer()
		if err != nil {
			k.add(groupVerifier, how, checkSkipped, err.Error(), "")
			return
		}
		answers = func(path string) (int, error) { return status(ctx, proxied, at+path) }
	}
	code, err := answers("/mirror/cluster/-/jwks.json")
	switch {
	case err != nil:
		k.add(groupVerifier, how, checkFailed, err.Error(), "Is that its address, and do you trust its certificate? --verifier-url, --verifier-ca")
		return
	case code == http.StatusForbidden:
		k.add(groupVerifier, how, checkSkipped, "you may not get services/proxy", "Give --verifier-url, if it can be reached from here.")
		return
	case code != http.StatusNotFound:
		k.add(groupVerifier, how, checkFailed, fmt.Sprintf("HTTP status %d", code), "Is it the verifier? Are its pods ready?")
		return
	}
	k.add(groupVerifier, how, checkOK, "mirror and forward-auth answer", "")
	k.checkTokenReview(how, answers)
}

// checkTokenReview tells whether the path is there at all. Only the API server's
// client certificate opens it.
func (k *checker) checkTokenReview(how string, answers func(string) (int, error)) {
	code, err := answers("/tokenreview")
	switch {
	case err != nil:
		k.add(groupVerifier, how, checkFailed, "token webhook: "+err.Error(), "")
	case code == http.StatusNotFound:
		k.add(groupVerifier, how, checkWarning, "token webhook: off", "For logging in to Kubernetes through it, set the manager's --tokenreview-client-ca-file: "+kubernetesDocument)
	default:
		k.add(groupVerifier, how, checkOK, "token webhook: on, for clients with the API server's certificate", "")
	}
}

// verifierClient trusts the authority of the verifier's certificate.
func (k *checker) verifierClient(ctx context.Context) (*http.Client, error) {
	u, err := url.Parse(k.verifierURL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--verifier-url: %q is not an https URL", k.verifierURL)
	}
	ca, err := (&exportOptions{c: k.cli, authority: k.authority}).ca(ctx)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("the certificate authority holds no PEM certificate")
		}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}, nil
}

// throughAPIServer is a client, and the verifier's URL behind the API server's proxy.
func (k *checker) throughAPIServer() (*http.Client, string, error) {
	config, err := k.config()
	if err != nil {
		return nil, "", err
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, "", err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, "", err
	}
	return httpClient, strings.TrimSuffix(base.String(), "/") + "/api/v1/namespaces/" + k.operatorNamespace + "/services/https:" + serviceName + ":verifier/proxy", nil
}

// status is the HTTP status of a GET.
func status(ctx context.Context, httpClient *http.Client, at string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0, err
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // only the status counts
	return resp.StatusCode, resp.Body.Close()
}
