"""Trajectory matching: training on the synthetic images goes where an expert went on the real ones.

Dataset Distillation by Matching Training Trajectories (Cazenavette et al., CVPR 2022), equation 2:
||w_N - w*_{s+M}||^2 / ||w*_s - w*_{s+M}||^2, where w_N is w*_s after N steps on the synthetic images with a
learned step size. The gradient is exact, by recomputation (`recompute.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError, DistillError
from fedcl.distill.inner import InnerOptimizer, check_stateless, inner_step
from fedcl.distill.networks.experts import ExpertSegment
from fedcl.distill.objectives.base import MatchBatch, Objective
from fedcl.distill.recompute import unroll


@dataclass(frozen=True, kw_only=True)
class Trajectory(Objective):
    """Needs networks=experts. Its learned number: "step_size" float32 [1], the rate that belongs to the images."""

    inner_steps: int = 10  # N, steps on the synthetic images
    inner_batch: int | None = None  # synthetic images a step; null = all of them
    step_size: float = 0.01  # where the learned step size starts

    def __post_init__(self) -> None:
        if self.inner_steps < 1 or self.step_size <= 0 or (self.inner_batch is not None and self.inner_batch < 1):
            raise ConfigError("objective.inner_steps, inner_batch and step_size must be positive")

    @property
    def batched(self) -> bool:
        return False

    @property
    def augments(self) -> bool:
        return True

    def learned_scalars(self) -> dict[str, Tensor]:
        return {"step_size": torch.tensor([self.step_size])}

    def check(self, network: nn.Module) -> None:
        if not isinstance(network, ExpertSegment):
            raise DistillError("objective=trajectory follows experts, and this stream has none; type networks=experts")
        check_stateless(network.network, "trajectory")

    def target(self, real: MatchBatch, network: nn.Module) -> None:
        return None

    def loss(self, synthetic: MatchBatch, target: None, network: nn.Module) -> Tensor:
        segment, inner = cast(ExpertSegment, network), InnerOptimizer()
        step = inner_step(segment.network, synthetic, self.inner_steps, self.inner_batch, inner)
        inputs = (synthetic.images_NCHW, synthetic.targets, synthetic.scalars["step_size"])
        (reached_P,) = unroll(step, inner.begin(segment.start_P), inputs, 0, self.inner_steps)
        distance = (segment.start_P - segment.goal_P).square().sum()
        return (reached_P - segment.goal_P).square().sum() / distance
