"""Experts: every step a stretch of a network's training on the real data (MTT, Cazenavette et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.checks import above_zero, at_least
from fedcl.core.inputs import InputSpec
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import Matched
from fedcl.distill.experts import describe, open_folder, path_of, read_weights, save_expert
from fedcl.distill.inner import check_stateless, flatten
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Stateless
from fedcl.distill.networks.fixed import Unchanged
from fedcl.training.loop import train
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Experts(Networks):
    """Trains what is missing when it is opened, with the distiller's augmentation.

    An expert is trained by plain SGD on cross-entropy, without momentum and weight decay.
    """

    provides, mixes = frozenset({"trajectory"}), True

    folder: str | None = None  # null = runs/experts/<name of their kind>, below the current folder
    num_experts: int = 10
    max_start: int = 5  # last epoch at which a stretch begins
    stretch: int = 2  # epochs from start to goal
    lr: float = 0.01  # of SGD
    batch_size: int = 256
    seed: int = 0  # of the experts' initialisation, order and augmentation, shared by all runs

    def __post_init__(self) -> None:
        at_least(self, "networks", num_experts=1, stretch=1, batch_size=1, max_start=0)
        above_zero(self, "networks", "lr")

    def estimate_only(self) -> Networks:
        return _Untrained()

    def pretraining(self) -> Training:
        return Training(epochs=self.num_experts * self._epochs, batch_size=self.batch_size)

    @property
    def _epochs(self) -> int:
        return self.max_start + self.stretch

    def open(self, source: NetworkSource) -> NetworkStream:
        held, spec = source.only_set("experts")
        data, network = held.by_class(), source.new_model(0)
        check_stateless(network, "trajectory")
        numbers = {"epochs": self._epochs, "lr": self.lr, "batch_size": self.batch_size, "seed": self.seed}
        training = numbers | {"augmentation": repr(source.augmentation), "flip": source.flip}
        folder = open_folder(self.folder, describe(network, data, spec, training))
        source.progress.begin("experts", self.num_experts)
        for expert in range(self.num_experts):
            if not path_of(folder, expert).exists():
                save_expert(folder, expert, self._train(expert, data, spec, source))
            source.progress.advance("experts")
        source.progress.end("experts")
        network, size = network.requires_grad_(False), len(flatten(network))

        def at(step: int) -> Matched:
            generator = torch_rng(source.seed, "stretch", round=step)
            expert = int(torch.randint(self.num_experts, (), generator=generator))
            start = int(torch.randint(self.max_start + 1, (), generator=generator))
            weights = read_weights(folder, expert, (start, start + self.stretch), size)
            start_P, goal_P = weights.to(next(network.parameters()).device).unbind()
            return Matched(network=network, start_P=start_P, goal_P=goal_P)

        return Stateless(at)

    def _train(self, expert: int, data: LabeledSet, spec: InputSpec, source: NetworkSource) -> Tensor:
        """float32 [epochs + 1, P]: the weights of one expert."""
        plain = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
        training = self.training(augmentation=source.augmentation, **plain)
        network = source.new_model(derive(self.seed, "expert", client=expert))
        data = data.to(next(network.parameters()).device)
        rows = [flatten(network).cpu()]
        for epoch in range(self._epochs):
            seed = derive(self.seed, "expert epoch", client=expert, round=epoch)
            more = {"spec": spec, "flip": source.flip, "progress": source.progress}
            train(network, data.inputs, data.labels_N, training, seed=seed, **more)
            rows.append(flatten(network).cpu())
        return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class _Untrained(Networks):
    """From one random network to another: the work of a stretch, for an estimate."""

    provides, mixes = frozenset({"trajectory"}), True

    def open(self, source: NetworkSource) -> NetworkStream:
        network = source.new_model(0).requires_grad_(False)
        return Unchanged(Matched(network=network, start_P=flatten(network), goal_P=flatten(source.new_model(1))))
