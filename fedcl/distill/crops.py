"""Realistic crops: the parts of real images that a trained network is surest of, as they are.

RDED (Sun et al., CVPR 2024, "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation
Paradigm"), section 4, and its public code: random square crops of real images are scored by the cross-entropy of the
trained network for the image's class, the best crop of each image stays, the best of those are put together,
factor x factor an image. Nothing is optimised.

What the paper leaves open or its code has in another way: crops are cut bilinearly to full size and shrunk by `area`
(its code resizes with antialiasing at once), and where a class has too few images for all cells it gives fewer.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.rules import whole
from fedcl.core.seeding import torch_rng
from fedcl.distill.initializers import ClassImages, Initializer, mosaics
from fedcl.distill.teacher import logits


@dataclass(frozen=True, kw_only=True)
class Crops(Initializer):
    """Grids of the crops with the least cross-entropy under the trained network, one crop of an image at most."""

    needs = frozenset({"trained"})

    factor: Annotated[int, whole(1, example=1)] = 1  # cells a side of an image, each a crop
    crops: Annotated[int, whole(1, example=5)] = 5  # of each real image
    # real images of a class that are looked at, uniformly; at least as many as there are cells
    candidates: Annotated[int, whole(1, example=300)] = 300
    area: tuple[float, float] = (0.08, 1.0)  # least and largest part of the image that a crop shows, uniformly

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(f"initializer.area={list(self.area)} must be two rising parts of the image, as [0.08,1]")

    def images(self, held: ClassImages, count: int, seed: int) -> Tensor:
        generator, cells = torch_rng(seed, "crops"), self.factor**2
        looked_at = max(self.candidates, count * cells)
        rows = torch.randperm(len(held.inputs), generator=generator)[:looked_at]
        whole = held.normalised(rows.to(held.inputs.device))
        label_N = torch.full((len(whole),), held.label, device=whole.device)
        best, least_N = whole, torch.full((len(whole),), torch.inf, device=whole.device)
        for _ in range(self.crops):
            crops = random_crops(whole, self.area, generator)
            surprise_N = F.cross_entropy(logits(held.matched.trained, self._shown(crops)), label_N, reduction="none")
            better_N = surprise_N < least_N
            best = torch.where(better_N[:, None, None, None], crops, best)
            least_N = torch.where(better_N, surprise_N, least_N)
        order = torch.argsort(least_N, stable=True)[: count * cells]
        if len(order) == count * cells:  # as in its code: the surest crops are spread over the images, one each
            order = order.view(cells, count).T.flatten()
        return mosaics(best[order], self.factor)

    def _shown(self, crops_NCHW: Tensor) -> Tensor:
        """A crop as it is scored: at the size of its cell, in the middle of an image of the mean colour."""
        height, width = crops_NCHW.shape[2:]
        h, w = max(1, height // self.factor), max(1, width // self.factor)
        top, left = (height - h) // 2, (width - w) // 2
        return F.pad(F.interpolate(crops_NCHW, (h, w), mode="area"), (left, width - w - left, top, height - h - top))


def random_crops(images_NCHW: Tensor, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """[N, C, H, W]: of each image a part of its own shape, anywhere, bilinearly brought to full size.

    `area` bounds the part's area, as a fraction of the image's.
    """
    uniform_N3 = torch.rand(len(images_NCHW), 3, generator=generator).to(images_NCHW.device)
    side_N = (area[0] + (area[1] - area[0]) * uniform_N3[:, 0]).sqrt()
    # in affine_grid's coordinates an image spans [-1, 1]: a part of side s may have its middle in [s - 1, 1 - s]
    y_N, x_N = ((1 - side_N) * (2 * uniform_N3[:, k] - 1) for k in (1, 2))
    zero = torch.zeros_like(side_N)
    theta = torch.stack([torch.stack([side_N, zero, x_N], 1), torch.stack([zero, side_N, y_N], 1)], 1)
    grid = F.affine_grid(theta, list(images_NCHW.shape), align_corners=False)
    return F.grid_sample(images_NCHW, grid, padding_mode="border", align_corners=False)
