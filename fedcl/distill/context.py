"""What work on data needs besides the data: a network's recipe, units of pixels, a device, a listener."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from fedcl.core.progress import SILENT, Progress
from fedcl.core.types import Normalization
from fedcl.models.base import Model


@dataclass(frozen=True, kw_only=True)
class Context:
    """Values only: two workbenches with equal fields do equal work."""

    model: Model
    normalization: Normalization
    shape_CHW: tuple[int, int, int]
    num_classes: int
    horizontal_flip: bool = True  # whether a mirrored image is still the same thing (not for digits)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = SILENT

    def new_model(self, seed: int, **changes: object) -> nn.Module:
        """A network on the device, initialised from `seed` alone, in train mode; with `changes` to its recipe."""
        return self.model.varied(**changes).build(self.shape_CHW, self.num_classes, seed).to(self.device)
