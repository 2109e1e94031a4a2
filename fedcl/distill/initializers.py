"""Starts of the synthetic images; with no steps to follow, this is selection."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec
from fedcl.core.rules import Checked, one_of, whole
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill import selection
from fedcl.distill.batch import NOTHING, Matched
from fedcl.distill.objectives.base import features_of
from fedcl.distill.parameterizations.zoom import grid

SELECTIONS = {
    select.__name__: select for select in (selection.random, selection.kmeans, selection.herding, selection.k_center)
}
SPACES = ("pixels", "features")


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """Real images of one class of one data set, and the first network where the initializer `needs` one."""

    inputs: Tensor  # uint8, all real images of the class, at least one
    spec: InputSpec
    label: int = 0
    matched: Matched = NOTHING

    def normalised(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """float32 [n, C, H, W]: some of the images, or all."""
        return self.spec.apply(self.inputs[rows])

    def features(self, space: str) -> Tensor:
        """float32 [n, D] on the CPU: all images, as "pixels" or as "features" of the network."""
        if space == "features":
            return features_of(self.inputs, self.matched.network, spec=self.spec).cpu()
        return self.normalised().flatten(1).cpu()


class Initializer(Checked, ABC):
    """A frozen dataclass of the initializer's numbers."""

    config_key = "initializer"

    needs: frozenset[str] = frozenset()  # of its networks, see `fedcl.distill.fit.NEEDS`

    @abstractmethod
    def images(self, held: ClassImages, count: int, seed: int) -> Tensor:
        """[n, C, H, W], n <= count, on the device of the real images: the class's start. uint8 pixels of real images
        that are chosen as they are, of all others normalised float32.

        n is smaller than `count` only where real images are picked and the class has too few. `seed` is of this
        class of this set alone.
        """


@dataclass(frozen=True, kw_only=True)
class Noise(Initializer):
    """Gaussian pixels in normalised units: nothing of anybody's data."""

    std: float = 1.0  # normalised units

    def images(self, held: ClassImages, count: int, seed: int) -> Tensor:
        noise = torch.randn(count, *held.inputs.shape[1:], generator=torch_rng(seed, "noise"))
        return (noise * self.std).to(held.inputs.device)


@dataclass(frozen=True, kw_only=True)
class _Chosen(Initializer):
    """Real images of the class, chosen by what they are close to."""

    select: Annotated[str, one_of(*SELECTIONS)] = "random"
    # where they are close: pixels, or features of the first network
    space: Annotated[str, one_of("pixels", "features")] = "pixels"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space == "features" and self.select == "random":
            raise ConfigError(
                "initializer.space=features decides nothing for random images; type initializer.space=pixels"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"embedding"} if self.space == "features" else ())

    def rows(self, held: ClassImages, count: int, seed: int) -> Tensor:
        """int64 row numbers on the device of the images, at most `count`, without repeats."""
        total, device = len(held.inputs), held.inputs.device
        if count >= total and self.select in ("random", "kmeans"):
            return torch.arange(total, device=device)
        chosen = SELECTIONS[self.select](held.features(self.space), min(count, total), derive(seed, "selection"))
        return chosen.to(device)


@dataclass(frozen=True, kw_only=True)
class Real(_Chosen):
    """Real images as they are: the summary may stay close to somebody's data."""

    pad: bool = False  # repeat images where the class has fewer than asked for

    def images(self, held: ClassImages, count: int, seed: int) -> Tensor:
        rows = self.rows(held, count, seed)
        if self.pad:
            rows = rows.repeat(-(-count // len(rows)))[:count]
        return held.inputs[rows]


@dataclass(frozen=True, kw_only=True)
class Mosaic(_Chosen):
    """Each image is a grid of factor x factor real images of the class, shrunk to its cells.

    IDC's "mix" (Kim et al., ICML 2022): with `parameterization=zoom` of the same factor every cell decodes to
    one of them. A class with too few images for `count` mosaics gives fewer, the last filled by repetition.
    """

    only_images = "initializer=real"
    factor: Annotated[int, whole(1, example=2)] = 2  # cells a side

    def images(self, held: ClassImages, count: int, seed: int) -> Tensor:
        return mosaics(held.normalised(self.rows(held, count * self.factor**2, seed)), self.factor)


@dataclass(frozen=True, kw_only=True)
class ClassMean(Initializer):
    """The mean image of the class plus Gaussian noise: no single real image is in the start."""

    std: float = 0.5  # of the noise, normalised units

    def images(self, held: ClassImages, count: int, seed: int) -> Tensor:
        mean = held.normalised().double().mean(0, keepdim=True).float()
        noise = torch.randn(count, *held.inputs.shape[1:], generator=torch_rng(seed, "noise"))
        return mean + (noise * self.std).to(held.inputs.device)


def mosaics(pieces_NCHW: Tensor, factor: int) -> Tensor:
    """[N / factor^2 rounded up, C, H, W]: grids of factor x factor pieces, each shrunk to its cell.

    Pieces fill one grid after the other, row by row; the last grid is filled up from the first piece on.
    """
    cells = factor**2
    grids = -(-len(pieces_NCHW) // cells)
    rows = torch.arange(grids * cells, device=pieces_NCHW.device) % len(pieces_NCHW)
    pieces = pieces_NCHW[rows].unflatten(0, (grids, cells))
    made = torch.empty_like(pieces[:, 0])
    for cell, (top, bottom, left, right) in enumerate(grid(factor, *pieces_NCHW.shape[2:])):
        made[:, :, top:bottom, left:right] = F.interpolate(pieces[:, cell], (bottom - top, right - left), mode="area")
    return made
