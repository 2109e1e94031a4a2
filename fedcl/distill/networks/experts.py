"""Experts: every step a stretch of a network's training on the real data (MTT, Cazenavette et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.batch import Matched
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
from fedcl.distill.networks.fixed import Unchanged
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Experts(Networks):
    """Trains what is missing when it is opened, with the distiller's augmentation."""

    provides, mixes = frozenset({"trajectory"}), True

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

    def estimate_only(self) -> Networks:
        return _Untrained()

    def pretraining(self) -> Training:
        return Training(epochs=self.num_experts * (self.max_start + self.stretch), batch_size=self.batch_size)

    def open(self, source: NetworkSource) -> NetworkStream:
        held, spec = source.only_set("experts")
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
        about = describe(network, data, spec, recipe)
        folder = Path("runs") / "experts" / folder_name(about) if self.folder is None else Path(self.folder)
        open_folder(folder, about)
        source.progress.begin("experts", self.num_experts)
        for expert in range(self.num_experts):
            if not path_of(folder, expert).exists():
                begun = source.new_model(derive(self.seed, "expert", client=expert))
                save_expert(folder, expert, train_expert(begun, data, spec, recipe, expert, source.progress))
            source.progress.advance("experts")
        source.progress.end("experts")
        return _ExpertNetworks(self, folder, network.requires_grad_(False), source.seed)


@dataclass(frozen=True, kw_only=True)
class _Untrained(Networks):
    """From one random network to another: the work of a stretch, for an estimate."""

    provides, mixes = frozenset({"trajectory"}), True

    def open(self, source: NetworkSource) -> NetworkStream:
        network = source.new_model(0).requires_grad_(False)
        return Unchanged(Matched(network=network, start_P=flatten(network), goal_P=flatten(source.new_model(1))))


class _ExpertNetworks(NetworkStream):
    def __init__(self, networks: Experts, folder: Path, network: nn.Module, seed: int) -> None:
        self.recipe, self.folder, self.network, self.seed = networks, folder, network, seed
        self.size = sum(parameter.numel() for parameter in network.parameters())

    def at(self, step: int) -> Matched:
        generator = torch_rng(self.seed, "stretch", round=step)
        expert = int(torch.randint(self.recipe.num_experts, (), generator=generator))
        start = int(torch.randint(self.recipe.max_start + 1, (), generator=generator))
        weights = read_weights(self.folder, expert, (start, start + self.recipe.stretch), self.size)
        start_P, goal_P = weights.to(next(self.network.parameters()).device).unbind()
        return Matched(network=self.network, start_P=start_P, goal_P=goal_P)
