"""Normalisation layers by name, as the architectures' YAML files choose them."""

from __future__ import annotations

from math import gcd

from torch import nn

from fedcl.core.errors import ConfigError
from fedcl.models.instance_norm import InstanceNorm

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
NORMS = ("instance", "group", "batch", "none")


def norm_layer(kind: str, width: int, side: int = 2) -> nn.Module:
    """Normalisation layer for `width` channels of `side` pixels a side.

    "instance" is group norm with one channel a group, affine, as the field's code has it; "group" has up to 32
    groups (Wu & He, ECCV 2018); "batch" is the only one that mixes images; "none" is the identity.

    Raises:
        ConfigError: no such norm, or one that would answer zero to everything.
    """
    if kind not in NORMS:
        raise ConfigError(f"model.norm={kind} is not known; choose {', '.join(NORMS)}")
    if side < 2 and (kind == "instance" or (kind == "group" and gcd(32, width) == width)):
        raise ConfigError(
            f"model.norm={kind} over one pixel and one channel is always zero, and these images leave one pixel "
            f"of {width} channels; type model.norm=none, or model.norm=group with a multiple of 64 channels"
        )
    if kind == "instance":
        return InstanceNorm(width)
    if kind == "group":
        return nn.GroupNorm(gcd(32, width), width)
    return nn.BatchNorm2d(width) if kind == "batch" else nn.Identity()


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """Layers that, in train mode, normalise an image by those that share its pass, and keep running statistics."""
    return [layer for layer in network.modules() if isinstance(layer, BatchNorm)]


def positive(**numbers: int) -> None:
    """Raise ConfigError for a number of an architecture below 1, under its key."""
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"model.{name}={number} must be at least 1")
