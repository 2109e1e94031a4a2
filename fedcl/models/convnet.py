"""ConvNet-D: the network of most distillation papers (Gidaris & Komodakis 2018; Zhao et al., ICLR 2021).

D blocks of [3x3 convolution, norm, ReLU, 2x2 average pooling], then one linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fedcl.errors import ConfigError
from fedcl.models.base import Model


class ConvNetModule(nn.Module):
    def __init__(self, blocks: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.classifier = nn.Linear(num_features, num_classes)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] flattened features after the last pooling."""
        return self.blocks(images_NCHW).flatten(1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.classifier(self.embed(images_NCHW))


def norm_layer(kind: str, width: int) -> nn.Module:
    """ "instance" is group norm with one channel a group, affine, as the field's code has it."""
    if kind == "instance":
        return nn.GroupNorm(width, width)
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return nn.Identity()


@dataclass(frozen=True, kw_only=True)
class ConvNet(Model):
    width: int = 128  # channels of every block
    depth: int | None = None  # blocks; None = 3 from 16 pixels a side on (4 from 64), 2 below
    norm: str = "instance"  # instance, batch or none

    def __post_init__(self) -> None:
        if self.width < 1 or (self.depth is not None and self.depth < 1):
            raise ConfigError(
                f"model.width and model.depth must be at least 1, got {self.width} and {self.depth}"
            )
        if self.norm not in ("instance", "batch", "none"):
            raise ConfigError(f"model.norm={self.norm} is not known; choose instance, batch or none")

    def architecture(self, shape_CHW: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, height, width = shape_CHW
        side = min(height, width)
        depth = self.depth or (2 if side < 16 else 3 if side < 64 else 4)
        if side < 2**depth:
            raise ConfigError(
                f"{depth} blocks halve a {height}x{width} image to nothing; type model.depth={side.bit_length() - 1}"
            )
        layers: list[nn.Module] = []
        for block in range(depth):
            # 28x28 images are padded to 32x32 by the first block, as in the field's code
            padding = 3 if block == 0 and (height, width) == (28, 28) else 1
            layers += [
                nn.Conv2d(channels if block == 0 else self.width, self.width, 3, padding=padding),
                norm_layer(self.norm, self.width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
            height, width = (height + 2 * padding - 2) // 2, (width + 2 * padding - 2) // 2
        return ConvNetModule(nn.Sequential(*layers), self.width * height * width, num_classes)
