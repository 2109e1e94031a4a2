"""Context of a piece of work: everything it needs besides the data, and nothing that it could change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedcl.core.progress import SILENT, Progress
from fedcl.core.types import Normalization
from fedcl.models.base import Model

if TYPE_CHECKING:
    from fedcl.distill.distiller import Distiller


@dataclass(frozen=True, kw_only=True)
class Context:
    """Tool box of clients, servers and learners: two contexts with equal fields do equal work."""

    model: Model
    normalization: Normalization
    shape_CHW: tuple[int, int, int]
    num_classes: int
    horizontal_flip: bool = True  # whether a mirrored image is still the same thing (not for digits)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = SILENT
    seed: int = 0  # of the run; every random stream is derived from it
    distiller: Distiller = field(default_factory=lambda: _preset())  # of the run
    folder: Path | None = None  # where clients keep what they remember: one file a client and step, see client_state

    def new_model(self, seed: int, **changes: object) -> nn.Module:
        """A network on the device, initialised from `seed` alone, in train mode; with `changes` to its recipe."""
        return self.model.varied(**changes).build(self.shape_CHW, self.num_classes, seed).to(self.device)


def _preset() -> Distiller:
    from fedcl.distill.distiller import Distiller  # which imports this file for its annotations

    return Distiller()
