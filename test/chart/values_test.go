package chart

import (
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// combinations are values that people use, and all features at once.
var combinations = map[string]string{
	"defaults":      "",
	"cert-manager":  "certificate: {certManager: {enabled: true, issuerRef: {kind: ClusterIssuer, name: internal}}}",
	"own Secret":    "certificate: {existing: true}",
	"shards":        `controller: {shards: [{name: a, issuerSelector: shard=a}, {name: rest, issuerSelector: "shard notin (a)"}]}`,
	"autoscaling":   "verifier: {autoscaling: {enabled: true}}",
	"small":         "{controller: {replicas: 1, podDisruptionBudget: {enabled: false}}, verifier: {replicas: 1, podDisruptionBudget: {enabled: false}, extAuthz: {enabled: false}}}",
	"minAvailable":  "verifier: {podDisruptionBudget: {minAvailable: 50%}}",
	"token review":  "verifier: {tokenReview: {clientCAConfigMap: api-client-ca}, apiAudiences: [https://kubernetes.default.svc]}",
	"egress":        `controller: {egress: {allowCIDRs: [10.96.0.0/12, "fd00::/8"], proxy: "http://proxy.example.com:3128"}}`,
	"network":       `networkPolicy: {enabled: true, apiServer: [{ipBlock: {cidr: 10.0.0.1/32}}], verifierFrom: [{namespaceSelector: {}}], metricsFrom: [{namespaceSelector: {}}], fetchTo: [{ipBlock: {cidr: 0.0.0.0/0}}], dns: [{namespaceSelector: {}}]}`,
	"tracing":       `{tracing: {endpoint: "http://otel-collector.observability.svc:4317", samplingRatio: 0.01}, networkPolicy: {enabled: true, collector: [{namespaceSelector: {}}]}}`,
	"no CRDs":       "crds: {install: false}",
	"load balancer": "verifier: {service: {type: LoadBalancer, port: 8443, annotations: {a: b}}, mirrorURL: https://keys.example.com}",
	"metrics": `metrics: {secure: {enabled: true, certificateSecret: metrics-tls, readers: [{namespace: monitoring, name: prometheus}]},
  grafanaDashboard: {enabled: true, annotations: {folder: auth}}}`,
	"everywhere": `
image: {repository: registry.example.com/jwks-trust-manager, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: registry}]
commonLabels: {team: platform}
commonAnnotations: {owner: platform}
controller: &pods
  extraArgs: [--zap-log-level=debug]
  extraEnv: [{name: GOMEMLIMIT, value: 200MiB}]
  extraVolumes: [{name: extra, configMap: {name: extra}}]
  extraVolumeMounts: [{name: extra, mountPath: /extra}]
  podLabels: {a: b}
  podAnnotations: {c: d}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: control-plane, operator: Exists}]
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]
  serviceAccount: {annotations: {e: f}}
verifier: *pods
`,
}

// monitoring are objects of the Prometheus operator, whose kinds are not here to
// be asked.
const monitoring = `metrics: {secure: {enabled: true}, serviceMonitor: {enabled: true, labels: {release: prometheus}}, prometheusRule: {enabled: true, additionalRules: [{alert: X, expr: vector(1)}]},
  podMonitor: {enabled: true, authorization: {credentials: {name: token, key: token}}}}`

// TestLint is `helm lint --strict`.
func TestLint(t *testing.T) {
	linted := lint.RunAll(chartPath, nil, harness.OperatorNamespace)
	if len(linted.Messages) == 0 {
		t.Error("the linter says nothing at all, not even about the icon")
	}
	for _, m := range linted.Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}

// TestSchemaRefusesNonsense: a mistake in values is told by name, before anything
// is installed.
func TestSchemaRefusesNonsense(t *testing.T) {
	for name, tc := range map[string]struct{ values, want string }{
		"a misspelt name":              {"controler: {replicas: 3}", "controler"},
		"a misspelt name further down": {"verifier: {replica: 3}", "replica"},
		"a number that is none":        {"verifier: {replicas: many}", "/verifier/replicas"},
		"fewer than none":              {"verifier: {replicas: -1}", "/verifier/replicas"},
		"no CIDR":                      {"controller: {egress: {allowCIDRs: [cluster]}}", "/controller/egress/allowCIDRs/0"},
		"CIDRs in one string":          {"controller: {egress: {allowCIDRs: 10.0.0.0/8}}", "/controller/egress/allowCIDRs"},
		"a shard without a selector":   {"controller: {shards: [{name: a}]}", "issuerSelector"},
		"two shards of one name":       {"controller: {shards: [{name: a, issuerSelector: s=1}, {name: b, issuerSelector: s=2}, {name: a, issuerSelector: s=3}]}", `two have the name "a"`},
		"two shards for the same":      {"controller: {shards: [{name: a, issuerSelector: s=1}, {name: b, issuerSelector: s=1}]}", `two have the issuerSelector "s=1"`},
		"a shard that is no name":      {"controller: {shards: [{name: A_b, issuerSelector: x}]}", "/controller/shards/0/name"},
		"arguments that are no flags":  {"verifier: {extraArgs: [verbose]}", "/verifier/extraArgs/0"},
		"cert-manager without issuer":  {"certificate: {certManager: {enabled: true}}", "/certificate/certManager/issuerRef/name"},
		"a digest that is none":        {"image: {digest: abc}", "/image/digest"},
		"no pull policy":               {"image: {pullPolicy: Sometimes}", "/image/pullPolicy"},
		"no port":                      {"metrics: {port: 99999}", "/metrics/port"},
		"a collector that is no URL":   {"tracing: {endpoint: collector:4317}", "/tracing/endpoint"},
		"a mirror without TLS":         {"verifier: {mirrorURL: http://keys}", "/verifier/mirrorURL"},
		"a mirror with a last slash":   {"verifier: {mirrorURL: https://keys.example.com/}", "/verifier/mirrorURL"},
		"the same below a path":        {"verifier: {mirrorURL: https://keys.example.com/jwks/}", "/verifier/mirrorURL"},
		"a mirror with a query":        {"verifier: {mirrorURL: 'https://keys.example.com?a=b'}", "/verifier/mirrorURL"},
		"a mirror with a password":     {"verifier: {mirrorURL: 'https://a:b@keys.example.com'}", "/verifier/mirrorURL"},
		"a memory that is no number":   {"verifier: {tokenCacheBytes: 32Mi}", "/verifier/tokenCacheBytes"},
		"a PodMonitor without a token": {"metrics: {secure: {enabled: true}, podMonitor: {enabled: true}}", "metrics.podMonitor needs authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tryRender(tc.values, harness.OperatorNamespace); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something about %q", err, tc.want)
			}
		})
	}
}

// TestNotes: what is said after an installation follows the values.
func TestNotes(t *testing.T) {
	for values, want := range map[string]string{
		"":                            "once the controller has made their certificate",
		combinations["cert-manager"]:  "once cert-manager has made the Secret",
		combinations["own Secret"]:    "which is yours to keep",
		combinations["shards"]:        "One that no selector matches gets no keys",
		combinations["load balancer"]: "jwks-trust-system.svc:8443/forward-auth/",
		"crds: {keep: false}":         "WARNING: crds.keep is false",
	} {
		if text := notes(t, values); !strings.Contains(text, want) {
			t.Errorf("with %q the notes do not say %q:\n%s", values, want, text)
		}
	}
}
