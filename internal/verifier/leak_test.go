package verifier

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind; but for two that end by themselves: the file watcher
// of controller-runtime's in a server that a test makes and does not run, and what a cache
// of tokens does until it is collected as garbage.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/fsnotify/fsnotify.(*inotify).readEvents"),
		goleak.IgnoreAnyFunction("github.com/maypok86/otter/v2.periodicCleanUp[...]"),
	)
}
