"""Characteristic functions: whole distributions of features, not their means alone.

Dataset Distillation with Neural Characteristic Function (NCFM; Wang et al., CVPR 2025): features are
brought to length 1, phi(t) = mean exp(i <t, feature>) is compared at random frequencies t. |phi| <= 1, so
that no image moves it by more than 2 / n. A calibration adds the cross-entropy of the synthetic images under a
network that was trained on the real ones.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.core.rules import number, whole
from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.base import Objective, features, features_of

TINY = 1e-12  # under the root, so that its slope at equality is finite


@dataclass(frozen=True, kw_only=True)
class Characteristic(Objective):
    """scale * mean over t of sqrt(amplitude (|a| - |b|)^2 + 2 phase (|a||b| - Re a conj b)), a class."""

    batched = True

    frequencies: Annotated[int, whole(1, example=1024)] = 1024  # drawn anew every step, from N(0, I)
    amplitude: Annotated[float, number(least=0, example=0.5)] = 0.5  # weight of the difference of moduli: diversity
    phase: Annotated[float, number(least=0, example=0.5)] = 0.5  # weight of the difference of directions: realism
    scale: float = 300.0
    # weight of the mean cross-entropy a class; needs networks=interpolated
    calibration: Annotated[float, number(least=0, example=0)] = 0.0
    # real images a pass, all with batch norm: bounds memory, and is fastest on the CPU
    chunk: Annotated[int, whole(1, example=64)] = 64

    @property
    def reads_targets(self) -> bool:
        return self.calibration > 0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"embedding", "trained"} if self.calibration else {"embedding"})

    def _function(self, side: MatchBatch, features_ND: Tensor, step: MatchStep) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of phi, each [segments, frequencies]."""
        shape = (features_ND.shape[1], self.frequencies)
        t_DF = torch.randn(shape, generator=torch_rng(step.seed, "frequencies")).to(features_ND)
        angle = F.normalize(features_ND, dim=1) @ t_DF
        return side.mean(angle.cos()), side.mean(angle.sin())

    @torch.no_grad()
    def target(self, real: MatchBatch, step: MatchStep) -> tuple[Tensor, Tensor]:
        return self._function(real, features_of(real.inputs, step.network, self.chunk), step)

    def loss(self, synthetic: MatchBatch, target: tuple[Tensor, Tensor], step: MatchStep) -> Tensor:
        features_ND = features(step.network, synthetic.inputs)
        (re_a, im_a), (re_b, im_b) = self._function(synthetic, features_ND, step), target
        moduli = (re_a.square() + im_a.square() + TINY).sqrt() - (re_b.square() + im_b.square() + TINY).sqrt()
        # 2 (|a||b| - Re a conj b) = |a - b|^2 - (|a| - |b|)^2, which is exactly 0 where a = b
        apart = (re_a - re_b).square() + (im_a - im_b).square()
        square = self.amplitude * moduli.square() + self.phase * (apart - moduli.square())
        loss = self.scale * ((square.clamp(min=0) + TINY).sqrt() - TINY**0.5).mean(1).sum()
        if not self.calibration:
            return loss
        surprise_N = F.cross_entropy(step.trained(synthetic.inputs), synthetic.targets, reduction="none")
        return loss + self.calibration * synthetic.mean(surprise_N[:, None]).sum()
