"""Top-k sparsification with error feedback: the largest entries of the update travel, the rest waits at the client.

Aji & Heafield, EMNLP 2017, arXiv 1704.05021 (gradient dropping, 99 % dropped); Stich, Cordonnier, Jaggi, NeurIPS 2018,
arXiv 1809.07599, algorithm 1 (memory); Sattler et al., TNNLS 2019, arXiv 1903.02891 (clients of federated learning).
One threshold for the whole update, as in all three. What places cost is the smaller of a whole number each and one bit
for every entry; Golomb coding (Sattler et al.) is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.core.rules import number
from fedcl.distill.context import Context
from fedcl.federated.transforms.base import VectorCompressor, take

_INDEX = ((2**8, torch.uint8), (2**15, torch.int16), (2**31, torch.int32), (2**63, torch.int64))


@dataclass(frozen=True, kw_only=True)
class TopK(VectorCompressor):
    """ceil(share * P) entries of an update of P travel."""

    name, feeds_back = "topk", True

    # of all entries, in (0, 1]: Aji & Heafield drop 99 %
    share: Annotated[float, number(above=0, most=1, example=0.01)] = 0.01

    def kept(self, size: int) -> int:
        """Entries that travel of an update of `size`."""
        return min(size, math.ceil(self.share * size))

    def encode(self, update_P: Tensor, ctx: Context) -> dict[str, Tensor]:
        size = len(update_P)
        # stable, so that equal entries are taken in their order on every machine
        largest = torch.argsort(update_P.abs(), descending=True, stable=True)[: self.kept(size)]
        places = largest.sort().values
        if places_are_bits(size, len(places)):
            held = torch.zeros(size, dtype=torch.bool)
            held[places] = True
            sent = torch.from_numpy(np.packbits(held.numpy()))
        else:
            sent = places.to(index_dtype(size))
        return {"values": update_P[places], "places": sent}

    def decode(self, parts: Mapping[str, Tensor], size: int) -> Tensor:
        count = self.kept(size)
        values = take(parts, "values", (count,), torch.float32)
        if places_are_bits(size, count):
            bits = take(parts, "places", (math.ceil(size / 8),), torch.uint8)
            places = torch.from_numpy(np.flatnonzero(np.unpackbits(bits.numpy(), count=size)))
        else:
            places = take(parts, "places", (count,), index_dtype(size)).long()
        if len(places) != count or (count and not 0 <= int(places[0]) <= int(places[-1]) < size):
            raise WireError(f"{len(places)} places of {count} values of an update of {size}, or places outside of it")
        if (places.diff() <= 0).any():
            raise WireError("places of a sparse update must ascend, none twice")
        return torch.zeros(size).index_put((places,), values)


def index_dtype(size: int) -> torch.dtype:
    """The smallest integer type that holds a place in [0, size)."""
    return next(dtype for limit, dtype in _INDEX if size <= limit)


def places_are_bits(size: int, count: int) -> bool:
    """True where one bit for each of `size` entries is less than a whole number for each of `count` places."""
    return math.ceil(size / 8) < count * index_dtype(size).itemsize
