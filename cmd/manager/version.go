// version.go says what this binary is.

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the linker: -X main.release=v1.2.3.
var release string

// version names the release, or the revision where there is none, and the compiler.
func version() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" {
		v = "unknown"
	}
	return fmt.Sprintf("jwks-trust-manager %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
