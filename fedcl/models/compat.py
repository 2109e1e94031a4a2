"""Private parts of torch, in one place: the kernels of group norm, and the wrappers of torch.func.

A version of torch that moves one of these names breaks this file alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

__all__ = ["group_norm", "group_norm_backward", "is_functorch_wrapped_tensor"]

Three = tuple[Tensor, Tensor, Tensor]


def group_norm(x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> Three:
    """Group norm of one channel a group: the output, and mean and 1 / std of each row [N, C]."""
    return torch.native_group_norm(x_NCHW, weight_C, bias_C, *_sizes(x_NCHW), eps)


def group_norm_backward(g_NCHW: Tensor, x_NCHW: Tensor, mean_NC: Tensor, inverse_NC: Tensor, weight_C: Tensor) -> Three:
    """Gradients of `group_norm` at x, weight and bias, for the gradient g at its output."""
    kernel = torch.ops.aten.native_group_norm_backward
    return kernel(g_NCHW, x_NCHW, mean_NC, inverse_NC, weight_C, *_sizes(x_NCHW), [True, True, True])


def _sizes(x_NCHW: Tensor) -> tuple[int, int, int, int]:
    """Images, channels, pixels and groups, as the kernels want them."""
    n, channels = x_NCHW.shape[:2]
    return n, channels, x_NCHW.shape[2:].numel(), channels
