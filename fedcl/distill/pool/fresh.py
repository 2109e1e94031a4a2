"""A newly initialised network every step (DM, Zhao & Bilen, WACV 2023, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.distill.pool.base import Networks, Pool, PoolSource
from fedcl.models.base import reset_parameters
from fedcl.seeding import torch_rng


@dataclass(frozen=True, kw_only=True)
class Fresh(Pool):
    """One module, re-initialised in place."""

    @property
    def shared(self) -> bool:
        return True

    def open(self, source: PoolSource) -> Networks:
        return _FreshNetworks(source.new_model(source.seed), source.seed)


class _FreshNetworks(Networks):
    def __init__(self, network: nn.Module, seed: int) -> None:
        self.network = network.requires_grad_(False)
        self.seed = seed

    def at(self, step: int) -> nn.Module:
        reset_parameters(self.network, torch_rng(self.seed, "network", round=step))
        return self.network
