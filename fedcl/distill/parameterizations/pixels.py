"""Pixels: a stored entry is an image, normalised, as it is shown to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedcl.core.types import Normalization
from fedcl.distill.parameterizations.base import Parameterization, clamp_pixels


@dataclass(frozen=True, kw_only=True)
class Pixels(Parameterization):
    """Arrays: "images", float32 [N, C, H, W]."""

    clamp: bool = field(default=False, compare=False)  # pixels back to [0, 1] after each update; does not travel

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

    def spec(self) -> dict[str, int | float | str | bool]:
        return {name: value for name, value in super().spec().items() if name != "clamp"}

    def project(self, learned: Mapping[str, Tensor], normalization: Normalization) -> None:
        if self.clamp and "images" in learned:
            clamp_pixels(learned["images"], normalization)


DECODER = Pixels
