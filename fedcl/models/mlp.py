"""Multi-layer perceptron with ReLU, the network of the continual-learning baselines on MNIST."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated

from torch import Tensor, nn

from fedcl.core.rules import each, whole
from fedcl.models.base import Model, Network, outputs_of


class MLPModule(Network):
    def __init__(self, hidden: nn.Sequential, classifier: nn.Module) -> None:
        super().__init__()
        self.hidden, self.classifier = hidden, classifier

    def embed(self, inputs: Tensor) -> Tensor:
        """[N, D] activations of the last hidden layer."""
        return self.hidden(inputs.flatten(1))

    def features(self, images_NCHW: Tensor) -> list[Tensor]:
        return outputs_of((nn.ReLU,), self.hidden, images_NCHW.flatten(1))


@dataclass(frozen=True, kw_only=True)
class MLP(Model):
    only_images = None

    # units of each hidden layer, ReLU after each
    hidden: Annotated[tuple[int, ...], each(whole(1, example=400), empty=False)] = (400, 400)

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> MLPModule:
        widths = (prod(shape), *self.hidden)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [*self.linear(fan_in, fan_out), nn.ReLU()]
        last = self.linear(widths[-1], num_classes)
        return MLPModule(nn.Sequential(*layers), nn.Sequential(*last) if len(last) > 1 else last[0])

    def linear(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        """A linear layer, and what comes with each."""
        return [nn.Linear(fan_in, fan_out)]
