"""Networks in all stages of training on real images (IDM, CVPR 2023; IDC, ICML 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from fedcl.core.rules import whole
from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.training.augmentation import OnlyMixed
from fedcl.training.loop import train
from fedcl.training.moments import load_training, save_training, under


@dataclass(frozen=True, kw_only=True)
class Queue(Networks):
    """A new network every `every` steps, in place of the oldest of `size`; a step matches on a random one.

    After the step `trained` random networks take `updates` SGD updates each on rows of the step's augmented
    real batch, mixed as the distiller's augmentation says. size=1 is IDC's single network, made anew every
    `every` steps.
    """

    mixes, needs_real = True, True

    size: Annotated[int, whole(1, example=10)] = 10  # networks at most
    every: Annotated[int, whole(1, example=30)] = 30  # steps between two new networks
    trained: Annotated[int, whole(0, example=1)] = 1  # networks trained after a step
    updates: Annotated[int, whole(0, example=1)] = 1  # SGD updates of each
    batch_size: Annotated[int, whole(1, example=256)] = 256  # real images an update, out of the step's
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def open(self, source: NetworkSource) -> NetworkStream:
        return _QueueNetworks(source, self)


class _QueueNetworks(NetworkStream):
    def __init__(self, source: NetworkSource, recipe: Queue) -> None:
        self.source, self.recipe = source, recipe
        mixed = OnlyMixed(of=source.augmentation)  # the step's real batch has been transformed already
        self.training = recipe.training(updates=1, schedule="constant", augmentation=mixed)
        self.networks: list[tuple[nn.Module, torch.optim.Optimizer]] = []

    def _add(self) -> None:
        network = self.source.new_model(self.source.seed)
        self.networks.append((network, self.training.new_optimizer(network.parameters())))

    def _pick(self, step: int, purpose: str, count: int) -> list[tuple[nn.Module, torch.optim.Optimizer]]:
        generator = torch_rng(self.source.seed, purpose, round=step)
        return [self.networks[place] for place in torch.randperm(len(self.networks), generator=generator)[:count]]

    def at(self, step: int) -> Matched:
        birth, age = divmod(step, self.recipe.every)
        if age == 0:
            place = birth % self.recipe.size
            if place == len(self.networks):
                self._add()
            network, optimizer = self.networks[place]
            reset_parameters(network, torch_rng(self.source.seed, "network", round=birth))
            optimizer.state.clear()
        ((network, _),) = self._pick(step, "network of the step", 1)
        return Matched(network=network.requires_grad_(False))

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        generator = torch_rng(self.source.seed, "training on real images", round=step)
        for network, optimizer in self._pick(step, "networks to train", self.recipe.trained):
            network.requires_grad_(True)
            for _ in range(self.recipe.updates):  # each on a draw of its own, not on passes over the batch
                train(network, real.inputs, real.targets, self.training, seed=generator, optimizer=optimizer)

    def state(self) -> dict[str, Tensor]:
        pairs = enumerate(self.networks)
        return {f"{place}/{name}": value for place, pair in pairs for name, value in save_training(*pair).items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for _ in range(len(self.networks), len({name.split("/")[0] for name in state})):
            self._add()
        for place, pair in enumerate(self.networks):
            load_training(*pair, under(f"{place}/", state))
