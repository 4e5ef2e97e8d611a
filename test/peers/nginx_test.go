package peers

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// mainNginx is what stands around the configuration of testdata, as distributions
// have it in nginx.conf: here all files are in the folder that nginx is started in,
// and it is one process, which nothing can outlive.
const mainNginx = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {}
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
`

// startNginx runs nginx with the configuration of testdata.
func startNginx(t *testing.T, s settings) { startNginxWith(t, s, strings.NewReplacer()) }

// startNginxWith changes the configuration before.
func startNginxWith(t *testing.T, s settings, change *strings.Replacer) {
	t.Helper()
	if s.Log == "" {
		s.Log = "access.log"
	}
	run(t, s.Listen, nginx(t, change.Replace(render(t, "nginx.conf.tmpl", s)))...)
}

// nginx is the command that runs it with a file for conf.d.
func nginx(t *testing.T, site string) []string {
	t.Helper()
	path := program(t, "NGINX", "install nginx, such as with apt-get install nginx-light", "nginx", "/usr/sbin/nginx")
	prefix := openDir(t)
	write(t, prefix, "site.conf", site)
	config := write(t, prefix, "nginx.conf", mainNginx)
	return []string{path, "-p", prefix, "-e", "stderr", "-c", config}
}

func TestNginx(t *testing.T) { testProxy(t, startNginx) }

func TestNginxUndecided(t *testing.T) {
	testUndecided(t, startNginx, map[string]int{"": http.StatusServiceUnavailable})
}

// Without the error page, and that is what most configurations are, a client sees
// nginx's 500.
func TestNginxUndecidedWithoutErrorPage(t *testing.T) {
	const line = "error_page 500 = @cannot_decide;"
	if !strings.Contains(render(t, "nginx.conf.tmpl", settings{}), line) {
		t.Fatalf("the configuration lacks %q", line)
	}
	start := func(t *testing.T, s settings) { startNginxWith(t, s, strings.NewReplacer(line, "")) }
	testUndecided(t, start, map[string]int{"": http.StatusInternalServerError})
}

// What nginx asks under, a client cannot ask for.
func TestNginxKeepsItsQuestionsInternal(t *testing.T) {
	key := testissuer.NewKey("k1", "RS256")
	a := startApplication(t)
	config := newSettings(t, startServer(t, key), a)
	startNginx(t, config)
	c := proxyCase{request: request{path: "/_jwks_trust", header: bearer(key.Sign(claims(nil)))}, status: http.StatusNotFound}
	c.run(t, "http://"+config.Listen, a)
}

// The log has the reason, which nginx's own messages lack.
func TestNginxLogsTheReason(t *testing.T) {
	key := testissuer.NewKey("k1", "RS256")
	s, a := startServer(t, key), startApplication(t)
	config := newSettings(t, s, a)
	config.Log = filepath.Join(openDir(t), "access.log")
	startNginx(t, config)
	url, good := "http://"+config.Listen, bearer(key.Sign(claims(nil)))
	logged := func(status int, auth string) {
		t.Helper()
		line := fmt.Sprintf(`" %d %s`, status, auth)
		within(t, "the log has "+line, func() bool {
			text, err := os.ReadFile(config.Log)
			return err == nil && strings.Contains(string(text), line)
		})
	}
	send(t, newClient(t, nil), url, request{header: good})
	logged(http.StatusOK, "auth=200 reason=\n")
	send(t, newClient(t, nil), url, request{header: bearer(tampered(key))})
	logged(http.StatusUnauthorized, "auth=401 reason=SignatureInvalid")
	s.publish(t)
	send(t, newClient(t, nil), url, request{header: good})
	logged(http.StatusServiceUnavailable, "auth=503 reason=NoSnapshot")
}
