"""AlexNet for small images (Krizhevsky et al., NeurIPS 2012), in the size that cross-architecture tables use.

Five convolutions of 128, 192, 256, 192 and 192 channels, pooling after the first, second and last, no norm, one linear
layer (Zhao et al., ICLR 2021, appendix). Images below 8 pixels a side do not fit its three poolings.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.core.errors import ConfigError
from fedcl.models.base import Model
from fedcl.models.norms import positive
from fedcl.models.stack import StackModule, extra_padding


@dataclass(frozen=True, kw_only=True)
class AlexNet(Model):
    width: int = 64  # the convolutions have 2, 3, 4, 3 and 3 times as many channels

    def __post_init__(self) -> None:
        positive(width=self.width)

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> StackModule:
        channels, height, width = shape
        if min(height, width) < 8:
            raise ConfigError(
                f"AlexNet halves the side three times; {height}x{width} images are too small, type model=mlp"
            )
        extra = extra_padding(shape)
        height, width = height + 2 * extra, width + 2 * extra
        layers: list[nn.Module] = []
        fan_in = channels
        for factor, size, pooled in ((2, 5, True), (3, 5, True), (4, 3, False), (3, 3, False), (3, 3, True)):
            fan_out, padding = factor * self.width, size // 2 + (0 if layers else extra)
            layers += [nn.Conv2d(fan_in, fan_out, size, padding=padding), nn.ReLU()]
            fan_in = fan_out
            if pooled:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        return StackModule(nn.Sequential(*layers), fan_in * height * width, num_classes)
