#!/usr/bin/env bash
# Builds the test control plane (etcd, kubectl, kube-apiserver,
# kube-controller-manager) from its Go modules into the folder given, once; with
# --node what a node needs besides (kubelet, kube-proxy, kube-scheduler). A stamp of
# the module's lock file and of this script says whether what is there is still
# right.
#
#   build.sh DIR [--node]
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
what=${2:-}
cd "$(dirname "$0")"

kubernetes=k8s.io/kubernetes/cmd
if [ "$what" = --node ]; then
  packages=("$kubernetes/kube-scheduler" "$kubernetes/kubelet" "$kubernetes/kube-proxy")
  title="A node's programs" duration="five minutes"
else
  packages=(./etcd "$kubernetes/kubectl" "$kubernetes/kube-apiserver" "$kubernetes/kube-controller-manager")
  title="The test control plane" duration="nine minutes"
fi

stamp=$(cat go.mod go.sum build.sh etcd/main.go | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/.stamp$what" 2> /dev/null)" = "$stamp" ]; then
  exit 0
fi

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
echo "==> $title (Kubernetes $version) into $out"
echo "    Once only: about $duration on two cores, kept afterwards."
export CGO_ENABLED=0
pkg=k8s.io/component-base/version
minor=${version#v*.}
ldflags="-s -w -X $pkg.gitVersion=$version"
ldflags+=" -X $pkg.gitMajor=$(cut -d. -f1 <<< "${version#v}") -X $pkg.gitMinor=${minor%%.*}"

n=0
for package in "${packages[@]}"; do
  n=$((n + 1))
  name=${package##*/}
  ../../hack/progress.sh "[$n/${#packages[@]}] $name" go build -trimpath -ldflags "$ldflags" -o "$out/$name" "$package"
done
echo "$stamp" > "$out/.stamp$what"
