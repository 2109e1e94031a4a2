"""Normalisation constants measured on a training set."""

import math

import torch
from torch import Tensor

from fedcl.core.errors import DataError
from fedcl.core.inputs import Normalization

_CHUNK = 4096  # images counted at a time, so that no wide copy of the whole set is made


def measure(images_NCHW: Tensor) -> Normalization:
    """Mean and population standard deviation of every channel of uint8 images, exact up to the last division.

    Pixels are counted by value, and the moments follow from the 256 counts in whole numbers. A channel whose pixels
    are all equal gets std 1.0, so that it normalises to 0 rather than to NaN. DataError where there is no pixel.
    """
    if images_NCHW.dtype != torch.uint8 or images_NCHW.ndim != 4 or not images_NCHW.numel():
        raise DataError(
            f"cannot measure the normalisation of {images_NCHW.dtype} {tuple(images_NCHW.shape)}: "
            "it needs uint8 [N, C, H, W] with at least one image"
        )
    mean, std = [], []
    for channel_NHW in images_NCHW.unbind(1):
        counts = sum(torch.bincount(part.reshape(-1), minlength=256) for part in channel_NHW.split(_CHUNK))
        histogram = list(enumerate(torch.as_tensor(counts).tolist()))
        total, first, second = (sum(count * value**power for value, count in histogram) for power in range(3))
        mean.append(first / total / 255)
        std.append(math.sqrt((total * second - first * first) / total**2) / 255 or 1.0)
    return Normalization(mean=tuple(mean), std=tuple(std))
