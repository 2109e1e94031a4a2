"""Multi-layer perceptron with batch norm after every linear layer, the last one too: GDumb's network on MNIST.

Prabhu, Torr, Dokania, "GDumb", ECCV 2020, in its public code: linear layers have no bias, eps is 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.models.base import Model


class BatchNormMLPModule(nn.Module):
    def __init__(self, hidden: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.hidden = hidden
        self.classifier = classifier

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] activations of the last hidden layer."""
        return self.hidden(images_NCHW.flatten(1))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.classifier(self.embed(images_NCHW))


@dataclass(frozen=True, kw_only=True)
class BatchNormMLP(Model):
    hidden: tuple[int, ...] = (100, 100)  # units of each hidden layer

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"model.hidden must name at least one layer of at least one unit, got {list(self.hidden)}"
            )

    def architecture(self, shape_CHW: tuple[int, int, int], num_classes: int) -> nn.Module:
        widths = (prod(shape_CHW), *self.hidden)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out, eps=1e-6), nn.ReLU()]
        last = nn.Linear(widths[-1], num_classes, bias=False)
        classifier = nn.Sequential(last, nn.BatchNorm1d(num_classes, eps=1e-6))
        return BatchNormMLPModule(nn.Sequential(*layers), classifier)
