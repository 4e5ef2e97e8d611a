#!/usr/bin/env bash
# Makes ready what test/e2e runs: containerd, runc, the CNI plugins, iptables, conntrack
# and buildah from Debian's packages; a node's programs, and helm. Needs root, and
# namespaces; where something is missing, the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "not root: a node needs to be"
  exit 3
fi
missing=()
needs() { # a program or file, its Debian package
  command -v "$1" > /dev/null || [ -e "$1" ] || missing+=("$2")
}
needs containerd containerd
needs runc runc
needs /usr/lib/cni/bridge containernetworking-plugins
needs iptables iptables
needs conntrack conntrack
needs ip iproute2
needs sysctl procps
needs buildah buildah
needs /etc/ssl/certs/ca-certificates.crt ca-certificates
bash hack/packages.sh "${missing[@]}"
if ! unshare --net --mount --pid --uts --ipc --fork mount -t proc proc /proc 2> /dev/null; then
  echo "not allowed here: namespaces (network, mounts, processes)"
  exit 3
fi
bash test/controlplane/build.sh bin/node --node
make bin/tools/helm
