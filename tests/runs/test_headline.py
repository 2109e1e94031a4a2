"""What a run says of itself in one number, on images that a reader can answer: bright on the left, or on the right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedcl.cli.terminal import result_line
from fedcl.core.progress import Progress
from fedcl.data.base import DataSource, make_dataset
from fedcl.distill.distiller import Distiller
from fedcl.flower.bridge import FlowerStrategy
from fedcl.memory.budget import Budget
from fedcl.models.base import Model, Network
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.runs.stopping import Stop
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.domain_incremental import DomainIncremental
from scenarios.grid import Grid
from scenarios.iid import IID
from strategies.continual.compress_recall import CompressRecall
from strategies.continual.finetune import Finetune
from strategies.continual.gdumb import GDumb
from strategies.continual.joint import Joint

pytestmark = pytest.mark.usefixtures("blank_pictures")

LEFT, RIGHT, GREY = 0, 1, 2
LOOKS: list[tuple[int, bool]] = []  # images of every pass in eval mode, and whether gradients were on
NOTHING = Training(updates=0)  # no weight moves: the answers stay what they are
HALF_TURNED = DomainIncremental(transforms=("", "rotate:180", "rotate:180"))


def images(kinds):
    """uint8 [N, 1, 4, 4]; what is grey everywhere looks the same after half a turn."""
    found = torch.full((len(kinds), 1, 4, 4), 100, dtype=torch.uint8)
    for index, kind in enumerate(kinds):
        if kind != GREY:
            found[index, :, :, 2 * kind : 2 * kind + 2] = 200
    return found


@dataclass(frozen=True, kw_only=True)
class Halves(DataSource):
    """Class 0 is bright on the left or grey, class 1 bright on the right: three test images and one."""

    horizontal_flip: bool = False

    def load(self):
        kinds = [LEFT] * 4 + [RIGHT] * 4
        test = [LEFT, LEFT, GREY, RIGHT]
        return make_dataset(
            name="halves",
            train=(images(kinds), torch.tensor(kinds)),
            test=(images(test), torch.tensor([0, 0, 0, 1])),
            horizontal_flip=False,
        )


class Brighter(Network):
    """Answers with the brighter half, class 0 where both are equal, whatever its weights."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(2, 2)

    def embed(self, images_NCHW):
        return torch.stack([images_NCHW[..., :2].mean((1, 2, 3)), images_NCHW[..., 2:].mean((1, 2, 3))], 1)

    def forward(self, images_NCHW):
        if not self.training:
            LOOKS.append((len(images_NCHW), torch.is_grad_enabled()))
        return self.embed(images_NCHW) + 0 * self.classifier(self.embed(images_NCHW))


@dataclass(frozen=True)
class Eye(Model):
    def architecture(self, shape, num_classes):
        return Brighter()


@pytest.fixture(autouse=True)
def nothing_seen():
    LOOKS.clear()


class Lines(Progress):
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def continual(out, **changes):
    job = ContinualJob(
        device="cpu",
        source=Halves(),
        model=Eye(),
        recipe=HALF_TURNED,
        strategy=Finetune(training=NOTHING),
        budget=Budget(images=4),
        out=out,
    )
    return replace(job, **changes)


def federated(out, **changes):
    job = FederatedJob(
        device="cpu",
        source=Halves(),
        model=Eye(),
        recipe=Grid(stream=HALF_TURNED, partition=IID(num_clients=2)),
        strategy=FlowerStrategy(algorithm=FedAvg(), training=NOTHING),
        num_rounds=2,
        out=out,
    )
    return replace(job, **changes)


def test_a_stream_of_domains_is_judged_on_its_domains(tmp_path):
    lines = Lines()
    record = run_continual(continual(tmp_path / "a"), lines)
    assert record["matrix"] == [[1.0, 0.25, 0.25]] * 3  # half a turn leaves the grey image right, and no other
    assert [entry["accuracy"] for entry in record["steps"]] == [6 / 12] * 3  # of the test set as it is: 1.0
    assert record["accuracy"] == {"last": 0.5, "mean_last5": 0.5, "best": 0.5}
    assert "accuracy 0.5000" in result_line(record, tmp_path)
    assert lines.said[0] == "step 1 of 3: 1.000    .      .     memory 0 B"
    assert lines.said[-1].startswith("step 3 of 3: 1.000  0.250  0.250")


def test_epochs_of_a_stream_of_domains_are_judged_on_them_too(tmp_path):
    strategy = GDumb(training=Training(epochs=2, batch_size=64, lr=1e-30, schedule="constant"))
    record = run_continual(continual(tmp_path / "a", strategy=strategy))
    assert record["epochs"] == {"accuracy": [0.5, 0.5], "best": 0.5, "last": 0.5}


def test_a_federated_stream_of_domains_is_judged_on_its_domains_in_every_round(tmp_path):
    lines = Lines()
    record = run_federated(federated(tmp_path / "a"), lines)
    assert record["matrix"] == [[1.0, 0.25, 0.25]] * 3
    assert [entry["accuracy"] for entry in record["rounds"]] == [0.5] * 6
    assert record["accuracy"]["last"] == 0.5
    assert [line for line in lines.said if line.startswith("step")] == [
        f"step {step} of 3: 1.000  0.250  0.250" for step in (1, 2, 3)
    ]


def test_a_budget_of_accuracy_reads_the_same_number(tmp_path):
    turned = Grid(stream=DomainIncremental(transforms=("rotate:180",)), partition=IID(num_clients=2))
    reached, missed = (
        run_federated(federated(tmp_path / str(limit), recipe=turned, stop=Stop(accuracy=limit)))
        for limit in (0.25, 0.26)
    )
    assert (reached["stopped"]["value"], len(reached["rounds"])) == (0.25, 1)
    assert "stopped" not in missed  # 1.0 on the test set as it is


def test_of_classes_it_is_the_accuracy_on_the_test_set(tmp_path):
    classes = ClassIncremental(num_steps=2)
    record = run_continual(continual(tmp_path / "a", recipe=classes))
    assert record["matrix"] == [[1.0, 0.0], [1.0, 1.0]]  # class 1 cannot be answered at the first step
    assert [entry["accuracy"] for entry in record["steps"]] == [3 / 4, 4 / 4]  # the mean over groups would be 1/2
    grid = Grid(stream=classes, partition=IID(num_clients=2))
    record = run_federated(federated(tmp_path / "b", recipe=grid))
    assert [entry["accuracy"] for entry in record["rounds"]] == [1.0] * 4


def test_nothing_is_looked_at_twice_or_with_gradients(tmp_path):
    run_continual(continual(tmp_path / "a"))
    assert sum(count for count, _ in LOOKS) == (1 + 3) * 3 * 4  # the start and three steps, three groups of four
    LOOKS.clear()
    run_federated(federated(tmp_path / "b"))
    assert sum(count for count, _ in LOOKS) == (1 + 6) * 3 * 4  # six rounds; the last of a step makes its row
    assert not any(gradients for _, gradients in LOOKS)


SELECTION = Distiller(ipc=1, steps=0)


@pytest.mark.parametrize(
    "strategy",
    [
        Joint(training=NOTHING, every_step=False),
        GDumb(training=NOTHING, every_step=False),
        CompressRecall(training=NOTHING, every_step=False),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_steps_that_were_not_trained_for_have_no_figures(tmp_path, strategy, rendered):
    """Judged as if it were trained, the network of the start would have learned backwards."""
    classes = ClassIncremental(num_steps=2)
    record = run_continual(continual(tmp_path, recipe=classes, strategy=strategy, distiller=SELECTION))
    assert record["matrix"] == [[None, None], [1.0, 1.0]]
    assert ["accuracy" in entry for entry in record["steps"]] == [False, True]
    assert record["accuracy"] == {"last": 1.0, "mean_last5": 1.0, "best": 1.0}
    found = record["continual"]
    assert (found["average_accuracy"], found["by_samples"]["average_accuracy"]) == (1.0, 1.0)
    for name in ("average_incremental_accuracy", "forgetting", "backward_transfer", "forward_transfer"):
        assert found[name] is None, name
    assert found["by_samples"]["average_incremental_accuracy"] is None
    assert set(found["forgetting_variants"].values()) == {None}
    assert "accuracy 1.0000" in result_line(record, tmp_path)
    for picture in ("curve.png", "matrix.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_step_that_is_not_looked_at_is_kept_all_the_same(tmp_path):
    """A memory that took hours to distil is not lost because nobody looked at the network."""

    class Cut(Exception):
        pass

    class Last(CompressRecall):
        def learn(self, state, step, ctx):
            if step.index:
                raise Cut
            return super().learn(state, step, ctx)

    strategy = Last(training=NOTHING, every_step=False)
    with pytest.raises(Cut):
        run_continual(continual(tmp_path, strategy=strategy, distiller=SELECTION))
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_forward_transfer_is_of_classes_that_were_known_in_another_look(tmp_path):
    classes = run_continual(continual(tmp_path / "classes", recipe=ClassIncremental(num_steps=2)))
    assert classes["random_accuracy"] == [1.0, 1.0]  # before the first step nothing is masked
    assert classes["continual"]["forward_transfer"] is None  # -1 would be the mask
    domains = run_continual(continual(tmp_path / "domains"))
    assert domains["continual"]["forward_transfer"] == 0.0  # 0.25 before each turned step, as at the start
