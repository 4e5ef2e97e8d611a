package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// sender keeps connections open and sends requests that are ready made. It reads
// as little of the answers as can be: it takes its share of the same CPUs.
type sender struct {
	connections []*connection
	accepted    []byte
}

type connection struct {
	net.Conn

	in   *bufio.Reader
	body []byte
}

// dial opens the connections, with all their handshakes, and sends a first request
// on each: servers do not wait long for it.
func dial(ctx context.Context, certs *certificates, address string, connections int, first []byte, accepted string) (*sender, error) {
	s := &sender{accepted: []byte(accepted)}
	for range connections {
		dialer := &tls.Dialer{Config: certs.forClient()}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		opened := &connection{Conn: conn, in: bufio.NewReader(conn)}
		s.connections = append(s.connections, opened)
		if err := opened.exchange(first, s.accepted); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// close closes the connections.
func (s *sender) close() error {
	var all error
	for _, conn := range s.connections {
		all = errors.Join(all, conn.Close())
	}
	return all
}

// send sends each request once, over all connections, each of which waits for an
// answer before it goes on. It returns the requests per second.
func (s *sender) send(requests [][]byte) (float64, error) {
	var next atomic.Int64
	errs := make([]error, len(s.connections))
	var group sync.WaitGroup
	start := time.Now()
	for i, conn := range s.connections {
		group.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				errs[i] = conn.exchange(requests[n], s.accepted)
			}
		})
	}
	group.Wait()
	return float64(len(requests)) / time.Since(start).Seconds(), errors.Join(errs...)
}

// exchange sends a request and makes sure that the answer is a good one.
func (c *connection) exchange(request, accepted []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	status, length, err := c.readHead()
	if err != nil {
		return err
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	if _, err := io.ReadFull(c.in, c.body); err != nil {
		return err
	}
	if status != http.StatusOK || !bytes.Contains(c.body, accepted) {
		return fmt.Errorf("a good token was answered with %d %s", status, c.body)
	}
	return nil
}

// readHead reads the status and the headers, of which Content-Length counts: no
// server here sends a body without it.
func (c *connection) readHead() (status, length int, err error) {
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimSuffix(line, []byte("\r\n"))
		if len(line) == 0 {
			return status, length, nil
		}
		if first {
			line = line[min(len(line), len("HTTP/1.1 ")):]
			status, err = strconv.Atoi(string(line[:min(len(line), 3)]))
		} else if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, err = strconv.Atoi(string(value))
		}
		if err != nil {
			return 0, 0, err
		}
	}
}
