"""NetworkStream in all stages of training on real images (IDM, CVPR 2023; IDC, ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import torch_rng
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.distill.objectives.base import MatchBatch
from fedcl.models.base import reset_parameters


@dataclass(frozen=True, kw_only=True)
class Queue(Networks):
    """A new network every `every` steps, in place of the oldest of `size`; a step matches on a random one.

    After the step `trained` random networks take `updates` SGD updates each on rows of the step's augmented
    real batch, mixed as the distiller's augmentation says. size=1 is IDC's single network, made anew every
    `every` steps.
    """

    mixes: ClassVar[bool] = True

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

    @property
    def shared(self) -> bool:
        return False

    def open(self, source: NetworkSource) -> NetworkStream:
        return _QueueNetworks(source, self)


class _QueueNetworks(NetworkStream):
    def __init__(self, source: NetworkSource, recipe: Queue) -> None:
        self.source, self.recipe = source, recipe
        self.networks: list[nn.Module] = []
        self.optimizers: list[torch.optim.SGD] = []

    def _add(self) -> None:
        network = self.source.new_model(self.source.seed)
        self.networks.append(network)
        self.optimizers.append(
            torch.optim.SGD(
                network.parameters(),
                lr=self.recipe.lr,
                momentum=self.recipe.momentum,
                weight_decay=self.recipe.weight_decay,
            )
        )

    def _pick(self, step: int, purpose: str, count: int) -> list[int]:
        generator = torch_rng(self.source.seed, purpose, round=step)
        return torch.randperm(len(self.networks), generator=generator)[:count].tolist()

    def at(self, step: int) -> nn.Module:
        if step % self.recipe.every == 0:
            birth = step // self.recipe.every
            place = birth % self.recipe.size
            if place == len(self.networks):
                self._add()
            reset_parameters(self.networks[place], torch_rng(self.source.seed, "network", round=birth))
            self.optimizers[place].state.clear()
        return self.networks[self._pick(step, "network of the step", 1)[0]].requires_grad_(False)

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        generator = torch_rng(self.source.seed, "training on real images", round=step)
        for place in self._pick(step, "networks to train", self.recipe.trained):
            network = self.networks[place].requires_grad_(True).train()
            for _ in range(self.recipe.updates):
                rows = torch.randperm(len(real.images_NCHW), generator=generator)[: self.recipe.batch_size]
                rows = rows.to(real.images_NCHW.device)
                images, parts = self.source.augmentation.mix(real.images_NCHW[rows], real.targets[rows], generator)
                scores = network(images)
                loss = torch.stack([share * F.cross_entropy(scores, wanted) for share, wanted in parts]).sum()
                self.optimizers[place].zero_grad()
                loss.backward()
                self.optimizers[place].step()

    def state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for place, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            state |= {f"{place}.weights.{name}": value for name, value in network.state_dict().items()}
            for name, parameter in network.named_parameters():
                momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
                if momentum is not None:
                    state[f"{place}.momentum.{name}"] = momentum
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        count = 1 + max((int(name.split(".")[0]) for name in state), default=-1)
        while len(self.networks) < count:
            self._add()
        for place, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            prefix = f"{place}.weights."
            network.load_state_dict(
                {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
            )
            for name, parameter in network.named_parameters():
                momentum = state.get(f"{place}.momentum.{name}")
                if momentum is not None:
                    optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device, copy=True)
