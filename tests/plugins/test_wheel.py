"""The proof of the doors: fedcl and the sample package as wheels in a folder of their own, run from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("hatchling", reason="the dev extra brings build and hatchling")
pytest.importorskip("pip", reason="wheels are installed with pip")
ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = """
    from fedcl.data.digits import Digits
    from fedcl.testing import check_dataset, check_objective, check_scenario, check_strategy
    from fedcl.training.loop import Training
    from sample_lab.data import EveryOther, Stripes
    from sample_lab.methods import Mine
    from sample_lab.objectives import Energy

    def test_contracts():
        check_dataset(Stripes())
        check_scenario(EveryOther(num_clients=3))
        check_objective(Energy())
        check_strategy(Mine(training=Training(updates=3, batch_size=8)))
    """


@pytest.fixture
def site(tmp_path, write):
    """(run, folder): both wheels installed into a folder, and a way to run Python there in an empty one."""
    from hatchling.builders.wheel import WheelBuilder

    place, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    wheels = []
    for root in (ROOT, write(tmp_path / "source")):
        (path,) = WheelBuilder(str(root)).build(directory=str(tmp_path / "wheels"), versions=["standard"])
        wheels.append(str(path))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(place), *wheels]
    subprocess.run(pip, check=True, capture_output=True, text=True)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", *arguments]
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)

    return run, empty


def test_the_sample_package_beside_built_in_methods(site, typed):
    run, empty = site

    def fedcl(*arguments):
        return run("-m", "fedcl", *arguments)

    short = ("strategy.training.updates=5", "augmentation@strategy.training.augmentation=none", "quiet=true")
    for strategy in ("mine", "one_shot"):
        done = fedcl("federated", f"strategy={strategy}", *typed, *short, f"out=runs/{strategy}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    record = json.loads((empty / "runs/mine/record.json").read_text())
    assert record["versions"]["sample_lab"].startswith("1.2, sha256 ")
    assert fedcl("report", "runs").returncode == 0
    page = (empty / "runs/report.html").read_text()
    assert "mine" in page
    assert "one_shot" in page

    done = fedcl("federated", "strategy=mine", *typed, *short, "strategy.broken=true", "out=runs/bug")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "KeyError: 'my own bug' (sample_lab/methods.py:" in line
    assert "raise KeyError" in (empty / "runs/bug/traceback.txt").read_text()

    (empty / "test_contracts.py").write_text(dedent(CONTRACTS))
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_contracts.py")
    assert done.returncode == 0, done.stdout
