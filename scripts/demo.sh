#!/usr/bin/env bash
# The main job on the embedded data: four federated algorithms and two controls, the same clients, one wire, one table.
# Controls: FedDM without its matching (real images in place of optimised ones), one shot with random real images.
# Arguments are given to every run:  bash scripts/demo.sh seed=1 wire=float32
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUT="$ROOT/runs/demo"
run() { # name, then what differs
  local name="$1"
  shift
  echo "== $name: fedcl federated $*"
  rm -rf "${OUT:?}/$name"
  "$PYTHON" -m fedcl federated out="'$OUT/$name'" wire=uint8 "$@"
}

run fedavg strategy=fedavg "$@"
run fedprox strategy=fedprox "$@"
run feddm strategy=feddm "$@"
run feddm_no_matching strategy=feddm strategy.steps=0 "$@"
run one_shot strategy=one_shot "$@"
run one_shot_random strategy=one_shot distiller=random "$@"

echo
"$PYTHON" - "$OUT" <<'PY'
import sys

from rich.console import Console

from fedcl.report import comparison_table, load_runs

runs, _ = load_runs(sys.argv[1])
Console(width=None if sys.stdout.isatty() else 110).print(comparison_table(runs))
PY
echo "Pictures of the clients' data and of their summaries:"
ls "$OUT"/*/*.png
echo "All of it on one page:"
"$PYTHON" -m fedcl report "$OUT" # its path is the last line
