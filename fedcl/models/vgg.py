"""VGG-11 for small images (Simonyan & Zisserman, ICLR 2015), in the size that cross-architecture tables use.

Eight 3x3 convolutions of 64 to 512 channels and five poolings, one linear layer. A norm after each convolution, as
Zhao et al. (ICLR 2021) have it, but group norm: instance norm over the single pixel that small images leave
would be zero. A pooling that finds one pixel a side is left out, so that 8x8 images fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.models.base import Model
from fedcl.models.norms import norm_layer, positive
from fedcl.models.stack import StackModule, extra_padding

PLAN = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # convolutions before each pooling, in multiples of `width` channels


@dataclass(frozen=True, kw_only=True)
class VGG(Model):
    width: int = 64  # channels of the first convolution
    norm: str = "group"  # group, instance, batch or none

    def __post_init__(self) -> None:
        positive(width=self.width)

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> StackModule:
        fan_in, height, width = shape
        extra = extra_padding(shape)
        height, width = height + 2 * extra, width + 2 * extra
        layers: list[nn.Module] = []
        for factors in PLAN:
            for factor in factors:
                fan_out, padding = factor * self.width, 1 + (0 if layers else extra)
                norm = norm_layer(self.norm, fan_out, min(height, width))
                layers += [nn.Conv2d(fan_in, fan_out, 3, padding=padding), norm, nn.ReLU()]
                fan_in = fan_out
            if min(height, width) > 1:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        return StackModule(nn.Sequential(*layers), fan_in * height * width, num_classes)
