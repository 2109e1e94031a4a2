"""Where the synthetic images start; with no steps to follow, this is selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import Normalization
from fedcl.distill import selection
from fedcl.distill.parameterizations.zoom import grid

SELECTIONS = {
    "random": selection.random,
    "kmeans": selection.kmeans,
    "herding": selection.herding,
    "k_center": selection.k_center,
}


class Initializer(ABC):
    """Starting images of one class of one data set."""

    @abstractmethod
    def images(self, held_NCHW: Tensor, count: int, seed: int, normalization: Normalization) -> Tensor:
        """float32 [n, C, H, W], normalised, n <= count, on the device of `held_NCHW`.

        n is smaller than `count` only where real images are picked and the class has too few.

        Args:
            held_NCHW: uint8, all real images of the class, at least one.
            seed: of this class of this set alone.
        """


@dataclass(frozen=True, kw_only=True)
class Noise(Initializer):
    """Gaussian pixels in normalised units: nothing of anybody's data."""

    std: float = 1.0  # normalised units

    def images(self, held_NCHW: Tensor, count: int, seed: int, normalization: Normalization) -> Tensor:
        noise = torch.randn(count, *held_NCHW.shape[1:], generator=torch_rng(seed, "noise"))
        return (noise * self.std).to(held_NCHW.device)


@dataclass(frozen=True, kw_only=True)
class Real(Initializer):
    """Real images of the class, chosen in pixel space: the summary may stay close to somebody's data."""

    select: str = "random"  # random, kmeans, herding or k_center
    pad: bool = False  # repeat images where the class has fewer than asked for

    def __post_init__(self) -> None:
        _check_selection(self.select)

    def images(self, held_NCHW: Tensor, count: int, seed: int, normalization: Normalization) -> Tensor:
        rows = _chosen(self.select, held_NCHW, count, seed, normalization)
        if self.pad:
            rows = rows.repeat(-(-count // len(rows)))[:count]
        return normalization.apply(held_NCHW[rows])


@dataclass(frozen=True, kw_only=True)
class Mosaic(Initializer):
    """Each image is a grid of factor x factor real images of the class, shrunk to its cells.

    IDC's "mix" (Kim et al., ICML 2022): with `parameterization=zoom` of the same factor every cell decodes to
    one of them. A class with too few images for `count` mosaics gives fewer, the last filled by repetition.
    """

    factor: int = 2  # cells a side
    select: str = "random"  # which real images: random, kmeans, herding or k_center

    def __post_init__(self) -> None:
        _check_selection(self.select)
        if self.factor < 1:
            raise ConfigError(f"initializer.factor={self.factor} must be at least 1")

    def images(self, held_NCHW: Tensor, count: int, seed: int, normalization: Normalization) -> Tensor:
        cells = self.factor**2
        rows = _chosen(self.select, held_NCHW, count * cells, seed, normalization)
        full = -(-len(rows) // cells) * cells
        rows = rows.repeat(-(-full // len(rows)))[:full]
        pieces = normalization.apply(held_NCHW[rows]).unflatten(0, (-1, cells))
        mosaics = torch.empty_like(pieces[:, 0])
        for cell, (top, bottom, left, right) in enumerate(grid(self.factor, *held_NCHW.shape[2:])):
            shrunk = F.interpolate(pieces[:, cell], (bottom - top, right - left), mode="area")
            mosaics[:, :, top:bottom, left:right] = shrunk
        return mosaics


@dataclass(frozen=True, kw_only=True)
class ClassMean(Initializer):
    """The mean image of the class plus Gaussian noise: no single real image is in the start."""

    std: float = 0.5  # of the noise, normalised units

    def images(self, held_NCHW: Tensor, count: int, seed: int, normalization: Normalization) -> Tensor:
        mean = normalization.apply(held_NCHW.double().mean(0, keepdim=True)).float()
        noise = torch.randn(count, *held_NCHW.shape[1:], generator=torch_rng(seed, "noise"))
        return mean + (noise * self.std).to(held_NCHW.device)


def _check_selection(name: str) -> None:
    if name not in SELECTIONS:
        raise ConfigError(f"initializer.select={name} is not known; choose {', '.join(SELECTIONS)}")


def _chosen(name: str, held_NCHW: Tensor, count: int, seed: int, normalization: Normalization) -> Tensor:
    """int64 row numbers on the device of the images, at most `count`, without repeats."""
    n = min(count, len(held_NCHW))
    if n == len(held_NCHW) and name in ("random", "kmeans"):
        return torch.arange(n, device=held_NCHW.device)
    features = normalization.apply(held_NCHW).flatten(1).cpu()
    return SELECTIONS[name](features, n, derive(seed, "selection")).to(held_NCHW.device)
