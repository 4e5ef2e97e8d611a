#!/usr/bin/env bash
# Makes ready what test/dashboard runs: Prometheus, Chromium, pngquant, and Node.js with
# Grafana's components. Root on Debian gets what is missing; elsewhere it is named, and
# the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
lacks() { ! command -v "$1" > /dev/null; }
lacks node && missing+=(nodejs)
lacks npm && missing+=(npm)
lacks prometheus && missing+=(prometheus)
lacks pngquant && missing+=(pngquant)
lacks "${CHROMIUM:-chromium}" && missing+=(chromium)
bash hack/packages.sh "${missing[@]}"

folder=test/dashboard/page
if ! cmp -s "$folder/package-lock.json" "$folder/node_modules/.for-lock"; then
  bash hack/progress.sh "Installing the packages of $folder" npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$folder"
  cp "$folder/package-lock.json" "$folder/node_modules/.for-lock"
fi
