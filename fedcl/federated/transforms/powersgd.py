"""PowerSGD: a low-rank update by one step of power iteration, with error feedback and a warm start.

Vogels, Karimireddy, Jaggi, NeurIPS 2019, arXiv 1905.13727, algorithms 1 and 2. Of a tensor as a matrix M [n, m] (a
convolution: outputs, all the rest) travel P = orthonormal(M Q) and Q <- M^T P; the server makes P Q^T of them. A client
keeps Q for its next round; M is update + residue, the new residue what P Q^T lacks. Vectors, and matrices of which the
two factors are no smaller, travel whole.

The paper's workers take the mean of P before it is made orthonormal, and of Q, which needs two exchanges a step. A
client sends once, so each does algorithm 1 alone, its memory included, and the mean is of the P Q^T.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.rules import whole
from fedcl.core.seeding import torch_rng
from fedcl.distill.context import Context
from fedcl.federated.payload import Weights
from fedcl.federated.transforms.base import Compressor, Parts, take


@dataclass(frozen=True, kw_only=True)
class PowerSGD(Compressor):
    """r (n + m) floats for a matrix [n, m]."""

    name, feeds_back = "powersgd", True

    rank: Annotated[int, whole(1, example=2)] = 2  # r, for a matrix of fewer rows or columns as many as it has

    def rank_of(self, tensor: Tensor) -> int:
        """The rank at which a tensor travels; 0: whole."""
        rows, columns = _sides(tensor)
        rank = min(self.rank, rows, columns)
        return rank if rank * (rows + columns) < rows * columns else 0

    def compress(self, update: Weights, kept: Mapping[str, Tensor], ctx: Context) -> tuple[Parts, Parts]:
        rng = torch_rng(ctx.seed, "first factors")
        found: dict[str, list[Tensor]] = {"left": [], "right": [], "whole": []}
        at = 0
        for tensor in update.values():
            rank, (rows, columns) = self.rank_of(tensor), _sides(tensor)
            if not rank:
                found["whole"].append(tensor.flatten())
                continue
            matrix, size = tensor.reshape(rows, columns).double(), columns * rank
            drawn = torch.randn(size, generator=rng, dtype=torch.float64)
            right = kept["warm"][at : at + size].double() if "warm" in kept else drawn
            left = torch.linalg.qr(matrix @ right.view(columns, rank)).Q
            found["left"].append(left.flatten().float())
            found["right"].append((matrix.T @ left).flatten().float())
            at += size
        parts = {name: torch.cat(tensors) for name, tensors in found.items() if tensors}
        return parts, {"warm": parts["right"]} if at else {}

    def restore(self, parts: Mapping[str, Tensor], like: Weights) -> Tensor:
        ranks = [(tensor.numel(), self.rank_of(tensor), *_sides(tensor)) for tensor in like.values()]
        sizes = {
            "left": [rank * rows for _, rank, rows, _ in ranks if rank],
            "right": [rank * columns for _, rank, _, columns in ranks if rank],
            "whole": [size for size, rank, *_ in ranks if not rank],
        }
        found = {name: iter(_taken(parts, name, wanted)) for name, wanted in sizes.items()}
        made = []
        for _, rank, rows, columns in ranks:
            if rank:
                left, right = next(found["left"]).view(rows, rank), next(found["right"]).view(columns, rank)
                made.append((left @ right.T).flatten())
            else:
                made.append(next(found["whole"]))
        return torch.cat(made)


def _sides(tensor: Tensor) -> tuple[int, int]:
    """Rows and columns of a tensor as a matrix; a vector is one row."""
    rows = len(tensor) if tensor.ndim > 1 else 1
    return rows, tensor.numel() // rows


def _taken(parts: Mapping[str, Tensor], name: str, sizes: list[int]) -> tuple[Tensor, ...]:
    return take(parts, name, (sum(sizes),), torch.float32).split(sizes) if sizes else ()
