package verifier

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind; but for the file watcher of controller-runtime's in
// a server that a test makes and does not run: only running it can end that.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/fsnotify/fsnotify.(*inotify).readEvents"))
}
