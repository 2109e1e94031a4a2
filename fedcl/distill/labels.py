"""Labels of the synthetic images: hard, optimised with them, or made after them by a teacher.

One convention for everybody who trains on a summary: targets are int64 [N] classes, or float32 [N, C]
*near probabilities*, a one-hot row being the plain label. What is optimised may be another quantity (logits,
centred scores); `decode` maps it to the convention, in the loop as well as for the summary.

    rule     optimised          summary's rows                     a network is trained on them with
    hard     nothing            int64 classes                      cross-entropy
    logits   logits             softmax: probabilities             cross-entropy
    kernel   centred scores     about one-hot, sum and sign free   mse of (row - 1/C): `training.loss=mse`
    teacher  nothing            probabilities                      the teacher's label of each view (`teacher.py`)

Cross-entropy on `kernel` rows takes their projection on probabilities (`fedcl.training.loop.probabilities`), so that
they work, less well, wherever hard labels do.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.rules import Checked, number
from fedcl.distill.batch import Matched
from fedcl.distill.teacher import TEACHER, TEMPERATURE, logits, pack_teacher

Labelled = tuple[Tensor, dict[str, Tensor]]  # targets, and arrays by name


class TargetRule(Checked, ABC):
    """A frozen dataclass of the rule's numbers."""

    config_key = "labels"

    needs: frozenset[str] = frozenset()  # of its networks, see `fedcl.distill.fit.NEEDS`
    learnable: bool = False  # the loop optimises the targets as well
    soft: bool = False  # while images are optimised targets are float [N, C], not classes

    @abstractmethod
    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        """Starting values of what is optimised, for entries of classes `labels_N`: int64 [N], or float32 [N, C]."""

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """Targets from what is optimised: int64 [N], or float32 [N, C] near probabilities. Differentiable."""

    @abstractmethod
    def encode(self, targets: Tensor) -> Tensor:
        """The inverse of `decode`, from which a distillation goes on."""

    def finish(self, values: Tensor, views: Callable[[], Tensor], owner_M: Tensor, matched: Matched) -> Labelled:
        """Targets of the summary, and arrays that travel beside its images; after the last step.

        Args:
            values: what was optimised, or `initial` gave.
            views: decodes the finished images, normalised float32 [M, C, H, W].
            owner_M: int64 [M], the stored entry that each decoded image is of; on the device.
            matched: the first step's, for what the rule `needs`.
        """
        return self.decode(values), {}


@dataclass(frozen=True, kw_only=True)
class Hard(TargetRule):
    """Each image is of its class."""

    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        return labels_N

    def decode(self, values: Tensor) -> Tensor:
        return values

    def encode(self, targets: Tensor) -> Tensor:
        return targets


@dataclass(frozen=True, kw_only=True)
class Logits(TargetRule):
    """Learned probabilities, softmax of logits (SLDD, Sucholutsky & Schonlau, IJCNN 2021; Bohdal et al., 2020)."""

    learnable = soft = True

    # probability of the image's class at the start; the others share the rest
    confidence: Annotated[float, number(above=0, below=1, example=0.9)] = 0.9

    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        rest = (1 - self.confidence) / max(1, num_classes - 1)
        return F.one_hot(labels_N, num_classes).float() * math.log(self.confidence / rest)

    def decode(self, values: Tensor) -> Tensor:
        return values.softmax(1)

    def encode(self, targets: Tensor) -> Tensor:
        return targets.clamp(min=1e-30).log()


@dataclass(frozen=True, kw_only=True)
class Kernel(TargetRule):
    """Learned scores of a regression: (one-hot - 1/C) / sqrt(C / 10) first (FRePo, Zhou et al., NeurIPS 2022)."""

    soft = True

    learned: bool = True  # false: regression on fixed centred labels, and the summary holds one-hot rows

    @property
    def learnable(self) -> bool:
        return self.learned

    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        return self.encode(F.one_hot(labels_N, num_classes).float())

    def decode(self, values: Tensor) -> Tensor:
        return values * math.sqrt(values.shape[1] / 10) + 1 / values.shape[1]

    def encode(self, targets: Tensor) -> Tensor:
        return (targets - 1 / targets.shape[1]) / math.sqrt(targets.shape[1] / 10)


@dataclass(frozen=True, kw_only=True)
class Teacher(Hard):
    """Probabilities that a trained network gives the finished images, one row a stored entry (the mean of its images).

    Classes that the summary has no image of get none: the network has seen no example of them.
    With `per_view` the network's weights travel in the summary, at 4 bytes each, and whoever trains on it asks the
    network for the label of every augmented view (RDED, Sun et al., CVPR 2024).
    """

    needs = frozenset({"trained"})

    per_view: bool = True  # false: the stored rows are all that travels
    # of both softmaxes in the loss of a view; the stored rows are at 1
    temperature: Annotated[float, number(above=0, example=1)] = 1.0

    def finish(self, values: Tensor, views: Callable[[], Tensor], owner_M: Tensor, matched: Matched) -> Labelled:
        found_MC = logits(matched.trained, views()).softmax(1)
        found_MC = found_MC * F.one_hot(values, found_MC.shape[1]).amax(0)
        total = found_MC.new_zeros(len(values), found_MC.shape[1]).index_add(0, owner_M, found_MC)
        targets = total / total.sum(1, keepdim=True)
        if not self.per_view:
            return targets, {}
        return targets, {TEACHER: pack_teacher(matched.trained), TEMPERATURE: torch.tensor([self.temperature])}
