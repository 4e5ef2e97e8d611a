#!/usr/bin/env bash
# packages.sh [PACKAGE...]   installs what tests need, by the names of Debian's packages,
# as root on Debian; elsewhere it is named, and the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "not installed: $* (by the names of their Debian packages)"
  exit 3
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive bash hack/progress.sh "Installing $*" \
  apt-get install -qq -y --no-install-recommends "$@" > /dev/null
