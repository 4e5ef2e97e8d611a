// load.go sends good tokens all the time, and counts those that are not accepted.

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// load asks the verifier and the application, over and over.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]int
	failed   []string
}

// startLoad goes on until finish.
func startLoad(ctx context.Context, token string, askers map[string]*asker) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, accepted: map[string]int{}}
	for name, a := range askers {
		for range 4 {
			l.done.Go(func() { l.ask(ctx, name, a, token) })
		}
	}
	return l
}

func (l *load) ask(ctx context.Context, name string, a *asker, token string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		status, body, err := a.ask(ctx, token)
		if ctx.Err() != nil {
			return
		}
		l.count(name, status, body, err)
	}
}

func (l *load) count(name string, status int, body string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && status == 200 {
		l.accepted[name]++
		return
	}
	l.failed = append(l.failed, fmt.Sprintf("%s at %s: %d %s %v", name, time.Now().Format("15:04:05"), status, body, err))
}

// check says how many were accepted so far; one that was not is an error.
func (l *load) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Printf("   so far: %d good tokens accepted by the verifier, %d by the application, %d not\n",
		l.accepted["the verifier"], l.accepted["the application"], len(l.failed))
	if len(l.failed) > 0 {
		return fmt.Errorf("%d requests with a good token failed, first: %s", len(l.failed), l.failed[0])
	}
	return nil
}

// finish ends it.
func (l *load) finish() {
	l.cancel()
	l.done.Wait()
}
