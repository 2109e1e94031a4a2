"""Multi-layer perceptron with ReLU, the network of the continual-learning baselines on MNIST."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.models.base import Model


class MLPModule(nn.Module):
    def __init__(self, hidden: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.classifier = nn.Linear(num_features, num_classes)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] activations of the last hidden layer."""
        return self.hidden(images_NCHW.flatten(1))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.classifier(self.embed(images_NCHW))


@dataclass(frozen=True, kw_only=True)
class MLP(Model):
    hidden: tuple[int, ...] = (400, 400)  # units of each hidden layer, ReLU after each

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
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return MLPModule(nn.Sequential(*layers), widths[-1], num_classes)
