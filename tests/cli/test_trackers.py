"""Trackers show what the record says, once, and cannot hurt a run."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from fedcl.cli.trackers import TensorBoard, WandB, results, rows
from fedcl.core.errors import ConfigError
from fedcl.core.progress import Progress, Several

ROUND = {"accuracy": 0.5, "failed": [], "up": {"wire_bytes": 30}, "down": {"wire_bytes": 10}}
RECORD = {
    "verb": "federated",
    "finished": True,
    "config": {"seed": 0},
    "rounds": [{"round": 0, **ROUND}, {"round": 1, **ROUND, "accuracy": 0.75}],
    "accuracy": {"last": 0.75, "mean_last5": 0.625, "best": 0.75},
    "communication": {"total_wire_bytes": 80},
}


class Wandb(SimpleNamespace):
    """As much of the package as is used."""

    def __init__(self):
        self.calls = []
        super().__init__(summary={})

    def init(self, **options):
        self.options = options
        return self

    def log(self, values, step):
        self.calls.append((step, values))

    def finish(self, exit_code):
        self.exit_code = exit_code


class Said(Progress):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_rows_and_results_of_a_record():
    assert rows(RECORD)[1] == (
        1,
        {"accuracy": 0.75, "failed_clients": 0, "up_bytes": 30, "down_bytes": 10, "total_bytes": 80},
    )
    assert rows(RECORD, 1, total=40) == rows(RECORD)[1:]
    unseen = RECORD | {"rounds": [{"round": 0, **ROUND, "accuracy": None}]}  # no round of evaluation
    assert rows(unseen) == [(0, {"failed_clients": 0, "up_bytes": 30, "down_bytes": 10, "total_bytes": 40})]
    assert rows({"steps": [{"step": 0, "accuracy": 0.5, "bytes": 9, "seconds": 1.0}]}) == [
        (0, {"accuracy": 0.5, "bytes": 9})
    ]
    assert rows({"distillation": {"loss": [[1, 2.5]]}}) == [(1, {"loss": 2.5})]
    assert results(RECORD)["communication/total_wire_bytes"] == 80
    assert results({"distillation": {"accuracy": {"mean": 0.5}, "bytes": 7}}) == {
        "distillation/accuracy": 0.5,
        "distillation/bytes": 7,
    }


def test_wandb_hears_every_round_once(wandb, tmp_path):
    with WandB(group="g", mode="offline").follow(tmp_path / "run") as listener:
        for done in (0, 1, 1, 2):
            listener.wrote(RECORD | {"rounds": RECORD["rounds"][:done]})
        listener.wrote(RECORD)
    assert [step for step, _ in wandb.calls] == [0, 1]
    assert [values["total_bytes"] for _, values in wandb.calls] == [40, 80]
    assert wandb.options["project"] == "fedcl"
    assert wandb.options["config"] == {"seed": 0}
    assert wandb.options["name"] == "run"
    assert wandb.summary["accuracy/last"] == 0.75
    assert wandb.exit_code == 0


def test_a_failed_run_is_closed_as_such(wandb, tmp_path):
    with WandB().follow(tmp_path) as listener:
        listener.wrote(RECORD | {"finished": False})
    assert wandb.exit_code == 1


def test_a_tracker_that_breaks_is_given_up(wandb, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "log", lambda values, step: 1 / 0, raising=False)
    said = Said()
    with WandB().follow(tmp_path, said) as listener:
        listener.wrote(RECORD)
        listener.wrote(RECORD)
    assert len(said.lines) == 1
    assert "the run goes on: ZeroDivisionError" in said.lines[0]


def test_missing_packages_and_wrong_modes(monkeypatch, tmp_path):
    for tracker, name in ((WandB(), "wandb"), (TensorBoard(), "torch.utils.tensorboard")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=r"pip install 'fedcl-sim\["), tracker.follow(tmp_path):
            pass
    with pytest.raises(ConfigError, match=r"tracker\.mode"):
        WandB(mode="sideways")


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # a run that is resumed: its folder is written anew
        with TensorBoard().follow(tmp_path) as listener:
            listener.wrote(RECORD)
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(file)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("accuracy")] == [(0, 0.5), (1, 0.75)]
    assert events.Scalars("result/communication/total_wire_bytes")[0].value == 80


def test_one_key_on_the_command_line(command, wandb, tmp_path):
    tiny = ("distiller=random", "distiller.ipc=1", "strategy.training.updates=2", "model.width=4")
    assert command("federated", *tiny, "scenario.num_clients=2", "tracker=wandb", "out=a", "quiet=true")[0] == 0
    assert [step for step, _ in wandb.calls] == [0]
    assert "tracker" not in wandb.options["config"]
    assert "tracker" not in wandb.options["config"]["choices"]
    assert wandb.exit_code == 0


def test_several_listeners_hear_the_same():
    first, second = Said(), Said()
    Several(first, second).say("x")
    assert first.lines == second.lines == ["x"]
