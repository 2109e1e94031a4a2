"""What the synthetic images are called: hard labels, or targets that are optimised with them.

One convention for everybody who trains on a summary: targets are int64 [N] classes, or float32 [N, C]
*near probabilities*, a one-hot row being the plain label. What is optimised may be another quantity (logits,
centred scores); `decode` maps it to the convention, in the loop as well as for the summary.

    rule     optimised          summary's rows                     a network is trained on them with
    hard     nothing            int64 classes                      cross-entropy
    logits   logits             softmax: probabilities             cross-entropy
    kernel   centred scores     about one-hot, sum and sign free   mse of (row - 1/C): `training.loss=mse`

Cross-entropy on `kernel` rows takes their projection on probabilities (`fedcl.training.loop.probabilities`), so that
they work, less well, wherever hard labels do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import ConfigError


class TargetRule(ABC):
    """How targets start and whether they are optimised."""

    @property
    @abstractmethod
    def learnable(self) -> bool:
        """Whether the loop optimises the targets as well."""

    @abstractmethod
    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        """What is optimised, for entries whose classes are `labels_N`: int64 [N], or float32 [N, C]."""

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """What is optimised, as targets: int64 [N], or float32 [N, C] near probabilities. Differentiable."""

    @abstractmethod
    def encode(self, targets: Tensor) -> Tensor:
        """The inverse of `decode`, from which a distillation goes on."""


@dataclass(frozen=True, kw_only=True)
class Hard(TargetRule):
    """Each image is of its class."""

    @property
    def learnable(self) -> bool:
        return False

    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        return labels_N

    def decode(self, values: Tensor) -> Tensor:
        return values

    def encode(self, targets: Tensor) -> Tensor:
        return targets


@dataclass(frozen=True, kw_only=True)
class Logits(TargetRule):
    """Learned probabilities, softmax of logits (SLDD, Sucholutsky & Schonlau, IJCNN 2021; Bohdal et al., 2020)."""

    confidence: float = 0.9  # probability of the image's class at the start; the others share the rest

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ConfigError(f"labels.confidence={self.confidence} must lie between 0 and 1; type 0.9, for example")

    @property
    def learnable(self) -> bool:
        return True

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

    learned: bool = True  # false: regression on fixed centred labels, and the summary holds one-hot rows

    @property
    def learnable(self) -> bool:
        return self.learned

    def initial(self, labels_N: Tensor, num_classes: int) -> Tensor:
        return self.encode(F.one_hot(labels_N, num_classes).float())

    def decode(self, values: Tensor) -> Tensor:
        classes = values.shape[1]
        return values * math.sqrt(classes / 10) + 1 / classes

    def encode(self, targets: Tensor) -> Tensor:
        classes = targets.shape[1]
        return (targets - 1 / classes) / math.sqrt(classes / 10)


def centred(targets: Tensor, num_classes: int) -> Tensor:
    """float [N, C]: targets of the convention above as a regression sees them, minus 1/C."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, num_classes).to(torch.get_default_dtype())
    return targets - 1 / num_classes
