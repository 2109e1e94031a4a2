"""scripts/demo.sh: every run is on one wire, and every method that makes images has its control beside it."""

import os
import shutil
import subprocess

FAKE = """#!/bin/sh
# Stands for the interpreter: says yes to every question, writes down what it is asked to run, leaves a picture.
for word in "$@"; do
  case "$word" in
    out=*) folder=$(echo "$word" | cut -d= -f2- | tr -d "'"); mkdir -p "$folder"; : > "$folder/a.png";;
  esac
done
[ "$2" = fedcl ] && shift 2 && echo "$@" >> "$ASKED"
exit 0
"""


def asked(root, tmp_path, *arguments):
    """The commands of the demo: lists of words, `out` left out."""
    shutil.copytree(root / "scripts", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked")}
    done = subprocess.run(
        ["bash", str(tmp_path / "scripts" / "demo.sh"), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "asked").read_text().splitlines()
    return [[word for word in line.split() if not word.startswith("out=")] for line in lines]


def test_one_wire_and_a_control_beside_each_method(root, tmp_path):
    *runs, report = asked(root, tmp_path)
    assert report[0] == "report"
    assert all("wire=uint8" in run for run in runs)
    said = [{word for word in run[1:] if word != "wire=uint8"} for run in runs]
    assert {"strategy=feddm"} in said
    assert {"strategy=feddm", "strategy.steps=0"} in said  # no matching
    assert {"strategy=one_shot"} in said
    assert {"strategy=one_shot", "distiller=random"} in said


def test_arguments_reach_every_run_and_win(root, tmp_path):
    *runs, _ = asked(root, tmp_path, "seed=1", "wire=float32")
    assert all(run[-2:] == ["seed=1", "wire=float32"] for run in runs)
