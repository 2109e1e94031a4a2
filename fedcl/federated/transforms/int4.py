"""Four bits an entry by stochastic rounding, two entries a byte, with one scale for every tensor.

Stochastic k-level quantisation: Suresh, Yu, Kumar, McMahan, ICML 2017, arXiv 1611.00429, section 2.2, of each tensor by
itself. An entry becomes one of the two levels around it, with the probabilities that make the mean exact: there is no
error to feed back. The k = 15 levels lie from -max |x| to max |x|, not from the smallest entry to the largest as there,
so that 0 is one of them; the sixteenth code is unused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.core.seeding import torch_rng
from fedcl.distill.context import Context
from fedcl.federated.payload import Weights
from fedcl.federated.transforms.base import Compressor, Parts, flat, take

LEVELS = 7  # above 0, and as many below


@dataclass(frozen=True, kw_only=True)
class Int4(Compressor):
    """ceil(P / 2) bytes for an update of P entries, and a float32 for every tensor. It needs no memory."""

    name = "int4"

    def compress(self, update: Weights, kept: Mapping[str, Tensor], ctx: Context) -> tuple[Parts, Parts]:
        rng = torch_rng(ctx.seed, "quantisation", client=ctx.client, step=ctx.step, round=ctx.round)
        uniform_P = torch.rand(sum(t.numel() for t in update.values()), generator=rng, dtype=torch.float64)
        return self.quantise(update, uniform_P), {}

    def quantise(self, update: Weights, uniform_P: Tensor) -> Parts:
        """The update, rounded up where `uniform_P` in [0, 1) is below the distance to the level beneath."""
        scales_T = torch.stack([tensor.abs().max() for tensor in update.values()]) / LEVELS
        exact_P = flat(update).double() / _spread(scales_T, update).double().clamp_min(torch.finfo(torch.float64).tiny)
        floor_P = exact_P.clamp(-LEVELS, LEVELS).floor()  # a scale as float32 may be a little short
        level_P = (floor_P + (uniform_P < exact_P - floor_P)).clamp(-LEVELS, LEVELS)
        codes = F.pad((level_P + LEVELS).to(torch.uint8), (0, len(level_P) % 2)).view(-1, 2)
        return {"codes": codes[:, 0] * 16 + codes[:, 1], "scales": scales_T}

    def restore(self, parts: Mapping[str, Tensor], like: Weights) -> Tensor:
        size = sum(tensor.numel() for tensor in like.values())
        packed = take(parts, "codes", (math.ceil(size / 2),), torch.uint8)
        scales_T = take(parts, "scales", (len(like),), torch.float32)
        codes = torch.stack([packed // 16, packed % 16], dim=1).flatten()[:size]
        if size and int(codes.max()) > 2 * LEVELS:
            raise WireError(f"a quantised update holds the code {int(codes.max())}; int4 has 0 to {2 * LEVELS}")
        return (codes.float() - LEVELS) * _spread(scales_T, like)


def _spread(scales_T: Tensor, like: Weights) -> Tensor:
    """[P]: the scale of each entry's tensor."""
    return scales_T.repeat_interleave(torch.tensor([tensor.numel() for tensor in like.values()]))
