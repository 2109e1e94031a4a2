"""The command line as a user meets it: help, composition, sweeps, and every kind of bad input."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from fedcl import __version__
from fedcl.build import VERBS, qualify
from fedcl.errors import RunError
from fedcl.launch import for_each_job

pytestmark = pytest.mark.usefixtures("blank_pictures")

TINY = (
    "distiller=random",
    "distiller.ipc=1",
    "strategy.training.updates=2",
    "model.width=4",
    "scenario.num_clients=2",
)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


BAD = {  # what is typed -> a part of the one line that must come back; values that do not fit are in test_build.py
    "unknown option": (["dataset=cifar101"], "(did you mean cifar10?); choose one of: cifar10, cifar100, digits"),
    "misspelt key": (["scenario.alpah=3"], "did you mean scenario.alpha?"),
    "misspelt group": (["stratgy=fedavg"], "did you mean strategy?"),
    "misspelt top key": (["sed=3"], "did you mean seed?"),
    "added key": (["+scenario.foo=3"], "scenario has no key 'foo'; it takes alpha"),
    "flag for a key": (["--seed", "3"], "values are typed as key=value: seed="),
    "flag without its value": (["--cfg"], "--cfg shows one of job, hydra, all; type --cfg job"),
    "override for its value": (["-c", "seed=3"], "-c shows one of job"),
    "rate of an optimiser": (["distiller.optimizer.lr=-1"], "cannot be made from lr=-1, momentum=0.5"),
    "two values without -m": (["seed=1,2"], "type -m"),
    "bad grammar": (["seed=[1"], "cannot be read"),
    "no group option": (["model=null"], "model takes the name of an option: alexnet, convnet"),
    "fraction for a whole": (["seed=3.5"], "seed=3.5 does not fit; it must be a whole number"),
    "foreign target": (["model._target_=os.system"], "is not allowed"),
    "alpha 0": (["scenario.alpha=0"], "alpha"),
    "too many shards": (["scenario=shards", "scenario.classes_per_client=11"], "classes_per_client"),
    "missing data": (["dataset=mnist", "dataset.root=nowhere"], "dataset.download=true"),
    "no npz": (["dataset=npz"], "dataset.path"),
    "npz of objects": (["dataset=npz", "dataset.path=objects.npz"], "object"),
    "unwritable out": (["out=/dev/null/run"], "cannot be written"),
    "finished out": (["out=finished"], "already holds a finished run"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, command, tmp_path):
    np.savez("objects.npz", **{key: np.array(["x", None]) for key in ("x_train", "y_train", "x_test", "y_test")})
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / "record.json").write_text('{"verb": "federated", "finished": true}')
    before = files(tmp_path)
    arguments, part = BAD[case]
    status, out, err = command("federated", *arguments)
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1, err
    assert part in err
    assert "Traceback" not in err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nothing"], "type fedcl with one of: federated"),
        (["report"], "RUN_DIR"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_bad_commands(arguments, part, command, tmp_path):
    status, _, err = command(*arguments)
    assert status == 2
    assert part in err
    assert files(tmp_path) == []


def test_help_and_version(command, tmp_path):
    assert command("--version") == (0, f"fedcl {__version__}\n", "")
    status, bare, _ = command()
    assert status == 0
    assert command("--help")[1] == bare
    for verb in VERBS:
        assert f"fedcl {verb}" in bare
        assert command(verb, "--help")[0] == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize("verb", VERBS)
def test_cfg_job_shows_the_configuration_and_runs_nothing(verb, command, tmp_path):
    status, out, err = command(verb, "device=cpu", "--cfg", "job", "seed=7")  # overrides on both sides of a flag
    assert (status, err) == (0, "")
    assert "seed: 7" in out
    assert files(tmp_path) == []


def test_qualify():
    assert qualify("federated", "strategy=fedavg") == "strategy=federated/fedavg"
    assert qualify("federated", "strategy=a,b2") == "strategy=federated/a,federated/b2"
    assert qualify("federated", "strategy=choice(a,b)") == "strategy=choice(federated/a,federated/b)"
    assert qualify("federated", "strategy=federated/a") == "strategy=federated/a"
    assert qualify("federated", "strategy.mu=a") == "strategy.mu=a"
    assert qualify("federated", "model=mlp") == "model=mlp"


def test_a_run_leaves_its_record_and_nothing_of_hydra(command, tmp_path):
    environment = dict(os.environ)
    status, out, _ = command("federated", *TINY, "seed=3")
    assert status == 0
    (folder,) = (tmp_path / "runs" / "federated").iterdir()
    assert folder.name.endswith("-one_shot")
    assert str(folder.relative_to(tmp_path)) in out
    record = json.loads((folder / "record.json").read_text())
    assert record["finished"] is True
    assert record["seed"] == record["config"]["seed"] == 3
    assert record["config"]["choices"]["strategy"] == "one_shot"
    assert "out" not in record["config"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert not list(tmp_path.rglob("*.log")) + list(tmp_path.rglob("multirun.yaml")) + list(tmp_path.rglob(".hydra"))
    assert dict(os.environ) == environment


def test_quiet_says_nothing(command):
    assert command("federated", *TINY, "quiet=true", "out=here") == (0, "", "")


def stand_in(monkeypatch, run):
    monkeypatch.setattr("fedcl.runners.federated.run_federated", run)


def test_a_sweep_goes_on_after_a_failure(command, tmp_path, monkeypatch):
    seen = []

    def run(job, progress):
        seen.append((job.seed, job.choices["strategy"], job.out, job.command))
        if job.seed == 1:
            raise RunError("every client failed")
        job.out.mkdir(parents=True)
        return {"accuracy": {"last": 0.5}}

    stand_in(monkeypatch, run)
    status, out, err = command("federated", "-m", "seed=0,1", "strategy=one_shot,fedavg")
    assert status == 2
    assert [case[:2] for case in seen] == [(s, n) for s in (0, 1) for n in ("one_shot", "fedavg")]
    assert len({case[2] for case in seen}) == 4, "every job has its own folder"
    assert seen[1][3] == ["fedcl", "federated", "seed=0", "strategy=fedavg"]
    assert len(out.splitlines()) == 3, "a line a job, and one about the sweep"
    assert err.splitlines() == [
        "fedcl: [seed=1 strategy=one_shot] every client failed",
        "fedcl: [seed=1 strategy=fedavg] every client failed",
        "fedcl: 2 of 4 jobs failed: seed=1 strategy=one_shot; seed=1 strategy=fedavg",
    ]
    assert not list(tmp_path.rglob("multirun.yaml"))


def test_an_unknown_option_stops_a_sweep_before_it_starts(command, tmp_path, monkeypatch):
    stand_in(monkeypatch, lambda job, progress: pytest.fail("started"))
    status, _, err = command("federated", "-m", "strategy=one_shot,fedavgg")
    assert status == 2
    assert "did you mean fedavg?" in err
    assert files(tmp_path) == []


def test_ctrl_c(command, monkeypatch):
    def run(job, progress):
        raise KeyboardInterrupt

    stand_in(monkeypatch, run)
    status, _, err = command("federated")
    assert status == 130
    assert err.startswith("fedcl: interrupted; to go on, type the same command with out='runs/federated/")


def test_a_defect_keeps_its_traceback(command, monkeypatch):
    def run(job, progress):
        raise ValueError("a defect")

    stand_in(monkeypatch, run)
    with pytest.raises(ValueError, match="a defect"):
        command("federated")


def test_values_below_swept_options_are_given_to_each_job():
    swept = ["distiller=idc,ncfm", "parameterization.factor=1", "seed=0", "+a.b=1", "~c.d", "a.b=[1,2]", "x.y=1,2"]
    assert for_each_job(swept) == [
        *("distiller=idc,ncfm", "parameterization.factor=choice(1)", "seed=0"),
        *("+a.b=1", "~c.d", "a.b=choice([1,2])", "x.y=1,2"),
    ]
    assert for_each_job(["seed=0,1", "scenario.alpha=1"]) == ["seed=0,1", "scenario.alpha=1"]  # no option varies
    assert for_each_job(["distiller=a,b", "x.y={"]) == ["distiller=a,b", "x.y={"]  # Hydra's to complain about
