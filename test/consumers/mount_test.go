package consumers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// mount keeps a folder in step with the ConfigMap of an issuer object, in the way of a
// kubelet: files are links into ..data, which is a link to a folder that never changes.
// The ConfigMap's new data are a new folder, and the link ..data is replaced.
type mount struct {
	dir      string
	versions atomic.Int64
}

// mountSnapshot mounts it until the end of the test, and returns the key set's file.
func mountSnapshot(t *testing.T, ti *api.TrustedIssuer) string {
	t.Helper()
	m := &mount{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	events, err := world.client.Watch(ctx, &corev1.ConfigMapList{}, client.InNamespace(ti.Namespace),
		client.MatchingFields{"metadata.name": ti.Name + "-jwks"})
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range events.ResultChan() {
			if cm, ok := e.Object.(*corev1.ConfigMap); ok && e.Type != watch.Deleted {
				if err := m.replace(cm.Data); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	t.Cleanup(func() { cancel(); events.Stop(); <-ended })
	file := filepath.Join(m.dir, "jwks.json")
	within(t, "the key set is mounted", func() error { _, err := os.Stat(file); return err })
	return file
}

// replace makes the folder hold these files and no others, at one stroke.
func (m *mount) replace(data map[string]string) error {
	version := fmt.Sprintf("..version-%d", m.versions.Add(1))
	if err := os.Mkdir(filepath.Join(m.dir, version), 0o755); err != nil {
		return err
	}
	for name, content := range data {
		if err := os.WriteFile(filepath.Join(m.dir, version, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	before, err := os.Readlink(filepath.Join(m.dir, "..data"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	next := filepath.Join(m.dir, "..data_next")
	if err := errors.Join(os.Symlink(version, next), os.Rename(next, filepath.Join(m.dir, "..data"))); err != nil {
		return err
	}
	for name := range data {
		err := os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if before != "" {
		return os.RemoveAll(filepath.Join(m.dir, before))
	}
	return nil
}
