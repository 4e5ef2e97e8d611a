// counts.go reads what the API server and the managers count: writes, memory, CPU.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// writes counts writes by resource, a slash and the subresource if there is one, a
// space, and the verb.
type writes map[string]int

// readVerbs are those that write nothing.
var readVerbs = []string{"GET", "LIST", "WATCH", "CONNECT"}

// ours are the resources of which writes are reported. The rest is what the API server
// writes for itself.
var ours = []string{"configmaps", "events", "trustedissuers", "clustertrustedissuers", "leases"}

// countWrites is what the API server has counted since its start.
func countWrites(ctx context.Context, c *harness.Cluster) (writes, error) {
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return nil, err
	}
	text, err := scrape(ctx, client, strings.TrimSuffix(c.Config.Host, "/")+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("reading the metrics of the API server: %w", err)
	}
	out := writes{}
	for _, s := range samples(text, "apiserver_request_total") {
		if slices.Contains(readVerbs, s.labels["verb"]) || !slices.Contains(ours, s.labels["resource"]) {
			continue
		}
		resource := s.labels["resource"]
		if sub := s.labels["subresource"]; sub != "" {
			resource += "/" + sub
		}
		out[resource+" "+s.labels["verb"]] += int(s.value)
	}
	return out, nil
}

// since is what was written after an earlier count.
func (w writes) since(before writes) writes {
	out := writes{}
	for k, n := range w {
		if n > before[k] {
			out[k] = n - before[k]
		}
	}
	return out
}

// of sums up what begins with one of the names.
func (w writes) of(prefixes ...string) (sum int) {
	for k, n := range w {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			sum += n
		}
	}
	return sum
}

// status sums up the writes to the status of both kinds.
func (w writes) status() int { return w.of("trustedissuers/status", "clustertrustedissuers/status") }

func (w writes) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(w)) {
		if w[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, w[k]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// process is a manager with its metrics.
type process struct {
	*harness.Manager

	metrics, profiles string
}

// usage is what a process has used.
type usage struct {
	cpu       time.Duration
	rss, heap int // bytes
}

// start starts a process.
func start(ctx context.Context, c *harness.Cluster, o *options, component, name string, args ...string) (*process, error) {
	p := &process{}
	for _, at := range []*string{&p.metrics, &p.profiles} {
		var err error
		if *at, err = harness.FreeAddress(); err != nil {
			return nil, err
		}
	}
	args = append(args, "--metrics-bind-address", p.metrics)
	if o.profiles != "" {
		args = append(args, "--pprof-bind-address", p.profiles)
	}
	var err error
	p.Manager, err = c.StartManager(ctx, o.manager, component, name, args...)
	return p, err
}

// used reads the metrics of the process.
func (p *process) used(ctx context.Context) (usage, error) {
	text, err := scrape(ctx, http.DefaultClient, "http://"+p.metrics+"/metrics")
	if err != nil {
		return usage{}, fmt.Errorf("reading the metrics of %s: %w", p.Name, err)
	}
	one := func(name string) float64 {
		for _, s := range samples(text, name) {
			return s.value
		}
		return 0
	}
	return usage{
		cpu: time.Duration(one("process_cpu_seconds_total") * float64(time.Second)),
		rss: int(one("process_resident_memory_bytes")), heap: int(one("go_memstats_heap_alloc_bytes")),
	}, nil
}

func scrape(ctx context.Context, client *http.Client, url string) (string, error) {
	if !strings.Contains(url, "://") {
		url = "https://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", url, resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// sample is a line of Prometheus' text format.
type sample struct {
	labels map[string]string
	value  float64
}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// samples are those of a metric.
func samples(text, name string) []sample {
	var out []sample
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		at := strings.LastIndexByte(rest, ' ')
		value, err := strconv.ParseFloat(rest[at+1:], 64)
		if err != nil {
			continue
		}
		s := sample{labels: map[string]string{}, value: value}
		for _, m := range label.FindAllStringSubmatch(rest[:at], -1) {
			s.labels[m[1]] = m[2]
		}
		out = append(out, s)
	}
	return out
}
