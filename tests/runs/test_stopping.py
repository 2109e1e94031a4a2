"""Budgets end a run after the round that used one up, and the record says which."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fedcl.core.errors import ConfigError
from fedcl.core.progress import Progress
from fedcl.data.digits import Digits
from fedcl.models.mlp import MLP
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.runs.stopping import Stop
from fedcl.training.recipe import Training
from scenarios.dirichlet import Dirichlet
from scenarios.grid import Grid
from strategies.federated.fedavg_replay import FedAvgReplay

pytestmark = pytest.mark.usefixtures("blank_pictures")

TINY = ("strategy=fedavg", "model=mlp", "strategy.training.epochs=1", "scenario.num_clients=2", "num_rounds=3")


@pytest.mark.parametrize(
    ("stop", "by"),
    [
        (Stop(), None),
        (Stop(total_wire_bytes=101), None),
        (Stop(total_wire_bytes=100), "stop.total_wire_bytes"),
        (Stop(accuracy=0.51), None),
        (Stop(accuracy=0.5), "stop.accuracy"),
        (Stop(seconds=2), "stop.seconds"),
        (Stop(total_wire_bytes=1, accuracy=0.5, seconds=2), "stop.total_wire_bytes"),
    ],
)
def test_reached(stop, by):
    found = stop.reached(total_wire_bytes=100, accuracy=0.5, seconds=2.0)
    assert (found and found["by"]) == by
    assert stop.idle == (stop == Stop())
    if by:
        assert found["value"] >= found["limit"]


@pytest.mark.parametrize(
    ("limit", "value"), [("total_wire_bytes", 0), ("accuracy", 95), ("accuracy", 0), ("seconds", -1)]
)
def test_limits_that_cannot_be_are_refused(limit, value):
    with pytest.raises(ConfigError, match=f"stop.{limit}={value}"):
        Stop(**{limit: value})


@pytest.mark.parametrize("typed", ["stop.accuracy=95", "stop.accuracy=high"])
def test_limits_that_cannot_be_are_one_line(typed, command, tmp_path):
    status, out, err = command("federated", typed)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert typed in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["continual", "distill"])
def test_other_verbs_say_why_they_have_no_budgets(verb, command):
    status, _, err = command(verb, "stop.seconds=3")
    assert status == 2
    assert f"fedcl {verb} has none" in err


def test_bytes_end_a_run_after_the_round_that_reaches_them(command, tmp_path):
    assert command("federated", *TINY, "out=whole")[0] == 0
    whole = json.loads((tmp_path / "whole" / "record.json").read_text())
    first, second = (row["up"]["wire_bytes"] + row["down"]["wire_bytes"] for row in whole["rounds"][:2])
    status, out, _ = command("federated", *TINY, "out=cut", f"stop.total_wire_bytes={first + 1}")
    assert status == 0
    cut = json.loads((tmp_path / "cut" / "record.json").read_text())
    assert cut["finished"] is True
    assert cut["stopped"] == {"by": "stop.total_wire_bytes", "value": first + second, "limit": first + 1}
    assert cut["communication"]["total_wire_bytes"] == first + second
    assert [row["accuracy"] for row in cut["rounds"]] == [row["accuracy"] for row in whole["rounds"][:2]]
    assert "stopped by stop.total_wire_bytes" in out
    assert "stopped" not in whole


def job(out, **changes):
    base = FederatedJob(
        source=Digits(),
        model=MLP(hidden=(8,)),
        device="cpu",
        recipe=Dirichlet(num_clients=2, alpha=0.5),
        strategy=FedAvgReplay(training=Training(epochs=1, batch_size=64), replay=False, num_rounds=3),
        out=out,
    )
    return replace(base, **changes)


def test_seconds_and_accuracy_end_a_run_and_the_last_round_is_no_early_end(tmp_path):
    record = run_federated(job(tmp_path / "a", stop=Stop(seconds=1e-6)))
    assert len(record["rounds"]) == 1
    assert record["stopped"]["by"] == "stop.seconds"
    assert record["stopped"]["value"] >= record["stopped"]["limit"]
    record = run_federated(job(tmp_path / "b", stop=Stop(accuracy=1e-6)))
    assert record["stopped"] == {"by": "stop.accuracy", "value": record["rounds"][0]["accuracy"], "limit": 1e-6}
    record = run_federated(job(tmp_path / "c", stop=Stop(seconds=1e-6), num_rounds=1))
    assert "stopped" not in record


class Cut(Progress):
    """Ends the process's work where a kill might."""

    def advance(self, task, amount=1, **figures):
        if task == "rounds" and "accuracy" in figures:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_and_then_killed_does_not_go_on(tmp_path):
    stopping = job(tmp_path / "a", stop=Stop(accuracy=1e-6))
    with pytest.raises(KeyboardInterrupt):
        run_federated(stopping, Cut())
    record = run_federated(stopping)
    assert record["finished"]
    assert len(record["rounds"]) == 1


def test_a_stream_is_not_cut(tmp_path):
    from scenarios.class_incremental import ClassIncremental

    recipe = Grid(stream=ClassIncremental(num_steps=2), partition=Dirichlet(num_clients=2, alpha=0.5))
    with pytest.raises(ConfigError, match="judged after its last"):
        run_federated(job(tmp_path / "a", recipe=recipe, stop=Stop(seconds=1)))
    assert not (tmp_path / "a").exists()
