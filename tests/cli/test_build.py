"""From configuration to objects: what is refused, and how it is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from fedcl.cli.build import VERBS, build_job, compose_config, compose_job, make, resolve
from fedcl.cli.installation import check_plugins, namesake
from fedcl.cli.sweeps import choose_folder
from fedcl.core.checks import check_arguments, fits, nearest, similar
from fedcl.core.describe import describe, settings_of
from fedcl.core.errors import ConfigError, FedclError, RunError, ScenarioError
from fedcl.core.targets import check_values
from fedcl.distill.distiller import Distiller


@dataclass(frozen=True, kw_only=True)
class Sample:
    rate: float = 1.0
    count: int | None = None
    on: bool = False
    kind: Literal["a", "b"] = "a"
    widths: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (float("nan"), float, False),
        (True, int, False),
        (1.0, int, False),
        (None, int | None, True),
        ([1, 2], tuple[int, ...], True),
        ([1, "x"], tuple[int, ...], False),
        ([1], tuple[int, int], False),
        (3, tuple[int, ...], False),
        ("b", Literal["a", "b"], True),
        ("anything", Path, True),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "fast"}, "part.rate=fast does not fit; it must be a number"),
        ({"count": 1.5}, "part.count=1.5 does not fit; it must be a whole number or null"),
        ({"on": 1}, "part.on=1 does not fit; it must be true or false"),
        ({"kind": "c"}, "part.kind=c does not fit; it must be a or b"),
        ({"widths": [1, None]}, "it must be a list [...] of which each is a whole number"),
    ],
)
def test_values_that_do_not_fit(values, message):
    with pytest.raises(ConfigError) as caught:
        check_values(Sample, values, "part")
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def composed():
    """The configuration of `fedcl federated`, resolved."""
    return resolve(compose_config("federated", []))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed=-1 must be a whole number >= 0; type seed=0"),
        ("seed", 3.5, "seed=3.5 does not fit; it must be a whole number"),
        ("device", "gpu", "device=gpu"),
        ("device", "cuda:97", "device=cuda:97 is not there"),
        ("num_rounds", 0, "num_rounds=0"),
        ("distiller.ipc", "ten", "distiller.ipc=ten does not fit; it must be a whole number"),
        ("distiller.ipc", 0, "distiller.ipc=0"),
        ("scenario.alpha", float("nan"), "scenario.alpha=nan does not fit"),
        ("scenario.num_clients", 0, "num_clients"),
        ("model._target_", "os.system", "is not allowed"),
        ("model._target_", "fedcl.models.convnet.Nothing", "cannot be imported"),
    ],
)
def test_a_job_is_not_built_from_what_cannot_be(composed, key, value, message):
    config = deepcopy(composed)
    *groups, name = key.split(".")
    place = config[groups[0]] if groups else config
    assert name in place
    place[name] = value
    with pytest.raises(FedclError, match=re.escape(message)):
        build_job("federated", config, {}, Path("nowhere"), [])


def test_unknown_argument_names_the_nearest_and_lists_all():
    with pytest.raises(ConfigError, match=r"'rat' \(did you mean rate\?\); it takes count, kind, on, rate, widths"):
        check_arguments(Sample, {"rat": 1}, "part")
    check_arguments(lambda **values: values, {"anything": 1}, "part")
    with pytest.raises(ConfigError, match="nothing that takes values"):
        check_arguments(3, {"anything": 1}, "part")


def test_nearest_is_silent_when_nothing_is_near():
    assert nearest("alpah", ["alpha", "beta"]) == " (did you mean alpha?)"
    assert nearest("zzz", ["alpha", "beta"]) == ""
    assert nearest("alpha", ["alpha", "beta"]) == "", "what was typed is no proposal"


def test_similar_keys_end_alike_and_the_nearest_place_comes_first():
    known = ["distiller.optimizer.lr", "strategy.training.lr", "strategy", "seed", "lr_scalars"]
    assert similar("lr", known) == " (did you mean distiller.optimizer.lr or strategy.training.lr?)"
    assert similar("strategy.lr", known) == " (did you mean strategy.training.lr or distiller.optimizer.lr?)"
    assert similar("sed", known) == " (did you mean seed?)"
    assert similar("strategy", known) == ""


def test_an_error_of_a_constructor_comes_out_unwrapped():
    config = {"_target_": "scenarios.class_incremental.ClassIncremental"}
    with pytest.raises(ScenarioError, match="num_steps"):
        make({"scenario": config}, "scenario")


def test_composed_configuration_has_no_clock(composed):
    assert "${now" not in str(composed)


def test_a_folder_is_new_and_goes_again_if_nothing_was_left_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"out": None}
    with choose_folder("federated", config, {"strategy": "fedavg"}) as first:
        assert first.parts[:2] == ("runs", "federated")
        assert first.name.endswith("-fedavg")
        assert first.is_dir()
    with choose_folder("federated", config, {"strategy": "a", "experiment": "e"}) as second:
        assert second.name.endswith("-e")
    with choose_folder("federated", {"out": "here"}, {}) as given:
        assert given == Path("here")
    assert not list(tmp_path.iterdir())
    with choose_folder("federated", config, {}) as kept:
        (kept / "record.json").touch()
    assert kept.is_dir()


def test_where_no_folder_can_be_made_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match=r"cannot be made.*out=FOLDER"), choose_folder("federated", {"out": None}, {}):
        raise AssertionError("there is no folder")


ASK = """
import sys
from pathlib import Path
from fedcl.cli.sweeps import new_folder
print("ready", flush=True)
sys.stdin.readline()
print(*(new_folder(Path(sys.argv[1]) / "runs", "noon").name for _ in range(25)))
"""


def test_two_that_ask_at_once_get_two(tmp_path, root):
    """Two processes, let go together, want twenty-five folders each, all of one name."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert set(names) == {"noon", *(f"noon-{number}" for number in range(2, 51))}
    assert len(names) == 50


def test_plugins_beside_fedcl_pass_and_others_are_named(tmp_path):
    check_plugins()
    with pytest.raises(ConfigError, match="'strategies' belongs in"):
        check_plugins(tmp_path / "fedcl")


@pytest.mark.parametrize(
    ("entry", "said"), [("", "fedcl 0.1.1 .* another project.*pip uninstall"), ("fedcl.cli.main:main", "")]
)
def test_another_project_called_fedcl_is_said(entry, said, tmp_path, monkeypatch):
    """That of the package index has no command; ours, which once was called so, is no stranger."""
    about = tmp_path / "fedcl-0.1.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fedcl\nVersion: 0.1.1\n")
    (about / "entry_points.txt").write_text(f"[console_scripts]\nfedcl = {entry}\n" if entry else "")
    monkeypatch.syspath_prepend(tmp_path)
    assert re.search(said, namesake()) if said else namesake() == ""


def test_a_job_from_presets_is_the_command_lines(tmp_path):
    job = compose_job("federated", ["strategy=fedavg", "num_rounds=2", "wire=uint8"], tmp_path / "a")
    assert (job.num_rounds, job.wire.dtype, job.out) == (2, "uint8", tmp_path / "a")
    assert job.command == ["fedcl", "federated", "strategy=fedavg", "num_rounds=2", "wire=uint8"]
    assert job.choices["strategy"] == "fedavg"
    assert not (tmp_path / "a").exists()


def test_a_described_job_is_the_configuration_that_made_it():
    """What objects say of themselves is what configs/ say: the defaults of Distiller are the preset dm."""
    for verb in VERBS:
        job, config = compose_job(verb, [], "nowhere"), resolve(compose_config(verb, []))
        described = json.loads(json.dumps(settings_of(job)))
        for group in ("dataset", "model", "scenario"):
            assert described.get(group) == config.get(group), (verb, group)
        dm = describe(replace(job.distiller, published={}, published_protocol={}))
        assert dm == describe(Distiller()), verb
