"""Random sparsification with error feedback: entries drawn anew in each round travel, the rest waits at the client.

Stich, Cordonnier, Jaggi, NeurIPS 2018, arXiv 1809.07599, algorithm 1 with rand_k (entries as they are, not scaled by
P / k: the memory makes up for what is missing). The seed that the places are drawn from travels in their stead, as with
the random masks of Konecny et al., arXiv 1610.05492, section 2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.rules import number
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.context import Context
from fedcl.federated.transforms.base import VectorCompressor, take


@dataclass(frozen=True, kw_only=True)
class RandomK(VectorCompressor):
    """ceil(share * P) entries of an update of P travel, and four bytes of a seed."""

    name, feeds_back = "randomk", True

    share: Annotated[float, number(above=0, most=1, example=0.01)] = 0.01  # of all entries

    def encode(self, update_P: Tensor, ctx: Context) -> dict[str, Tensor]:
        seed = derive(ctx.seed, "random places", client=ctx.client, step=ctx.step, round=ctx.round) >> 32
        values = update_P[self.places(seed, len(update_P))]
        return {"values": values, "seed": torch.tensor([seed], dtype=torch.int32)}

    def decode(self, parts: Mapping[str, Tensor], size: int) -> Tensor:
        places = self.places(int(take(parts, "seed", (1,), torch.int32)), size)
        values = take(parts, "values", (len(places),), torch.float32)
        return torch.zeros(size).index_put((places,), values)

    def places(self, seed: int, size: int) -> Tensor:
        """int64 [k]: different places in an update of `size`, in the order in which their values travel."""
        kept = min(size, math.ceil(self.share * size))
        return torch.randperm(size, generator=torch_rng(seed, "places"))[:kept]
