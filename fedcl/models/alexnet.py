"""AlexNet for small images (Krizhevsky et al., NeurIPS 2012), in the size that cross-architecture tables use.

Five convolutions of 128, 192, 256, 192 and 192 channels, pooling after the first, second and last, no norm, one linear
layer (Zhao et al., ICLR 2021, appendix). Images below 8 pixels a side do not fit its three poolings.
"""

from dataclasses import dataclass
from typing import Annotated

from fedcl.core.errors import ConfigError
from fedcl.core.rules import whole
from fedcl.models.base import Model
from fedcl.models.stack import StackModule

PLAN = (((2, 5),), ((3, 5),), ((4, 3), (3, 3), (3, 3)))  # 2, 3, 4, 3 and 3 times `width` channels


@dataclass(frozen=True, kw_only=True)
class AlexNet(Model):
    width: Annotated[int, whole(1, example=64)] = 64  # half the channels of the first convolution

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> StackModule:
        if min(shape[1:]) < 8:
            raise ConfigError(
                f"AlexNet halves the side three times; {shape[1]}x{shape[2]} images are too small, type model=mlp"
            )
        return StackModule(shape, num_classes, PLAN, self.width, norm=None)
