"""One network with the same initial weights at every step (DD's "fixed initialisation", Wang et al., 2018).

What is learned is good for these weights alone: whoever trains on the summary has to start from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream


@dataclass(frozen=True, kw_only=True)
class Fixed(Networks):
    seed: int = 0  # of `Model.build`, with which the weights are found again

    @property
    def shared(self) -> bool:
        return True

    def open(self, source: NetworkSource) -> NetworkStream:
        return OneNetwork(source.new_model(self.seed).requires_grad_(False))


class OneNetwork(NetworkStream):
    """The same at every step."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def at(self, step: int) -> nn.Module:
        return self.network
