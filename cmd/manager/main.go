// Command manager runs the controller, which keeps the trusted keys of issuers,
// and the verifier, which checks tokens with them: both, or one of them, so that
// each can have rights of its own. The controller works on the elected leader; the
// verifier on every replica.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/controller"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/servingcert"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/tracing"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
	"github.com/jwks-trust/jwks-trust-manager/internal/version"
)

// programName is how we are called in logs of others.
const programName = "jwks-trust-manager"

// options are the command line.
type options struct {
	components        stringList
	operatorNamespace string
	leaderElect       bool
	leaderElectionID  string
	issuerSelector    string
	servingNames      stringList
	metricsAddress    string
	metricsSecure     bool
	metricsCertDir    string
	version           bool
	probeAddress      string
	profileAddress    string
	tracingEndpoint   string
	egressAllow       stringList
	egressProxy       string
	apiAudiences      stringList
	server            verifier.ServerOptions
	zap               zap.Options
	// controllers are settings of all controllers that have no flag.
	controllers config.Controller
	// lease is how long a leader that is gone is waited for; the library's default if
	// zero. keepLease: it is not handed over at the end, as in a crash.
	lease     time.Duration
	keepLease bool
}

// stringList is a flag that can be given several times, or once with commas.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(v string) error {
	for _, part := range strings.Split(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

func (o *options) register(f *flag.FlagSet) {
	f.Var(&o.components, "components", "What to run: controller, verifier, or both, separated by a comma. Both without it.")
	f.StringVar(&o.operatorNamespace, "operator-namespace", namespaceFromEnvironment(), "Namespace of the authoritative snapshots and of the leader election lease. Defaults to $POD_NAMESPACE.")
	f.BoolVar(&o.leaderElect, "leader-elect", false, "Let one replica at a time fetch keys. Needed with more than one replica.")
	f.StringVar(&o.leaderElectionID, "leader-election-id", "jwks-trust-manager", "Name of the lease with which replicas elect the one that fetches. Controllers with different --issuer-selector need different ones.")
	f.StringVar(&o.issuerSelector, "issuer-selector", "", "Labels of the issuer objects that this controller is for, such as shard=a, where several controllers share the work; an object that none of them selects gets no keys. Needs --components=controller, since a verifier judges tokens of all issuers.")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", "0", "Address of the Prometheus metrics, such as :8080; 0 turns them off. Over plain HTTP and to everyone, unless --metrics-secure.")
	f.BoolVar(&o.metricsSecure, "metrics-secure", false, "Serve metrics over HTTPS, and only to clients whose bearer token the API server knows and who may get /metrics. Needs the rights to create tokenreviews and subjectaccessreviews.")
	f.StringVar(&o.metricsCertDir, "metrics-cert-dir", "", "Folder with tls.crt and tls.key for --metrics-secure; read again when they change. Without it a self-signed certificate is made at each start.")
	f.StringVar(&o.profileAddress, "pprof-bind-address", "", "Address of Go's profiles over HTTP, such as 127.0.0.1:6060; empty turns them off. Whoever can reach it sees what the process does, so keep it on loopback.")
	collector, _ := collectorInEnvironment() // its problem is told of when tracing would start
	f.StringVar(&o.tracingEndpoint, "tracing-endpoint", collector, "URL of an OpenTelemetry collector that takes traces by OTLP over gRPC, such as http://otel-collector.observability.svc:4317; empty turns tracing off. Defaults to $OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, then $OTEL_EXPORTER_OTLP_ENDPOINT; the other OTEL_* variables say the rest.")
	f.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "Address of /healthz and /readyz.")
	f.StringVar(&o.server.Address, "verifier-bind-address", ":9443", "HTTPS address of the verifier (forward-auth, TokenReview).")
	f.StringVar(&o.server.HTTPAddress, "verifier-http-bind-address", "", "Plain HTTP address for forward-auth alone; empty turns it off.")
	f.StringVar(&o.server.ExtAuthzAddress, "ext-authz-bind-address", "", "Address for Envoy's external authorization, gRPC over TLS, such as :9444; empty turns it off.")
	f.StringVar(&o.server.MirrorURL, "mirror-url", "", "URL of the verifier as clients reach it, such as https://jwks-trust-manager.jwks-trust-system.svc; the mirror's metadata name it. Without it the mirror serves keys and no metadata.")
	f.Uint64Var(&o.server.TokenCacheSize, "token-cache-bytes", verifier.DefaultTokenCacheSize, "Memory for remembering accepted tokens, so that their signature is not checked again; 0 turns it off.")
	f.StringVar(&o.server.CertFile, "tls-cert-file", "", "PEM certificate chain of the verifier; read again when it changes. Without it the verifier has no HTTPS.")
	f.StringVar(&o.server.KeyFile, "tls-private-key-file", "", "PEM private key for --tls-cert-file.")
	f.StringVar(&o.server.ClientCAFile, "tokenreview-client-ca-file", "", "PEM certificates of the authority that signs the API server's client certificate for TokenReview. Without it TokenReview is off.")
	f.Var(&o.servingNames, "serving-certificate-names", "DNS names of the verifier, for which the controller keeps a certificate in the Secret "+servingcert.SecretName+" and the authority's in the ConfigMap "+servingcert.AuthorityName+", unless somebody else keeps that Secret. Without it the controller keeps none. Repeatable.")
	f.Var(&o.apiAudiences, "api-audiences", "Audiences of the Kubernetes API server (its --api-audiences), for TokenReview. Repeatable.")
	f.Var(&o.egressAllow, "egress-allow-cidr", "Addresses, besides public ones, that keys may be fetched from, such as 10.96.0.0/12. Link-local and metadata addresses stay refused. Repeatable.")
	f.StringVar(&o.egressProxy, "egress-proxy", "", "URL of an HTTP proxy for fetching keys. Proxy variables of the environment are not read.")
	f.BoolVar(&o.version, "version", false, "Print the version and exit.")
	o.zap.BindFlags(f)
}

// parse reads the command line. Each mistake that flag leaves to us would drop what
// was asked for in silence: flags after a word that is none, and an empty list of
// components, as an unset variable gives, which would run both.
func (o *options) parse(f *flag.FlagSet, args []string) error {
	o.register(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is no flag, and nothing after it is read; the value of a boolean flag needs a sign, as in --leader-elect=true", f.Arg(0))
	}
	var err error
	f.Visit(func(given *flag.Flag) {
		if given.Name == "components" && len(o.components) == 0 {
			err = errors.New("--components is empty: name controller, verifier, or both, or leave it out")
		}
	})
	return err
}

// namespaceFromEnvironment is where the pod runs, by the downward API.
func namespaceFromEnvironment() string { return os.Getenv("POD_NAMESPACE") }

// The components.
const (
	componentController = "controller"
	componentVerifier   = "verifier"
)

// runs reports whether a component is to be run.
func (o *options) runs(component string) bool {
	return len(o.components) == 0 || slices.Contains(o.components, component)
}

// check reports what is wrong with the command line.
func (o *options) check() error {
	for _, c := range o.components {
		if c != componentController && c != componentVerifier {
			return fmt.Errorf("--components: %q is neither %s nor %s", c, componentController, componentVerifier)
		}
	}
	if _, err := labels.Parse(o.issuerSelector); err != nil {
		return fmt.Errorf("--issuer-selector: %w", err)
	}
	switch {
	case o.issuerSelector != "" && o.runs(componentVerifier):
		return errors.New("--issuer-selector needs --components=controller: a verifier judges tokens of all issuers")
	case o.operatorNamespace == "":
		return errors.New("--operator-namespace is required (or set POD_NAMESPACE)")
	case (o.server.CertFile == "") != (o.server.KeyFile == ""):
		return errors.New("--tls-cert-file and --tls-private-key-file go together")
	case o.metricsCertDir != "" && !o.metricsSecure:
		return errors.New("--metrics-cert-dir needs --metrics-secure: without it metrics are plain HTTP")
	case o.metricsSecure && o.metricsAddress == "0":
		return errors.New("--metrics-secure needs --metrics-bind-address: metrics are off")
	case o.tracingEndpoint != "" && tracing.CheckEndpoint(o.tracingEndpoint) != nil:
		return fmt.Errorf("--tracing-endpoint: %w", tracing.CheckEndpoint(o.tracingEndpoint))
	case o.server.ExtAuthzAddress != "" && o.server.CertFile == "":
		return errors.New("--ext-authz-bind-address needs --tls-cert-file: it is served over TLS alone")
	case o.server.ClientCAFile != "" && o.server.CertFile == "":
		return errors.New("--tokenreview-client-ca-file needs --tls-cert-file: the API server talks HTTPS alone")
	case o.server.MirrorURL != "" && o.server.CertFile == "":
		return errors.New("--mirror-url needs --tls-cert-file: the mirror is served over HTTPS alone")
	case o.runs(componentVerifier) && o.server.CertFile == "" && o.server.HTTPAddress == "":
		return errors.New("the verifier would listen nowhere: give --tls-cert-file or --verifier-http-bind-address, or run --components=controller")
	case o.runs(componentVerifier) && o.server.CertFile != "" && o.server.Address == "":
		return errors.New("--verifier-bind-address is empty: the verifier would listen at a port that nobody knows")
	}
	return nil
}

func main() {
	var o options
	if err := o.parse(flag.CommandLine, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", programName, err)
		os.Exit(2)
	}
	if o.version {
		fmt.Fprintln(os.Stdout, programName, version.Get(), version.Platform())
		return
	}
	log := zap.New(zap.UseFlagOptions(&o.zap))
	ctrl.SetLogger(log)
	if err := run(ctrl.SetupSignalHandler(), &o, log); err != nil {
		log.Error(err, "The manager cannot go on")
		os.Exit(1)
	}
}

// controllerGC is Go's GOGC for a controller by itself: it holds many small objects
// and makes little garbage, so that spare room of half their size does. A verifier
// has tokens to check, and keeps Go's default.
const controllerGC = 50

func run(ctx context.Context, o *options, log logr.Logger) error {
	if err := o.check(); err != nil {
		return err
	}
	if !o.runs(componentVerifier) && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(controllerGC)
	}
	fetcher, err := newFetcher(o)
	if err != nil {
		return err
	}
	defer fetcher.Close()
	spans, stopTracing, err := o.startTracing(ctx, log)
	if err != nil {
		return err
	}
	defer stopTracing()
	mgr, err := newManager(o)
	if err != nil {
		return err
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return err
	}
	if o.runs(componentController) {
		queue := controller.NewQueue()
		shared := fetch.Share(fetcher, nil, queue.Changed)
		defer shared.Close()
		if err := setupController(ctx, mgr, o, shared, queue, spans, log.WithName("controller")); err != nil {
			return err
		}
	}
	if o.runs(componentVerifier) {
		o.server.Tracing = spans
		if err := setupVerifier(mgr, o, log.WithName("verifier")); err != nil {
			return err
		}
	}
	log.Info("Starting", "version", version.Get().String(), "controller", o.runs(componentController), "verifier", o.runs(componentVerifier),
		"operatorNamespace", o.operatorNamespace, "leaderElection", o.leaderElect)
	return mgr.Start(ctx)
}

func newFetcher(o *options) (*fetch.Fetcher, error) {
	egress, err := fetch.ParseEgress(o.egressAllow)
	if err != nil {
		return nil, fmt.Errorf("--egress-allow-cidr: %w", err)
	}
	fo := fetch.Options{Egress: egress, UserAgent: version.Get().UserAgent(programName)}
	if o.egressProxy != "" {
		if fo.Proxy, err = fetch.ParseProxy(o.egressProxy); err != nil {
			return nil, fmt.Errorf("--egress-proxy: %w", err)
		}
	}
	return fetch.New(fo), nil
}

// ours selects what this program has made.
func ours() labels.Selector { return labels.SelectorFromSet(labels.Set{api.LabelSnapshot: "true"}) }

// lean takes from an object what nothing here reads before it is cached: who owns its
// fields, and what kubectl applied; and holds the key set once, which stands under two
// names in a ConfigMap.
func lean(object any) (any, error) {
	meta, err := apimeta.Accessor(object)
	if err != nil {
		return object, nil //nolint:nilerr // no object but the news that one is gone
	}
	meta.SetManagedFields(nil)
	if annotations := meta.GetAnnotations(); annotations[corev1.LastAppliedConfigAnnotation] != "" {
		delete(annotations, corev1.LastAppliedConfigAnnotation)
		meta.SetAnnotations(annotations)
	}
	if cm, ok := object.(*corev1.ConfigMap); ok && cm.Data[snapshot.KeyJWKS] != "" && cm.Data[snapshot.KeyJWKS] == cm.Data[snapshot.KeyJWKSJSON] {
		cm.Data[snapshot.KeyJWKS] = cm.Data[snapshot.KeyJWKSJSON]
	}
	return object, nil
}

// newManager makes the manager. Its cache holds the issuers and the authoritative
// ConfigMaps, whole.
func newManager(o *options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	cfg.UserAgent = version.Get().UserAgent(programName)
	objects := map[client.Object]cache.ByObject{
		&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{o.operatorNamespace: {LabelSelector: ours()}}},
	}
	if o.issuerSelector != "" {
		selector, err := labels.Parse(o.issuerSelector)
		if err != nil {
			return nil, fmt.Errorf("--issuer-selector: %w", err)
		}
		objects[&api.TrustedIssuer{}], objects[&api.ClusterTrustedIssuer{}] = cache.ByObject{Label: selector}, cache.ByObject{Label: selector}
	}
	options := ctrl.Options{
		Scheme:                        scheme,
		MapperProvider:                newMapper,
		Metrics:                       o.metrics(),
		HealthProbeBindAddress:        o.probeAddress,
		PprofBindAddress:              o.profileAddress,
		LeaderElection:                o.leaderElect && o.runs(componentController),
		LeaderElectionID:              o.leaderElectionID,
		LeaderElectionNamespace:       o.operatorNamespace,
		LeaderElectionReleaseOnCancel: !o.keepLease,
		Cache:                         cache.Options{ByObject: objects, DefaultTransform: lean},
		Controller:                    o.controllers,
	}
	if o.lease > 0 {
		options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = ptr.To(o.lease), ptr.To(o.lease/2), ptr.To(o.lease/5)
	}
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("setting up the manager: %w", err)
	}
	return mgr, nil
}

// setupController adds the controller, with a cache of the metadata of all our
// ConfigMaps, to notice when a copy is changed; and what keeps the certificate.
func setupController(ctx context.Context, mgr ctrl.Manager, o *options, shared *fetch.Shared, queue *controller.Queue, spans trace.TracerProvider, log logr.Logger) error {
	copies, err := cache.New(mgr.GetConfig(), cache.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
		DefaultLabelSelector: ours(), DefaultTransform: lean,
	})
	if err != nil {
		return fmt.Errorf("setting up the cache of copies: %w", err)
	}
	if err := mgr.Add(copies); err != nil {
		return err
	}
	if len(o.servingNames) > 0 {
		if err := mgr.Add(&servingcert.Keeper{
			Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Namespace: o.operatorNamespace,
			Names: o.servingNames, Clock: clock.RealClock{}, Log: log,
		}); err != nil {
			return err
		}
	}
	return controller.Setup(ctx, mgr, controller.Options{
		Fetcher: shared, Queue: queue, OperatorNamespace: o.operatorNamespace, Copies: copies, Tracing: spans,
	})
}

// setupVerifier adds the verifier and its probe. Its informers are asked for when it
// starts, not before: the manager starts nothing else until those that it knows of
// have been filled, and a replica that starts while the API server is down has to
// answer that it cannot decide, not to be away.
func setupVerifier(mgr ctrl.Manager, o *options, log logr.Logger) error {
	store := verifier.NewStore(nil)
	watch := onEachReplica(func(ctx context.Context) error {
		watch, err := verifier.SetupWatch(ctx, mgr.GetCache(), store, o.operatorNamespace, log)
		if err != nil {
			return err
		}
		return watch.Start(ctx)
	})
	o.server.APIAudiences, o.server.RefreshRequests = o.apiAudiences, mgr.GetClient()
	server, err := verifier.NewServer(o.server, store, log)
	if err != nil {
		return err
	}
	return errors.Join(
		mgr.Add(watch),
		verifier.SetupUsage(mgr, store, log),
		mgr.Add(server),
		mgr.AddReadyzCheck("snapshots", store.ReadyCheck),
	)
}

// onEachReplica is a part of the manager that does not wait for election.
type onEachReplica func(context.Context) error

// Start implements manager.Runnable.
func (run onEachReplica) Start(ctx context.Context) error { return run(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (onEachReplica) NeedLeaderElection() bool { return false }
