#!/usr/bin/env bash
# Makes ready what `make e2e` runs a node with: containerd, runc, the CNI plugins,
# iptables, conntrack and buildah. Root on Debian gets what is missing; elsewhere it
# is named, and the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

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
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "not installed: ${missing[*]} (by the names of their Debian packages)"
  exit 3
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive bash hack/progress.sh "Installing ${missing[*]}" \
  apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
