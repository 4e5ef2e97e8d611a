#!/usr/bin/env bash
# Runs each fuzz target in turn, each for the time given. What a target finds
# stays in its package's testdata/fuzz, as a test of its own.
#
#   fuzz.sh TIME
set -euo pipefail
cd "$(dirname "$0")/.."
for module in . test/conformance; do
  for folder in $(cd "$module" && go list -f '{{.Dir}}' ./...); do
    for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$folder"/*_test.go 2> /dev/null); do
      echo "==> $target (${folder##*/}), $1"
      (cd "$folder" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 10x .)
    done
  done
done
