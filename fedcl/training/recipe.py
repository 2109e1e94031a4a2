"""Recipe of a training: its length, batches, optimiser, schedule, loss and augmentation."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.rules import Checked, each, number, one_of, whole
from fedcl.training.augmentation import Augmentation, NoAugmentation
from fedcl.training.losses import CRITERIA


def cosine(part: float, floor: float) -> float:
    """Half a cosine from 1 to `floor`, at a `part` of its length."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part))


@dataclass(frozen=True, kw_only=True)
class Training(Checked):
    """Numbers of a training. Exactly one of `updates` and `epochs` is given."""

    config_key = "training"

    updates: Annotated[int | None, whole(0, example=500)] = None  # optimiser steps
    epochs: Annotated[int | None, whole(0, example=10)] = None  # passes over the data
    batch_size: Annotated[int, whole(1, example=256)] = 256  # a smaller data set makes smaller batches
    # a smaller last batch of a pass is left out; 2 for batch norm, which cannot train on one image
    min_batch: Annotated[int, whole(1, example=1)] = 1
    optimizer: Annotated[str, one_of("sgd", "adam")] = "sgd"
    lr: Annotated[float, number(above=0, example=0.01)] = 0.01
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    clip: Annotated[float, number(least=0, example=0)] = 0.0  # largest norm of the gradient; 0: any
    # constant; step (x decay at each milestone); cosine; restarts (of cosines)
    schedule: Annotated[str, one_of("constant", "step", "cosine", "restarts")] = "step"
    # of step: parts of the updates
    milestones: Annotated[tuple[float, ...], each(number(least=0, most=1, example=0.5))] = (0.5,)
    decay: Annotated[float, number(above=0, example=0.1)] = 0.1  # of step
    lr_min: Annotated[float, number(least=0, example=0)] = 0.0  # of cosine and restarts: where they end
    # of each update, times lr: instead of a schedule (learned step sizes)
    rates: Annotated[tuple[float, ...], each(number(above=0, example=1))] = ()
    # decay of a moving average of the parameters, which the network has in the end; 0: none
    average: Annotated[float, number(least=0, below=1, example=0.995)] = 0.0
    # or mse: regression on one-hot - 1/C, for summaries with labels=kernel
    loss: Annotated[str, one_of(*CRITERIA)] = "cross_entropy"
    augmentation: Augmentation = field(default_factory=NoAugmentation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.updates is None) == (self.epochs is None):
            raise ConfigError("training needs exactly one of updates=... and epochs=...")
        if self.min_batch > self.batch_size:
            raise ConfigError(f"training.min_batch={self.min_batch} is more than training.batch_size={self.batch_size}")
        if self.lr_min > self.lr or (self.lr_min and self.schedule not in ("cosine", "restarts")):
            raise ConfigError(
                f"training.lr_min={self.lr_min} must be between 0 and lr={self.lr}, and is where schedule=cosine and "
                f"schedule=restarts end; schedule={self.schedule} has none"
            )
        if self.rates and self.updates != len(self.rates):
            raise ConfigError("training.rates needs one number for each of training.updates")

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
