package peers

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// mainCaddyfile is what stands before the configuration of testdata: nothing but
// the site listens, on loopback, and nothing is asked for certificates.
const mainCaddyfile = `
{
	admin off
	auto_https off
	persist_config off
	default_bind 127.0.0.1
}
import site.Caddyfile
`

// startCaddy runs Caddy with the configuration of testdata.
func startCaddy(t *testing.T, s settings) {
	startCaddyWith(t, s, strings.NewReplacer())
}

// startCaddyWith changes the global options.
func startCaddyWith(t *testing.T, s settings, change *strings.Replacer) {
	t.Helper()
	caddy := program(t, "CADDY", "build it with hack/peers.sh", "../../bin/caddy")
	dir := openDir(t)
	write(t, dir, "site.Caddyfile", render(t, "Caddyfile.tmpl", s))
	config := write(t, dir, "Caddyfile", change.Replace(mainCaddyfile))
	run(t, s.Listen, caddy, "run", "--adapter", "caddyfile", "--config", config)
}

func TestCaddy(t *testing.T) { testProxy(t, startCaddy) }

// What a client sends under a name like ours is gone, also where nothing replaces
// it.
func TestCaddyRemovesThePrefix(t *testing.T) {
	key := testissuer.NewKey("k1", "RS256")
	a := startApplication(t)
	config := newSettings(t, startServer(t, key), a)
	startCaddy(t, config)
	c := proxyCase{
		request: request{header: with(bearer(key.Sign(claims(nil))), map[string]string{"X-Auth-Roles": "admin"})},
		status:  http.StatusOK, identity: alice(nil), answer: greeting,
	}
	c.run(t, "http://"+config.Listen, a)
}

// Caddy drops headers with underscores and dots by now. The configuration has to
// hold without that too.
func TestCaddyThatDropsNoHeaders(t *testing.T) {
	var underscored, dotted []string
	for name := range spoofed {
		if strings.Contains(name, "_") {
			underscored = append(underscored, name)
		}
		if strings.Contains(name, ".") {
			dotted = append(dotted, name)
		}
	}
	options := "servers {\nexpected_underscore_headers " + strings.Join(underscored, " ") + "\nexpected_dot_headers " + strings.Join(dotted, " ") + "\n}\n"
	testProxy(t, func(t *testing.T, s settings) {
		startCaddyWith(t, s, strings.NewReplacer("admin off", options+"admin off"))
	})
}

func TestCaddyUndecided(t *testing.T) {
	testUndecided(t, startCaddy, map[string]int{
		"an issuer without keys": http.StatusServiceUnavailable,
		"no such issuer":         http.StatusServiceUnavailable,
		"a path of no issuer":    http.StatusNotFound,
		"":                       http.StatusBadGateway,
	})
}
