"""A newly initialised network every step (DM, Zhao & Bilen, WACV 2023, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters


@dataclass(frozen=True, kw_only=True)
class Fresh(Networks):
    """One module, re-initialised in place."""

    shared = True

    def open(self, source: NetworkSource) -> NetworkStream:
        return _FreshNetworks(source.new_model(source.seed), source.seed)


class _FreshNetworks(NetworkStream):
    def __init__(self, network: nn.Module, seed: int) -> None:
        self.network = network.requires_grad_(False)
        self.seed = seed

    def at(self, step: int) -> Matched:
        reset_parameters(self.network, torch_rng(self.seed, "network", round=step))
        return Matched(network=self.network)
