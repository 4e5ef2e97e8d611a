#!/usr/bin/env bash
# Makes ready what test/peers and test/alerts run: nginx, Node.js with panva/jose,
# Caddy, promtool. Root on Debian gets what is missing; elsewhere it is named, and
# the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
lacks() { ! command -v "$1" > /dev/null && [ ! -x "/usr/sbin/$1" ]; }
lacks "${NGINX:-nginx}" && missing+=(nginx-light)
lacks "${NODE:-node}" && missing+=(nodejs)
lacks npm && missing+=(npm)
lacks promtool && missing+=(prometheus)
bash hack/packages.sh "${missing[@]}"

if [ -z "${CADDY:-}" ]; then
  bash hack/progress.sh "Building Caddy (once, about two minutes)" \
    env CGO_ENABLED=0 go -C test/peers/caddy build -trimpath -o "$PWD/bin/caddy" .
fi
node=test/peers/node
if ! cmp -s "$node/package-lock.json" "$node/node_modules/.for-lock"; then
  echo "==> Installing panva/jose"
  npm ci --silent --no-audit --no-fund --prefix "$node"
  cp "$node/package-lock.json" "$node/node_modules/.for-lock"
fi
