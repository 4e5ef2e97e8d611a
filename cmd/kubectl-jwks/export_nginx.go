// export_nginx.go writes what stands in an nginx server block. docs/forward-auth.md
// has a whole configuration, and says why each line is there.

package main

import (
	"context"
	"net/url"
	"strings"
	"text/template"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

var nginxTemplate = template.Must(template.New("nginx").Parse(`# Tokens of {{.Issuer}}, judged by {{.Name}}.
# For a server block; an application behind it must be reachable through nginx alone.
# A whole configuration: ` + forwardAuthDocument + `
large_client_header_buffers 4 32k;
underscores_in_headers off;
ignore_invalid_headers on;

location / {
    auth_request /_jwks_trust;
    # What a client sends under these names is replaced.
{{- range .Headers}}
    auth_request_set ${{.Variable}} $upstream_http_{{.Upstream}};
    proxy_set_header {{.Name}} ${{.Variable}};
{{- end}}
    # "Cannot decide" is 503, which nginx makes 500 of.
    error_page 500 = @jwks_trust_cannot_decide;
    # Your application:
    proxy_pass http://127.0.0.1:8080;
}

location @jwks_trust_cannot_decide {
    return 503;
}

location = /_jwks_trust {
    internal;
    proxy_pass {{.URL}}/forward-auth/{{.Path}};
    proxy_ssl_verify on;
    # ca.crt of the ConfigMap jwks-trust-manager-ca:
    proxy_ssl_trusted_certificate /etc/jwks-trust/ca.crt;
    proxy_ssl_name {{.Host}};
    proxy_ssl_server_name on;
    proxy_http_version 1.1;
    proxy_pass_request_body off;
    proxy_set_header Content-Length "";
    proxy_connect_timeout 2s;
    proxy_buffer_size 32k;
    proxy_buffers 4 32k;
}
`))

type nginxHeader struct{ Name, Variable, Upstream string }

func (o *exportOptions) nginx(ctx context.Context, issuer api.Issuer) (string, error) {
	at, err := o.verifier(ctx)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(at)
	if err != nil || u.Hostname() == "" {
		return "", advise("Such as https://"+serviceName+"."+operatorNamespace+".svc.", "the verifier's URL %q is none", at)
	}
	headers := []nginxHeader{headerOf("X-Auth-Subject"), headerOf("X-Auth-Issuer")}
	if v := issuer.IssuerSpec().Verification; v != nil {
		for _, h := range v.ResponseHeaders {
			headers = append(headers, headerOf(h.Name))
		}
	}
	var text strings.Builder
	err = nginxTemplate.Execute(&text, map[string]any{
		"Issuer": plain(issuer.IssuerSpec().Issuer), "Name": describedAs(issuer), "Headers": headers,
		"URL": at, "Path": pathOf(issuer), "Host": u.Hostname(),
	})
	return text.String(), err
}

// headerOf names a header as nginx does.
func headerOf(name string) nginxHeader {
	lower := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	return nginxHeader{name, "jwks_" + lower, lower}
}
