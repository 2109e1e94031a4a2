"""What is optimised: arrays that a decoder turns into images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.types import Decoder, Normalization


@dataclass(frozen=True, kw_only=True)
class Parameterization(Decoder):
    """A decoder that also knows how to begin. The same object travels in the summary."""

    @property
    @abstractmethod
    def row_arrays(self) -> tuple[str, ...]:
        """Names of the arrays whose first axis is the stored entry."""

    @property
    @abstractmethod
    def rowwise(self) -> bool:
        """Whether there are no others, so that sets of a batch are rows of the same arrays."""

    @property
    @abstractmethod
    def fixed_arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are chosen once and not optimised."""

    @abstractmethod
    def num_initial(self, ipc: int) -> int:
        """How many starting images one class is given: how many entries it stores at `ipc`."""

    @abstractmethod
    def encode(self, images_NCHW: Tensor, real_NCHW: Tensor) -> dict[str, Tensor]:
        """Starting arrays, one row for each of the N starting images (normalised float32, perhaps none).

        `real_NCHW`: uint8, all real images of the set (of all sets where `rowwise`), for what is fitted to
        them.
        """

    def project(self, learned: Mapping[str, Tensor], normalization: Normalization) -> None:
        """Bring what an update moved back to where it may be, in place; `learned` holds the arrays that it moved."""


@torch.no_grad()
def clamp_pixels(images_NCHW: Tensor, normalization: Normalization) -> None:
    """Normalised images in place to the nearest whose pixels lie in [0, 1]."""
    mean, std = (
        torch.tensor(values, device=images_NCHW.device).view(1, -1, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    torch.clamp(images_NCHW, -mean / std, (1 - mean) / std, out=images_NCHW)
