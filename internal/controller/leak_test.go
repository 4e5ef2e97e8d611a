package controller

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind, but for Ginkgo's own.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/onsi/ginkgo/v2/internal/interrupt_handler.(*InterruptHandler).registerForInterrupts.func2"))
}
