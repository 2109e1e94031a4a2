"""Distribution matching by the maximum mean discrepancy: all moments of the features, not their means alone.

A Kernel Two-Sample Test (Gretton et al., JMLR 2012), equation 5 (biased), of the features of each class; M3D (Zhang et
al., AAAI 2024) distils with it: sum over classes of mean k(s, s') - 2 mean k(s, t) + mean k(t, t'), with
k(a, b) = mean over widths h of exp(-||a - b||^2 / (h m)), m the mean squared distance of the class's real features
(their mean squared length where they do not differ).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.rules import each, number, whole
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.base import Objective, features, features_of


@dataclass(frozen=True, kw_only=True)
class MaximumMeanDiscrepancy(Objective):
    """The target of a class is its real features, their m and mean k(t, t'); a class without images counts nothing."""

    needs, batched = frozenset({"embedding"}), True

    # of the kernels, as multiples of m
    widths: Annotated[tuple[float, ...], each(number(above=0, example=1), empty=False)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    # of the loss: a kernel is at most 1, whatever the features
    scale: Annotated[float, number(above=0, example=100)] = 100.0
    # real images a pass, all with batch norm: bounds memory, and is fastest on the CPU
    chunk: Annotated[int, whole(1, example=64)] = 64

    def target(self, real: MatchBatch, step: MatchStep) -> list[tuple[Tensor, Tensor, Tensor]]:
        features_TD = features_of(real.inputs, step.network, self.chunk)
        return [self._of_class(rows) for rows in features_TD.split(real.counts)]

    def _of_class(self, features_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        square_TT, length = squared_distances(features_TD, features_TD), features_TD.square().sum(1).mean()
        spread = square_TT.mean()
        unit = torch.where(spread > 1e-5 * length, spread, length).clamp(min=1e-12)
        return features_TD, unit, self._kernel(square_TT / unit).mean()

    def _kernel(self, square: Tensor) -> Tensor:
        return torch.stack([(-square / width).exp() for width in self.widths]).mean(0)

    def loss(self, synthetic: MatchBatch, target: list[tuple[Tensor, Tensor, Tensor]], step: MatchStep) -> Tensor:
        features_SD = features(step.network, synthetic.inputs)
        terms = [features_SD.sum() * 0]
        for made_SD, (real_TD, unit, real_real) in zip(features_SD.split(synthetic.counts), target, strict=True):
            if len(made_SD) and len(real_TD):
                made_made = self._kernel(squared_distances(made_SD, made_SD) / unit).mean()
                made_real = self._kernel(squared_distances(made_SD, real_TD) / unit).mean()
                terms.append(made_made - 2 * made_real + real_real)
        return self.scale * torch.stack(terms).sum()


def squared_distances(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """[N, M]; differentiable where rows are equal, unlike the square of `torch.cdist`."""
    square = a_ND.square().sum(1)[:, None] + b_MD.square().sum(1)[None, :] - 2 * a_ND @ b_MD.T
    return square.clamp(min=0)
