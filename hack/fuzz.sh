#!/usr/bin/env bash
# Runs each fuzz target of the module in turn, each for the time given. What a
# target finds stays in its package's testdata/fuzz, as a test of its own.
#
#   fuzz.sh TIME
set -euo pipefail
cd "$(dirname "$0")/.."
for package in $(go list ./...); do
  folder=$(go list -f '{{.Dir}}' "$package")
  targets=$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$folder"/*_test.go 2> /dev/null || true)
  for target in $targets; do
    echo "==> $target (${package##*/}), $1"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 10x "$package"
  done
done
