"""What is optimised: arrays that a decoder turns into images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from fedcl.types import Decoder


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
