"""Pixels: a stored entry is an image, normalised, as it is shown to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedcl.distill.parameterizations.base import Parameterization


@dataclass(frozen=True, kw_only=True)
class Pixels(Parameterization):
    """Arrays: "images", float32 [N, C, H, W]."""

    @property
    def name(self) -> str:
        return "pixels"

    def decode(self, arrays: Mapping[str, Tensor], shape_CHW: tuple[int, int, int]) -> Tensor:
        return arrays["images"]

    def expand(self, targets: Tensor) -> Tensor:
        return targets

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
        return {"images": images_NCHW.detach().clone()}


DECODER = Pixels
