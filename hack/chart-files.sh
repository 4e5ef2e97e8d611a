#!/usr/bin/env bash
# Copies into the chart what it has from config/ as it is, since a chart cannot read
# outside its folder: the kinds, the roles, the alert rules, the dashboard.
set -euo pipefail
cd "$(dirname "$0")/.."
files=charts/jwks-trust-manager/files
rm -rf "$files"
mkdir -p "$files/crds" "$files/rbac"
cp config/crd/bases/*.yaml "$files/crds/"
cp config/rbac/controller_role.yaml config/rbac/verifier_role.yaml config/rbac/verifier_policy.yaml "$files/rbac/"
cp config/prometheus/rules.yaml "$files/"
cp config/grafana/dashboard.json "$files/"
