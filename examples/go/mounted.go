// mounted.go reads the trusted keys from the file of a mounted ConfigMap.

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// mounted are the keys of a file.
type mounted struct {
	path string

	mu   sync.Mutex
	seen os.FileInfo
	last *jose.JSONWebKeySet
	err  error
}

// keys looks at the file for each token, which costs microseconds and, unlike a watcher,
// cannot miss how a kubelet replaces files (by a symbolic link above them).
func (m *mounted) keys(context.Context, string) (*jose.JSONWebKeySet, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(m.path)
	if err == nil && m.seen != nil && os.SameFile(info, m.seen) && info.ModTime().Equal(m.seen.ModTime()) {
		return m.last, nil
	}
	if err == nil {
		err = m.read(info)
	}
	if errors.Is(err, fs.ErrNotExist) { // no key is trusted any more
		m.seen, m.last = nil, nil
	}
	if m.err = err; m.last != nil { // the last good ones do
		m.err = nil
	}
	return m.last, m.err
}

func (m *mounted) unavailable() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *mounted) read(info os.FileInfo) error {
	text, err := os.ReadFile(m.path)
	if err != nil {
		return err
	}
	keys, err := parse(text)
	if err == nil {
		m.seen, m.last = info, keys
	}
	return err
}
