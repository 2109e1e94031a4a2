"""The image side of a scenario's named transforms: uint8 images in, uint8 images of the same shape out.

Everything is deterministic: a permutation is named by its value, noise by the set that it falls on.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.seeding import torch_rng
from fedcl.scenario.base import parse_transform

CHUNK = 4096  # images transformed at a time


def transform(images_NCHW: Tensor, name: str, seed: int) -> Tensor:
    """The uint8 images, on any device, under a transform ("" or one of `fedcl.scenario.base.TRANSFORMS`: "rotate:30").

    `seed` names the noise of this set; the other transforms do not read it. ScenarioError where there is no such one.
    """
    kind, value = parse_transform(name)
    if kind == "" or not len(images_NCHW):
        return images_NCHW
    if kind == "permute":
        return permuted(images_NCHW, int(value))
    generator = torch_rng(seed, "noise")
    apply = {"rotate": rotated, "blur": blurred, "noise": partial(noisy, generator=generator)}[kind]
    parts = [apply(part.float(), value).round_().clamp_(0, 255).to(torch.uint8) for part in images_NCHW.split(CHUNK)]
    return torch.cat(parts)


def noisy(images_NCHW: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Float images with Gaussian noise, drawn on the CPU; `std` is a fraction of the pixel range."""
    return images_NCHW + torch.randn(images_NCHW.shape, generator=generator).to(images_NCHW.device) * (std * 255)


def permuted(images_NCHW: Tensor, seed: int) -> Tensor:
    """Pixels in another order, the same for all images and channels."""
    height, width = images_NCHW.shape[2:]
    order = torch.randperm(height * width, generator=torch_rng(seed, "pixel permutation"))
    return images_NCHW.flatten(2)[:, :, order.to(images_NCHW.device)].reshape(images_NCHW.shape)


def rotated(images_NCHW: Tensor, degrees: float) -> Tensor:
    """Float images turned counter-clockwise about their centre, bilinear, black coming in."""
    height, width = images_NCHW.shape[2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid counts in half sides, so the sides enter where an image is not square
    rows = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
    theta = torch.tensor(rows, device=images_NCHW.device).expand(len(images_NCHW), 2, 3)
    grid = F.affine_grid(theta, list(images_NCHW.shape), align_corners=False)
    return F.grid_sample(images_NCHW, grid, align_corners=False)


def blurred(images_NCHW: Tensor, sigma: float) -> Tensor:
    """Float images under a Gaussian of standard deviation `sigma` pixels, cut at 3 sigma, edges repeated."""
    if sigma == 0:
        return images_NCHW
    channels = images_NCHW.shape[1]
    reach = max(1, math.ceil(3 * sigma))
    distance = torch.arange(-reach, reach + 1, device=images_NCHW.device, dtype=torch.float32)
    weight = torch.exp(-0.5 * (distance / sigma) ** 2)
    kernel = (weight / weight.sum()).expand(channels, 1, -1)
    images = F.pad(images_NCHW, (reach, reach, 0, 0), mode="replicate")
    images = F.conv2d(images, kernel[:, :, None, :], groups=channels)
    images = F.pad(images, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(images, kernel[:, :, :, None], groups=channels)
