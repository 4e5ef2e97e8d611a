// extauthz.go answers Envoy's external authorization over gRPC
// (envoy.service.auth.v3.Authorization). The proxy's own configuration says which
// issuer object counts, in the route's context extensions:
//
//	jwks-trust.dev/issuer: ns/{namespace}/{name}, or cluster/{name}
//
//	OK               the token is good; headers say whose it is
//	denied with 401  a definite no, or a key that is not known (RFC 6750 section 3)
//	denied with 503  cannot decide
//
// There is always an answer: what a proxy makes of an error is a matter of its
// configuration (failure_mode_allow).

package verifier

import (
	"context"
	"net/http"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"
)

// ContextIssuer is the context extension that names the issuer object.
const ContextIssuer = "jwks-trust.dev/issuer"

const (
	// maxCheckSize limits a request, in bytes: headers, and a body if the proxy is
	// configured to send one, which is not looked at.
	maxCheckSize = 256 << 10
	// maxCheckStreams limits the requests of one connection, and checkTimeout the time
	// of each one from its first byte on: what one client can hold.
	maxCheckStreams, checkTimeout = DefaultMaxInFlight, readTimeout
	// healthTick is how often the health service looks at whether the store is ready.
	healthTick = time.Second
)

// extAuthz is the handler.
type extAuthz struct {
	authv3.UnimplementedAuthorizationServer

	auth *forwardAuth
}

// Check implements authv3.AuthorizationServer. A panic denies: gRPC would end the
// process.
func (h *extAuthz) Check(ctx context.Context, request *authv3.CheckRequest) (answer *authv3.CheckResponse, err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(h.auth.log, p)
			answer, err = denied(Verdict{Outcome: CannotDecide, Reason: InternalError}), nil
		}
	}()
	return h.check(ctx, request), nil
}

func (h *extAuthz) check(ctx context.Context, request *authv3.CheckRequest) *authv3.CheckResponse {
	attributes := request.GetAttributes()
	header := headerOf(attributes.GetRequest().GetHttp())
	object, named := objectNamed(attributes.GetContextExtensions()[ContextIssuer])
	ctx, span := h.auth.tracer.startCall(ctx, protocolExtAuthz, header)
	var v Verdict
	switch {
	case !named:
		v = Verdict{Outcome: CannotDecide, Reason: UnknownIssuer}
	case !h.auth.gate.enter():
		v = Verdict{Outcome: CannotDecide, Reason: Overloaded}
	default:
		v = contained(h.auth.log, func() Verdict { return h.auth.judge(ctx, header, object) })
		h.auth.gate.leave()
	}
	count(protocolExtAuthz, v)
	h.auth.tell(span, v, object)
	if v.Outcome == Accept {
		return allowed(v, header)
	}
	return denied(v)
}

// headerOf are the headers of the request that is to be judged. Envoy sends them
// either joined, or each one apart where it is configured to.
func headerOf(request *authv3.AttributeContext_HttpRequest) http.Header {
	header := http.Header{}
	if all := request.GetHeaderMap().GetHeaders(); len(all) > 0 {
		for _, h := range all {
			value := h.GetValue()
			if raw := h.GetRawValue(); len(raw) > 0 {
				value = string(raw)
			}
			header.Add(h.GetKey(), value)
		}
		return header
	}
	for name, value := range request.GetHeaders() {
		header.Add(name, value)
	}
	return header
}

// allowed lets a request pass, with the headers for the application in place of
// what the client may have sent under their names, or under names that an
// application could take for them.
func allowed(v Verdict, sent http.Header) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{}
	names := map[string]bool{}
	for _, h := range v.accepted.proxied {
		names[plainName(h.name)] = true
		ok.Headers = append(ok.Headers, headerOption(h.name, h.value[0]))
	}
	for name := range sent {
		if plain := plainName(name); names[plain] && plain != strings.ToLower(name) {
			ok.HeadersToRemove = append(ok.HeadersToRemove, strings.ToLower(name))
		}
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}
}

// plainName is what is left of a header's name where underscores, dots and hyphens
// are the same, as for an application that reads headers as variables.
func plainName(name string) string { return separators.Replace(strings.ToLower(name)) }

var separators = strings.NewReplacer("_", "-", ".", "-")

// denied stops a request.
func denied(v Verdict) *authv3.CheckResponse {
	status, code := proxyStatus(v), codes.Unavailable
	headers := []*corev3.HeaderValueOption{headerOption(HeaderReason, string(v.Reason))}
	if status == http.StatusUnauthorized {
		code = codes.Unauthenticated
		headers = append(headers, headerOption("WWW-Authenticate", challenge(v.Reason)))
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(code), Message: v.Reason.Text()},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(status)}, //nolint:gosec // an HTTP status
			Headers: headers,
		}},
	}
}

// headerOption sets a header, in place of any other of that name, even to nothing.
func headerOption(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:         &corev3.HeaderValue{Key: strings.ToLower(name), Value: value},
		AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		KeepEmptyValue: true,
	}
}

// grpcServer makes the gRPC server, with the standard health service.
func (s *Server) grpcServer() (*grpc.Server, *health.Server) {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(s.tls.grpcListener())),
		grpc.MaxRecvMsgSize(maxCheckSize), grpc.MaxConcurrentStreams(maxCheckStreams), grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(readTimeout), grpc.InTapHandle(s.limitTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: idleTimeout, Timeout: readTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	states := health.NewServer()
	states.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	authv3.RegisterAuthorizationServer(server, s.extAuthz)
	healthpb.RegisterHealthServer(server, states)
	return server, states
}

// limitTime gives a request the time that it may take. Watching the health has no end.
func (s *Server) limitTime(stream context.Context, info *tap.Info) (context.Context, error) {
	if info.FullMethodName == healthpb.Health_Watch_FullMethodName {
		return stream, nil
	}
	limited, cancel := context.WithTimeout(stream, s.checkTimeout) //nolint:gosec // the end of the stream ends both contexts
	_ = cancel
	return limited, nil
}

// reportHealth keeps the health service up to date until the context ends.
func reportHealth(ctx context.Context, ready func() bool, states *health.Server) error {
	ticker := time.NewTicker(healthTick)
	defer ticker.Stop()
	for {
		state := healthpb.HealthCheckResponse_NOT_SERVING
		if ready() {
			state = healthpb.HealthCheckResponse_SERVING
		}
		states.SetServingStatus("", state)
		states.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, state)
		select {
		case <-ctx.Done():
			states.Shutdown()
			return nil
		case <-ticker.C:
		}
	}
}
