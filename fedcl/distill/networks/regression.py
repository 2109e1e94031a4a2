"""FRePo's networks: networks of different ages, each trained on the synthetic images as they are being learned.

Zhou, Nezhadarya & Ba, NeurIPS 2022, section 3.2: a random network of the pool is matched, takes one Adam step of
regression on a synthetic batch, and begins anew when it has taken `lifetime` of them. First ages are staggered.
As in the public code, batch norm is in eval mode while a network is matched: real and synthetic features are
divided by the same running statistics, those of the synthetic images it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.training.loop import train
from fedcl.training.moments import load_training, save_training, under
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class OnlineRegression(Networks):
    size: int = 10  # networks
    lifetime: int = 100  # updates after which a network begins anew
    lr: float = 3e-4  # of Adam
    batch_size: int = 512  # synthetic images an update; fewer give all
    norm: str | None = None  # of these networks, where the model lets one choose; None: the model's own
    norm_first: bool | None = None  # likewise
    initialization: str | None = None  # likewise
    norm_momentum: float = 0.9  # weight of the last batch in running statistics of batch norm

    def __post_init__(self) -> None:
        if min(self.size, self.lifetime, self.batch_size) < 1 or self.lr <= 0:
            raise ConfigError("networks.size, lifetime, batch_size and lr must be positive")
        if not 0 < self.norm_momentum <= 1:
            raise ConfigError("networks.norm_momentum must lie above 0 and be at most 1")

    @property
    def changes(self) -> Mapping[str, object]:
        return {name: getattr(self, name) for name in ("norm", "norm_first", "initialization")}

    @property
    def training(self) -> Training:
        """One update of regression on a synthetic batch."""
        adam = {"optimizer": "adam", "lr": self.lr, "weight_decay": 0.0, "schedule": "constant"}
        return Training(updates=1, batch_size=self.batch_size, loss="mse", **adam)

    def open(self, source: NetworkSource) -> NetworkStream:
        return _OnlineNetworks(self, source)


class _OnlineNetworks(NetworkStream):
    def __init__(self, networks: OnlineRegression, source: NetworkSource) -> None:
        self.recipe, self.source = networks, source
        seeds = [derive(source.seed, "pool", client=i) for i in range(networks.size)]
        self.modules = [source.new_model(seed, **networks.changes) for seed in seeds]
        for layer in (layer for module in self.modules for layer in module.modules()):
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.momentum = networks.norm_momentum
        self.optimizers = [self.recipe.training.new_optimizer(module.parameters()) for module in self.modules]
        self.age_P = torch.tensor([i * networks.lifetime // networks.size for i in range(networks.size)])
        self.births_P = torch.zeros(networks.size, dtype=torch.int64)
        self.chosen = 0

    def at(self, step: int) -> Matched:
        generator = torch_rng(self.source.seed, "choice of network", round=step)
        self.chosen = int(torch.randint(self.recipe.size, (), generator=generator))
        return Matched(network=self.modules[self.chosen].requires_grad_(False).eval())

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        i, module = self.chosen, self.modules[self.chosen].requires_grad_(True)
        generator = torch_rng(self.source.seed, "pool batch", round=step)
        images, targets, optimizer = synthetic.inputs, synthetic.targets, self.optimizers[i]
        train(module, images, targets, self.recipe.training, seed=generator, optimizer=optimizer)
        self.age_P[i] += 1
        if self.age_P[i] >= self.recipe.lifetime:
            self.age_P[i] = 0
            self.births_P[i] += 1
            reset_parameters(module, torch_rng(self.source.seed, "rebirth", client=i, round=int(self.births_P[i])))
            self.optimizers[i] = self.recipe.training.new_optimizer(module.parameters())

    def state(self) -> dict[str, Tensor]:
        state = {"age": self.age_P, "births": self.births_P}
        for i, pair in enumerate(zip(self.modules, self.optimizers, strict=True)):
            state |= {f"{i}/{name}": value for name, value in save_training(*pair).items()}
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.age_P, self.births_P = state["age"].clone(), state["births"].clone()
        for i, (module, optimizer) in enumerate(zip(self.modules, self.optimizers, strict=True)):
            load_training(module, optimizer, under(f"{i}/", state))
