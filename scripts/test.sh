#!/usr/bin/env bash
# The tests: sets up an environment if there is none, then pytest. Arguments are pytest's:
#   bash scripts/test.sh -m ray
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev
cd "$ROOT"
exec "$PYTHON" -m pytest "$@"
