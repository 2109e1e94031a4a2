"""The continual job from objects, on the embedded data: record, matrix, pictures, and what is refused."""

import json
from dataclasses import replace

import pytest

from fedcl.core.errors import ConfigError, RunError, ScenarioError
from fedcl.core.progress import Progress
from fedcl.core.record import read_record
from fedcl.data.digits import Digits
from fedcl.distill.distiller import Distiller
from fedcl.memory.budget import Budget
from fedcl.memory.files import load_buffer
from fedcl.models.mlp import MLP
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.scenario.metrics import continual_part
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.dirichlet import Dirichlet
from scenarios.domain_incremental import DomainIncremental
from scenarios.online import Online
from strategies.continual.distilled_replay import DistilledReplay
from strategies.continual.finetune import Finetune
from strategies.continual.gdumb import GDumb

pytestmark = pytest.mark.usefixtures("blank_pictures")

DISTILLER = Distiller(augmentation=NoAugmentation(), ipc=2, steps=2, real_batch=8)
TRAINING = Training(epochs=2, batch_size=64, optimizer="adam", lr=0.003, weight_decay=0.0, schedule="constant")


def job(out, **changes):
    base = ContinualJob(
        seed=0,
        device="cpu",
        source=Digits(horizontal_flip=False),
        model=MLP(hidden=(32,)),
        recipe=ClassIncremental(num_steps=5),
        distiller=DISTILLER,
        strategy=DistilledReplay(training=TRAINING),
        budget=Budget(ipc=2, storage="uint8"),
        out=out,
        command=["fedcl", "continual"],
    )
    return replace(base, **changes)


class Lines(Progress):
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def test_the_record_and_what_lies_beside_it(tmp_path, rendered):
    lines = Lines()
    record = run_continual(job(tmp_path / "run"), lines)
    assert record == read_record(tmp_path / "run")
    assert record["verb"] == "continual"
    assert record["finished"] is True
    assert "rounds" not in record
    matrix = record["matrix"]
    assert (len(matrix), len(matrix[0])) == (5, 5)
    assert all(value == 0.0 for row, values in enumerate(matrix) for value in values[row + 1 :])  # unseen: masked
    figures = continual_part(matrix)
    assert figures["forward_transfer"] is None  # what no step has brought is never answered
    assert {key: record["continual"][key] for key in figures} == figures
    assert record["accuracy"]["last"] == pytest.approx(record["continual"]["by_samples"]["average_accuracy"])
    assert record["memory"] == {"bytes": 20 * (64 + 1) + 5 * 8, "images": 20, "stored_images": 20}
    assert len(load_buffer(tmp_path / "run" / "buffer.safetensors")) == 20
    assert [entry["images"] for entry in record["steps"]] == [4, 8, 12, 16, 20]
    for picture in ("curve.png", "matrix.png", "buffer.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
    assert [line.split(":")[0] for line in lines.said] == [f"step {i} of 5" for i in range(1, 6)]
    assert "  .  " in lines.said[0]
    assert f"{matrix[4][0]:.3f}" in lines.said[4]


def test_the_same_job_gives_the_same_record(tmp_path, timeless):
    one, two = (run_continual(job(tmp_path / name)) for name in "ab")
    assert timeless(one) == timeless(two)
    other = run_continual(job(tmp_path / "c", seed=1))
    assert other["matrix"] != one["matrix"]


def test_domains_have_a_matrix_too(tmp_path):
    recipe = DomainIncremental(transforms=("", "rotate:90", "permute:1"))
    record = run_continual(job(tmp_path, recipe=recipe, strategy=Finetune(training=TRAINING)))
    matrix = record["matrix"]
    assert matrix[0][0] > 0.5 > matrix[0][2]
    assert matrix[2][2] > 0.5
    assert record["continual"]["forward_transfer"] is not None
    assert not (tmp_path / "buffer.png").exists()


def test_long_streams_are_evaluated_where_a_block_ends(tmp_path):
    recipe = Online(num_steps=5, batch_size=40)
    record = run_continual(job(tmp_path, recipe=recipe, strategy=Finetune(training=replace(TRAINING, epochs=1))))
    evaluated = [i for i, row in enumerate(record["matrix"]) if row[0] is not None]
    first = record["scenario"]["first_steps"]
    assert evaluated == [step - 1 for step in first[1:]] + [len(record["matrix"]) - 1]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_epochs_that_a_protocol_publishes_stand_apart(tmp_path):
    strategy = GDumb(training=replace(TRAINING, epochs=3), every_step=False)
    record = run_continual(job(tmp_path, strategy=strategy, budget=Budget(images=30)))
    assert len(record["epochs"]["accuracy"]) == 3
    assert record["epochs"]["best"] == max(record["epochs"]["accuracy"])
    assert record["accuracy"]["last"] == record["epochs"]["last"]


def test_what_cannot_work_is_said_before_anything_is_written(tmp_path):
    for changes, error, said in [
        ({"recipe": ClassIncremental(num_steps=11)}, ScenarioError, "scenario.num_steps=10"),
        ({"recipe": ClassIncremental(num_steps=5, class_order=(0, 1, 2))}, ScenarioError, "no permutation"),
        ({"recipe": Dirichlet(num_clients=3, alpha=1.0)}, ConfigError, "fedcl federated"),
        ({"budget": Budget(bytes=0)}, ConfigError, "buffer.bytes=0 holds no image"),
        ({"budget": Budget(ipc=0)}, ConfigError, "buffer.ipc=1"),
    ]:
        with pytest.raises(error, match=said):
            run_continual(job(tmp_path / "out", **changes))
        assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="no continual one"):
        job(tmp_path, strategy=TRAINING)
    budgetless = job(tmp_path / "fine", budget=Budget(bytes=0), strategy=Finetune(training=TRAINING))
    assert run_continual(budgetless)["memory"]["bytes"] == 0


def test_a_finished_folder_is_refused(tmp_path):
    small = job(tmp_path, recipe=ClassIncremental(num_steps=2), strategy=Finetune(training=TRAINING))
    run_continual(small)
    with pytest.raises(RunError, match="already holds a finished run"):
        run_continual(small)


def test_the_command_line(command):
    status, out, err = command(
        "continual",
        "strategy=finetune",
        "strategy.training.epochs=1",
        "model=mlp",
        "model.hidden=[16]",
        "out=run",
        "quiet=true",
    )
    assert (status, out, err) == (0, "", "")
    for arguments, said in [
        (("buffer=bytes", "buffer.bytes=0"), "needs memory"),
        (("strategy=nosuch",), "choose one of"),
        (("out=run",), "already holds a finished run"),
    ]:
        status, out, err = command("continual", *arguments)
        assert status == 2
        assert said in err
        assert err.count("\n") == 1
        assert err.startswith("fedcl: ")
