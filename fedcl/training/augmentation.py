"""Differentiable Siamese augmentation (Zhao & Bilen, ICML 2021), vectorised.

A *draw* holds the parameters of G transformations. One draw is applied to real and synthetic images alike (each image
names its row of the draw), or, in training, every image has a row of its own. A row applies exactly one of the groups,
and perhaps some others always. Training may mix two images into one besides (CutMix; Yun et al., ICCV 2019).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.rules import Checked, each, number, one_of

GROUPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
Draw = dict[str, Tensor]  # name -> [G, ...] on the CPU
Shares = tuple[tuple[float, Tensor], ...]  # (weight of the loss, targets or their rows); the weights sum to 1


class Augmentation(Checked, ABC):
    """A random, differentiable map of network inputs."""

    config_key = "augmentation"

    only_images: ClassVar[str | None] = None  # what to type where inputs are no images; None: it takes any
    mixes: ClassVar[bool] = False  # True where `mix` may change a batch

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator, *, flip: bool) -> Draw | None:
        """Parameters of `count` transformations, None where images stay as they are; without `flip` no row mirrors."""

    @abstractmethod
    def apply(self, images_NCHW: Tensor, draw: Draw | None, row_N: Tensor | None = None) -> Tensor:
        """Images, each transformed by its row of the draw (`row_N` int64 on the CPU; None: row i for image i)."""

    def mix(self, images_NCHW: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Shares]:
        """Images that may show parts of two, and the targets of each part (or their rows in a table) with its share."""
        return images_NCHW, ((1.0, targets),)


@dataclass(frozen=True, kw_only=True)
class NoAugmentation(Augmentation):
    """The identity."""

    def draw(self, count: int, generator: torch.Generator, *, flip: bool) -> Draw | None:
        return None

    def apply(self, images_NCHW: Tensor, draw: Draw | None, row_N: Tensor | None = None) -> Tensor:
        return images_NCHW


@dataclass(frozen=True, kw_only=True)
class CutMix(NoAugmentation):
    """Batches that are mixed with a probability, and nothing else."""

    # probability that a training batch is mixed (see `cut_and_mix`)
    cutmix: Annotated[float, number(least=0, most=1, example=0.5)] = 0.0

    @property
    def only_images(self) -> str | None:
        return "augmentation.cutmix=0" if self.cutmix else None

    @property
    def mixes(self) -> bool:
        return self.cutmix > 0

    def mix(self, images_NCHW: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Shares]:
        if self.cutmix and len(images_NCHW):
            chance, area, y, x = torch.rand(4, generator=generator).tolist()
            partner_N = torch.randperm(len(images_NCHW), generator=generator).to(images_NCHW.device)
            if chance < self.cutmix:
                images, share = cut_and_mix(images_NCHW, partner_N, area, y, x)
                return images, ((share, targets), (1 - share, targets[partner_N]))
        return super().mix(images_NCHW, targets, generator)


@dataclass(frozen=True, kw_only=True)
class OnlyMixed(NoAugmentation):
    """The mixing of another augmentation alone, for images that it has transformed already."""

    of: Augmentation

    @property
    def mixes(self) -> bool:
        return self.of.mixes

    def mix(self, images_NCHW: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Shares]:
        return self.of.mix(images_NCHW, targets, generator)


@dataclass(frozen=True, kw_only=True)
class Siamese(CutMix):
    """DSA's transformations and strengths; `groups` are chosen with equal probability, one a row."""

    groups: Annotated[tuple[str, ...], each(one_of(*GROUPS), empty=False)] = GROUPS
    # groups for every row besides: before the chosen one, cutout after it (IDC)
    always: Annotated[tuple[str, ...], each(one_of(*GROUPS))] = ()
    brightness: float = 1.0  # added: U(-0.5, 0.5) * brightness, in normalised units
    saturation: float = 2.0  # distance to the pixel's channel mean, times U(0, 1) * saturation
    contrast: float = 0.5  # distance to the image's mean, times U(0, 1) + contrast
    crop: float = 0.125  # largest shift, as a fraction of the side, zeros come in
    cutout: float = 0.5  # side of the square set to zero, as a fraction of the side
    scale: Annotated[float, number(least=1, example=1.2)] = 1.2  # sides scaled by U(1/scale, scale), independently
    rotate: float = 15.0  # degrees, U(-rotate, rotate)

    @property
    def only_images(self) -> str | None:
        return "augmentation=none"

    def draw(self, count: int, generator: torch.Generator, *, flip: bool) -> Draw | None:
        groups, always = ([name for name in names if flip or name != "flip"] for names in (self.groups, self.always))
        draw: Draw = {}
        if groups:
            codes = torch.tensor([list(TRANSFORMS).index(name) for name in groups])
            choice = torch.randint(len(groups), (count,), generator=generator)
            draw |= {"group": codes[choice], "uniform": torch.rand(count, 4, generator=generator)}
        draw |= {f"always {name}": torch.rand(count, 4, generator=generator) for name in always}
        return draw or None

    def apply(self, images_NCHW: Tensor, draw: Draw | None, row_N: Tensor | None = None) -> Tensor:
        if draw is None or not len(images_NCHW):
            return images_NCHW
        if row_N is not None:
            draw = {name: values[row_N] for name, values in draw.items()}
        for name in (*(name for name in self.always if name != "cutout"), "chosen", "cutout"):
            if name == "chosen" and "group" in draw:
                images_NCHW = self._chosen(images_NCHW, draw["group"], draw["uniform"])
            elif (uniform := draw.get(f"always {name}")) is not None:
                images_NCHW = TRANSFORMS[name](self, images_NCHW, uniform.to(images_NCHW.device))
        return images_NCHW

    def _chosen(self, images_NCHW: Tensor, group: Tensor, uniform: Tensor) -> Tensor:
        device, parts, places = images_NCHW.device, [], []
        for code, transform in enumerate(TRANSFORMS.values()):
            rows = torch.nonzero(group == code)[:, 0]
            if len(rows):
                parts.append(transform(self, images_NCHW[rows.to(device)], uniform[rows].to(device)))
                places.append(rows)
        return torch.cat(parts)[torch.argsort(torch.cat(places)).to(device)]


def cut_and_mix(images_NCHW: Tensor, partner_N: Tensor, area: float, y: float, x: float) -> tuple[Tensor, float]:
    """Images with one rectangle taken from their partners, and the share of the pixels that they keep.

    Args:
        area: of the rectangle over that of the image, as long as it lies inside.
        y, x: in [0, 1), where its middle is; what sticks out is lost.
    """
    spans = []
    for side, middle in zip(images_NCHW.shape[2:], (y, x), strict=True):
        half, centre = int(side * math.sqrt(area)) // 2, int(side * middle)
        spans.append((max(centre - half, 0), min(centre + half, side)))
    (top, bottom), (left, right) = spans
    mixed = images_NCHW.clone()
    mixed[:, :, top:bottom, left:right] = images_NCHW[partner_N, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / math.prod(images_NCHW.shape[2:])


def _color(strength: Siamese, x: Tensor, u: Tensor) -> Tensor:
    u = u[:, :, None, None, None]
    x = x + (u[:, 0] - 0.5) * strength.brightness
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * (u[:, 1] * strength.saturation) + mean if x.shape[1] > 1 else x
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (u[:, 2] + strength.contrast) + mean


def shifted(x: Tensor, dy_N: Tensor, dx_N: Tensor) -> Tensor:
    """Each image moved by whole pixels, zeros coming in."""
    n, _, height, width = x.shape
    rows = torch.arange(height, device=x.device) + dy_N[:, None]
    columns = torch.arange(width, device=x.device) + dx_N[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = x[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside[:, None]


def _crop(strength: Siamese, x: Tensor, u: Tensor) -> Tensor:
    reach_y, reach_x = (int(side * strength.crop + 0.5) for side in x.shape[2:])
    dy = torch.floor(u[:, 0] * (2 * reach_y + 1)).long() - reach_y
    dx = torch.floor(u[:, 1] * (2 * reach_x + 1)).long() - reach_x
    return shifted(x, dy, dx)


def _cutout(strength: Siamese, x: Tensor, u: Tensor) -> Tensor:
    masks = []
    for axis, side in enumerate(x.shape[2:]):
        size = int(side * strength.cutout + 0.5)
        start = torch.floor(u[:, axis] * (side + (1 - size % 2))).long() - size // 2
        place = torch.arange(side, device=x.device)
        masks.append((place >= start[:, None]) & (place < start[:, None] + size))
    hidden = masks[0][:, :, None] & masks[1][:, None, :]
    return x * (~hidden)[:, None]


def _flip(strength: Siamese, x: Tensor, u: Tensor) -> Tensor:
    return torch.where(u[:, 0, None, None, None] < 0.5, x.flip(3), x)


def _affine(x: Tensor, matrix_N22: Tensor) -> Tensor:
    grid = F.affine_grid(F.pad(matrix_N22, (0, 1)), list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, align_corners=True)


def _scale(strength: Siamese, x: Tensor, u: Tensor) -> Tensor:
    low, high = 1 / strength.scale, strength.scale
    return _affine(x, torch.diag_embed(u[:, :2] * (high - low) + low))


def _rotate(strength: Siamese, x: Tensor, u: Tensor) -> Tensor:
    angle = (u[:, 0] - 0.5) * 2 * strength.rotate * math.pi / 180
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return _affine(x, torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2))


# u holds four uniform numbers a row; each transformation reads the first ones that it needs
TRANSFORMS = {"color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate}
