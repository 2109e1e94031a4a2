"""Networks are built from a shape, a number of classes and a seed; nothing else decides their weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import Any, cast

import torch
from torch import nn

from fedcl.seeding import torch_rng


class Model(ABC):
    """Hyper-parameters of an architecture: a frozen dataclass, named by one YAML in `configs/model/`."""

    @abstractmethod
    def architecture(self, shape_CHW: tuple[int, int, int], num_classes: int) -> nn.Module:
        """The module with whatever weights. It has `embed(images) -> [N, D]` and `classifier`, and
        `forward(images)` is `classifier(embed(images))`."""

    def with_norm(self, norm: str | None) -> Model:
        """The same architecture with another normalisation; itself where it has none to choose, or for None."""
        this = cast(Any, self)
        named = norm is not None and any(field.name == "norm" for field in fields(this))
        return replace(this, norm=norm) if named else self

    def build(self, shape_CHW: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
        """The module with weights drawn from `seed` (PyTorch's default distributions), in train mode.

        Raises:
            ConfigError: the architecture cannot take images of this shape.
        """
        with torch.device("meta"):
            module = self.architecture(shape_CHW, num_classes)
        module = module.to_empty(device="cpu")
        reset_parameters(module, torch_rng(seed, "weights"))
        return module


@torch.no_grad()
def reset_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Re-initialise every layer in place as PyTorch does by default, from `generator` alone.

    Convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases, which is
    `kaiming_uniform_(a=sqrt(5))`. Norms: scale 1, shift 0, running statistics reset.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = math.prod(layer.weight.shape[1:])
            bound = 1 / math.sqrt(fan_in)
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                    parameter.copy_(values)
        elif isinstance(layer, nn.GroupNorm | nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            if layer.weight is not None:
                layer.weight.fill_(1)
            if layer.bias is not None:
                layer.bias.zero_()
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.reset_running_stats()
        elif list(layer.parameters(recurse=False)):
            raise TypeError(f"reset_parameters does not know {type(layer).__name__}; add its default initialisation")
