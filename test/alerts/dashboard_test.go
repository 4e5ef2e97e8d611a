package alerts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// query is one that the dashboard or a rule asks, and what shows its labels.
type query struct{ where, expr, shown string }

var (
	// documentedRow is a metric in docs/reference.md, which tests of the components
	// keep in step with the code.
	documentedRow = regexp.MustCompile("(?m)^\\| `([a-z_]+_[a-z_]+)(?:\\{([a-z,]+)\\})?` \\|")
	selection     = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*[{\[]([^}\]]*)`)
	bare          = regexp.MustCompile(`\b(?:jwks_trust|leader_election)_[a-z_]+\b`)
	matcher       = regexp.MustCompile(`([a-zA-Z_]+)\s*(?:=~|!~|!=|=)`)
	grouping      = regexp.MustCompile(`\b(?:by|on)\s*\(([^)]*)\)`)
	shownLabel    = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}`)
)

// documentedMetrics are the labels of each metric in docs/reference.md.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "reference.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	metrics := map[string][]string{}
	for _, row := range documentedRow.FindAllStringSubmatch(section, -1) {
		labels := strings.FieldsFunc(row[2], func(r rune) bool { return r == ',' })
		if strings.HasPrefix(row[1], "jwks_trust_issuer_") {
			labels = append(labels, "kind", "namespace", "name")
		}
		metrics[row[1]] = labels
	}
	if len(metrics) < 15 {
		t.Fatalf("docs/reference.md has only %d metrics: %v", len(metrics), metrics)
	}
	return metrics
}

// dashboardQueries are those of config/grafana/dashboard.json.
func dashboardQueries(t *testing.T) []query {
	t.Helper()
	var dashboard struct {
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	read(t, "config/grafana/dashboard.json", &dashboard)
	var found []query
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			found = append(found, query{"panel " + p.Title, target.Expr, target.LegendFormat})
		}
	}
	for _, v := range dashboard.Templating.List {
		if inside := regexp.MustCompile(`^label_values\((.*), ([a-z]+)\)$`).FindStringSubmatch(v.Definition); inside != nil {
			found = append(found, query{"variable " + v.Name, inside[1], "{{" + inside[2] + "}}"})
		}
	}
	return found
}

// rules are those of config/prometheus/rules.yaml.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations map[string]string
		}
	}
}

func ruleQueries(t *testing.T) []query {
	t.Helper()
	var r rules
	read(t, "config/prometheus/rules.yaml", &r)
	var found []query
	for _, rule := range r.Groups[0].Rules {
		found = append(found, query{"alert " + rule.Alert, rule.Expr, strings.Join(slices.Collect(maps.Values(rule.Annotations)), " ")})
	}
	return found
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), path))
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestQueriesNameOurMetrics: whatever the dashboard and the rules ask for exists,
// labels included.
func TestQueriesNameOurMetrics(t *testing.T) {
	metrics := documentedMetrics(t)
	queries := append(dashboardQueries(t), ruleQueries(t)...)
	if len(queries) < 30 {
		t.Fatalf("only %d queries were found", len(queries))
	}
	for _, q := range queries {
		for _, problem := range problems(q, metrics) {
			t.Errorf("%s: %s, in %s", q.where, problem, q.expr)
		}
	}
}

// problems are names in a query that do not exist.
func problems(q query, metrics map[string][]string) []string {
	var found []string
	used := bare.FindAllString(q.expr, -1)
	for _, s := range selection.FindAllStringSubmatch(q.expr, -1) {
		used = append(used, s[1])
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(metrics[s[1]], m[1]) {
				found = append(found, s[1]+" has no label "+m[1])
			}
		}
	}
	for _, name := range used {
		if _, ok := metrics[name]; !ok {
			found = append(found, "there is no metric "+name)
		}
	}
	// What is shown or grouped by has to be a label of one of the query's metrics.
	var ofQuery []string
	for _, name := range used {
		ofQuery = append(ofQuery, metrics[name]...)
	}
	labels := []string{}
	for _, g := range grouping.FindAllStringSubmatch(q.expr, -1) {
		labels = append(labels, strings.FieldsFunc(g[1], func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	for _, s := range shownLabel.FindAllStringSubmatch(q.shown, -1) {
		labels = append(labels, s[1])
	}
	for _, l := range labels {
		if !slices.Contains(ofQuery, l) {
			found = append(found, "none of its metrics has the label "+l)
		}
	}
	return found
}

// TestNamesThatDoNotExistAreSeen: the check above can fail.
func TestNamesThatDoNotExistAreSeen(t *testing.T) {
	metrics := map[string][]string{"jwks_trust_a_total": {"kind"}}
	for _, q := range []query{
		{"", `rate(jwks_trust_b_total[5m])`, ""},
		{"", `jwks_trust_b_total > 1`, ""},
		{"", `jwks_trust_a_total{name="x"}`, ""},
		{"", `sum by (name) (jwks_trust_a_total)`, ""},
		{"", `jwks_trust_a_total`, "{{name}}"},
		{"", `http_requests_total{}`, ""},
	} {
		if len(problems(q, metrics)) == 0 {
			t.Errorf("nothing is wrong with %+v", q)
		}
	}
	if p := problems(query{"", `sum by (kind) (rate(jwks_trust_a_total{kind="x"}[5m]))`, "{{kind}}"}, metrics); len(p) > 0 {
		t.Error(p)
	}
}

// TestDashboardQueriesParse asks Prometheus' own parser.
func TestDashboardQueriesParse(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool: install Prometheus, for instance with apt-get install prometheus")
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var all []rule
	for i, q := range dashboardQueries(t) {
		all = append(all, rule{fmt.Sprintf("dashboard:%d", i), strings.ReplaceAll(q.expr, "$__rate_interval", "5m")})
	}
	file := map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": all}}}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// panel is what a panel's place and columns are.
type panel struct {
	ID              int
	Title           string
	GridPos         struct{ X, Y, W, H int }
	Targets         []struct{ RefID string }
	Transformations []struct {
		Options struct{ IndexByName, RenameByName map[string]any }
	}
}

// TestPanelsFit: no panel lies upon another or outside of the grid, and the columns of
// tables are those of their queries.
func TestPanelsFit(t *testing.T) {
	var dashboard struct{ Panels []panel }
	read(t, "config/grafana/dashboard.json", &dashboard)
	if len(dashboard.Panels) < 20 {
		t.Fatalf("only %d panels were found", len(dashboard.Panels))
	}
	for _, problem := range misfits(dashboard.Panels) {
		t.Error(problem)
	}
}

// misfits says what is wrong with panels.
func misfits(panels []panel) []string {
	var found []string
	for n, p := range panels {
		at := p.GridPos
		if at.W < 1 || at.H < 1 || at.X < 0 || at.X+at.W > 24 {
			found = append(found, fmt.Sprintf("panel %s is outside of the grid", p.Title))
		}
		for _, q := range panels[:n] {
			if p.ID == q.ID {
				found = append(found, fmt.Sprintf("panels %s and %s have one id", q.Title, p.Title))
			}
			if on := q.GridPos; at.X < on.X+on.W && on.X < at.X+at.W && at.Y < on.Y+on.H && on.Y < at.Y+at.H {
				found = append(found, fmt.Sprintf("panels %s and %s are in one place", q.Title, p.Title))
			}
		}
		for _, transformation := range p.Transformations {
			for _, names := range []map[string]any{transformation.Options.IndexByName, transformation.Options.RenameByName} {
				for name := range names {
					ref, is := strings.CutPrefix(name, "Value #")
					if is && !slices.ContainsFunc(p.Targets, func(q struct{ RefID string }) bool { return q.RefID == ref }) {
						found = append(found, fmt.Sprintf("panel %s has no query %s", p.Title, ref))
					}
				}
			}
		}
	}
	return found
}

// TestMisfitsAreSeen: the check above can fail.
func TestMisfitsAreSeen(t *testing.T) {
	for _, text := range []string{
		`[{id: 1, gridPos: {x: 13, y: 0, w: 12, h: 8}}]`,
		`[{id: 1, gridPos: {x: 0, y: 0, w: 12, h: 8}}, {id: 1, gridPos: {x: 12, y: 0, w: 12, h: 8}}]`,
		`[{id: 1, gridPos: {x: 0, y: 0, w: 12, h: 8}}, {id: 2, gridPos: {x: 11, y: 7, w: 12, h: 8}}]`,
		`[{id: 1, gridPos: {x: 0, y: 0, w: 12, h: 8}, targets: [{refId: A}], transformations: [{options: {renameByName: {"Value #B": Keys}}}]}]`,
	} {
		var panels []panel
		if err := yaml.Unmarshal([]byte(text), &panels); err != nil {
			t.Fatal(err)
		}
		if found := misfits(panels); len(found) != 1 {
			t.Errorf("of %s was found: %v", text, found)
		}
	}
}

// TestEachAlertIsExplained: docs/alerts.md has a section for each alert, and none
// for others.
func TestEachAlertIsExplained(t *testing.T) {
	var r rules
	read(t, "config/prometheus/rules.yaml", &r)
	var want []string
	for _, rule := range r.Groups[0].Rules {
		want = append(want, rule.Alert)
	}
	text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, heading := range regexp.MustCompile(`(?m)^### (JWKSTrust\w+)`).FindAllStringSubmatch(string(text), -1) {
		got = append(got, heading[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("docs/alerts.md explains %v, and the rules are %v", got, want)
	}
}
