"""ResNet-18 for small images (He et al., CVPR 2016): an unseen architecture of the evaluations.

The stem of the CIFAR variants: one 3x3 convolution with stride 1 and no pooling. Group norm in place of batch norm
(Wu & He, ECCV 2018): summaries are too small for batch statistics, and federated clients differ in theirs.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.rules import each, one_of, whole
from fedcl.models.base import Model, Network, outputs_of
from fedcl.models.norms import NORMS, norm_layer


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them; where the channels change, the side is halved, by a 1x1 one."""

    def __init__(self, fan_in: int, width: int, norm: str, side: int) -> None:
        super().__init__()
        stride = 1 if fan_in == width else 2
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.norm1 = norm_layer(norm, width, side)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = norm_layer(norm, width, side)
        self.around = nn.Sequential()
        if stride == 2:
            self.around = nn.Sequential(nn.Conv2d(fan_in, width, 1, stride, bias=False), norm_layer(norm, width, side))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.around(x))


class ResNetModule(Network):
    def __init__(self, stem: nn.Sequential, blocks: nn.Sequential, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem, self.blocks = stem, blocks
        self.classifier = nn.Linear(width, num_classes)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] averages over all pixels after the last block."""
        return F.adaptive_avg_pool2d(self.blocks(self.stem(images_NCHW)), 1).flatten(1)

    def features(self, images_NCHW: Tensor) -> list[Tensor]:
        return outputs_of((nn.Sequential, Block), (self.stem, *self.blocks), images_NCHW)


@dataclass(frozen=True, kw_only=True)
class ResNet(Model):
    """Stages of basic blocks; every stage after the first halves the side and doubles the channels."""

    width: Annotated[int, whole(1, example=64)] = 64  # channels of the first stage
    # a stage; (2, 2, 2, 2) is ResNet-18
    blocks: Annotated[tuple[int, ...], each(whole(1, example=2), empty=False)] = (2, 2, 2, 2)
    norm: Annotated[str, one_of(*NORMS)] = "group"

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> ResNetModule:
        side, fan_in = min(shape[1:]), self.width
        convolution = nn.Conv2d(shape[0], fan_in, 3, 1, 1, bias=False)
        stem = nn.Sequential(convolution, norm_layer(self.norm, fan_in, side), nn.ReLU())
        layers: list[nn.Module] = []
        for stage, count in enumerate(self.blocks):
            side = -(-side // 2) if stage else side
            for _ in range(count):
                layers.append(Block(fan_in, self.width * 2**stage, self.norm, side))
                fan_in = self.width * 2**stage
        return ResNetModule(stem, nn.Sequential(*layers), fan_in, num_classes)
