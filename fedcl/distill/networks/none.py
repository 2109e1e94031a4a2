"""No network: for objectives in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream


@dataclass(frozen=True, kw_only=True)
class NoNetworks(Networks):
    """Every step gets the identity."""

    @property
    def shared(self) -> bool:
        return True

    def open(self, source: NetworkSource) -> NetworkStream:
        return _NoNetworks()


class _NoNetworks(NetworkStream):
    def at(self, step: int) -> nn.Module:
        return nn.Identity()
