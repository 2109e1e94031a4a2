"""Evaluation protocol of small sets: fixed updates, the last step, several networks, nothing chosen on the test set.

A `TrainSet` is what networks are trained on; an `Evaluator` trains them and, if asked, looks up what is already known
(`cache.py`). Legend: see `types.py`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.rules import Checked, each, number, one_of, whole
from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.distill.initializers import SELECTIONS
from fedcl.distill.teacher import TEACHER, TEMPERATURE, unpack_teacher, view_loss
from fedcl.models.base import Model
from fedcl.protocol.cache import EvaluationCache, digest_of
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.evaluation import accuracy
from fedcl.training.loop import train
from fedcl.training.recipe import Training

DESCENT = Training(updates=1, lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Checked):
    """Protocol by which every summary and control is evaluated."""

    config_key = "evaluation"

    training: Training  # of every network; `updates`, never `epochs`, so that more images are not more training
    nets: Annotated[int, whole(1, example=3)] = 3  # networks, each with its own seed
    plain: bool = True  # train as many again without augmentation
    # real images of equal bytes: random, kmeans, herding, k_center
    controls: Annotated[tuple[str, ...], each(one_of(*SELECTIONS))] = ("random", "kmeans")
    # bytes of a real pixel: same = the summary's (4 of float32, 1 if chosen); uint8 = 1
    control_pixels: Annotated[str, one_of("same", "uint8")] = "same"
    architectures: tuple[str, ...] = ()  # other networks, by name
    full: bool = False  # train on all real images as well; the label-robust score needs it
    # above 0: evaluator on this part of the training set, to choose hyper-parameters by
    held_out: Annotated[float, number(least=0, below=1, example=0)] = 0.0
    cache: str | None = None  # folder of accuracies already found, which runs share; null: every network is trained

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training.updates is None:
            raise ConfigError("evaluation.training needs updates=..., not epochs: every set gets the same training")

    def trainings(self) -> dict[str, Training]:
        """The trainings of one set by name: "augmented" where there is an augmentation, and "plain"."""
        bare = replace(self.training, augmentation=NoAugmentation())
        if bare == self.training:
            return {"plain": bare}
        return {"augmented": self.training} | ({"plain": bare} if self.plain else {})


def unrolled_training(training: Training, summary: Summary) -> Training | None:
    """The training that a summary was unrolled through (DD, Wang et al., arXiv 1811.10959); None if through none.

    One update of gradient descent on all images for each learned step size, softplus of "raw_step_sizes" [T]: no
    momentum, weight decay or augmentation, even where the distiller unrolled with one. `training` gives the loss.
    Networks begin at the evaluator's weights, not at those of networks=fixed.
    """
    raw = summary.arrays.get("raw_step_sizes")
    if raw is None or raw.ndim != 1 or not len(raw):
        return None
    rates, size = tuple(F.softplus(raw.double()).tolist()), max(1, summary.num_images)
    return replace(DESCENT, updates=len(rates), batch_size=size, loss=training.loss, rates=rates)


@dataclass(frozen=True, kw_only=True)
class TrainSet:
    """A set to train on, made only when a network needs it."""

    make: Callable[[], tuple[Tensor, Tensor]]  # images (uint8, or normalised float32) [M, C, H, W], and their targets
    teacher: tuple[Tensor, float] | None = None  # weights and temperature of the network that labels each view instead


def teacher_of(summary: Summary) -> tuple[Tensor, float] | None:
    """The teacher that a summary carries (see `fedcl.distill.teacher`), None for most."""
    weights, temperature = summary.arrays.get(TEACHER), summary.arrays.get(TEMPERATURE)
    return None if weights is None or temperature is None else (weights, float(temperature))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracies of networks that differ in their seed only."""

    values: tuple[float, ...]  # fractions, one a network

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over networks; None for a single one."""
        freedom = len(self.values) - 1
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values) / freedom) if freedom else None

    def part(self) -> dict[str, Any]:
        """As the record keeps it."""
        return {"mean": self.mean, "std": self.std, "nets": len(self.values), "values": list(self.values)}


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Trainer of networks on sets, and their test on one."""

    ctx: Context
    test: LabeledSet  # on the device
    seed: int
    cache: EvaluationCache | None = None

    @functools.cached_property
    def test_digest(self) -> str:
        return digest_of(self.test.inputs, self.test.labels_N)

    def score(self, train_sets: Sequence[TrainSet], training: Training, nets: int, model: Model | None = None) -> Score:
        """Accuracy of `nets` networks after their last update; network i learns set i modulo the number of sets.

        All sets meet the same networks: seeds depend on the evaluator's seed and on i alone.
        """
        ctx = self.ctx if model is None else replace(self.ctx, model=model)
        self.ctx.progress.begin("networks", nets)
        values = []
        for net in range(nets):
            seed = derive(self.seed, "evaluation", client=net)
            values.append(self._one(train_sets[net % len(train_sets)], training, ctx, seed))
            self.ctx.progress.advance("networks", accuracy=values[-1])
        self.ctx.progress.end("networks")
        return Score(values=tuple(values))

    def _one(self, train_set: TrainSet, training: Training, ctx: Context, seed: int) -> float:
        (images, targets), teacher, spec = train_set.make(), train_set.teacher, ctx.inputs

        def ask() -> float:
            loss = None
            if teacher is not None:  # of the run's model, whatever is trained
                loss = view_loss(unpack_teacher(teacher[0], self.ctx.new_model(0)), teacher[1], training.criterion)
            model, order = ctx.new_model(derive(seed, "network")), derive(seed, "training")
            x, y = images.to(ctx.device), targets.to(ctx.device)
            train(model, x, y, training, seed=order, loss=loss, spec=spec, flip=spec.flips, progress=ctx.progress)
            return accuracy(model, self.test, spec)

        if self.cache is None:
            return ask()
        settings: tuple[object, ...] = (training, ctx.model, spec, ctx.num_classes, seed)
        digests = (digest_of(images, targets), self.test_digest)
        if teacher is not None:
            settings, digests = (*settings, self.ctx.model, teacher[1]), (*digests, digest_of(teacher[0]))
        return self.cache.accuracy(settings, digests, ctx.device, ask)
