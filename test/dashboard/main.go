// Command dashboard makes docs/dashboard.png: a quarter of an hour in the life of a
// small cluster, seen by a real Prometheus, and drawn by page/ as
// config/grafana/dashboard.json says.
//
// etcd, kube-apiserver, the managers and Prometheus are real ones. Issuers rotate, fall
// silent, come back and are misspelt (life.go), and all the while tokens are shown to
// the verifiers (traffic.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// scrapeEvery is how often Prometheus reads the metrics.
const scrapeEvery = 5 * time.Second

func main() {
	manager := flag.String("manager", "bin/manager", "the manager's binary")
	out := flag.String("out", "docs/dashboard.png", "where the picture goes")
	keep := flag.Bool("keep", false, "leave everything running at the end, until interrupted, for a Grafana of your own")
	flag.Parse()

	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := harness.InCluster(ctx, func(c *harness.Cluster) error {
		return run(ctx, &world{Cluster: c, binary: *manager, issuers: map[string]*issuer{}}, *out, *keep)
	}, namespaces...); err != nil {
		fmt.Fprintln(os.Stderr, "There is no new picture:", err)
		stop()
		os.Exit(1)
	}
}

// world is everything that runs.
type world struct {
	*harness.Cluster

	binary      string
	client      *http.Client // with the API server's certificate
	verifiers   []string     // their addresses
	controllers []*harness.Manager
	targets     []string           // of Prometheus, as its configuration has them
	issuers     map[string]*issuer // by the paths of their objects
}

func run(ctx context.Context, w *world, out string, keep bool) error {
	defer w.stopIssuers()
	harness.Say("Starting two controllers, two verifiers and Prometheus ...")
	if err := errors.Join(w.startIssuers(), w.makeCertificates(), w.startController(ctx), w.startController(ctx), w.startVerifier(ctx), w.startVerifier(ctx)); err != nil {
		return err
	}
	prometheus, address, err := w.startPrometheus(ctx)
	if err != nil {
		return err
	}
	defer prometheus.Stop()
	from := time.Now()
	if err := w.live(ctx); err != nil {
		return err
	}
	if err := draw(ctx, address, from, time.Now(), out); err != nil || !keep {
		return err
	}
	harness.Say("Until you press Ctrl-C, life goes on, and Prometheus is at %s", address)
	return w.serve(ctx)
}

// draw has the panels drawn, and photographed.
func draw(ctx context.Context, prometheus string, from, to time.Time, out string) error {
	harness.Say("Drawing the panels ...")
	cmd := exec.CommandContext(ctx, "node", filepath.Join(harness.Root(), "test", "dashboard", "page", "picture.mjs"), //nolint:gosec // a program of ours
		prometheus, strconv.FormatInt(from.UnixMilli(), 10), strconv.FormatInt(to.UnixMilli(), 10), strconv.Itoa(int(scrapeEvery.Seconds())), out)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func (w *world) startController(ctx context.Context) error {
	m, err := w.startManager(ctx, harness.Controller, len(w.controllers)+1, "--leader-elect")
	w.controllers = append(w.controllers, m)
	return err
}

func (w *world) startVerifier(ctx context.Context) error {
	address, err := harness.FreeAddress()
	if err != nil {
		return err
	}
	w.verifiers = append(w.verifiers, address)
	_, err = w.startManager(ctx, harness.Verifier, len(w.verifiers), "--verifier-bind-address", address,
		"--tls-cert-file", w.Path("tls.crt"), "--tls-private-key-file", w.Path("tls.key"),
		"--tokenreview-client-ca-file", w.Path("ca.crt"), "--api-audiences", audience)
	return err
}

// startManager starts one that Prometheus finds, with the labels that it would give a
// pod.
func (w *world) startManager(ctx context.Context, component string, n int, args ...string) (*harness.Manager, error) {
	metrics, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("jwks-trust-%s-%d", component, n)
	w.targets = append(w.targets, fmt.Sprintf("{targets: [%q], labels: {namespace: %s, pod: %s}}", metrics, harness.OperatorNamespace, name))
	if err := w.write("targets.yaml", []byte("["+strings.Join(w.targets, ",\n")+"]")); err != nil {
		return nil, err
	}
	return w.StartManager(ctx, w.binary, component, name, append(args, "--metrics-bind-address", metrics)...)
}

func (w *world) startPrometheus(ctx context.Context) (*harness.Manager, string, error) {
	address, err := harness.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	if err := w.write("prometheus.yaml", fmt.Appendf(nil, `
scrape_configs:
  - job_name: jwks-trust-manager
    honor_labels: true
    scrape_interval: %s
    file_sd_configs: [{files: [%q]}]
`, scrapeEvery, w.Path("targets.yaml"))); err != nil {
		return nil, "", err
	}
	p, err := harness.StartProgram("Prometheus", w.Path("prometheus.log"), "prometheus", "--config.file", w.Path("prometheus.yaml"),
		"--storage.tsdb.path", w.Path("prometheus"), "--web.listen-address", address)
	if err != nil {
		return nil, "", err
	}
	url := "http://" + address
	return p, url, harness.Within(ctx, time.Minute, 200*time.Millisecond, "Prometheus to become ready", func() (bool, error) {
		resp, err := http.Get(url + "/-/ready") //nolint:noctx // a loopback address of ours
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

func (w *world) write(name string, content []byte) error {
	return os.WriteFile(w.Path(name), content, 0o600)
}
