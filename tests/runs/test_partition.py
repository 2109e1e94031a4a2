"""One partition for every seed: by a seed of its own, and from the file that a run leaves."""

import json
from dataclasses import replace

import pytest

from fedcl.core.errors import RunError
from fedcl.core.progress import Progress
from fedcl.data.digits import Digits
from fedcl.memory.budget import Budget
from fedcl.models.mlp import MLP
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.from_file import FromFile
from strategies.continual.finetune import Finetune

pytestmark = pytest.mark.usefixtures("blank_pictures")

TINY = (
    *("federated", "distiller=random", "distiller.ipc=1", "strategy.training.updates=1", "model=mlp", "quiet=true"),
    "model.hidden=[4]",
)


def test_a_partition_is_fixed_by_its_seed_or_its_file(command, tmp_path):
    def run(out, *arguments):
        assert command(*TINY, f"out={out}", *arguments) == (0, "", "")
        return json.loads((tmp_path / out / "record.json").read_text())["scenario"]

    few = "scenario.num_clients=2"
    dealt = [run(f"seed{seed}", few, "scenario.seed=3", f"seed={seed}") for seed in (0, 1)]
    dealt.append(run("seed3", few, "seed=3"))
    assert dealt[0] == dealt[1] == dealt[2]  # as the run of that seed
    assert dealt[0]["file"] == "partition.json"
    files = [(tmp_path / out / "partition.json").read_bytes() for out in ("seed0", "seed1", "seed3")]
    assert files[0] == files[1] == files[2]
    assert run("read", "scenario=from_file", "scenario.path=seed0/partition.json", "seed=9") == dealt[0]
    assert (tmp_path / "read" / "partition.json").read_bytes() == files[0]

    (tmp_path / "cut.json").write_bytes(files[0][:1000])
    status, _, err = command(*TINY, "scenario=from_file", "scenario.path=cut.json", "out=never")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("fedcl: cut.json is no whole JSON file")
    assert not (tmp_path / "never").exists()


class Interrupted(BaseException):
    pass


class Once(Progress):
    def advance(self, task, amount=1, **figures):
        if task == "steps":
            raise Interrupted


def test_a_run_does_not_go_on_with_another_partition(tmp_path):
    job = ContinualJob(
        device="cpu",
        source=Digits(),
        model=MLP(hidden=(4,)),
        recipe=ClassIncremental(num_steps=2),
        strategy=Finetune(training=Training(updates=1)),
        budget=Budget(images=0),
        out=tmp_path / "a",
    )
    run_continual(job)
    path = tmp_path / "a" / "partition.json"
    cut = replace(job, recipe=FromFile(path=str(path)), out=tmp_path / "b")
    with pytest.raises(Interrupted):
        run_continual(cut, Once())
    content = json.loads(path.read_text())
    content["shares"][1][0].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="the data or the partition's file changed"):
        run_continual(cut)
