"""Frequencies: a stored entry is a part of an image's discrete cosine transform.

Frequency Domain-based Dataset Distillation (FreD; Shin et al., NeurIPS 2023), section 3: the
coefficients that carry most of the real data's energy are kept and optimised, the others are zero, so that
the bytes of one image hold several. The paper has a mask a class; here it is one a summary, in its arrays.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fedcl.core.errors import ConfigError, DataError, DistillError
from fedcl.core.rules import number, whole
from fedcl.core.types import ArraySpec
from fedcl.distill.parameterizations.base import Parameterization

LARGEST = 256  # side of an image: places of coefficients stay what they are on every wire


def cosine_basis(size: int, device: torch.device) -> Tensor:
    """float32 [size, size], orthonormal: row k is frequency k of the DCT-II."""
    k = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (k + 0.5)[None, :] * k[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)


def transform(images_NCHW: Tensor) -> Tensor:
    """[N, C, H, W] coefficients of the orthonormal two-dimensional DCT-II; squares keep their sum."""
    rows, columns = (cosine_basis(side, images_NCHW.device) for side in images_NCHW.shape[2:])
    return rows @ images_NCHW @ columns.T


def energy(images_NCHW: Tensor, chunk: int = 1024) -> Tensor:
    """float64 [H, W]: mean square of every coefficient over uint8 images, less their mean grey."""
    total = torch.zeros(images_NCHW.shape[2:], dtype=torch.float64)
    grey = sum(float(part.sum(dtype=torch.int64)) for part in images_NCHW.split(chunk)) / images_NCHW.numel()
    for part in images_NCHW.split(chunk):
        total += transform(part.float() - grey).double().square().sum((0, 1)).cpu()
    return total / len(images_NCHW)


@dataclass(frozen=True, kw_only=True)
class Frequency(Parameterization):
    """Arrays: "coefficients", float32 [N, C * k], channel by channel; "kept", float32 [2, k].

    "kept" holds row and column of each of the k kept coefficients, whole numbers below 256. A uint8 wire scales each
    coefficient by itself, as the spectrum falls steeply. Bytes as float32: 4 (N * C * k + 2 k).
    """

    only_images = "parameterization=pixels"
    # coefficients a channel: below 1 that part of all (rounded, at least one), from 1 on so many
    kept: Annotated[float, number(above=0, example=0.25)] = 0.25
    # entries stored for each image of ipc; kept * multiple = 1 costs as many bytes as ipc images
    multiple: Annotated[int, whole(1, example=4)] = 4

    name: ClassVar = "frequency"
    arrays: ClassVar = {
        "coefficients": ArraySpec(role="row", coding="per_column"),
        "kept": ArraySpec(role="fixed", coding="exact"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept >= 1 and self.kept != int(self.kept):
            raise ConfigError(
                f"parameterization.kept={self.kept} is neither a part below 1 nor a whole number of coefficients; "
                f"type parameterization.kept={int(self.kept)}"
            )

    def count(self, height: int, width: int) -> int:
        """k, the coefficients a channel of images of that size."""
        return int(self.kept) if self.kept >= 1 else max(1, round(self.kept * height * width))

    def decode(self, arrays: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        channels, height, width = shape
        coefficients, places = arrays["coefficients"], arrays["kept"].round().long()
        if coefficients.ndim == 4:  # [N, C * k, 1, 1], as files of 0.1.0 have them
            coefficients = coefficients.flatten(1)
        k = self.count(height, width)
        if k > height * width or max(height, width) > LARGEST:
            raise DataError(f"frequency cannot make {height} x {width} images of {k} coefficients")
        if tuple(coefficients.shape[1:]) != (channels * k,) or tuple(places.shape) != (2, k):
            raise DataError(
                f"frequency needs coefficients [N, {channels * k}] and kept [2, {k}], "
                f"got {tuple(coefficients.shape)} and {tuple(places.shape)}"
            )
        rows, columns = (cosine_basis(side, coefficients.device) for side in (height, width))
        last = places.new_tensor([[height - 1], [width - 1]])
        if not coefficients.requires_grad and ((places < 0) | (places > last)).any():
            raise DataError(f"a kept coefficient lies outside {height} x {width}")
        # image = sum over kept (k, l) of coefficient * rows[k] outer columns[l]
        atoms = (rows[places[0]][:, :, None] * columns[places[1]][:, None, :]).flatten(1)
        return (coefficients.reshape(-1, k) @ atoms).view(-1, channels, height, width)

    def num_initial(self, ipc: int) -> int:
        return ipc * self.multiple

    def encode(self, images_NCHW: Tensor, real_NCHW: Tensor) -> dict[str, Tensor]:
        _, channels, height, width = images_NCHW.shape
        k = self.count(height, width)
        if k > height * width or max(height, width) > LARGEST:
            raise DistillError(
                f"parameterization.kept={self.kept} does not suit {height} x {width} images: at most "
                f"{height * width} coefficients, and sides of at most {LARGEST}"
            )
        strength = energy(real_NCHW).flatten() if len(real_NCHW) else torch.zeros(height * width)
        places = torch.argsort(strength, descending=True, stable=True)[:k].sort().values
        places = torch.stack([places // width, places % width]).to(images_NCHW.device)
        spectrum = transform(images_NCHW.detach())[:, :, places[0], places[1]]
        return {"coefficients": spectrum.reshape(len(spectrum), channels * k).clone(), "kept": places.float()}


DECODER = Frequency
