"""Coding of numbers, for messages, files and memory alike: float32, float16, or uint8 with one affine map a channel.

Legend: K quantisation channels. The server computes with what was decoded, never with what was meant.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.core.rules import Checked, one_of

_TYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
NO_CONSTANTS = torch.zeros(2, 0)  # constants of what needs none
_LEVELS = 255  # steps between the lowest and the highest value of a uint8 channel


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Tensor as it travels and lies in memory."""

    values: Tensor  # the tensor's shape, on the wire dtype
    constants: Tensor  # float32 [2, K]: lowest and highest value of each channel; [2, 0] where none are needed


@dataclass(frozen=True, kw_only=True)
class Wire(Checked):
    """Coding of float32 tensors.

    `float32` is exact. `float16` rounds to 11 significant bits. `uint8` stores, for each channel, the lowest and the
    highest value as float32 and the nearest of 256 levels between them, so the error is at most half a level; a
    constant channel is exact; coding twice is the same as coding once. The channel axis is the caller's: 1 for the
    arrays of a summary, `weight_axis` for weights, None for one channel of the whole tensor.
    """

    config_key = "wire"

    dtype: Annotated[str, one_of(*_TYPES)] = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        return _TYPES[self.dtype]

    def for_labels(self) -> "Wire":
        """The wire of soft labels: float16 where the rest is uint8, whose levels blur small probabilities."""
        return Wire(dtype="float16") if self.dtype == "uint8" else self

    def for_array(self, coding: str) -> "Wire":
        """The wire of a summary's array with that `ArraySpec.coding`; its channel axis is 1."""
        if coding in ("image", "per_column"):
            return self
        return self.for_labels() if coding == "soft" else Wire()

    def num_channels(self, shape: tuple[int, ...], axis: int | None) -> int:
        """K, the number of channels whose constants travel with a tensor of this shape; WireError without that axis."""
        if self.dtype != "uint8":
            return 0
        if axis is not None and axis >= len(shape):
            raise WireError(f"uint8 needs axis {axis} of a tensor that is {list(shape)}")
        return 1 if axis is None else shape[axis]

    def encode(self, values: Tensor, axis: int | None = None) -> Coded:
        """float32 of any shape to its coded form, on the CPU.

        Raises:
            WireError: it is not float32, holds NaN or infinity, or leaves the range of float16.
        """
        if values.dtype != torch.float32:
            raise WireError(f"only float32 is coded for the wire, got {values.dtype}")
        values = values.detach().cpu()
        if not all_finite(values):
            raise WireError("NaN or infinity cannot be sent; look for a diverged loss at the sender")
        constants = NO_CONSTANTS
        if self.dtype == "uint8":
            self.num_channels(tuple(values.shape), axis)  # WireError without that axis
            constants = _extremes(values, axis)
            low, high = _columns(constants, values.ndim, axis)
            span = (high - low).clamp_min_(torch.finfo(torch.float64).tiny)
            values = values.double().sub_(low).div_(span).mul_(_LEVELS).round_()
        coded = values.to(self.torch_dtype)
        if self.dtype == "float16" and not all_finite(coded):
            raise WireError("a value beyond 65504 does not fit float16; choose wire=float32")
        return Coded(values=coded, constants=constants)

    def decode(self, coded: Coded, axis: int | None = None) -> Tensor:
        """The float32 tensor that the receiver works with.

        Raises:
            WireError: the dtype or the number of constants is not this wire's, or a value is not finite.
        """
        values, constants = coded.values, coded.constants
        if values.dtype != self.torch_dtype:
            raise WireError(f"expected {self.torch_dtype} on wire={self.dtype}, got {values.dtype}")
        channels = self.num_channels(tuple(values.shape), axis)
        if constants.dtype != torch.float32 or tuple(constants.shape) != (2, channels):
            raise WireError(f"expected float32 constants [2, {channels}], got {tuple(constants.shape)}")
        if not all_finite(constants if self.dtype == "uint8" else values):
            raise WireError("received NaN or infinity")
        if self.dtype != "uint8":
            return values.float()
        low, high = _columns(constants, values.ndim, axis)
        # In float64, so that the two ends come back exactly and coding again changes nothing.
        between = values.double().div_(_LEVELS).mul_(high - low).add_(low)
        return torch.where(values == _LEVELS, high, between).float()


def all_finite(values: Tensor) -> bool:
    """Finiteness of every value. A finite sum says so at once; an infinite one may overflow."""
    return not values.is_floating_point() or math.isfinite(float(values.sum())) or bool(torch.isfinite(values).all())


def weight_axis(ndim: int) -> int | None:
    """Channel axis of a weight: 0 (output channels) from two axes on, none for vectors and scalars."""
    return 0 if ndim >= 2 else None


def _extremes(values: Tensor, axis: int | None) -> Tensor:
    """float32 [2, K]: lowest and highest value of each channel; zeros where a channel is empty."""
    rows = values.reshape(1, -1) if axis is None else values.movedim(axis, 0).flatten(1)
    return torch.stack([rows.amin(1), rows.amax(1)]) if rows.shape[1] else torch.zeros(2, len(rows))


def _columns(ends: Tensor, ndim: int, axis: int | None) -> tuple[Tensor, ...]:
    """The two rows of [2, K] as float64, shaped so that they broadcast along `axis` of a tensor with `ndim` axes."""
    shape = [2, *[1] * ndim]
    if axis is not None:
        shape[axis + 1] = -1
    return ends.double().view(shape).unbind()
