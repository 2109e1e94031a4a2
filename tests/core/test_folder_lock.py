"""One process at a time in a run's folder: who has it is said, and nobody has to clean up after a kill."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from fedcl.cli.build import VERBS, compose_job
from fedcl.core.describe import settings_of
from fedcl.core.errors import InUseError
from fedcl.core.folder_lock import LOCK
from fedcl.core.record import open_folder, write_record
from fedcl.runs.continual import run_continual
from fedcl.runs.distill import run_distill
from fedcl.runs.federated import run_federated

HOLD = """
import sys
from pathlib import Path
from fedcl.core.record import open_folder
with open_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
COUNT = """
import sys
from pathlib import Path
from fedcl.core.errors import InUseError
from fedcl.core.record import open_folder
print("ready", flush=True)
sys.stdin.readline()
folder, done = Path(sys.argv[1]), 0
while done < 100:
    try:
        with open_folder(folder):
            number = int((folder / "counter").read_text())
            (folder / "counter").write_text(str(number + 1))
            done += 1
    except InUseError:
        pass
"""


@pytest.fixture
def start(root):
    """start(program, folder): a Python process that has said its first line; ended after the test."""
    processes = []

    def run(program, folder):
        environment = {**os.environ, "PYTHONPATH": str(root)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen([sys.executable, "-c", program, str(folder)], env=environment, **pipes))
        assert processes[-1].stdout.readline() in ("held\n", "ready\n")
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@contextmanager
def refused(folder, who, remedy="wait until it ends"):
    said = rf"out={re.escape(str(folder))} is in use by {who} since 20\d\d-.*; {re.escape(remedy)}, or .* out="
    with pytest.raises(InUseError, match=said):
        yield


def test_a_second_process_is_told_who_has_the_folder(tmp_path, start):
    process = start(HOLD, tmp_path / "run")
    with refused(tmp_path / "run", f"process {process.pid} on {platform.node()}"), open_folder(tmp_path / "run"):
        raise AssertionError("two processes have the folder")
    process.communicate("go on")
    assert process.returncode == 0
    assert not list((tmp_path / "run").iterdir())
    with open_folder(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, start):
    process = start(HOLD, tmp_path)
    process.kill()
    process.wait()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == process.pid
    with open_folder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_process_has_a_folder_once_and_lets_it_go_however_it_ends(tmp_path):
    def interrupted():
        with open_folder(tmp_path):
            with refused(tmp_path, "this process"), open_folder(tmp_path):
                raise AssertionError("the folder was opened twice")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_folder(tmp_path):
        pass


def test_a_holder_on_another_machine_is_believed_until_its_file_is_removed(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"host": "far-away", "pid": 7, "since": "2026-01-02 03:04:05"}))
    remedy = f"type rm '{tmp_path / LOCK}' if that process is gone"
    with refused(tmp_path, "process 7 on far-away", remedy), open_folder(tmp_path):
        raise AssertionError("the folder of another machine was opened")
    (tmp_path / LOCK).unlink()
    with open_folder(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 4000, '{"host": null}'])
def test_a_damaged_lock_that_nobody_holds_is_nobodys(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with open_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_never_two_at_a_time(tmp_path, start):
    """Two processes count in one file, a reading and a writing each time, and remove and make the lock anew."""
    (tmp_path / "counter").write_text("0")
    processes = [start(COUNT, tmp_path) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / "counter").read_text() == "200"


RUNS = {"federated": run_federated, "continual": run_continual, "distill": run_distill}


def test_every_verb_keeps_out_of_a_folder_in_use(tmp_path, start):
    """Be there an unfinished run or none; what the holder is writing stays."""
    assert RUNS.keys() == VERBS.keys()
    half = tmp_path / ".record.json.abcd1234"
    half.write_text("being written")
    write_record(tmp_path, {"verb": "federated", "finished": False, "config": {}})
    before = (tmp_path / "record.json").read_bytes()
    process = start(HOLD, tmp_path)
    for verb, run in RUNS.items():
        with refused(tmp_path, f"process {process.pid} on {platform.node()}"):
            run(compose_job(verb, ["device=cpu", "distiller=random", "distiller.ipc=1"], tmp_path))
    assert half.exists()
    assert (tmp_path / "record.json").read_bytes() == before


def test_a_sweep_leaves_a_job_to_the_process_that_has_it(tmp_path, start, command, monkeypatch):
    def run(job, progress):
        with open_folder(job.out):
            record = {"verb": "federated", "finished": True, "config": settings_of(job), "seed": job.seed}
            write_record(job.out, record)
            return record

    monkeypatch.setattr("fedcl.runs.federated.run_federated", run)
    process = start(HOLD, tmp_path / "mine" / "seed=0")
    status, out, err = command("federated", "-m", "seed=0,1", "out=mine")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith(
        f"left to another process: out=mine/seed=0 is in use by process {process.pid} on {platform.node()} since 20"
    )
    assert out.splitlines()[-1].startswith("2 jobs: 1 run, 1 left to another process; compare them with")
    assert (tmp_path / "mine" / "seed=1" / "record.json").exists()


def test_a_job_that_another_process_finished_meanwhile_counts_as_finished(tmp_path, command, monkeypatch):
    def run(job, progress):
        config = settings_of(job) if job.seed else {"seed": 5}
        job.out.mkdir(parents=True)
        write_record(job.out, {"verb": "federated", "finished": True, "config": config, "seed": job.seed})
        with open_folder(job.out):
            raise AssertionError("a finished run was opened")

    monkeypatch.setattr("fedcl.runs.federated.run_federated", run)
    status, out, err = command("federated", "-m", "seed=0,1", "out=mine")
    assert status == 2
    assert out.splitlines()[0] == "finished before: mine/seed=1"
    assert out.splitlines()[-1].startswith("2 jobs: 1 finished before, 1 failed")
    assert "mine/seed=0 holds a finished run of another configuration" in err
