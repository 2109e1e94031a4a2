"""Normalisation layers by name, and the instance norm whose second derivative costs a few passes over memory.

Methods that differentiate a gradient (gradient and trajectory matching, unrolling) go twice through every norm. The
library's own second derivative is a chain of some twenty elementwise operations; here it is written out. The output and
the first derivative are the library's kernels, to the last bit.

For a row of L pixels, with x^ = (x - mean) r, r = 1 / sqrt(var + eps) and weight w, the gradient at the input is
w r P(g), P(u) = u - mean(u) - x^ mean(u x^). P is symmetric, so its adjoint is itself; what follows for g, x and w is
the derivation in `_Backward.backward`. The kernels, and `is_functorch_wrapped_tensor`, are private parts of torch: a
version that moves one of them breaks this file alone.
"""

from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.function import once_differentiable

from fedcl.core.errors import ConfigError

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
NORMS = ("instance", "group", "batch", "none")


def norm_layer(kind: str, width: int, side: int = 2) -> nn.Module:
    """Normalisation layer for `width` channels of `side` pixels a side.

    "instance" is group norm with one channel a group, affine, as the field's code has it; "group" has up to 32
    groups (Wu & He, ECCV 2018); "batch" is the only one that mixes images; "none" is the identity.

    Raises:
        ConfigError: no such norm, or one that would answer zero to everything.
    """
    if kind not in NORMS:
        raise ConfigError(f"model.norm={kind} is not known; choose {', '.join(NORMS)}")
    groups = width if kind == "instance" else gcd(32, width)
    if side < 2 and kind in ("instance", "group") and groups == width:
        raise ConfigError(
            f"model.norm={kind} over one pixel and one channel is always zero, and these images leave one pixel "
            f"of {width} channels; type model.norm=none, or model.norm=group with a multiple of 64 channels"
        )
    if kind == "instance":
        return InstanceNorm(width)
    if kind == "group":
        return nn.GroupNorm(groups, width)
    return nn.BatchNorm2d(width) if kind == "batch" else nn.Identity()


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """Layers that, in train mode, normalise an image by those that share its pass, and keep running statistics."""
    return [layer for layer in network.modules() if isinstance(layer, BatchNorm)]


class InstanceNorm(nn.GroupNorm):
    """Group norm of one channel a group, affine: [N, C, H, W] to the same; differentiable twice, not three times."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not x_NCHW.is_contiguous():
            return super().forward(x_NCHW)
        if x_NCHW.dtype != self.weight.dtype and is_functorch_wrapped_tensor(x_NCHW):
            return super().forward(x_NCHW)  # vmap's rule for the kernels below wants one dtype
        return _Forward.apply(x_NCHW, self.weight, self.bias, self.eps)[0]  # type: ignore[index]


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    """Images, channels, pixels and groups, as the kernels want them."""
    return x.shape[0], x.shape[1], x.shape[2:].numel(), x.shape[1]


class _Forward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """The output [N, C, H, W], and mean and 1 / std of each row [N, C]."""
        return torch.native_group_norm(x, weight, bias, *_sizes(x), eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:2], *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return (*_Backward.apply(g.contiguous(), *ctx.saved_tensors), None)  # type: ignore[misc]


class _Backward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients at x, weight and bias, for the gradient g at the output."""
        kernel = torch.ops.aten.native_group_norm_backward
        return kernel(g, x, mean, inverse, weight, *_sizes(x), [True, True, True])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
        """From the adjoints of the gradients at x (v), weight (a) and bias (b)."""
        g, x, weight, mean, inverse = ctx.saved_tensors
        shape, dtype, pixels = x.shape, x.dtype, x.shape[2:].numel()
        # rows [N, C, L]; numbers of a row [N, C, 1], of a channel [C, 1]; weights are float32, images may be less
        v, g, x = (t.reshape(*shape[:2], pixels).to(weight.dtype) for t in (v, g, x))
        mean, r, w, a, b = (
            mean.view(*shape[:2], 1),
            inverse.view(*shape[:2], 1),
            weight[:, None],
            a[:, None],
            b[:, None],
        )
        hat = (x - mean) * r
        mean_v, mean_g = v.mean(2, keepdim=True), g.mean(2, keepdim=True)
        v_hat, g_hat = _dot(v, hat) / pixels, _dot(g, hat) / pixels
        both = _dot(v, g) / pixels - mean_v * mean_g - v_hat * g_hat  # mean(v P(g))
        scale = w * r
        # at g: scale P(v) + a x^ + b
        at_g = torch.addcmul(b - scale * mean_v, hat, a - scale * v_hat).addcmul(v, scale)
        # at x: r P(h) for h = a g - scale (v_hat g + g_hat v), the adjoint of x^, and what r itself depends on x by
        of_g, of_v = a - scale * v_hat, -scale * g_hat
        mean_h, h_hat = of_g * mean_g + of_v * mean_v, of_g * g_hat + of_v * v_hat
        at_x = torch.addcmul(-r * mean_h, hat, -r * (h_hat + scale * both)).addcmul(g, r * of_g).addcmul(v, r * of_v)
        at_weight = (r * both).sum((0, 2)) * pixels
        return at_g.view(shape).to(dtype), at_x.view(shape).to(dtype), at_weight, None, None


def _dot(left_NCL: Tensor, right_NCL: Tensor) -> Tensor:
    """[N, C, 1]: the scalar product of each row."""
    return torch.linalg.vecdot(left_NCL, right_NCL).unsqueeze(2)
