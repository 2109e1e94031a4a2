"""Experts: every step a stretch of a network's training on the real data (MTT, Cazenavette et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.experts import (
    Recipe,
    describe,
    folder_name,
    open_folder,
    path_of,
    read_weights,
    save_expert,
    train_expert,
)
from fedcl.distill.inner import check_stateless, flatten
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.distill.networks.fixed import OneNetwork
from fedcl.training.loop import Training


class ExpertSegment(nn.Module):
    """Weights of an expert at an epoch and some epochs later, and the module that they are for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.start_P = self.goal_P = torch.zeros(0)  # float32 [P], on the network's device

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.network(images_NCHW)


@dataclass(frozen=True, kw_only=True)
class Experts(Networks):
    """Trains what is missing when it is opened, with the distiller's augmentation."""

    mixes: ClassVar[bool] = True

    folder: str | None = None  # null = runs/experts/<name of their kind>, below the current folder
    num_experts: int = 10
    max_start: int = 5  # last epoch at which a stretch begins
    stretch: int = 2  # epochs from start to goal
    lr: float = 0.01  # of SGD
    batch_size: int = 256
    seed: int = 0  # of the experts, shared by all runs

    def __post_init__(self) -> None:
        if min(self.num_experts, self.stretch, self.batch_size) < 1 or self.max_start < 0 or self.lr <= 0:
            raise ConfigError(
                "networks.num_experts, stretch, batch_size and lr must be positive, networks.max_start not negative"
            )

    @property
    def shared(self) -> bool:
        return False

    def estimate_only(self) -> Networks:
        return _Untrained()

    def pretraining(self) -> Training:
        return Training(epochs=self.num_experts * (self.max_start + self.stretch), batch_size=self.batch_size)

    def open(self, source: NetworkSource) -> NetworkStream:
        held, normalization = source.only_set("experts")
        data, network = held.by_class(), source.new_model(0)
        check_stateless(network, "trajectory")
        recipe = Recipe(
            epochs=self.max_start + self.stretch,
            lr=self.lr,
            batch_size=self.batch_size,
            augmentation=source.augmentation,
            flip=source.flip,
            seed=self.seed,
        )
        about = describe(network, data, normalization, recipe)
        folder = Path("runs") / "experts" / folder_name(about) if self.folder is None else Path(self.folder)
        open_folder(folder, about)
        source.progress.begin("experts", self.num_experts)
        for expert in range(self.num_experts):
            if not path_of(folder, expert).exists():
                begun = source.new_model(derive(self.seed, "expert", client=expert))
                save_expert(folder, expert, train_expert(begun, data, normalization, recipe, expert, source.progress))
            source.progress.advance("experts")
        source.progress.end("experts")
        return _ExpertNetworks(self, folder, ExpertSegment(network.requires_grad_(False)), source.seed)


@dataclass(frozen=True, kw_only=True)
class _Untrained(Networks):
    """From one random network to another: the work of a stretch, for an estimate."""

    mixes: ClassVar[bool] = True

    @property
    def shared(self) -> bool:
        return False

    def open(self, source: NetworkSource) -> NetworkStream:
        segment = ExpertSegment(source.new_model(0).requires_grad_(False))
        segment.start_P, segment.goal_P = flatten(segment.network), flatten(source.new_model(1))
        return OneNetwork(segment)


class _ExpertNetworks(NetworkStream):
    def __init__(self, networks: Experts, folder: Path, segment: ExpertSegment, seed: int) -> None:
        self.recipe, self.folder, self.segment, self.seed = networks, folder, segment, seed
        self.size = sum(parameter.numel() for parameter in segment.network.parameters())

    def at(self, step: int) -> nn.Module:
        generator = torch_rng(self.seed, "stretch", round=step)
        expert = int(torch.randint(self.recipe.num_experts, (), generator=generator))
        start = int(torch.randint(self.recipe.max_start + 1, (), generator=generator))
        weights = read_weights(self.folder, expert, (start, start + self.recipe.stretch), self.size)
        device = next(self.segment.network.parameters()).device
        self.segment.start_P, self.segment.goal_P = weights.to(device).unbind()
        return self.segment
