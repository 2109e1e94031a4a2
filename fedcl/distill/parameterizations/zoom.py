"""Multi-formation: a stored image holds factor x factor small ones, each shown enlarged.

Dataset Condensation via Efficient Synthetic-Data Parameterization (IDC; Kim et al., ICML 2022), section 4.2:
a stored image is cut in cells, each brought to full size bilinearly, as in IDM's "partition and expand".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import ConfigError, DataError, DistillError
from fedcl.core.types import Normalization
from fedcl.distill.parameterizations.base import Parameterization, clamp_pixels


def grid(factor: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of factor x factor cells, row by row; unequal where sides do not divide."""
    rows = [height * i // factor for i in range(factor + 1)]
    columns = [width * i // factor for i in range(factor + 1)]
    return [(t, b, left, right) for t, b in pairwise(rows) for left, right in pairwise(columns)]


@dataclass(frozen=True, kw_only=True)
class Zoom(Parameterization):
    """Arrays: "images", float32 [N, C, H, W]; entry n decodes to images n * factor^2 and on, cell by cell."""

    factor: int = 2  # cells a side
    clamp: bool = field(default=True, compare=False)  # pixels back to [0, 1] after each update; does not travel

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ConfigError(f"parameterization.factor={self.factor} must be at least 1")

    @property
    def name(self) -> str:
        return "zoom"

    def decode(self, arrays: Mapping[str, Tensor], shape_CHW: tuple[int, int, int]) -> Tensor:
        images = arrays["images"]
        _, height, width = shape_CHW
        if tuple(images.shape[1:]) != tuple(shape_CHW) or self.factor > min(height, width):
            raise DataError(
                f"zoom needs images [N, {', '.join(map(str, shape_CHW))}] and factor at most {min(height, width)}, "
                f"got {list(images.shape)} and factor {self.factor}"
            )
        cells = [
            F.interpolate(images[:, :, t:b, left:right], (height, width), mode="bilinear", align_corners=False)
            for t, b, left, right in grid(self.factor, *images.shape[2:])
        ]
        return torch.stack(cells, 1).flatten(0, 1)

    def expand(self, targets: Tensor) -> Tensor:
        return targets.repeat_interleave(self.factor**2, 0)

    @property
    def row_arrays(self) -> tuple[str, ...]:
        return ("images",)

    @property
    def rowwise(self) -> bool:
        return True

    @property
    def fixed_arrays(self) -> tuple[str, ...]:
        return ()

    def num_initial(self, ipc: int) -> int:
        return ipc

    def encode(self, images_NCHW: Tensor, real_NCHW: Tensor) -> dict[str, Tensor]:
        if self.factor > min(images_NCHW.shape[2:]):
            raise DistillError(
                f"parameterization.factor={self.factor} cuts {tuple(images_NCHW.shape[2:])} images "
                "to nothing; type parameterization.factor=2"
            )
        return {"images": images_NCHW.detach().clone()}

    def spec(self) -> dict[str, int | float | str | bool]:
        return {name: value for name, value in super().spec().items() if name != "clamp"}

    def project(self, learned: Mapping[str, Tensor], normalization: Normalization) -> None:
        if self.clamp and "images" in learned:
            clamp_pixels(learned["images"], normalization)


DECODER = Zoom
