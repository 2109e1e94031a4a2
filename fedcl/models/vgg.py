"""VGG-11 for small images (Simonyan & Zisserman, ICLR 2015), in the size that cross-architecture tables use.

Eight 3x3 convolutions of 64 to 512 channels and five poolings, one linear layer. A norm after each convolution, as
Zhao et al. (ICLR 2021) have it, but group norm: instance norm over the single pixel that small images leave
would be zero. A pooling that finds one pixel a side is left out, so that 8x8 images fit.
"""

from dataclasses import dataclass
from typing import Annotated

from fedcl.core.rules import one_of, whole
from fedcl.models.base import Model
from fedcl.models.norms import NORMS
from fedcl.models.stack import StackModule

PLAN = (((1, 3),), ((2, 3),), ((4, 3), (4, 3)), ((8, 3), (8, 3)), ((8, 3), (8, 3)))


@dataclass(frozen=True, kw_only=True)
class VGG(Model):
    width: Annotated[int, whole(1, example=64)] = 64  # channels of the first convolution
    norm: Annotated[str, one_of(*NORMS)] = "group"

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> StackModule:
        return StackModule(shape, num_classes, PLAN, self.width, self.norm)
