"""Multi-formation: a stored image holds factor x factor small ones, each shown enlarged.

Dataset Condensation via Efficient Synthetic-Data Parameterization (IDC; Kim et al., ICML 2022), section 4.2:
a stored image is cut in cells, each brought to full size bilinearly, as in IDM's "partition and expand".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import DataError, DistillError
from fedcl.core.rules import whole
from fedcl.distill.parameterizations.base import Images


def grid(factor: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of factor x factor cells, row by row; unequal where sides do not divide."""
    rows, columns = ([side * i // factor for i in range(factor + 1)] for side in (height, width))
    return [(t, b, left, right) for t, b in pairwise(rows) for left, right in pairwise(columns)]


@dataclass(frozen=True, kw_only=True)
class Zoom(Images):
    """Arrays: "images", [N, C, H, W]; entry n decodes to images n * factor^2 and on, cell by cell."""

    only_images = "parameterization=pixels"
    factor: Annotated[int, whole(1, example=2)] = 2  # cells a side
    clamp: bool = field(default=True, compare=False)

    name: ClassVar = "zoom"

    def decode(self, arrays: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        images, sides = arrays["images"], shape[1:]
        self.images_per_entry(shape)
        if tuple(images.shape[1:]) != tuple(shape):
            raise DataError(f"zoom needs images [N, {', '.join(map(str, shape))}], got {list(images.shape)}")
        cells = [
            F.interpolate(images[:, :, t:b, left:right], sides, mode="bilinear", align_corners=False)
            for t, b, left, right in grid(self.factor, *sides)
        ]
        return torch.stack(cells, 1).flatten(0, 1)

    def expand(self, targets: Tensor) -> Tensor:
        return targets.repeat_interleave(self.factor**2, 0)

    def images_per_entry(self, shape: tuple[int, ...]) -> int:
        if self.factor > min(shape[1:]):
            raise DataError(f"zoom's factor is at most {min(shape[1:])} for these images, got {self.factor}")
        return self.factor**2

    def encode(self, images_NCHW: Tensor, real_NCHW: Tensor) -> dict[str, Tensor]:
        if self.factor > min(images_NCHW.shape[2:]):
            raise DistillError(
                f"parameterization.factor={self.factor} cuts {tuple(images_NCHW.shape[2:])} images "
                "to nothing; type parameterization.factor=2"
            )
        return super().encode(images_NCHW, real_NCHW)


DECODER = Zoom
