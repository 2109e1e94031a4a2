"""Signs with error feedback: one bit for every entry of the update, and one scale.

EF-signSGD: Karimireddy, Rebjock, Stich, Jaggi, ICML 2019, arXiv 1901.09847, algorithm 1 (equation 3 of the paper):
p = update + residue, sent is (||p||_1 / P) sign(p), the new residue is p less what was sent. A zero travels as plus.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedcl.distill.context import Context
from fedcl.federated.transforms.base import VectorCompressor, take


@dataclass(frozen=True, kw_only=True)
class Sign(VectorCompressor):
    """ceil(P / 8) bytes for an update of P entries, and a float32."""

    name, feeds_back = "sign", True

    def encode(self, update_P: Tensor, ctx: Context) -> dict[str, Tensor]:
        bits = np.packbits((update_P >= 0).numpy())
        return {"bits": torch.from_numpy(bits), "scale": update_P.abs().mean()[None]}

    def decode(self, parts: Mapping[str, Tensor], size: int) -> Tensor:
        bits = take(parts, "bits", (math.ceil(size / 8),), torch.uint8)
        plus = torch.from_numpy(np.unpackbits(bits.numpy(), count=size)).bool()
        scale = take(parts, "scale", (1,), torch.float32)
        return torch.where(plus, scale, -scale)
