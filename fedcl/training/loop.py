"""Training a network on images: `fit` by labels, `minimise` by any loss. There is one loop behind both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.errors import ConfigError, RunError
from fedcl.core.progress import SILENT, Progress
from fedcl.core.seeding import torch_rng
from fedcl.core.types import Normalization
from fedcl.training.augmentation import Augmentation, NoAugmentation, Shares

# (model, batch as augmentation leaves it, its rows with their shares: two parts where CutMix mixed) -> scalar
Loss = Callable[[nn.Module, Tensor, Shares], Tensor]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how a network is trained. Exactly one of `updates` and `epochs` is given."""

    updates: int | None = None  # optimiser steps
    epochs: int | None = None  # passes over the data
    batch_size: int = 256  # a smaller data set makes smaller batches
    optimizer: str = "sgd"  # sgd or adam
    lr: float = 0.01
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    schedule: str = "step"  # constant; step (x decay at each milestone); cosine (to 0)
    milestones: tuple[float, ...] = (0.5,)  # of step: parts of the updates
    decay: float = 0.1  # of step
    rates: tuple[float, ...] = ()  # of each update, times lr: instead of a schedule (learned step sizes)
    average: float = 0.0  # decay of a moving average of the parameters, which the network has in the end; 0: none
    loss: str = "cross_entropy"  # or mse: regression on one-hot - 1/C, for summaries with labels=kernel
    augmentation: Augmentation = field(default_factory=NoAugmentation)

    def __post_init__(self) -> None:
        if (self.updates is None) == (self.epochs is None):
            raise ConfigError("training needs exactly one of updates=... and epochs=...")
        if min(v for v in (self.updates, self.epochs) if v is not None) < 0 or self.batch_size < 1 or self.lr <= 0:
            raise ConfigError("training needs updates or epochs >= 0, batch_size >= 1 and lr > 0")
        if self.optimizer not in ("sgd", "adam"):
            raise ConfigError(f"training.optimizer={self.optimizer} is not known; choose sgd or adam")
        if self.loss not in ("cross_entropy", "mse"):
            raise ConfigError(f"training.loss={self.loss} is not known; choose cross_entropy or mse")
        if self.schedule not in ("constant", "step", "cosine"):
            raise ConfigError(f"training.schedule={self.schedule} is not known; choose constant, step or cosine")
        for name in ("milestones", "rates"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if self.decay <= 0 or not all(0 <= part <= 1 for part in self.milestones):
            raise ConfigError("training needs decay > 0 and milestones between 0 and 1")
        if not 0 <= self.average < 1:
            raise ConfigError(f"training.average={self.average} must be 0 or a decay below 1, such as 0.995")
        if self.rates and (self.updates != len(self.rates) or min(self.rates) <= 0):
            raise ConfigError("training.rates needs one positive number for each of training.updates")

    def num_updates(self, num_examples: int) -> int:
        """Optimiser steps on a set of that size."""
        if self.updates is not None:
            return self.updates
        return (self.epochs or 0) * math.ceil(num_examples / self.batch_size)

    def factor(self, update: int, total: int) -> float:
        """Multiplier of the learning rate at `update` (from 0) of `total`."""
        if self.rates:
            return self.rates[update]
        if self.schedule == "step":
            return self.decay ** sum(update >= total * part for part in self.milestones)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * update / total))
        return 1.0

    def new_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    @property
    def criterion(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of scores [N, C] and targets (int64 [N] or float32 [N, C]) that `loss` names."""
        return regression if self.loss == "mse" else F.cross_entropy

    def fit(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        seed: int,
        normalization: Normalization | None = None,
        flip: bool = True,
        proximal: tuple[float, Mapping[str, Tensor]] | None = None,
        progress: Progress = SILENT,
    ) -> nn.Module:
        """Train `model` in place and return it, in train mode.

        Args:
            images: [N, C, H, W], uint8 with `normalization`, or float32 already normalised.
            targets: int64 [N] hard labels, or float32 [N, K] near probabilities (see `probabilities`).
            seed: names the order of examples and the augmentation.
            flip: whether mirrored images keep their class (see `Augmentation.draw`).
            proximal: (mu, weights) adds mu/2 ||w - weights||^2 (FedProx, Li et al., MLSys 2020, eq. 2).

        Raises:
            RunError: the loss is not finite.
        """
        if self.loss == "cross_entropy":
            targets = probabilities(targets)
        anchors = proximal_anchors(model, proximal)

        def loss(model: nn.Module, batch: Tensor, parts: Shares) -> Tensor:
            value = mixed_loss(self.criterion, model(batch), targets, parts)
            for mu, parameter, anchor in anchors:
                value = value + 0.5 * mu * (parameter - anchor).square().sum()
            return value

        self.minimise(model, images, loss, seed=seed, normalization=normalization, flip=flip, progress=progress)
        return model

    def minimise(
        self,
        model: nn.Module,
        images: Tensor,
        loss: Loss,
        *,
        seed: int,
        normalization: Normalization | None = None,
        flip: bool = True,
        optimizer: torch.optim.Optimizer | None = None,
        progress: Progress = SILENT,
    ) -> torch.optim.Optimizer:
        """Train `model` in place by any loss and leave it in train mode; arguments as in `fit`.

        Args:
            optimizer: of the model's parameters, to go on with its moments; None: a new one.

        Returns:
            The optimiser as it is afterwards.

        Raises:
            RunError: the loss is not finite.
        """
        total = self.num_updates(len(images))
        order_rng, augment_rng = torch_rng(seed, "batches"), torch_rng(seed, "augmentation")
        optimizer = self.new_optimizer(list(model.parameters())) if optimizer is None else optimizer
        averages = [torch.zeros_like(p) for p in model.parameters()] if self.average else []
        value = torch.zeros(())
        model.train()
        progress.begin("training", total)
        for update, rows in enumerate(batches(len(images), min(self.batch_size, len(images)), total, order_rng)):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.factor(update, total)
            rows = rows.to(images.device)
            batch = images[rows] if normalization is None else normalization.apply(images[rows])
            draw = self.augmentation.draw(len(batch), augment_rng, flip=flip)
            batch, parts = self.augmentation.mix(self.augmentation.apply(batch, draw), rows, augment_rng)
            value = loss(model, batch, parts)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            for average, parameter in zip(averages, model.parameters(), strict=False):  # there may be none
                average.lerp_(parameter.detach(), 1 - self.average)
            progress.advance("training")
        progress.end("training")
        last = float(value.detach())
        if not math.isfinite(last):
            raise RunError(f"training diverged: the loss is {last}; lower the learning rate (lr={self.lr})")
        if averages and total:
            with torch.no_grad():  # the average began at 0, so it is that much too short
                for parameter, average in zip(model.parameters(), averages, strict=True):
                    parameter.copy_(average / (1 - self.average**total))
        return optimizer


def mixed_loss(
    criterion: Callable[[Tensor, Tensor], Tensor], scores_NC: Tensor, targets: Tensor, parts: Shares
) -> Tensor:
    """Each part's share times the loss for the targets of its rows, summed."""
    return torch.stack([share * criterion(scores_NC, targets[rows]) for share, rows in parts]).sum()


def probabilities(targets: Tensor) -> Tensor:
    """Soft labels as cross-entropy can take them; hard labels as they are.

    Scores of a regression (labels=kernel) may be negative and sum to anything: what is below 0 is 0, and rows
    are scaled to sum to 1. Probabilities stay what they are, bit for bit.
    """
    if not targets.is_floating_point():
        return targets
    sums = targets.sum(1, keepdim=True)
    fine = (targets >= 0).all(1, keepdim=True) & ((sums - 1).abs() < 1e-5)
    positive = targets.clamp(min=0)
    return torch.where(fine, targets, positive / positive.sum(1, keepdim=True).clamp(min=1e-12))


def regression(scores_NC: Tensor, targets: Tensor) -> Tensor:
    """Half the mean squared distance of scores to centred labels (label - 1/C), as kernel regression has it."""
    classes = scores_NC.shape[1]
    wanted = targets if targets.is_floating_point() else F.one_hot(targets, classes)
    return 0.5 * (scores_NC - (wanted - 1 / classes)).square().sum(1).mean()


def batches(num_examples: int, size: int, total: int, generator: torch.Generator):
    """`total` batches of row numbers: shuffled passes over the data, each row once a pass.

    A pass is cut into ceil(N / size) batches; the last one of a pass may be smaller.
    """
    given = 0
    while given < total and num_examples:
        for rows in torch.randperm(num_examples, generator=generator).split(size):
            if given == total:
                return
            given += 1
            yield rows


def proximal_anchors(
    model: nn.Module, proximal: tuple[float, Mapping[str, Tensor]] | None
) -> list[tuple[float, Tensor, Tensor]]:
    """(mu, parameter, anchor) for every trained parameter; nothing where mu is 0."""
    if proximal is None or proximal[0] == 0:
        return []
    mu, weights = proximal
    return [(mu, p, weights[name].detach().clone().to(p.device)) for name, p in model.named_parameters()]
