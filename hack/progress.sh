#!/usr/bin/env bash
# Runs a command that may be silent for minutes, and says every half minute
# that it is still alive.
#
#   progress.sh LABEL COMMAND [ARGUMENT...]
set -euo pipefail
label=$1
shift

echo "==> $label"
start=$SECONDS
# The sleep must not hold our output open once we are gone.
(while sleep 30 > /dev/null 2>&1; do echo "    ... $((SECONDS - start)) s"; done) &
ticker=$!
trap 'kill "$ticker" 2> /dev/null || true' EXIT

"$@"
echo "    done in $((SECONDS - start)) s"
