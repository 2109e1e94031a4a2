"""What AlexNet and VGG are: a stack of convolutions and poolings, then one linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class StackModule(nn.Module):
    def __init__(self, layers: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.classifier = nn.Linear(num_features, num_classes)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] flattened features after the last layer of the stack."""
        return self.layers(images_NCHW).flatten(1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.classifier(self.embed(images_NCHW))


def extra_padding(shape_CHW: tuple[int, int, int]) -> int:
    """Pixels added on every side by the first convolution: 28x28 images become 32x32, as in the field's code."""
    return 2 if shape_CHW[1:] == (28, 28) else 0
