"""A run that was cut off goes on after its last finished step or round, and ends as if nothing had happened."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from fedcl.core.coding import Wire
from fedcl.core.errors import RunError
from fedcl.core.progress import SILENT, Progress
from fedcl.data.digits import Digits
from fedcl.distill.distiller import Distiller
from fedcl.federated.transforms.sign import Sign
from fedcl.federated.transforms.topk import TopK
from fedcl.flower.bridge import FlowerStrategy
from fedcl.flower.serial import Serial
from fedcl.memory.budget import Budget
from fedcl.models.mlp import MLP
from fedcl.runs.checkpoint import NAME, Checkpoint, begin, differences, read_checkpoint, write_checkpoint
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.dirichlet import Dirichlet
from scenarios.grid import Grid
from strategies.continual.replay import Replay
from strategies.federated.fedaf import FedAF
from strategies.federated.fedavg_replay import FedAvgReplay
from strategies.federated.fedcache import FedCache
from strategies.federated.feddm import FedDM
from strategies.federated.scaffold import Scaffold

pytestmark = pytest.mark.usefixtures("blank_pictures")

DISTILLER = Distiller(augmentation=NoAugmentation(), ipc=1, steps=2, real_batch=8)
TRAINING = Training(epochs=1, batch_size=64, optimizer="adam", lr=0.003)
BRIEF = replace(TRAINING, epochs=None, updates=5)
SGD = Training(epochs=1, batch_size=64, momentum=0.0)
FEDAVG = FlowerStrategy(algorithm=FedAvg(), training=TRAINING)


def continual(out):
    return ContinualJob(
        seed=0,
        device="cpu",
        source=Digits(horizontal_flip=False),
        model=MLP(hidden=(16,)),
        recipe=ClassIncremental(num_steps=4),
        distiller=DISTILLER,
        strategy=Replay(training=TRAINING, keep_optimizer=True),
        budget=Budget(images=20),
        out=out,
        command=["fedcl", "continual"],
    )


def federated(out, strategy=None, **changes):
    stream = ClassIncremental(num_steps=2)
    partition = Dirichlet(num_clients=3, alpha=0.5)
    return FederatedJob(
        seed=0,
        device="cpu",
        source=Digits(horizontal_flip=False),
        model=MLP(hidden=(16,)),
        recipe=Grid(stream=stream, partition=partition, arrival="asynchronous"),
        distiller=DISTILLER,
        strategy=strategy or FedDM(objective=None, steps=None, training=BRIEF),
        runtime=Serial(),
        wire=Wire(),
        out=out,
        num_rounds=2,
        clients_per_round=2,
        command=["fedcl", "federated"],
        **changes,
    )


class Interrupted(BaseException):
    """Not an Exception: nothing on the way may catch it and go on."""


class Stop(Progress):
    """Interrupts when the `count`-th piece of `task` is done, after its checkpoint."""

    def __init__(self, task, count):
        self.task, self.left = task, count

    def advance(self, task, amount=1, **figures):
        if task == self.task and amount:
            self.left -= 1
            if self.left == 0:
                raise Interrupted


def files(out):
    """Contents of what a run leaves apart from its record and its checkpoint, which say seconds."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in ("record.json", NAME)]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


CASES = {
    "continual": (continual, run_continual, "steps", 4),
    "feddm": (federated, run_federated, "rounds", 4),
    **{
        name: (partial(federated, evaluate_clients=True, **parts), run_federated, "rounds", 4)
        for name, parts in {
            "scaffold, top-k": {"strategy": Scaffold(training=SGD), "compress": TopK()},
            "fedaf": {"strategy": FedAF(training=BRIEF, steps=2)},
            "fedcache": {"strategy": FedCache(training=TRAINING, server_training=BRIEF)},
            "fedavg, signs": {"strategy": FEDAVG, "compress": Sign()},
        }.items()
    },
    "replay at clients": (
        partial(federated, strategy=FedAvgReplay(training=TRAINING)),
        run_federated,
        "rounds",
        4,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_after_its_first_or_last_step_it_ends_the_same(case, tmp_path, timeless):
    make, run, task, count = CASES[case]
    whole = run(make(tmp_path / "whole"))
    for after in (1, count):  # those between: the test below, and the kills
        out = tmp_path / f"cut-{after}"
        with pytest.raises(Interrupted):
            run(make(out), Stop(task, after))
        assert read_checkpoint(out).done == after
        assert json.loads((out / "record.json").read_text())["finished"] is False
        record = run(make(out))
        assert timeless(record) == timeless(whole)
        assert files(out) == files(tmp_path / "whole")


def test_what_a_kill_left_of_the_clients_is_tidied_even_after_the_last_round(tmp_path):
    """Killed between a checkpoint and the removal of what it no longer needs, or in the middle of a later write."""
    make, run, task, count = CASES["replay at clients"]
    run(make(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        run(make(tmp_path / "cut"), Stop(task, count))
    (kept,) = sorted((tmp_path / "cut" / "clients" / "0000").iterdir())
    for name in ("000000.safetensors", ".000003.safetensors.abcdefgh"):
        (kept.parent / name).write_bytes(kept.read_bytes())
    run(make(tmp_path / "cut"))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_interrupted_at_every_step_in_turn(tmp_path, timeless, rendered):
    whole = run_continual(continual(tmp_path / "whole"))
    for _ in range(4):
        with pytest.raises(Interrupted):
            run_continual(continual(tmp_path / "cut"), Stop("steps", 1))
    record = run_continual(continual(tmp_path / "cut"), SILENT)
    assert timeless(record) == timeless(whole)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")  # pictures too
    assert record["seconds"] >= sum(entry["seconds"] for entry in record["steps"][:1])


def test_a_failed_run_goes_on_without_its_failure(tmp_path):
    job = continual(tmp_path)
    with pytest.raises(Interrupted):
        run_continual(job, Stop("steps", 2))

    class Fails(Progress):
        def begin(self, task, total):
            if task == "training":
                raise RunError("the loss is nan")

    with pytest.raises(RunError, match="nan"):
        run_continual(job, Fails())
    assert json.loads((tmp_path / "record.json").read_text())["failure"] == "the loss is nan"
    assert "failure" not in run_continual(job)


def test_another_configuration_is_refused_by_its_keys(tmp_path):
    job = continual(tmp_path)
    with pytest.raises(Interrupted):
        run_continual(job, Stop("steps", 1))
    herding = replace(job.strategy, select="herding")
    with pytest.raises(RunError) as caught:
        run_continual(replace(job, seed=3, strategy=herding, budget=Budget(images=5)))
    for said in ("buffer.images was 20, is 5", "seed was 0, is 3", "strategy.select was balanced, is herding"):
        assert said in str(caught.value)


def test_differences():
    assert differences({"a": (1, 2), "choices": {"x": "y"}}, {"a": [1, 2], "choices": {"x": "z"}}) == []
    assert differences({"a": 1.0}, {"a": None}) == ["a was 1.0, is null"]


def test_damaged_checkpoints_are_named(tmp_path):
    (tmp_path / "record.json").write_text('{"verb": "continual", "config": {}}')
    (tmp_path / NAME).write_bytes(b"half a file")
    with pytest.raises(RunError, match="no readable"):
        begin(tmp_path, {})
    (tmp_path / NAME).unlink()
    (tmp_path / ".record.json.abcd1234").write_text("left behind by a kill")
    (tmp_path / ".hidden").write_text("not ours")
    assert begin(tmp_path, {}) is None
    assert not (tmp_path / ".record.json.abcd1234").exists()
    assert (tmp_path / ".hidden").exists()


def test_any_tensor_comes_back_from_a_checkpoint(tmp_path):
    tensors = {
        "a flag": torch.tensor(True),
        "nothing": torch.zeros(0, 3),
        "turned": torch.arange(6.0).view(2, 3).t(),
        "a number": torch.tensor(3),
        "brief": torch.ones(2, dtype=torch.bfloat16),
    }
    write_checkpoint(tmp_path, Checkpoint(done=1, record={}, tensors=tensors))
    found = read_checkpoint(tmp_path)
    assert list(found.tensors) == list(tensors)  # in their order
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


SMALL = ["scenario=class_incremental_dirichlet", "num_rounds=2", "model=mlp", "model.hidden=[16]", "distiller.ipc=1"]
COMMANDS = {
    "continual": ["continual", "strategy=replay", "strategy.training.epochs=2", "model=mlp", "model.hidden=[16]"],
    "federated": [
        *("federated", "scenario=class_incremental_dirichlet", "strategy=feddm", "num_rounds=2", "model.width=8"),
        *("strategy.steps=2", "distiller.ipc=1", "strategy.training.updates=5"),
    ],
    "scaffold": ["federated", *SMALL, "strategy=scaffold", "strategy.training.epochs=1", "compress=topk"],
    "fedaf": ["federated", *SMALL, "strategy=fedaf", "strategy.steps=2", "strategy.training.updates=5"],
    "fedcache": [
        *("federated", *SMALL, "strategy=fedcache", "strategy.training.epochs=1", "distiller.steps=2"),
        *("strategy.server_training.updates=5", "evaluate_clients=true"),
    ],
}


def is_finished(out):
    record = out / "record.json"
    return record.exists() and json.loads(record.read_text())["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_killed_at_twenty_points_it_ends_the_same(verb, tmp_path, root, timeless):
    """SIGKILL at random times of the run's own work; a run is killed up to four times before it may end."""

    def start(out):
        arguments = [sys.executable, "-m", "fedcl", *COMMANDS[verb], "quiet=true", f"out={out}"]
        return subprocess.Popen(arguments, cwd=root, stderr=subprocess.PIPE)

    def finish(out):
        process = start(out)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        record = json.loads((out / "record.json").read_text())
        assert record.pop("command")[-1] == f"out={out}"
        return record

    expected = finish(tmp_path / "whole")
    rng, kills, number = random.Random(0), 0, 0
    while kills < 20:
        number += 1
        out = tmp_path / f"cut-{number}"
        for _ in range(4):
            process = start(out)
            while not (out / "record.json").exists():  # it is still importing
                time.sleep(0.01)
            try:
                process.wait(timeout=rng.uniform(0, 1.5) * expected["seconds"])
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            process.communicate()
            if is_finished(out):
                break
        if is_finished(out):
            record = json.loads((out / "record.json").read_text())
            record.pop("command")
        else:
            record = finish(out)
        assert timeless(record) == timeless(expected)
        assert files(out) == files(tmp_path / "whole")
