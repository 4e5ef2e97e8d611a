package peers

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// exported is what `kubectl jwks export --format nginx` writes, as the tests of that
// command have it, in a server block and with what is here in place of what is in a
// cluster.
func exported(t *testing.T, file string, s settings) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "cmd", "kubectl-jwks", "testdata", file))
	must(t, err)
	here := string(text)
	for there, to := range map[string]string{
		"proxy_pass https://jwks-trust-manager.jwks-trust-system.svc/": "proxy_pass https://" + s.Verifier + "/",
		"proxy_ssl_name jwks-trust-manager.jwks-trust-system.svc;":     "proxy_ssl_name " + s.ServerName + ";",
		"proxy_pass http://127.0.0.1:8080;":                            "proxy_pass http://" + s.Application + ";",
		"/etc/jwks-trust/ca.crt":                                       s.Authority,
	} {
		if strings.Count(here, there) != 1 {
			t.Fatalf("%s does not have %q once", file, there)
		}
		here = strings.ReplaceAll(here, there, to)
	}
	return "server {\nlisten " + s.Listen + ";\n" + here + "}\n"
}

func startExported(t *testing.T, s settings) {
	t.Helper()
	site := strings.Replace(exported(t, "export-nginx.txt", s), "/forward-auth/"+trusted+";", "/forward-auth/"+s.Issuer+";", 1)
	run(t, s.Listen, nginx(t, site)...)
}

// What is exported does all that the documented configuration does.
func TestNginxExported(t *testing.T) { testProxy(t, startExported) }

func TestNginxExportedUndecided(t *testing.T) {
	testUndecided(t, startExported, map[string]int{"": http.StatusServiceUnavailable})
}

// nginx takes what is exported for each kind.
func TestNginxTakesWhatIsExported(t *testing.T) {
	config := newSettings(t, startServer(t), startApplication(t))
	for _, file := range []string{"export-nginx.txt", "export-nginx-cluster.txt"} {
		command := append(nginx(t, exported(t, file, config)), "-t")
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil { //nolint:gosec // nginx
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
	broken := strings.Replace(exported(t, "export-nginx.txt", config), "auth_request_set", "auth_request_sets", 1)
	command := append(nginx(t, broken), "-t")
	if exec.CommandContext(t.Context(), command[0], command[1:]...).Run() == nil { //nolint:gosec // nginx
		t.Error("nginx takes anything")
	}
}
