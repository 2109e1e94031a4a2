"""Pixels: a stored entry is an image, as it is shown to a network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fedcl.distill.parameterizations.base import Images


@dataclass(frozen=True, kw_only=True)
class Pixels(Images):
    """Arrays: "images", [N, C, H, W], float32 in normalised units or uint8 pixels."""

    clamp: bool = field(default=False, compare=False)

    name: ClassVar = "pixels"

    @property
    def only_images(self) -> str | None:
        """What to type where inputs are no images: their numbers have no range to stay in."""
        return "parameterization.clamp=false" if self.clamp else None

    def decode(self, arrays: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        return arrays["images"]


DECODER = Pixels
