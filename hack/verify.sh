#!/usr/bin/env bash
# Closes `make verify`, once everything has been generated, formatted and tidied:
# the working tree must be what is committed, untracked files included.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! git rev-parse --is-inside-work-tree > /dev/null 2>&1; then
  echo "verify: this is no git checkout, so there is nothing to compare with" >&2
  exit 1
fi

dirty=$(git status --porcelain --untracked-files=all)
if [ -z "$dirty" ]; then
  echo "==> verify: all is generated, formatted, linted, tidy and committed"
  exit 0
fi

{
  echo "verify: the working tree differs from what is committed:"
  echo
  while IFS= read -r line; do echo "    $line"; done <<< "$dirty"
  echo
  git --no-pager diff --stat
  git --no-pager diff --unified=1 | awk 'NR <= 100' # reads on, so that git is not cut off
  echo
  echo "What make verify has just changed (generated, formatted, tidied) is right as it"
  echo "stands: look at it with 'git diff', then commit it. New files (??) are either to"
  echo "be committed or to be ignored."
} >&2
exit 1
