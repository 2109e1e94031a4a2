"""The wheel: what is in it, and that fedcl works from it in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the dev extra brings build and hatchling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the checkout's own files, offline."""
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).resolve().parent.parent
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(root)).build(directory=str(folder), versions=["standard"])
    return Path(path)


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def test_content(wheel, root):
    found = names(wheel)
    assert {name.split("/")[0] for name in found if ".dist-info/" not in name} == {
        "fedcl",
        "strategies",
        "scenarios",
    }
    configs = {name.removeprefix("fedcl/") for name in found if name.startswith("fedcl/configs/")}
    assert configs == {str(path.relative_to(root)) for path in (root / "configs").rglob("*.yaml")}
    for package in ("fedcl", "strategies", "scenarios"):
        modules = {str(path.relative_to(root)) for path in (root / package).rglob("*.py")}
        assert modules <= set(found)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in found)
    assert "fedcl/testing.py" in found
    assert not [name for name in found if "test_" in Path(name).name or name.endswith((".sh", ".tmp", ".env"))]


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        read = {Path(name).name: name for name in names(wheel) if ".dist-info/" in name}
        entry = archive.read(read["entry_points.txt"]).decode()
        metadata = archive.read(read["METADATA"]).decode()
    assert "fedcl = fedcl.cli.main:main" in entry
    assert "\nName: fedcl-sim\n" in metadata  # fedcl on the package index is another project
    assert wheel.name.startswith("fedcl_sim-")
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: flwr[simulation]<2,>=1.41" in metadata


@pytest.fixture
def installed(wheel, tmp_path):
    """(run, empty folder): fedcl from the unpacked wheel, started in a folder that has nothing."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "fedcl", *arguments]
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)

    return run, empty


def test_it_starts_from_the_wheel(installed):
    run, empty = installed
    result = run("federated", "--cfg", "job")
    assert (result.returncode, result.stderr) == (0, "")
    assert "_target_: fedcl." in result.stdout
    assert not list(empty.iterdir())


@pytest.mark.slow
def test_a_run_from_the_wheel(installed):
    run, empty = installed
    result = run("federated", "distiller=random", "distiller.ipc=1", "scenario.num_clients=2", "out=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((empty / "run" / "record.json").read_text())["finished"] is True
    assert [path.name for path in empty.iterdir()] == ["run"]


@pytest.mark.slow
def test_importing_fedcl_does_not_need_ray(installed, tmp_path):
    """Only runtime=ray needs it, and says so."""
    run, _ = installed
    (tmp_path / "site" / "ray.py").write_text("raise ImportError('no ray here')\n")
    tiny = ("distiller=random", "distiller.ipc=1", "scenario.num_clients=2", "strategy.training.updates=2")
    assert run("federated", *tiny).returncode == 0
    result = run("federated", *tiny, "runtime=ray")
    assert result.returncode == 2, result.stderr
    assert "ray" in result.stderr.lower()
