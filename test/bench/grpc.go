package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-logr/logr"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// emptyAuthorization lets everything pass.
type emptyAuthorization struct {
	authv3.UnimplementedAuthorizationServer
}

// Check implements authv3.AuthorizationServer.
func (emptyAuthorization) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}}, nil
}

// CompareGRPC prints how many checks per second our server answers for tokens that
// it has seen before, beside a gRPC server that does nothing.
func CompareGRPC(ctx context.Context, out io.Writer, load Load) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }() // in the system's folder for such things
	certs, err := newCertificates(directory)
	if err != nil {
		return err
	}
	f := newFixture(overHTTPS[0])
	empty, err1 := serveEmptyGRPC(ctx, certs)
	ours, err2 := serveOursGRPC(ctx, certs, f)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	requests := make([]*authv3.CheckRequest, seenTokens)
	for i := range requests {
		requests[i] = checkRequest(f.token(i))
	}
	rates := map[string][]float64{}
	for range load.Rounds {
		for _, address := range []string{empty, ours} {
			runtime.GC() // nobody pays for what another one has left behind
			rate, err := check(ctx, certs, address, requests, load)
			if err != nil {
				return err
			}
			rates[address] = append(rates[address], rate)
		}
	}
	fmt.Fprintf(out, "empty handler %.0f req/s   ours, seen before %.0f req/s   ours/empty %.3f\n",
		median(rates[empty]), median(rates[ours]), median(rates[ours])/median(rates[empty]))
	return nil
}

func checkRequest(token string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{verifier.ContextIssuer: "cluster/" + objectName},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/orders", Host: "orders.example.com",
			Headers: map[string]string{"authorization": "Bearer " + token, "accept": "*/*", "user-agent": "bench"},
		}},
	}}
}

// check sends the requests, over all connections, each of which waits for an
// answer before it goes on.
func check(ctx context.Context, certs *certificates, address string, requests []*authv3.CheckRequest, load Load) (float64, error) {
	clients := make([]authv3.AuthorizationClient, load.Connections)
	for i := range clients {
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(certs.forClient())))
		if err != nil {
			return 0, err
		}
		defer func() { _ = connection.Close() }() // the measurement is over
		clients[i] = authv3.NewAuthorizationClient(connection)
		if _, err := clients[i].Check(ctx, requests[0]); err != nil { // the handshake does not count
			return 0, err
		}
	}
	var next atomic.Int64
	errs := make([]error, len(clients))
	var group sync.WaitGroup
	start := time.Now()
	for i, client := range clients {
		group.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= load.Requests {
					return
				}
				answer, err := client.Check(ctx, requests[n%len(requests)])
				if errs[i] = err; err == nil && answer.GetStatus().GetCode() != 0 {
					errs[i] = fmt.Errorf("a good token was answered with %s", answer.GetStatus().GetMessage())
				}
			}
		})
	}
	group.Wait()
	return float64(load.Requests) / time.Since(start).Seconds(), errors.Join(errs...)
}

func serveEmptyGRPC(ctx context.Context, certs *certificates) (address string, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(certs.forServer())))
	authv3.RegisterAuthorizationServer(server, emptyAuthorization{})
	context.AfterFunc(ctx, server.Stop)
	go func() { _ = server.Serve(listener) }() // until it is stopped
	return listener.Addr().String(), nil
}

func serveOursGRPC(ctx context.Context, certs *certificates, f *fixture) (address string, err error) {
	store, err := newStore(ctx, f)
	if err != nil {
		return "", err
	}
	server, err := verifier.NewServer(verifier.ServerOptions{
		Address: "127.0.0.1:0", CertFile: certs.certFile, KeyFile: certs.keyFile,
		ExtAuthzAddress: "127.0.0.1:0", TokenCacheSize: verifier.DefaultTokenCacheSize,
	}, store, logr.Discard())
	if err != nil {
		return "", err
	}
	go func() { _ = server.Start(ctx) }() // without an address below, had it failed
	err = waitUntil(ctx, func() bool { return server.ExtAuthzAddr() != "" })
	return server.ExtAuthzAddr(), err
}
