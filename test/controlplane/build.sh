#!/usr/bin/env bash
# Builds the test control plane (etcd, kubectl, kube-apiserver,
# kube-controller-manager) from its Go modules into the folder given, once: a stamp of the module's lock file and of
# this script says whether what is there is still right.
#
#   build.sh DIR
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"

stamp=$(cat go.mod go.sum build.sh etcd/main.go | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/.stamp" 2> /dev/null)" = "$stamp" ]; then
  exit 0
fi

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
echo "==> The test control plane (Kubernetes $version) goes into $out"
echo "    Once only: about nine minutes on two cores, kept afterwards."
export CGO_ENABLED=0
pkg=k8s.io/component-base/version
minor=${version#v*.}
ldflags="-s -w -X $pkg.gitVersion=$version"
ldflags+=" -X $pkg.gitMajor=$(cut -d. -f1 <<< "${version#v}") -X $pkg.gitMinor=${minor%%.*}"

n=0
build() { # name, package
  n=$((n + 1))
  ../../hack/progress.sh "[$n/4] $1" go build -trimpath -ldflags "$ldflags" -o "$out/$1" "$2"
}
build etcd ./etcd
build kubectl k8s.io/kubernetes/cmd/kubectl
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
echo "$stamp" > "$out/.stamp"
