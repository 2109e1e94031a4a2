"""No network: for objectives in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.distill.pool.base import Networks, Pool, PoolSource


@dataclass(frozen=True, kw_only=True)
class NoPool(Pool):
    """Every step gets the identity."""

    @property
    def shared(self) -> bool:
        return True

    def open(self, source: PoolSource) -> Networks:
        return _NoNetworks()


class _NoNetworks(Networks):
    def at(self, step: int) -> nn.Module:
        return nn.Identity()
