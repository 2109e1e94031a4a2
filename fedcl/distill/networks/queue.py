"""Networks in all stages of training on real images (IDM, CVPR 2023; IDC, ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.training.augmentation import OnlyMixed
from fedcl.training.loop import train
from fedcl.training.moments import load_training, save_training, under
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Queue(Networks):
    """A new network every `every` steps, in place of the oldest of `size`; a step matches on a random one.

    After the step `trained` random networks take `updates` SGD updates each on rows of the step's augmented
    real batch, mixed as the distiller's augmentation says. size=1 is IDC's single network, made anew every
    `every` steps.
    """

    mixes, needs_real = True, True

    size: int = 10  # networks at most
    every: int = 30  # steps between two new networks
    trained: int = 1  # networks trained after a step
    updates: int = 1  # SGD updates of each
    batch_size: int = 256  # real images an update, out of the step's
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if min(self.size, self.every, self.batch_size) < 1 or min(self.trained, self.updates) < 0:
            raise ConfigError(
                "networks.size, networks.every and networks.batch_size must be >= 1, "
                "networks.trained and networks.updates >= 0"
            )

    def open(self, source: NetworkSource) -> NetworkStream:
        training = Training(
            updates=1,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule="constant",
            augmentation=OnlyMixed(of=source.augmentation),  # the step's real batch has been transformed already
        )
        return _QueueNetworks(source, self, training)


class _QueueNetworks(NetworkStream):
    def __init__(self, source: NetworkSource, recipe: Queue, training: Training) -> None:
        self.source, self.recipe, self.training = source, recipe, training
        self.networks: list[nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []

    def _add(self) -> None:
        network = self.source.new_model(self.source.seed)
        self.networks.append(network)
        self.optimizers.append(self.training.new_optimizer(network.parameters()))

    def _pick(self, step: int, purpose: str, count: int) -> list[int]:
        generator = torch_rng(self.source.seed, purpose, round=step)
        return torch.randperm(len(self.networks), generator=generator)[:count].tolist()

    def at(self, step: int) -> Matched:
        if step % self.recipe.every == 0:
            birth = step // self.recipe.every
            place = birth % self.recipe.size
            if place == len(self.networks):
                self._add()
            reset_parameters(self.networks[place], torch_rng(self.source.seed, "network", round=birth))
            self.optimizers[place].state.clear()
        place = self._pick(step, "network of the step", 1)[0]
        return Matched(network=self.networks[place].requires_grad_(False))

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        generator = torch_rng(self.source.seed, "training on real images", round=step)
        for place in self._pick(step, "networks to train", self.recipe.trained):
            network, optimizer = self.networks[place].requires_grad_(True), self.optimizers[place]
            for _ in range(self.recipe.updates):  # each on a draw of its own, not on passes over the batch
                train(network, real.inputs, real.targets, self.training, seed=generator, optimizer=optimizer)

    def state(self) -> dict[str, Tensor]:
        pairs = enumerate(zip(self.networks, self.optimizers, strict=True))
        return {f"{place}/{name}": value for place, pair in pairs for name, value in save_training(*pair).items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        count = 1 + max((int(name.split("/")[0]) for name in state), default=-1)
        while len(self.networks) < count:
            self._add()
        for place, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            load_training(network, optimizer, under(f"{place}/", state))
