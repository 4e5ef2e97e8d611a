// mirrored.go reads the trusted keys from the mirror.

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxAge  = time.Minute      // the mirror is asked again that long after
	retry   = time.Second      // … or about an unknown key, or after a failure
	stale   = 10 * time.Minute // the last good keys are used that long while it fails
	maxBody = 1 << 20
)

var mirror = &http.Client{Timeout: 5 * time.Second}

// mirrored are the keys at a URL. go-oidc's RemoteKeySet would do as well, but for one
// thing: as long as no unknown key comes by it never asks again, and so never learns that
// a key has been revoked.
type mirrored struct {
	url string

	mu              sync.Mutex
	asked, answered time.Time
	last            *jose.JSONWebKeySet
	err             error
}

func (m *mirrored) keys(ctx context.Context, kid string) (*jose.JSONWebKeySet, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	age := time.Since(m.asked)
	known := m.last != nil && len(m.last.Key(kid)) > 0
	if age >= maxAge || (age >= retry && (!known || m.err != nil)) {
		m.asked = time.Now()
		if m.err = m.fetch(ctx); m.err == nil {
			m.answered = time.Now()
		}
	}
	if err := m.tooOld(); err != nil {
		return nil, err
	}
	return m.last, nil
}

func (m *mirrored) unavailable() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tooOld()
}

// tooOld says why the last keys do not count, if so.
func (m *mirrored) tooOld() error {
	if m.last == nil || time.Since(m.answered) > stale {
		return m.err
	}
	return nil
}

func (m *mirrored) fetch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return err
	}
	resp, err := mirror.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the mirror answered %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	keys, err := parse(text)
	if err == nil {
		m.last = keys
	}
	return err
}
