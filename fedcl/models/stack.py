"""Stack of convolutions and poolings with one linear layer on top: the form of AlexNet and VGG."""

from __future__ import annotations

from torch import Tensor, nn

from fedcl.models.base import Network, outputs_of


class StackModule(Network):
    def __init__(self, layers: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.classifier = nn.Linear(num_features, num_classes)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] flattened features after the last layer of the stack."""
        return self.layers(images_NCHW).flatten(1)

    def features(self, images_NCHW: Tensor) -> list[Tensor]:
        return outputs_of((nn.ReLU, nn.MaxPool2d), self.layers, images_NCHW)


def extra_padding(shape: tuple[int, ...]) -> int:
    """Pixels added on every side by the first convolution: 28x28 images become 32x32, as in the field's code."""
    return 2 if shape[1:] == (28, 28) else 0
