"""Trajectory matching: training on the synthetic images goes where an expert went on the real ones.

Dataset Distillation by Matching Training Trajectories (Cazenavette et al., CVPR 2022), equation 2:
||w_N - w*_{s+M}||^2 / ||w*_s - w*_{s+M}||^2, where w_N is w*_s after N steps on the synthetic images with a
learned step size. The gradient is exact, by recomputation (`recompute.py`).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from fedcl.core.rules import number, whole
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.inner import InnerOptimizer, check_stateless, inner_step
from fedcl.distill.objectives.base import Objective
from fedcl.distill.recompute import unroll


@dataclass(frozen=True, kw_only=True)
class Trajectory(Objective):
    """Its learned number: "step_size" float32 [1], the rate that belongs to the images."""

    needs, needs_real = frozenset({"trajectory"}), False
    reads_targets = augments = True

    inner_steps: Annotated[int, whole(1, example=10)] = 10  # N, steps on the synthetic images
    inner_batch: Annotated[int | None, whole(1, example=100)] = None  # synthetic images a step; null = all of them
    step_size: Annotated[float, number(above=0, example=0.01)] = 0.01  # where the learned step size starts

    def learned_scalars(self) -> dict[str, Tensor]:
        return {"step_size": torch.tensor([self.step_size])}

    def check(self, network: nn.Module) -> None:
        check_stateless(network, "trajectory")

    def loss(self, synthetic: MatchBatch, target: object, step: MatchStep) -> Tensor:
        inner = InnerOptimizer()
        update = inner_step(synthetic, step, self.inner_steps, self.inner_batch, inner)
        inputs = (synthetic.inputs, synthetic.targets, step.scalars["step_size"])
        (reached_P,) = unroll(update, inner.begin(step.start_P), inputs, 0, self.inner_steps)
        distance = (step.start_P - step.goal_P).square().sum()
        return (reached_P - step.goal_P).square().sum() / distance
