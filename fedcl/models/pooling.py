"""Average pooling, in the form that is fastest on the device."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AveragePool2(nn.Module):
    """2x2 average pooling with stride 2; an odd last row or column is left out, as in `nn.AvgPool2d(2)`.

    On the CPU two rows of an image are one row of a matrix product with fixed weights of 1/4: the same
    numbers to the last rounding, several times faster than the library's loop, forwards and backwards, and in
    bfloat16 on matrix units. A compiler writes a better loop itself, together with what is around it.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.device.type != "cpu" or torch.compiler.is_compiling():
            return F.avg_pool2d(x_NCHW, 2)
        n, channels, height, width = x_NCHW.shape
        height, width = height // 2, width // 2
        pairs = x_NCHW[:, :, : 2 * height, : 2 * width].reshape(n * channels * height, 4 * width)
        return (pairs @ weights(width, x_NCHW.dtype)).view(n, channels, height, width)


@functools.cache
def weights(width: int, dtype: torch.dtype) -> Tensor:
    """[4 width, width]: 1/4 where an entry of two rows of 2 x `width` pixels belongs to an output pixel."""
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        row = torch.eye(width, dtype=dtype, device="cpu").repeat_interleave(2, 0) / 4
        return torch.cat([row, row])
