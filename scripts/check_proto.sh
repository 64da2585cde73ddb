#!/usr/bin/env bash
# Fails if the modules checked in under proto/gen differ from what proto/ generates.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/generate_proto.sh "$fresh"
diff --recursive --brief --exclude=__pycache__ "$fresh/hutong" proto/gen/hutong \
  || { echo "proto/gen is stale: run 'make proto' and commit the result"; exit 1; }
echo "proto/gen is fresh"
