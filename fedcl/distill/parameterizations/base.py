"""Parameterizations: arrays that are optimised, and the decoder that turns them into images."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcl.core.inputs import InputSpec
from fedcl.core.rules import Checked
from fedcl.core.types import ArraySpec, Decoder


@dataclass(frozen=True, kw_only=True)
class Parameterization(Decoder, Checked):
    """Decoder that also knows how to begin. The same object travels in the summary."""

    config_key = "parameterization"

    takes_pixels: ClassVar[bool] = False  # whether `encode` keeps uint8 pixels as they are: real images, chosen

    def named(self, role: str) -> tuple[str, ...]:
        """Names of the arrays of that role: row, shared or fixed."""
        return tuple(name for name, spec in self.arrays.items() if spec.role == role)

    @property
    def rowwise(self) -> bool:
        """True where all arrays have a row an entry, so that sets of a batch are rows of the same arrays."""
        return self.named("row") == tuple(self.arrays)

    @abstractmethod
    def encode(self, images_NCHW: Tensor, real_NCHW: Tensor) -> dict[str, Tensor]:
        """Starting arrays, one row for each of the N starting images (perhaps none).

        `images_NCHW` are normalised float32, where `takes_pixels` uint8 pixels too; `real_NCHW` are uint8, all real
        images of the set (of all sets where `rowwise`), for what is fitted to them.
        """

    def project(self, learned: Mapping[str, Tensor], spec: InputSpec) -> None:
        """Bring what an update moved back to where it may be, in place; `learned` holds the arrays that it moved."""


@dataclass(frozen=True, kw_only=True)
class Images(Parameterization):
    """Parameterization whose entries are images: "images", [N, C, H, W]."""

    clamp: bool  # pixels back to [0, 1] after each update; does not travel

    arrays: ClassVar = {"images": ArraySpec(role="row", coding="image")}
    takes_pixels: ClassVar = True

    def encode(self, images_NCHW: Tensor, real_NCHW: Tensor) -> dict[str, Tensor]:
        return {"images": images_NCHW.detach().clone()}

    def spec(self) -> dict[str, int | float | str | bool]:
        return {name: value for name, value in super().spec().items() if name != "clamp"}

    @torch.no_grad()
    def project(self, learned: Mapping[str, Tensor], spec: InputSpec) -> None:
        if self.clamp and "images" in learned:
            images, numbers = learned["images"], (spec.preprocess.mean, spec.preprocess.std)
            mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in numbers)
            torch.clamp(images, -mean / std, (1 - mean) / std, out=images)
