"""Multi-layer perceptron with batch norm after every linear layer, the last one too: GDumb's network on MNIST.

Prabhu, Torr, Dokania, "GDumb", ECCV 2020, in its public code: linear layers have no bias, eps is 1e-6.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from fedcl.core.rules import each, whole
from fedcl.models.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class BatchNormMLP(MLP):
    hidden: Annotated[tuple[int, ...], each(whole(1, example=100), empty=False)] = (100, 100)  # units of each layer

    def linear(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        return [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out, eps=1e-6)]
