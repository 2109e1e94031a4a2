"""Context of a piece of work: everything it needs besides the data, and nothing that it could change."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from fedcl.core.inputs import InputSpec
from fedcl.core.progress import SILENT, Progress
from fedcl.models.base import Model, Network

if TYPE_CHECKING:
    from fedcl.distill.distiller import Distiller


@dataclass(frozen=True, kw_only=True)
class Context:
    """Tool box of clients, servers and learners: two contexts with equal fields do equal work."""

    model: Model
    inputs: InputSpec
    num_classes: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = SILENT
    seed: int = 0  # of the run; every random stream is derived from it
    round: int = 0  # of a federated run, counted from 0 over all steps
    step: int = 0  # of the scenario
    client: int = 0  # partition id, at a client
    # of the run; its module imports this one for annotations
    distiller: "Distiller" = field(default_factory=lambda: import_module("fedcl.distill.distiller").Distiller())

    def new_model(self, seed: int, **changes: object) -> Network:
        """A network on the device, initialised from `seed` alone, in train mode; with `changes` to its recipe."""
        return self.model.varied(**changes).build(self.inputs.shape, self.num_classes, seed).to(self.device)
