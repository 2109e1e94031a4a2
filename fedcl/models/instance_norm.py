"""Instance norm whose second derivative costs a few passes over memory.

Methods that differentiate a gradient (gradient and trajectory matching, unrolling) go twice through every norm. The
library's own second derivative is a chain of some twenty elementwise operations; here it is written out. The output and
the first derivative are the library's kernels, to the last bit.

For a row of L pixels, with x^ = (x - mean) r, r = 1 / sqrt(var + eps) and weight w, the gradient at the input is
w r P(g), P(u) = u - mean(u) - x^ mean(u x^). P is symmetric, so its adjoint is itself; what follows for g, x and w is
the derivation in `_Backward.backward`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedcl.models.compat import group_norm, group_norm_backward, is_functorch_wrapped_tensor


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


class _Forward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return group_norm(x, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, _, _ = inputs
        _, mean, inverse = output
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, weight, mean, inverse)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        return (*_Backward.apply(g.contiguous(), x, weight, mean, inverse), None)  # type: ignore[misc]


class _Backward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return group_norm_backward(g, x, mean, inverse, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
        """From the adjoints of the gradients at x (v), weight (a) and bias (b)."""
        g, x, weight, mean, inverse = ctx.saved_tensors
        shape, pixels = x.shape, x.shape[2:].numel()
        # rows [N, C, L]; numbers of a row [N, C, 1], of a channel [C, 1]; weights are float32, images may be less
        v, g, x = (t.reshape(*shape[:2], pixels).to(weight.dtype) for t in (v, g, x))
        r, w, a, b = inverse.view(*shape[:2], 1), weight[:, None], a[:, None], b[:, None]
        hat = (x - mean.view(*shape[:2], 1)) * r
        mean_v, mean_g = v.mean(2, keepdim=True), g.mean(2, keepdim=True)
        v_hat, g_hat = dot(v, hat) / pixels, dot(g, hat) / pixels
        both = dot(v, g) / pixels - mean_v * mean_g - v_hat * g_hat  # mean(v P(g))
        scale = w * r
        # at g: scale P(v) + a x^ + b
        at_g = torch.addcmul(b - scale * mean_v, hat, a - scale * v_hat).addcmul(v, scale)
        # at x: r P(h) for h = a g - scale (v_hat g + g_hat v), the adjoint of x^, and what r itself depends on x by
        of_g, of_v = a - scale * v_hat, -scale * g_hat
        mean_h, h_hat = of_g * mean_g + of_v * mean_v, of_g * g_hat + of_v * v_hat
        at_x = torch.addcmul(-r * mean_h, hat, -r * (h_hat + scale * both)).addcmul(g, r * of_g).addcmul(v, r * of_v)
        at_weight = (r * both).sum((0, 2)) * pixels
        dtype = ctx.saved_tensors[0].dtype
        return at_g.view(shape).to(dtype), at_x.view(shape).to(dtype), at_weight, None, None


def dot(left_NCL: Tensor, right_NCL: Tensor) -> Tensor:
    """[N, C, 1]: the scalar product of each row."""
    return torch.linalg.vecdot(left_NCL, right_NCL).unsqueeze(2)
