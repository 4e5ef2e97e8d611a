package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

// documented are the settings that the documentation has.
var documented = settings{
	Listen: "80", Application: "orders:8080",
	Verifier:  "jwks-trust-manager.jwks-trust-system.svc:443",
	Authority: "/etc/jwks-trust/ca.crt", ServerName: "jwks-trust-manager.jwks-trust-system.svc",
	Issuer: trusted, Log: "/var/log/nginx/access.log",
}

// The documentation has the configurations that are tested here, word for word.
func TestDocumentedConfigurations(t *testing.T) {
	for _, c := range []struct{ document, file, listen string }{
		{"forward-auth.md", "nginx.conf.tmpl", "80"},
		{"forward-auth.md", "Caddyfile.tmpl", "orders.example.com"},
		{"ext-authz.md", "envoy.yaml.tmpl", ""},
	} {
		text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", c.document))
		must(t, err)
		values := documented
		values.Listen = c.listen
		if want := strings.TrimSpace(render(t, c.file, values)); !strings.Contains(string(text), want) {
			t.Errorf("docs/%s does not have %s as it is tested; it should have\n%s", c.document, c.file, want)
		}
	}
}

// There is no Envoy to run here. Its own API definitions say at least whether it
// could read the configuration, down to the parts that stand in an Any.
func TestEnvoyConfiguration(t *testing.T) {
	text, err := yaml.YAMLToJSONStrict([]byte(render(t, "envoy.yaml.tmpl", documented)))
	must(t, err)
	bootstrap := &bootstrapv3.Bootstrap{}
	must(t, protojson.Unmarshal(text, bootstrap))
	inside := map[string]int{}
	validate(t, bootstrap, inside, func(m proto.Message) {
		if route, ok := m.(*extauthzv3.ExtAuthzPerRoute); ok {
			if got := route.GetCheckSettings().GetContextExtensions()[verifier.ContextIssuer]; got != trusted {
				t.Errorf("the route names the issuer object %q", got)
			}
		}
		if filter, ok := m.(*extauthzv3.ExtAuthz); ok && filter.GetFailureModeAllow() {
			t.Error("a verifier that cannot be reached lets everybody in")
		}
	})
	for _, name := range []string{"ExtAuthz", "ExtAuthzPerRoute", "HttpConnectionManager", "UpstreamTlsContext"} {
		if inside[name] == 0 {
			t.Errorf("there is no %s", name)
		}
	}
}

// validate validates a message and those packed into it, and shows each to see.
func validate(t *testing.T, m proto.Message, seen map[string]int, see func(proto.Message)) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		must(t, v.ValidateAll())
	}
	seen[string(m.ProtoReflect().Descriptor().Name())]++
	see(m)
	if packed, ok := m.(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		must(t, err)
		validate(t, inner, seen, see)
		return
	}
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		messages(field, value, func(m protoreflect.Message) { validate(t, m.Interface(), seen, see) })
		return true
	})
}

// messages yields those of a field.
func messages(field protoreflect.FieldDescriptor, value protoreflect.Value, yield func(protoreflect.Message)) {
	switch {
	case field.IsMap():
		if field.MapValue().Message() == nil {
			return
		}
		value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			yield(v.Message())
			return true
		})
	case field.Message() == nil:
	case field.IsList():
		for i := range value.List().Len() {
			yield(value.List().Get(i).Message())
		}
	default:
		yield(value.Message())
	}
}
