#!/usr/bin/env bash
# Runs all tests through `go test`, in random order and under the race detector,
# and closes with the count of what really ran (hack/testsummary).
#
#   test.sh [PACKAGE...]        default: all, those of the modules below included
#   TESTFLAGS='-run X -count 1' goes to go test
set -euo pipefail
cd "$(dirname "$0")/.."
# Modules of their own, whose dependencies the product shall not have.
modules=()
if [ $# = 0 ]; then
  set -- ./...
  modules=(test/conformance test/bench test/chart test/schemas tools/release)
  with() { # SCRIPT MODULE WHAT
    local status=0
    bash "$1" || status=$?
    case $status in
    0) modules+=("$2") ;;
    3) echo "==> Testing WITHOUT $3: what is named above is needed for that." ;;
    *) exit "$status" ;;
    esac
  }
  with hack/peers.sh test/peers "nginx, Caddy, Node.js and promtool"
  with hack/consumers.sh test/consumers "Better Auth, oidc-provider, Next.js, PyJWT and Java"
  with hack/e2e.sh test/e2e "a node that runs pods"
fi
read -ra extra <<< "${TESTFLAGS:-}"

# The race detector needs a C compiler.
race=(-race)
compiler=$(go env CC)
if ! command -v "${compiler%% *}" > /dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "==> Installing gcc, which the race detector needs"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends gcc libc6-dev > /dev/null
  else
    echo "==> No C compiler ($compiler): testing WITHOUT the race detector. Install gcc to have it."
    race=()
  fi
fi
[ ${#race[@]} = 0 ] || export CGO_ENABLED=1

# Ginkgo has a random order of its own, asked for by flags that the other test
# binaries do not know.
uses='{{define "g"}}{{range .}}{{if eq . "github.com/onsi/ginkgo/v2"}}G{{end}}{{end}}{{end}}'
uses+='{{template "g" .TestImports}}{{template "g" .XTestImports}} {{.ImportPath}}'
list=$(go list -f "$uses" "$@")
mapfile -t plain < <(sed -n 's/^ //p' <<< "$list")
mapfile -t ginkgo < <(sed -n 's/^GG* //p' <<< "$list")

mkdir -p bin
go build -o bin/testsummary ./hack/testsummary
run() { go test -json "${race[@]}" -shuffle=on -timeout 20m "${extra[@]}" "$@"; }
{
  status=0
  [ ${#plain[@]} = 0 ] || run "${plain[@]}" || status=$?
  [ ${#ginkgo[@]} = 0 ] ||
    run "${ginkgo[@]}" -args -ginkgo.randomize-all -ginkgo.no-color || status=$?
  for module in "${modules[@]}"; do (cd "$module" && run ./...) || status=$?; done
  exit "$status"
} | bin/testsummary
