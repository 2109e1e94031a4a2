"""Sweeps: the same command finds its folders, skips what is finished, goes on with the rest, and survives failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fedcl.cli.sweeps import LONGEST, decides, finished_before, folder_name, isolated_job, job_label, sweep_folder
from fedcl.core.describe import settings_of
from fedcl.core.errors import RunError
from fedcl.core.record import write_record

pytestmark = pytest.mark.usefixtures("blank_pictures")

SWEEPS = Path("runs/federated/sweeps")


def test_names_of_folders():
    typed = ["strategy=fedavg", "seed=0", "num_rounds=3", "out=x", "device=cpu", "quiet=true", "dataset.root=/data"]
    assert sweep_folder("federated", None, typed, {"seed", "strategy"}) == SWEEPS / "strategy,seed,num_rounds=3"
    assert job_label(typed, {"seed", "strategy"}) == "strategy=fedavg,seed=0"
    assert job_label(["seed=0"], set()) == "seed=0"
    assert sweep_folder("federated", "~/mine", typed, {"seed"}) == Path("~/mine").expanduser()


def test_the_order_of_typing_and_the_number_of_values_do_not_matter():
    one = sweep_folder("federated", None, ["seed=0", "model.width=8", "wire=uint8"], {"seed", "wire"})
    assert one == sweep_folder("federated", None, ["wire=uint8", "seed=7", "model.width=8"], {"wire", "seed"})
    assert one != sweep_folder("federated", None, ["seed=0", "model.width=9", "wire=uint8"], {"seed", "wire"})
    assert job_label(["seed=0", "wire=uint8"], {"seed", "wire"}) == "wire=uint8,seed=0"


def test_a_part_of_an_experiment_lies_where_the_whole_does():
    typed = ["method=fedavg", "wire=uint8", "seed=0", "experiment=compare"]
    whole = sweep_folder("federated", None, typed, set(), {"method", "wire", "seed"})
    part = sweep_folder("federated", None, typed, {"seed"}, {"method", "wire", "seed"})
    assert whole == part == SWEEPS / "compare"
    assert sweep_folder("federated", None, [*typed, "num_rounds=2"], set(), {"method", "wire", "seed"}) != whole


def test_what_a_folder_cannot_be_called():
    assert folder_name(["a=b/c"]) != folder_name(["a=b-c"]) == "a=b-c"
    assert "/" not in folder_name(["a=b/../c"])
    long = folder_name(["a=" + "x" * 300]), folder_name(["a=" + "x" * 301])
    assert long[0] != long[1]
    assert max(map(len, long)) <= LONGEST
    assert decides("tracker.project=a") is False
    assert decides("trackers=a") is True


def test_finished_before(tmp_path):
    config = {"seed": 0, "dataset": {"root": "/old", "name": "d"}}
    assert not finished_before(tmp_path, config)
    write_record(tmp_path, {"verb": "federated", "finished": False, "config": config})
    assert not finished_before(tmp_path, config)
    write_record(tmp_path, {"verb": "federated", "finished": True, "config": config})
    assert finished_before(tmp_path, config | {"dataset": {"root": "/new", "name": "d"}})
    with pytest.raises(RunError, match="another configuration: seed was 0, is 1"):
        finished_before(tmp_path, config | {"seed": 1})


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with isolated_job():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_the_same_command_runs_what_is_not_finished(command, tmp_path, monkeypatch):
    seen = []

    def run(job, progress):
        seen.append(job.seed)
        job.out.mkdir(parents=True, exist_ok=True)
        record = {"verb": "federated", "finished": job.seed != bad, "config": settings_of(job), "seed": job.seed}
        write_record(job.out, record)
        if job.seed == bad:
            raise broken
        return record

    monkeypatch.setattr("fedcl.runs.federated.run_federated", run)
    folder = SWEEPS / "seed,wire=uint8"

    bad, broken = 1, MemoryError("no memory left")  # not only what fedcl foresees
    status, out, err = command("federated", "-m", "wire=uint8", "seed=0,1")
    assert (status, seen) == (1, [0, 1]), "a bug"
    assert out.splitlines()[-1] == f"2 jobs: 1 run, 1 failed; compare them with: fedcl report {folder}"
    assert "MemoryError: no memory left (tests/cli/test_sweeps.py:81)" in err
    assert "raise broken" in (folder / "seed=1" / "traceback.txt").read_text()
    assert err.splitlines()[-1] == "fedcl: 1 of 2 jobs failed: wire=uint8 seed=1"

    seen.clear()
    bad = None
    status, out, err = command("federated", "-m", "seed=0,1,2", "wire=uint8")  # a sweep may be widened
    assert (status, err, seen) == (0, "", [1, 2])
    assert out.splitlines()[0] == f"finished before: {folder / 'seed=0'}"
    assert out.splitlines()[-1].startswith("3 jobs: 2 run, 1 finished before; compare")

    seen.clear()
    bad, broken = 0, KeyboardInterrupt()
    status, _, err = command("federated", "-m", "seed=0,1", "out=mine", "quiet=true")
    assert (status, seen) == (130, [0])
    assert err == "fedcl: interrupted; to go on, type the same command again\n"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["seed=0"]


def test_an_experiment_is_a_sweep_and_its_jobs_do_not_touch_each_other(command, tmp_path, timeless):
    """Real runs: a sweep's second job gives what it gives alone; `-m` is in the experiment."""
    tiny = ("distiller=random", "distiller.ipc=1", "distiller.steps=0", "strategy.training.updates=2", "model.width=4")
    few = ("scenario.num_clients=2", "method=one_shot_dm", "wire=uint8", "quiet=true")
    assert command("federated", "experiment=compare_communication", *few, *tiny, "seed=0,1", "out=all")[0] == 0
    label = "method=one_shot_dm,wire=uint8,seed=1"
    assert {path.name for path in (tmp_path / "all").iterdir()} == {label, label.replace("seed=1", "seed=0")}
    assert command("federated", *few, *tiny, "seed=1", "out=alone")[0] == 0
    swept, alone = (json.loads((tmp_path / out / "record.json").read_text()) for out in (f"all/{label}", "alone"))
    for record in (swept, alone):
        del record["command"]
        record["config"]["choices"].pop("experiment", None)
    assert timeless(swept) == timeless(alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "alone"]
