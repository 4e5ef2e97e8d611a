package chart

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// arguments are those of a Deployment's manager.
func arguments(t *testing.T, deployment *unstructured.Unstructured) []string {
	t.Helper()
	pod := podOf(t, deployment)
	containers, _, err := unstructured.NestedSlice(pod.Object, "spec", "containers")
	if err != nil || len(containers) != 1 {
		t.Fatalf("%s has %d containers: %v", deployment.GetName(), len(containers), err)
	}
	args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	if err != nil {
		t.Fatal(err)
	}
	return args
}

func has(args []string, prefix string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, prefix) })
}

// TestShards: each has its own issuers and lease, one keeps the certificate, and
// verifiers are not split.
func TestShards(t *testing.T) {
	made := render(t, combinations["shards"])
	if made["Deployment jwks-trust-controller"] != nil {
		t.Error("besides the shards there is a controller for all issuers")
	}
	a := arguments(t, made.one(t, "Deployment jwks-trust-controller-a"))
	rest := arguments(t, made.one(t, "Deployment jwks-trust-controller-rest"))
	for args, want := range map[*[]string]string{&a: "--issuer-selector=shard=a", &rest: "--issuer-selector=shard notin (a)"} {
		if !slices.Contains(*args, want) {
			t.Errorf("%v lacks %s", *args, want)
		}
	}
	if !slices.Contains(a, "--leader-election-id=jwks-trust-manager-a") || !slices.Contains(rest, "--leader-election-id=jwks-trust-manager-rest") {
		t.Errorf("the shards share a lease: %v, %v", a, rest)
	}
	if !has(a, "--serving-certificate-names=") || has(rest, "--serving-certificate-names=") {
		t.Errorf("not one shard keeps the certificate: %v, %v", a, rest)
	}
	if has(arguments(t, made.one(t, "Deployment jwks-trust-verifier")), "--issuer-selector") {
		t.Error("the verifier is split")
	}
}

// TestCertificateHasOneKeeper: the controller makes none where somebody else does.
func TestCertificateHasOneKeeper(t *testing.T) {
	for name, keeps := range map[string]bool{"defaults": true, "cert-manager": false, "own Secret": false} {
		made := render(t, combinations[name])
		if has(arguments(t, made.one(t, "Deployment jwks-trust-controller")), "--serving-certificate-names=") != keeps {
			t.Errorf("with %s, the controller should keep a certificate: %t", name, keeps)
		}
		if (made["Certificate jwks-trust-manager"] != nil) != (name == "cert-manager") {
			t.Errorf("with %s, the Certificate", name)
		}
	}
}

// TestTheMirrorNamesWhereItIs: its metadata send clients to where somebody listens.
func TestTheMirrorNamesWhereItIs(t *testing.T) {
	const service = "https://jwks-trust-manager.$(POD_NAMESPACE).svc"
	for values, want := range map[string]string{
		"":                                  service,
		"verifier: {service: {port: 443}}":  service,
		"verifier: {service: {port: 8443}}": service + ":8443",
		"verifier: {service: {port: 8443}, mirrorURL: https://keys.example.com}":       "https://keys.example.com",
		"verifier: {service: {port: 8443}, mirrorURL: https://keys.example.com:1/a/b}": "https://keys.example.com:1/a/b",
	} {
		if args := arguments(t, render(t, values).one(t, "Deployment jwks-trust-verifier")); !slices.Contains(args, "--mirror-url="+want) {
			t.Errorf("with %q, want the mirror at %s: %v", values, want, args)
		}
	}
}

// TestRightsForSecureMetrics: reviews may be asked for where the filter needs it, and
// nowhere else.
func TestRightsForSecureMetrics(t *testing.T) {
	if render(t, "")["ClusterRole jwks-trust-metrics-auth"] != nil {
		t.Error("pods may review tokens although nobody asks them to")
	}
	made := render(t, combinations["metrics"])
	made.one(t, "ClusterRole jwks-trust-metrics-auth")
	made.one(t, "ClusterRoleBinding jwks-trust-metrics-auth")
	made.one(t, "ClusterRoleBinding jwks-trust-metrics-reader")
	for _, component := range []string{"controller", "verifier"} {
		args := arguments(t, made.one(t, "Deployment jwks-trust-"+component))
		if !slices.Contains(args, "--metrics-secure") || !has(args, "--metrics-cert-dir=") {
			t.Errorf("%s: %v", component, args)
		}
	}
}

// TestTracing: off unless somebody names a collector, which pods may then reach.
func TestTracing(t *testing.T) {
	policies := func(made objects) string {
		text := ""
		for _, component := range []string{"controller", "verifier"} {
			egress, _, _ := unstructured.NestedSlice(made.one(t, "NetworkPolicy jwks-trust-"+component).Object, "spec", "egress")
			text += fmt.Sprint(egress)
		}
		return text
	}
	off, on := render(t, combinations["network"]), render(t, combinations["tracing"])
	if strings.Contains(policies(off), "4317") || strings.Count(policies(on), "4317") != 2 {
		t.Errorf("pods may reach the collector: %s; and without one: %s", policies(on), policies(off))
	}
	for _, component := range []string{"controller", "verifier"} {
		name := "Deployment jwks-trust-" + component
		if has(arguments(t, off.one(t, name)), "--tracing-endpoint") {
			t.Errorf("%s traces although nobody asks it to", component)
		}
		if !slices.Contains(arguments(t, on.one(t, name)), "--tracing-endpoint=http://otel-collector.observability.svc:4317") {
			t.Errorf("%s does not trace", component)
		}
		if text := fmt.Sprint(podOf(t, on.one(t, name)).Object); !strings.Contains(text, "parentbased_traceidratio") || !strings.Contains(text, "value:0.01") {
			t.Errorf("%s samples all: %s", component, text)
		}
	}
}

// TestTheWayOutFollowsTheURLs: policies let the pods reach the proxy and the collector
// that the values name, and with a proxy no issuer past it.
func TestTheWayOutFollowsTheURLs(t *testing.T) {
	const always = "443 6443 53 53" // the API server and DNS
	for _, tc := range []struct{ proxy, collector, policy, controller, verifier string }{
		{controller: " 443"},
		{policy: ", fetchPorts: [443, 8443]", controller: " 443 8443"},
		{proxy: "http://proxy.example.com:3128", controller: " 3128"},
		{proxy: "http://user:443@[fd00::1]:3128/", controller: " 3128"},
		{proxy: "http://proxy.example.com", controller: " 80"},
		{proxy: "https://[fd00::1]", controller: " 443"},
		{proxy: "http://proxy.infra.svc:3128", policy: ", fetchPorts: [proxy]", controller: " proxy"},
		{collector: "http://otel:9999", controller: " 9999 443", verifier: " 9999"},
		{collector: "http://[fd00::1]:9999/", controller: " 9999 443", verifier: " 9999"},
		{collector: "http://otel", controller: " 443 443", verifier: " 443"}, // as gRPC has it
		{collector: "http://otel:9999", policy: ", collectorPort: 4317", controller: " 4317 443", verifier: " 4317"},
		{proxy: "http://proxy:3128", collector: "https://otel:4317", controller: " 4317 3128", verifier: " 4317"},
	} {
		made := render(t, fmt.Sprintf("{controller: {egress: {proxy: '%s'}}, tracing: {endpoint: '%s'}, networkPolicy: {enabled: true%s}}", tc.proxy, tc.collector, tc.policy))
		for component, want := range map[string]string{"controller": tc.controller, "verifier": tc.verifier} {
			if got := waysOut(t, made.one(t, "NetworkPolicy jwks-trust-"+component)); got != always+want {
				t.Errorf("with %+v, the %s gets out to %s, want %s", tc, component, got, always+want)
			}
		}
	}
}

// waysOut are the ports that a policy lets pods reach, one after the other.
func waysOut(t *testing.T, policy *unstructured.Unstructured) string {
	t.Helper()
	var typed networkingv1.NetworkPolicy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(policy.Object, &typed, true); err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, rule := range typed.Spec.Egress {
		for _, port := range rule.Ports {
			ports = append(ports, port.Port.String())
		}
	}
	return strings.Join(ports, " ")
}

// TestMetricsAreNotMadePublic with the verifier: what leads to them is headless,
// whatever the type of the Service that clients use; and the monitor finds both.
func TestMetricsAreNotMadePublic(t *testing.T) {
	for _, kind := range []string{"ClusterIP", "NodePort", "LoadBalancer"} {
		made := render(t, "{verifier: {service: {type: "+kind+"}}, metrics: {serviceMonitor: {enabled: true}}}")
		selector, _, _ := unstructured.NestedMap(made.one(t, "ServiceMonitor jwks-trust-manager").Object, "spec", "selector")
		monitored := map[string]int{}
		for key, object := range made {
			if object.GetKind() != "Service" || !slices.Contains(portNames(object), "metrics") {
				continue
			}
			if ip, _, _ := unstructured.NestedString(object.Object, "spec", "clusterIP"); ip != "None" || len(portNames(object)) != 1 {
				t.Errorf("with type %s, metrics are at %s", kind, key)
			}
			if selects(t, selector, object.GetLabels()) {
				of, _, _ := unstructured.NestedString(object.Object, "spec", "selector", "app.kubernetes.io/name")
				monitored[of]++
			}
		}
		if want := map[string]int{"jwks-trust-controller": 1, "jwks-trust-verifier": 1}; !maps.Equal(monitored, want) {
			t.Errorf("with type %s, the monitor finds %v, want %v", kind, monitored, want)
		}
		if ports := portNames(made.one(t, "Service jwks-trust-manager")); !slices.Equal(ports, []string{"verifier", "ext-authz"}) {
			t.Errorf("with type %s, clients reach %v", kind, ports)
		}
	}
}

// portNames are the names of a Service's ports.
func portNames(service *unstructured.Unstructured) (names []string) {
	ports, _, _ := unstructured.NestedSlice(service.Object, "spec", "ports")
	for _, port := range ports {
		name, _ := port.(map[string]any)["name"].(string)
		names = append(names, name)
	}
	return names
}

// selects reports whether a selector, as objects have it, selects those labels.
func selects(t *testing.T, selector map[string]any, of labels.Set) bool {
	t.Helper()
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(selector, &s, true); err != nil {
		t.Fatal(err)
	}
	parsed, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Matches(of)
}

// TestMonitoring: the rules are those of config/, and metrics keep their labels.
func TestMonitoring(t *testing.T) {
	made := render(t, monitoring)
	groups, _, _ := unstructured.NestedSlice(made.one(t, "PrometheusRule jwks-trust-manager").Object, "spec", "groups")
	if len(groups) != 2 || len(groups[0].(map[string]any)["rules"].([]any)) < 10 {
		t.Errorf("the rules: %v", groups)
	}
	for kind, list := range map[string]string{"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"} {
		endpoints, _, _ := unstructured.NestedSlice(made.one(t, kind+" jwks-trust-manager").Object, "spec", list)
		if len(endpoints) != 1 {
			t.Fatalf("%s has %d endpoints", kind, len(endpoints))
		}
		endpoint := endpoints[0].(map[string]any)
		if endpoint["honorLabels"] != true || endpoint["scheme"] != "https" {
			t.Errorf("%s: %v", kind, endpoint)
		}
	}
}

// TestCRDsOutliveTheRelease unless somebody says otherwise.
func TestCRDsOutliveTheRelease(t *testing.T) {
	for values, want := range map[string]string{"": "keep", "crds: {keep: false}": ""} {
		for _, kind := range []string{"trustedissuers", "clustertrustedissuers"} {
			crd := render(t, values).one(t, "CustomResourceDefinition "+kind+".jwks-trust.dev")
			if got := crd.GetAnnotations()["helm.sh/resource-policy"]; got != want {
				t.Errorf("with %q, the policy is %q", values, got)
			}
		}
	}
}

// TestAutoscalerOwnsReplicas: a Deployment that said a number would undo what the
// autoscaler did at each upgrade.
func TestAutoscalerOwnsReplicas(t *testing.T) {
	made := render(t, combinations["autoscaling"])
	made.one(t, "HorizontalPodAutoscaler jwks-trust-verifier")
	if _, found, _ := unstructured.NestedInt64(made.one(t, "Deployment jwks-trust-verifier").Object, "spec", "replicas"); found {
		t.Error("the Deployment has a number of replicas")
	}
}

// TestNullIsNothing: with null Helm takes a default away, and nothing comes in its place.
// The cache of tokens was off then, and the budget for disruptions had no limit.
func TestNullIsNothing(t *testing.T) {
	const values = `{verifier: {tokenCacheBytes: null, podDisruptionBudget: {minAvailable: null}},
  tracing: {endpoint: "http://otel-collector.observability.svc:4317", samplingRatio: null}}`
	made := render(t, values)
	verifier := made.one(t, "Deployment jwks-trust-verifier")
	if has(arguments(t, verifier), "--token-cache-bytes") {
		t.Errorf("a size of the cache that nobody gave: %q", arguments(t, verifier))
	}
	if text := fmt.Sprint(podOf(t, verifier).Object); strings.Contains(text, "OTEL_TRACES_SAMPLER") {
		t.Errorf("a sampler that nobody asked for: %s", text)
	}
	budget, _, _ := unstructured.NestedMap(made.one(t, "PodDisruptionBudget jwks-trust-verifier").Object, "spec")
	if _, empty := budget["minAvailable"]; empty || fmt.Sprint(budget["maxUnavailable"]) != "1" {
		t.Errorf("the budget is %v", budget)
	}
	if given := render(t, "verifier: {tokenCacheBytes: 0, podDisruptionBudget: {minAvailable: 0}}"); !slices.Contains(arguments(t, given.one(t, "Deployment jwks-trust-verifier")), "--token-cache-bytes=0") {
		t.Error("0 is a value")
	}
	render(t, `{certificate: {extraDNSNames: null}, commonLabels: null, commonAnnotations: null,
  controller: {podLabels: null, podAnnotations: null}, verifier: {podLabels: null, podAnnotations: null}}`)
}

// TestLabelsGivenTwice: a label of one object and the same one of all, or one of ours, made
// YAML with a key that stands twice, which kustomize refuses; and pods that their own
// Deployment did not select.
func TestLabelsGivenTwice(t *testing.T) {
	made := render(t, `{commonLabels: {team: platform, app.kubernetes.io/name: all, app.kubernetes.io/part-of: auth},
  verifier: {podLabels: {app.kubernetes.io/name: mine}, podAnnotations: {kubectl.kubernetes.io/default-container: sidecar}},
  metrics: {grafanaDashboard: {enabled: true, labels: {team: monitoring}}}}`)
	if labels := made.one(t, "ConfigMap jwks-trust-manager-dashboard").GetLabels(); labels["team"] != "monitoring" || labels["app.kubernetes.io/part-of"] != "auth" {
		t.Errorf("the dashboard's labels are %v", labels)
	}
	deployment := made.one(t, "Deployment jwks-trust-verifier")
	pod, _, _ := unstructured.NestedStringMap(deployment.Object, "spec", "template", "metadata", "labels")
	if pod["app.kubernetes.io/name"] != "jwks-trust-verifier" || pod["team"] != "platform" || deployment.GetLabels()["app.kubernetes.io/name"] != "jwks-trust-verifier" {
		t.Errorf("the pods' labels are %v", pod)
	}
	annotations, _, _ := unstructured.NestedStringMap(deployment.Object, "spec", "template", "metadata", "annotations")
	if annotations["kubectl.kubernetes.io/default-container"] != "sidecar" {
		t.Errorf("the pods' annotations are %v", annotations)
	}
}

// TestNamesOfDigits: YAML without quotes would make numbers of them.
func TestNamesOfDigits(t *testing.T) {
	made := renderIn(t, "1", `{metrics: {secure: {enabled: true, certificateSecret: "2", readers: [{name: "3", namespace: "4"}]}},
  verifier: {tokenReview: {clientCAConfigMap: "5"}, priorityClassName: "6"}, controller: {priorityClassName: "7"}}`)
	found := map[string]bool{}
	for key, object := range made {
		if object.GetKind() == "CustomResourceDefinition" {
			continue // fields of those names, each with its schema
		}
		walk(object.Object, func(field string, value any) {
			switch field {
			case "name", "namespace", "secretName", "priorityClassName", "app.kubernetes.io/instance":
				name, is := value.(string)
				if !is {
					t.Errorf("%s: %s is the %T %v", key, field, value, value)
				}
				found[name] = true
			}
		})
	}
	for _, name := range []string{"1", "2", "3", "4", "5", "6", "7", "42"} {
		if !found[name] {
			t.Errorf("nothing has the name %s", name)
		}
	}
}

// walk calls visit for every field of an object, at any depth.
func walk(value any, visit func(field string, value any)) {
	switch value := value.(type) {
	case map[string]any:
		for field, inner := range value {
			visit(field, inner)
			walk(inner, visit)
		}
	case []any:
		for _, inner := range value {
			walk(inner, visit)
		}
	}
}
