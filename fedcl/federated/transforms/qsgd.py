"""QSGD: stochastic quantisation that is right on average.

Alistarh, Grubic, Li, Tomioka, Vojnovic, NeurIPS 2017, arXiv 1610.02132, section 3.1: in a bucket v, entry i becomes
||v||_2 sgn(v_i) l / s, where l is the whole number below s |v_i| / ||v||_2, or the one above with the probability that
makes the mean exact. Buckets of 512 entries at 4 bits are among the settings of the paper's experiments. A level with
its sign takes ceil(log2(2 s + 1)) bits; the paper's Elias code, shorter where most levels are 0, is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.core.rules import whole
from fedcl.core.seeding import torch_rng
from fedcl.distill.context import Context
from fedcl.federated.transforms.base import VectorCompressor, take


@dataclass(frozen=True, kw_only=True)
class QSGD(VectorCompressor):
    """ceil(P bits / 8) bytes for an update of P entries, and a float32 for every bucket. It needs no memory."""

    name = "qsgd"

    levels: Annotated[int, whole(1, 127, example=7)] = 7  # s: seven levels, their signs and zero are 15 values, 4 bits
    bucket: Annotated[int, whole(1, example=512)] = 512  # entries that share one norm

    @property
    def bits(self) -> int:
        """Bits of an entry: 2 s + 1 values."""
        return math.ceil(math.log2(2 * self.levels + 1))

    def encode(self, update_P: Tensor, ctx: Context) -> dict[str, Tensor]:
        rng = torch_rng(ctx.seed, "quantisation", client=ctx.client, step=ctx.step, round=ctx.round)
        return self.quantise(update_P, torch.rand(len(update_P), generator=rng, dtype=torch.float64))

    def quantise(self, update_P: Tensor, uniform_P: Tensor) -> dict[str, Tensor]:
        """The update, rounded up where `uniform_P` in [0, 1) is below the distance to the level beneath."""
        rows = self._rows(update_P)
        norms_B = rows.double().norm(dim=1).float()
        share = rows.abs() / norms_B.double().clamp_min(torch.finfo(torch.float64).tiny)[:, None]
        exact = (share * self.levels).clamp_max(self.levels)  # the norm as float32 may be a little short
        level = exact.floor() + (self._rows(uniform_P) < exact.frac())
        codes = (level * rows.sign() + self.levels).to(torch.uint8).flatten()[: len(update_P)]
        bits = np.unpackbits(codes.numpy()[:, None], axis=1)[:, 8 - self.bits :]
        return {"codes": torch.from_numpy(np.packbits(bits)), "norms": norms_B}

    def decode(self, parts: Mapping[str, Tensor], size: int) -> Tensor:
        packed = take(parts, "codes", (math.ceil(size * self.bits / 8),), torch.uint8)
        norms_B = take(parts, "norms", (math.ceil(size / self.bucket),), torch.float32)
        bits = np.unpackbits(packed.numpy(), count=size * self.bits).reshape(size, self.bits)
        codes = torch.from_numpy(bits @ (1 << np.arange(self.bits)[::-1]))
        if size and int(codes.max()) > 2 * self.levels:
            raise WireError(f"a quantised update holds the code {int(codes.max())}; compress.levels={self.levels}")
        rows = self._rows(codes - self.levels).double()
        return (rows * norms_B.double()[:, None] / self.levels).float().flatten()[:size]

    def _rows(self, values_P: Tensor) -> Tensor:
        """[buckets, entries], the last one filled up with zeros."""
        return F.pad(values_P, (0, -len(values_P) % self.bucket)).view(-1, self.bucket)
