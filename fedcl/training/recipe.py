"""Recipe of a training: its length, batches, optimiser, schedule, loss and augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.training.augmentation import Augmentation, NoAugmentation
from fedcl.training.losses import CRITERIA

CHOICES = {
    "optimizer": ("sgd", "adam"),
    "loss": tuple(CRITERIA),
    "schedule": ("constant", "step", "cosine", "restarts"),
}


def cosine(part: float, floor: float) -> float:
    """Half a cosine from 1 to `floor`, at a `part` of its length."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part))


@dataclass(frozen=True, kw_only=True)
class Training:
    """Numbers of a training. Exactly one of `updates` and `epochs` is given."""

    updates: int | None = None  # optimiser steps
    epochs: int | None = None  # passes over the data
    batch_size: int = 256  # a smaller data set makes smaller batches
    min_batch: int = 1  # a smaller last batch of a pass is left out; 2 for batch norm, which cannot train on one image
    optimizer: str = "sgd"  # sgd or adam
    lr: float = 0.01
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    clip: float = 0.0  # largest norm of the gradient; 0: any
    schedule: str = "step"  # constant; step (x decay at each milestone); cosine; restarts (of cosines)
    milestones: tuple[float, ...] = (0.5,)  # of step: parts of the updates
    decay: float = 0.1  # of step
    lr_min: float = 0.0  # of cosine and restarts: where they end
    rates: tuple[float, ...] = ()  # of each update, times lr: instead of a schedule (learned step sizes)
    average: float = 0.0  # decay of a moving average of the parameters, which the network has in the end; 0: none
    loss: str = "cross_entropy"  # or mse: regression on one-hot - 1/C, for summaries with labels=kernel
    augmentation: Augmentation = field(default_factory=NoAugmentation)

    def __post_init__(self) -> None:
        if (self.updates is None) == (self.epochs is None):
            raise ConfigError("training needs exactly one of updates=... and epochs=...")
        if (self.updates or self.epochs or 0) < 0 or self.batch_size < 1 or self.lr <= 0:
            raise ConfigError("training needs updates or epochs >= 0, batch_size >= 1 and lr > 0")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"training.{name}={getattr(self, name)} is not known; choose {' or '.join(known)}")
        for name in ("milestones", "rates"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if self.decay <= 0 or not all(0 <= part <= 1 for part in self.milestones):
            raise ConfigError("training needs decay > 0 and milestones between 0 and 1")
        if not 1 <= self.min_batch <= self.batch_size or self.clip < 0:
            raise ConfigError("training needs clip >= 0 and min_batch between 1 and batch_size")
        if not 0 <= self.lr_min <= self.lr or (self.lr_min and self.schedule not in ("cosine", "restarts")):
            raise ConfigError(
                f"training.lr_min={self.lr_min} must be between 0 and lr={self.lr}, and is where schedule=cosine and "
                f"schedule=restarts end; schedule={self.schedule} has none"
            )
        if not 0 <= self.average < 1:
            raise ConfigError(f"training.average={self.average} must be 0 or a decay below 1, such as 0.995")
        if self.rates and (self.updates != len(self.rates) or min(self.rates) <= 0):
            raise ConfigError("training.rates needs one positive number for each of training.updates")

    def updates_per_epoch(self, num_examples: int) -> int:
        """Batches of a pass over a set of that size."""
        full, rest = divmod(num_examples, self.batch_size)
        return full + (rest >= self.min_batch)

    def num_updates(self, num_examples: int) -> int:
        """Optimiser steps on a set of that size; 0 on an empty one."""
        per_epoch = self.updates_per_epoch(num_examples)
        if self.updates is not None:
            return self.updates if per_epoch else 0
        return (self.epochs or 0) * per_epoch

    def factor(self, update: int, total: int, per_epoch: int = 1) -> float:
        """Multiplier of the learning rate at `update` (from 0) of `total`, `per_epoch` of them a pass."""
        if self.rates:
            return self.rates[update]
        if self.schedule == "step":
            return self.decay ** sum(update >= total * part for part in self.milestones)
        if self.schedule == "cosine":
            return cosine(update / total, self.lr_min / self.lr)
        if self.schedule == "constant":
            return 1.0
        # SGDR (Loshchilov & Hutter, ICLR 2017): a cosine over epoch 1, then over 2, 4, 8, ... epochs, constant within
        # each. Epoch 0 comes before them, at a tenth, as in GDumb's public code.
        epoch = update // per_epoch
        return cosine(epoch / 2 ** (epoch.bit_length() - 1) - 1, self.lr_min / self.lr) if epoch else 0.1

    def new_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def criterion(self, scores_NC: Tensor, targets: Tensor) -> Tensor:
        """The loss that `loss` names, of scores [N, C] and targets (int64 [N] or float32 [N, C])."""
        return CRITERIA[self.loss](scores_NC, targets)
