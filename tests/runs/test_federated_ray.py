"""The same run on Flower's simulation engine: same accuracy, clients, summaries and bytes."""

import json
import subprocess
import sys

import pytest

COMMON = ["model.width=8", "clients_per_round=4"]
DISTILLED = ["distiller.steps=3", "distiller.ipc=2", "strategy.training.updates=30"]


def run(out, *overrides):
    command = [sys.executable, "-m", "fedcl", "federated", f"out={out}", "quiet=true", *COMMON, *overrides]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    record = json.loads((out / "record.json").read_text())
    rounds = [{key: value for key, value in entry.items() if key != "seconds"} for entry in record["rounds"]]
    return record["accuracy"], rounds, record["communication"]


@pytest.mark.ray
@pytest.mark.parametrize("strategy", [["strategy=one_shot", "wire=uint8"], ["strategy=feddm", "num_rounds=2"]])
def test_serial_batched_and_ray_agree(tmp_path, strategy):
    serial, batched, ray = (
        run(tmp_path / runtime, f"runtime={runtime}", *DISTILLED, *strategy) for runtime in ("serial", "batched", "ray")
    )
    assert serial == batched
    assert serial == ray


@pytest.mark.ray
@pytest.mark.parametrize(
    "strategy",
    [
        ["strategy=scaffold", "strategy.training.epochs=1", "compress=topk"],
        ["strategy=fedaf", "strategy.steps=2", "strategy.training.updates=5"],
        ["strategy=fedcache", "strategy.training.epochs=1", "strategy.server_training.updates=5", "distiller.steps=2"],
    ],
)
def test_states_at_clients_and_what_comes_down_agree(tmp_path, strategy):
    """Several questions a round, payloads for single clients, control variates, residues: as everywhere."""
    brief = ["num_rounds=3", "distiller.ipc=1", "evaluate_clients=true", *strategy]
    serial, batched, ray = (
        run(tmp_path / runtime, f"runtime={runtime}", *brief) for runtime in ("serial", "batched", "ray")
    )
    assert serial == batched
    assert serial == ray


@pytest.mark.ray
def test_weights_agree_too(tmp_path):
    fedavg = ["strategy=fedavg", "num_rounds=2", "strategy.training.epochs=1"]
    assert run(tmp_path / "serial", *fedavg) == run(tmp_path / "ray", "runtime=ray", *fedavg)
