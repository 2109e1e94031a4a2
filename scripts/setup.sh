# Sourced by demo.sh and test.sh. Sets ROOT, and PYTHON: an interpreter that has what fedcl needs.
#   1. the active environment, if it has torch (what is missing is added)
#   2. .venv in this checkout, if there is one (the same)
#   3. a new .venv
# Nothing is installed when nothing is missing. $1 is "dev" when the tests' tools are needed too.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

die() { echo "$*" >&2; exit 2; }

# Is this interpreter new enough?
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Does this interpreter have every distribution that pyproject.toml asks for, extras of theirs included?
complete() {
  "$1" - "$ROOT/pyproject.toml" "$2" <<'PY' 2>/dev/null
import sys, tomllib
from importlib.metadata import requires, version
from packaging.requirements import Requirement

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
wanted = [*project["dependencies"], *project["optional-dependencies"].get(sys.argv[2], [])]
for need in map(Requirement, wanted):
    assert need.specifier.contains(version(need.name), prereleases=True)
    for extra in need.extras:
        for inner in map(Requirement, requires(need.name) or []):
            if inner.marker and inner.marker.evaluate({"extra": extra}) and not inner.marker.evaluate({"extra": ""}):
                version(inner.name)
PY
}

install() {
  "$1" -m pip --version >/dev/null 2>&1 || "$1" -m ensurepip >/dev/null 2>&1 || die "$1 has no pip; install pip for it"
  echo "Installing fedcl's dependencies with $1 (once; the first time takes minutes)"
  "$1" -m pip install --disable-pip-version-check -e "$ROOT[dev]" || die "The installation failed; pip says why above"
}

find_python() {
  local name active
  active="$(command -v python || command -v python3 || true)"
  if [ -n "$active" ] && recent "$active" && "$active" -c 'import torch' 2>/dev/null; then
    PYTHON="$active"
    complete "$PYTHON" "$1" && return
    # an interpreter of the operating system is not ours to change
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then install "$PYTHON"; return; fi
  fi
  PYTHON="$ROOT/.venv/bin/python"
  if [ ! -x "$PYTHON" ]; then
    for name in python3.13 python3.12 python3.11 python3 python ""; do
      [ -n "$name" ] || die "fedcl needs Python 3.11 or newer, and there is none on the PATH; install one"
      if command -v "$name" >/dev/null && recent "$name"; then break; fi
    done
    if ! "$name" -m venv "$ROOT/.venv"; then
      rm -rf "$ROOT/.venv"
      die "$name cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    fi
  fi
  recent "$PYTHON" || die "$PYTHON is older than Python 3.11; delete $ROOT/.venv and try again"
  complete "$PYTHON" "$1" || install "$PYTHON"
}

find_python "${1:-}"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" # this checkout, whatever else is installed
