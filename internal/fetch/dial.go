// dial.go makes connections: resolve, judge every address, dial one of those
// that were judged, shake hands. Each step is bounded in time by itself, because
// http.Transport goes on with a dial whose request has given up.

package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"
)

// maxTries is how many addresses of a host are tried: with the default of 3 s
// each gets 750 ms at the least.
const maxTries = 4

// handshakeError marks what went wrong during the TLS handshake.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// connectError marks what went wrong before it.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// dialTLS connects and shakes hands, so that what goes wrong in the handshake
// can be told from a connection that broke.
func (f *Fetcher) dialTLS(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, hostPort string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, f.options.HandshakeTimeout)
		defer cancel()
		dial := f.dial
		if f.options.Proxy != nil {
			dial = f.dialThroughProxy
		}
		raw, err := dial(ctx, network, hostPort)
		if err != nil {
			return nil, err
		}
		conn, err := shakeHands(ctx, raw, config, hostPort)
		if err != nil {
			return nil, &handshakeError{err}
		}
		return conn, nil
	}
}

// shakeHands makes a connection a TLS one, or closes it.
func shakeHands(ctx context.Context, raw net.Conn, config *tls.Config, hostPort string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	own := config.Clone()
	own.ServerName = host
	conn := tls.Client(raw, own)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error is the one that counts
		return nil, err
	}
	return conn, nil
}

// dial connects to an address that was judged, not to a name that could mean
// another one by then.
func (f *Fetcher) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.options.ConnectTimeout)
	defer cancel()
	addrs, err := f.judge(ctx, host)
	if err != nil {
		return nil, err
	}
	conn, err := f.dialFirst(ctx, network, addrs, port)
	if err != nil {
		return nil, &connectError{err}
	}
	return conn, nil
}

// dialFirst connects to the first address that answers. Each try gets an even
// share of the time that is left, so that an address that swallows packets
// (IPv6 set up by half) does not hide a good one.
func (f *Fetcher) dialFirst(ctx context.Context, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	addrs = tries(addrs)
	deadline := time.Now().Add(f.options.ConnectTimeout)
	if d, ok := ctx.Deadline(); ok {
		deadline = d
	}
	var failed error
	for i, a := range addrs {
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		attempt, cancel := context.WithTimeout(ctx, share)
		conn, err := f.connect(attempt, network, net.JoinHostPort(a.Unmap().String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	return nil, failed
}

// tries picks the addresses to try: the two families by turns, each in the
// resolver's order, and no more than maxTries.
func tries(addrs []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr // that of the first address comes first
	first := addrs[0].Unmap().Is4()
	for _, a := range addrs {
		family := 0
		if a.Unmap().Is4() != first {
			family = 1
		}
		families[family] = append(families[family], a)
	}
	var out []netip.Addr
	for i := range addrs {
		for _, family := range families {
			if i < len(family) && len(out) < maxTries {
				out = append(out, family[i])
			}
		}
	}
	return out
}
