// load_test.go sends tokens to verifiers, as the proxies in front of them do.

package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/gomega"

	"github.com/jwks-trust/jwks-trust-manager/internal/testissuer"
)

// load asks about tokens without a pause. A replica that nobody can connect to is
// passed over, and so is one that is not ready, as a Service would do; every other
// request has to be answered.
type load struct {
	client    *http.Client
	addresses []string
	// out, where set, says that a replica is out of the Service.
	out   func(address string) bool
	path  string
	token func(n int64) string

	sent, accepted atomic.Int64

	mu      sync.Mutex
	answers map[string]int
	slow    []time.Duration

	stop context.CancelFunc
	all  sync.WaitGroup
}

// pace is how often each worker asks.
const pace = 10 * time.Millisecond

// start begins with some workers.
func (l *load) start(workers int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.answers = cancel, map[string]int{}
	for range workers {
		l.all.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					l.once(l.sent.Add(1))
				}
			}
		})
	}
	return l
}

// end stops it, and gives the number of answers of each kind.
func (l *load) end() map[string]int {
	l.stop()
	l.all.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers)
}

func (l *load) once(n int64) {
	token, began := l.token(n), time.Now()
	answer := "nobody to connect to"
	for i := range l.addresses {
		address := l.addresses[(int(n)+i)%len(l.addresses)]
		if l.out != nil && l.out(address) {
			continue
		}
		status, err := ask(l.client, address, l.path, token)
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			continue
		}
		if answer = fmt.Sprint(status); err != nil {
			answer = err.Error()
		}
		break
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[answer]++
	if answer == "200" {
		l.accepted.Add(1)
		l.slow = append(l.slow, took)
	}
}

// goesOn waits until this many more tokens have been accepted.
func (l *load) goesOn(g Gomega, n int64) {
	until := l.accepted.Load() + n
	g.Eventually(l.accepted.Load).WithTimeout(time.Minute).WithPolling(10*time.Millisecond).Should(BeNumerically(">=", until), "%v", l.others)
}

// others are the answers that are no acceptance.
func (l *load) others() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := maps.Clone(l.answers)
	delete(out, "200")
	return out
}

// median is that of the accepted ones since the last time.
func (l *load) median() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.slow
	l.slow = nil
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// ask is what forward-auth says to a token.
func ask(c *http.Client, address, path, token string) (status int, err error) {
	return askAt(c, "https://"+address+path, token)
}

func askAt(c *http.Client, url, token string) (status int, err error) {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody) //nolint:noctx // the client has a timeout
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// httpsClient trusts the roots of config.
func httpsClient(config *tls.Config, keepAlive bool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: config, MaxIdleConnsPerHost: 16, DisableKeepAlives: !keepAlive,
	}}
}

// tokens are good ones: some seen before, some new.
func tokens(i *testissuer.Issuer, key *testissuer.Key) func(int64) string {
	return func(n int64) string {
		claims := testissuer.Claims(i.URL(), "alice", "orders", time.Now(), time.Hour)
		claims["jti"] = fmt.Sprint(n)
		return key.Sign(claims)
	}
}
