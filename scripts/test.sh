#!/usr/bin/env bash
# The tests: sets up an environment if there is none, then pytest in two processes. Arguments are pytest's:
#   bash scripts/test.sh -m ray -n 0      (in one process: for Ray, for a debugger)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev
cd "$ROOT"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # tensors of tests are too small for threads
exec "$PYTHON" -m pytest -n 2 "$@"
