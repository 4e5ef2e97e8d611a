package peers

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

func TestJose(t *testing.T) {
	testMirrorClient(t, func(t *testing.T, s *server) mirrorClient { return startJose(t, s, s.authorityFile) })
}

// NODE_EXTRA_CA_CERTS is needed, and enough.
func TestJoseNeedsTheAuthority(t *testing.T) {
	key := testissuer.NewKey("k1", "RS256")
	s, other := startServer(t, key), startServer(t)
	err := startJose(t, s, other.authorityFile)(key.Sign(claims(nil)))
	if err == nil || !strings.Contains(err.Error(), "UNABLE_TO_VERIFY_LEAF_SIGNATURE") {
		t.Error(err)
	}
}

// startJose runs node/verify.mjs, which trusts the authority in the file.
func startJose(t *testing.T, s *server, authorityFile string) mirrorClient {
	t.Helper()
	node := program(t, "NODE", "install Node.js 18 or later, such as with apt-get install nodejs npm", "node", "nodejs")
	if _, err := os.Stat(filepath.Join("node", "node_modules", "jose", "package.json")); err != nil {
		t.Fatalf("jose is not installed: run hack/peers.sh (%v)", err)
	}
	cmd := exec.CommandContext(t.Context(), node, "verify.mjs", s.mirrorURL())
	cmd.Dir, cmd.Stderr = "node", t.Output()
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+authorityFile)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // the end of the test ends it
	answers := bufio.NewReader(out)
	return func(token string) error { return ask(in, answers, token) }
}

// ask has the script verify a token.
func ask(in io.Writer, answers *bufio.Reader, token string) error {
	question := map[string]string{"token": token, "issuer": issuerURL, "audience": audience}
	if err := json.NewEncoder(in).Encode(question); err != nil {
		return err
	}
	answer, err := answers.ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "accepted "+subject+"\n" {
		return errors.New(answer)
	}
	return nil
}
