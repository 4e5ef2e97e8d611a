#!/usr/bin/env bash
# Makes ready what test/e2e runs: a node's programs, helm, and what hack/node.sh
# installs. Needs root, and namespaces; where they are missing, the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "not root: a node needs to be"
  exit 3
fi
bash hack/node.sh
if ! unshare --net --mount --pid --uts --ipc --fork mount -t proc proc /proc 2> /dev/null; then
  echo "not allowed here: namespaces (network, mounts, processes)"
  exit 3
fi
bash test/controlplane/build.sh bin/node --node
make bin/tools/helm
