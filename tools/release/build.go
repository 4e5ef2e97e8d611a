// build.go builds the programs so that the same source gives the same bytes, wherever,
// whenever and by whomever.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// product is the module that is released.
const product = "github.com/jwks-trust/jwks-trust-manager"

// target is a program for a platform.
type target struct{ program, os, arch string }

var targets = []target{
	{"manager", "linux", "amd64"},
	{"manager", "linux", "arm64"},
	{"kubectl-jwks", "linux", "amd64"},
	{"kubectl-jwks", "linux", "arm64"},
	{"kubectl-jwks", "darwin", "amd64"},
	{"kubectl-jwks", "darwin", "arm64"},
	{"kubectl-jwks", "windows", "amd64"},
	{"kubectl-jwks", "windows", "arm64"},
}

// wanted are the targets that something is made for.
func (r *release) wanted() []target {
	all := slices.Clone(targets)
	if r.platforms == "" {
		return all
	}
	return slices.DeleteFunc(all, func(t target) bool { return !slices.Contains(strings.Split(r.platforms, ","), t.os+"/"+t.arch) })
}

func (t target) String() string { return fmt.Sprintf("%s for %s/%s", t.program, t.os, t.arch) }

// file is the name of the program's file.
func (t target) file() string {
	if t.os == "windows" {
		return t.program + ".exe"
	}
	return t.program
}

// stamp is what the programs say of themselves.
type stamp struct{ version, revision string }

// ldflags as in the Dockerfile.
func (s stamp) ldflags() string {
	v := s.version
	if v != "" {
		v = tag(v)
	}
	return fmt.Sprintf("-s -w -X %[1]s/internal/version.release=%[2]s -X %[1]s/internal/version.revision=%[3]s", product, v, s.revision)
}

// kept are settings of Go's that say where things come from, and not what they are.
var kept = []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE", "GOMODCACHE", "GOCACHE", "GOTOOLCHAIN"}

// pinned are the settings that change what is compiled, without what somebody's
// environment or `go env -w` makes of them.
var pinned = []string{
	"GOENV=off", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=", "GODEBUG=", "GOFIPS140=off",
	"CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0",
}

// environment is what the compiler runs in.
func environment(ctx context.Context) ([]string, error) {
	text, err := output(ctx, ".", nil, "go", append([]string{"env", "-json"}, kept...)...)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		env = append(env, name+"="+os.Getenv(name))
	}
	for _, name := range kept {
		env = append(env, name+"="+values[name])
	}
	return append(env, pinned...), nil
}

// builder builds a source in an environment.
type builder struct {
	log         io.Writer
	source, out string
	env         []string
	stamp       stamp
}

// build builds the targets, and tells where each is.
func (b builder) build(ctx context.Context, all []target) (map[target]string, error) {
	made := map[target]string{}
	for _, t := range all {
		fmt.Fprintf(b.log, "    %s\n", t)
		path := filepath.Join(b.out, t.os+"-"+t.arch, t.file())
		env := append(append([]string{}, b.env...), "GOOS="+t.os, "GOARCH="+t.arch)
		if _, err := output(ctx, b.source, env, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", b.stamp.ldflags(), "-o", path, "./cmd/"+t.program); err != nil {
			return nil, err
		}
		made[t] = path
	}
	return made, nil
}
