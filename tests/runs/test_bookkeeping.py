"""What a run writes as it goes on: as much a round as at the start, exact after a kill anywhere, checked when read."""

import json
import os
import pathlib
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from fedcl.core.describe import settings_of
from fedcl.core.errors import ConfigError, RunError
from fedcl.core.progress import Progress
from fedcl.core.record import ROWS, read_record
from fedcl.data.base import DataSource, make_dataset
from fedcl.distill.distiller import Distiller
from fedcl.distill.objectives.base import NoObjective
from fedcl.federated.contract import client_work
from fedcl.memory.budget import Budget
from fedcl.models.mlp import MLP
from fedcl.report.records import load_runs
from fedcl.report.settings import settings
from fedcl.runs.checkpoint import NAME, begin, read_checkpoint
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.runs.stopping import Stop
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.grid import Grid
from scenarios.iid import IID
from scenarios.online import Online
from strategies.continual.replay import Replay
from strategies.federated.fedavg_replay import FedAvgReplay

pytestmark = pytest.mark.usefixtures("blank_pictures")

TRAINING = Training(updates=5, batch_size=8, optimizer="sgd", lr=0.1)
SELECT = Distiller(name="random", objective=NoObjective(), augmentation=NoAugmentation(), ipc=1, steps=0)


@dataclass(frozen=True, kw_only=True)
class Small(DataSource):
    """Sixty-six images of 4x4 pixels in three classes, and as many to test on."""

    horizontal_flip: bool = False

    def load(self):
        generator = torch.Generator().manual_seed(0)
        images, labels = torch.randint(256, (132, 1, 4, 4), generator=generator), torch.arange(132) % 3
        images[:, 0, 0] = 80 * labels[:, None]  # something to learn
        both = [(images.to(torch.uint8)[part], labels[part]) for part in (slice(0, 66), slice(66, None))]
        return make_dataset(name="small", train=both[0], test=both[1], horizontal_flip=False)


COMMON = {"device": "cpu", "source": Small(), "model": MLP(hidden=(4,)), "distiller": SELECT}


def rounds(out, count=3, **changes):
    """Two clients that average; `count` rounds."""
    strategy = FedAvgReplay(training=TRAINING, replay=False, num_rounds=count)
    return FederatedJob(**COMMON | {"recipe": IID(num_clients=2), "strategy": strategy, "out": out} | changes)


def stream(out, **changes):
    """Three steps of two rounds, with a memory at the clients."""
    recipe = Grid(stream=ClassIncremental(num_steps=3), partition=IID(num_clients=2), arrival="synchronous")
    return rounds(out, recipe=recipe, strategy=FedAvgReplay(training=TRAINING, num_rounds=2), **changes)


def online(out):
    """Twenty-four steps of three images: not every step is evaluated, nor kept."""
    strategy = Replay(training=replace(TRAINING, updates=None, epochs=1))
    parts = {"recipe": Online(num_steps=3, batch_size=3), "strategy": strategy, "budget": Budget(images=6)}
    return ContinualJob(**COMMON, **parts, out=out)


class Interrupted(BaseException):
    """Not an Exception: nothing on the way may catch it and go on."""


class After(Progress):
    """Calls `look` after each round or step, and interrupts after `last` of them."""

    def __init__(self, look=lambda: None, last=None):
        self.look, self.left = look, last

    def advance(self, task, amount=1, **figures):
        if task in ("rounds", "steps") and amount:
            self.look()
            self.left = None if self.left is None else self.left - 1
            if self.left == 0:
                raise Interrupted


def stopped(run, job, after):
    with pytest.raises(Interrupted):
        run(job, After(last=after))
    return job.out


def test_a_late_round_writes_as_many_bytes_as_an_early_one(tmp_path):
    before, written = {}, []

    def look():
        nonlocal before
        now = {path: path.stat() for path in tmp_path.rglob("*") if path.is_file()}
        grown = (  # a replaced file was written as a whole
            entry.st_size - (before[path].st_size if path in before and before[path].st_ino == entry.st_ino else 0)
            for path, entry in now.items()
        )
        written.append(sum(grown))
        before = now

    run_federated(rounds(tmp_path / "a", 40), After(look))
    early, late = written[1:6], written[-6:-1]
    assert min(early) > 1000
    assert max(late) <= 1.02 * min(early)  # "round": 38 has a digit more than "round": 2


def contents(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder): b"".join(open(path, "rb")) for path in paths}


def moments(folder, monkeypatch, work):
    """What lies in the folder before each call that changes a file, and at the end; also with lines half appended."""
    found = [{}]

    def look():
        before, now = found[-1], contents(folder)
        for name, data in now.items():
            had = before.get(name, b"")
            if name.suffix in (".csv", ".jsonl") and data.startswith(had) and len(data) > len(had):
                found.append({**now, name: data[: (len(had) + len(data)) // 2]})
        if now != before:
            found.append(now)

    def watched(place, name):
        real = getattr(place, name)

        def first_look(*arguments, **options):
            look()
            return real(*arguments, **options)

        return first_look

    with monkeypatch.context() as patched:
        for place, names in ((os, ("replace", "fsync", "truncate", "fdopen")), (pathlib.Path, ("open", "unlink"))):
            for name in names:
                patched.setattr(place, name, watched(place, name))
        work()
    look()
    return found[1:]


def leaves(out, timeless):
    """All that a finished run left: its record in order, and the content of its files."""
    left = {"record": json.dumps(timeless(json.loads((out / "record.json").read_text())))}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".safetensors" and path.name != NAME:  # they keep their metadata in no order
            with safe_open(path, "pt") as file:
                left[str(path.relative_to(out))] = str({n: file.get_tensor(n).tolist() for n in sorted(file.keys())})
        elif path.is_file() and path.name not in ("record.json", NAME):
            left[str(path.relative_to(out))] = path.read_bytes()
    return left


CASES = {
    "rounds": (rounds, run_federated, {"count": 2}),
    "stream": (stream, run_federated, {"checkpoint_every": 4}),
    "online": (online, run_continual, {}),
}
SOME = [("rounds", 3), ("stream", 5), ("online", 11)]
ALL = [pytest.param(case, 1, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(("case", "stride"), SOME + ALL)
def test_killed_before_or_in_any_write_it_ends_the_same(case, stride, tmp_path, monkeypatch, timeless):
    """Killed at every `stride`th moment between and in writes."""
    make, run, options = CASES[case]
    whole = tmp_path / "whole"
    whole.mkdir()
    found = moments(whole, monkeypatch, lambda: run(make(whole, **options)))
    assert len(found[::stride]) > 5
    expected = leaves(whole, timeless)
    assert ROWS not in expected
    for index, state in enumerate(found[::stride]):
        out = tmp_path / f"cut-{index}"
        for name, data in state.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        if (out / "record.json").exists() and read_record(out)["finished"]:
            continue
        run(make(out, **options))
        assert leaves(out, timeless) == expected, f"killed at moment {index * stride}"


def test_readers_see_the_rounds_of_a_run_that_is_not_over(tmp_path):
    out = stopped(run_federated, rounds(tmp_path / "a", checkpoint_every=2), after=3)
    assert json.loads((out / "record.json").read_text())["rounds"] is None
    assert [row["round"] for row in read_record(out)["rounds"]] == [0, 1, 2]
    (skipped,) = load_runs(out)[1]
    assert "stopped after 3 round(s)" in skipped.reason
    with (out / ROWS).open("a") as file:
        file.write('{"rounds": {"rou')  # it is being written
    assert len(read_record(out)["rounds"]) == 3
    (out / ROWS).write_text("{\n")
    with pytest.raises(RunError, match=f"line 1 of .*{ROWS} is damaged.*delete"):
        read_record(out)
    assert load_runs(out)[1][0].reason.startswith("line 1 of")
    online_out = stopped(run_continual, online(tmp_path / "b"), after=5)
    assert [len(read_record(online_out)[part]) for part in ("steps", "matrix")] == [5, 5]


def test_a_failed_record_is_whole(tmp_path):
    wild = replace(TRAINING, lr=1e30)
    job = rounds(tmp_path / "a", strategy=FedAvgReplay(training=wild, replay=False, num_rounds=9), checkpoint_every=9)
    with pytest.raises(RunError):
        run_federated(job)
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    assert record["failure"]
    assert record["rounds"][-1]["failed"]
    assert read_record(tmp_path / "a") == record
    assert "failed after" in load_runs(tmp_path / "a")[1][0].reason


@pytest.mark.parametrize("name", ["ledger.csv", ROWS])
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\xff" + data[1:], None])
def test_a_damaged_file_of_ones_own_is_one_line(name, damage, tmp_path):
    job = rounds(tmp_path / "a")
    path = stopped(run_federated, job, after=1) / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=f"{name}.*delete {job.out}") as caught:
        run_federated(job)
    assert len(str(caught.value).splitlines()) == 1


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    job = rounds(tmp_path / "a")
    path = stopped(run_federated, job, after=1) / NAME
    whole, kept = path.read_bytes(), read_checkpoint(job.out)
    said = []
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert read_checkpoint(job.out).record == kept.record  # a space between two words of JSON
        except RunError as error:
            said.append(str(error))
    assert len(said) > 0.9 * len(range(0, len(whole), 23))
    assert all(len(line.splitlines()) == 1 for line in said)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="no readable 'fedcl checkpoint 2'"):
        run_federated(job)


def test_every_value_in_a_checkpoint_is_guarded(tmp_path):
    job = rounds(tmp_path / "a")
    path = stopped(run_federated, job, after=1) / NAME
    with safe_open(path, "pt") as file:
        metadata, tensors = (
            file.metadata(),
            {
                name: file.get_tensor(name).clone()  # not a map of the file that is written next
                for name in file.keys()  # noqa: SIM118
            },
        )
    run = json.loads(metadata["run"])
    for name in run:
        for wrong in (None, "x", -1, [], {}):
            path.write_bytes(save(tensors, {**metadata, "run": json.dumps({**run, name: wrong})}))
            with pytest.raises(RunError, match="its content was changed"):
                begin(job.out, settings_of(job))
    path.write_bytes(save({"weights/x": torch.zeros(1)}, metadata))
    with pytest.raises(RunError, match="its content was changed"):
        begin(job.out, settings_of(job))


def test_a_checkpoint_of_an_earlier_version_is_refused_with_what_to_type(tmp_path):
    job = rounds(tmp_path / "a")
    path = stopped(run_federated, job, after=1) / NAME
    path.write_bytes(save({"weights/x": torch.zeros(1)}, {"format": "fedcl checkpoint 1", "run": "{}"}))
    with pytest.raises(RunError, match=r"fedcl checkpoint 1.*another out=") as caught:
        run_federated(replace(job, checkpoint_every=2))  # another configuration, too
    assert f"delete {job.out}" in str(caught.value)


def accuracies(record):
    return [row["accuracy"] for row in record["rounds"]]


def test_evaluation_now_and_then_changes_nothing_else(tmp_path, timeless):
    every = run_federated(rounds(tmp_path / "every", 5))
    second = run_federated(rounds(tmp_path / "second", 5, evaluate_every=2))
    a = accuracies(every)
    assert len(set(a)) > 2  # each of its own state
    assert accuracies(second) == [None, a[1], None, a[3], a[4]]
    assert second["accuracy"] == {
        "last": a[4],
        "mean_last5": pytest.approx((a[1] + a[3] + a[4]) / 3),
        "best": max(a[1], a[3], a[4]),
    }
    assert second["communication"] == every["communication"]
    (run,), skipped = load_runs(tmp_path / "second")
    assert not skipped
    assert [(point.round, point.accuracy) for point in run.curve] == [(1, a[1]), (3, a[3]), (4, a[4])]
    assert run.curve[-1].wire_bytes == every["communication"]["total_wire_bytes"]


def test_last_rounds_and_ends_of_steps_are_evaluated(tmp_path):
    whole = run_federated(rounds(tmp_path / "a", evaluate_every=99))
    assert [score is None for score in accuracies(whole)] == [True, True, False]
    record = run_federated(stream(tmp_path / "b", evaluate_every=99))
    assert [score is None for score in accuracies(record)] == [True, False] * 3
    assert len(record["matrix"]) == 3
    byte = run_federated(rounds(tmp_path / "c", evaluate_every=99, stop=Stop(total_wire_bytes=1)))
    assert [score is None for score in accuracies(byte)] == [False]
    sure = run_federated(rounds(tmp_path / "d", evaluate_every=2, stop=Stop(accuracy=1e-6)))
    assert [score is None for score in accuracies(sure)] == [True, False]
    assert sure["stopped"]["value"] == sure["rounds"][1]["accuracy"]


@dataclass(frozen=True, kw_only=True)
class Absent(FedAvgReplay):
    """Client 1 fails in round 1."""

    @client_work(sends=["weights"])
    def train(self, ask, data, mine, ctx):
        if (ctx.round, ctx.client) == (1, 1):
            raise ValueError("absent")
        return super().train(ask, data, mine, ctx)


@pytest.mark.parametrize("every", [1, 2])
def test_a_round_that_did_not_count_has_the_accuracy_of_the_state_before(every, tmp_path):
    whole = accuracies(run_federated(rounds(tmp_path / "a")))
    strategy = Absent(training=TRAINING, replay=False, num_rounds=3)
    record = run_federated(rounds(tmp_path / "b", strategy=strategy, min_success=2, evaluate_every=every))
    assert [row["counted"] for row in record["rounds"]] == [True, False, True]
    assert accuracies(record)[:2] == [None if every == 2 else whole[0], whole[0]]
    assert accuracies(record)[2] is not None


def test_checkpoints_do_not_tell_methods_apart(tmp_path):
    for every in (1, 2):
        run_federated(rounds(tmp_path / str(every), checkpoint_every=every))
    one, other = load_runs(tmp_path)[0]
    assert one.config["checkpoint_every"] != other.config["checkpoint_every"]
    assert settings(one) == settings(other)


@pytest.mark.parametrize("key", ["evaluate_every", "checkpoint_every"])
def test_intervals_that_cannot_be_are_refused(key, tmp_path):
    for value in (0, -3):
        with pytest.raises(ConfigError, match=f"{key}={value} must be a whole number >= 1"):
            rounds(tmp_path / "a", **{key: value})


@pytest.mark.parametrize("typed", ["evaluate_every=0", "checkpoint_every=null"])
def test_and_so_on_the_command_line(typed, command, tmp_path):
    status, _, errors = command("federated", typed)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert typed in errors
    assert not list(tmp_path.iterdir())
