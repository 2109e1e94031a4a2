"""Unrolled training: what a network trained on the synthetic images loses on the real ones.

Dataset Distillation (Wang et al., arXiv 1811.10959), algorithm 1, with a learned positive step size for each
step; with learned labels SLDD (Sucholutsky & Schonlau, IJCNN 2021) and, images fixed, label distillation
(Bohdal et al., 2020). With a window it is RaT-BPTT (Feng et al., ICLR 2024): training starts without
gradients, and only the last `window` steps of a random length are differentiated. The gradient through those
is exact, by recomputation (`recompute.py`).
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.rules import number, whole
from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.inner import InnerOptimizer, call_flat, check_stateless, flatten, inner_step
from fedcl.distill.objectives.base import Objective
from fedcl.distill.recompute import run, unroll


@dataclass(frozen=True, kw_only=True)
class Unrolled(Objective):
    """Its learned numbers, if any: "raw_step_sizes" float32 [inner_steps]; a step size is their softplus.

    That name says that they belong to gradient descent on all images at once, which whoever has the summary can
    repeat (`fedcl.protocol.evaluation.unrolled_training`); with any other inner training they are "raw_inner_rates".
    """

    needs = frozenset({"network"})
    reads_targets = augments = True

    inner_steps: Annotated[int, whole(1, example=10)] = 10  # T, steps on the synthetic images
    inner_batch: Annotated[int | None, whole(1, example=100)] = None  # synthetic images a step; null = all of them
    # W, last steps that are differentiated; null = all of them
    window: Annotated[int | None, whole(1, example=5)] = None
    step_size: Annotated[float, number(above=0, example=0.02)] = 0.02  # of every step at the start
    learn_step_sizes: bool = True  # one for each step
    inner: InnerOptimizer = field(default_factory=InnerOptimizer)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window > self.inner_steps:
            raise ConfigError(f"objective.window={self.window} must lie in 1..inner_steps={self.inner_steps}")

    def learned_scalars(self) -> dict[str, Tensor]:
        if not self.learn_step_sizes:
            return {}
        return {self._rates: torch.full((self.inner_steps,), math.log(math.expm1(self.step_size)))}

    @property
    def _rates(self) -> str:
        descent = self.inner.kind == "sgd" and not self.inner.momentum and self.inner_batch is None
        return "raw_step_sizes" if descent else "raw_inner_rates"

    def check(self, network: nn.Module) -> None:
        check_stateless(network, "unrolled")

    def loss(self, synthetic: MatchBatch, target: MatchBatch, step: MatchStep) -> Tensor:
        images = synthetic.inputs
        rates = images.new_full((1,), self.step_size)
        if self.learn_step_sizes:
            rates = F.softplus(step.scalars[self._rates])
        first, last = 0, self.inner_steps
        if self.window is not None:
            span = self.inner_steps - self.window + 1
            first = int(torch.randint(span, (), generator=torch_rng(step.seed, "window")))
            last = first + self.window
        update = inner_step(synthetic, step, last, self.inner_batch, self.inner)
        inputs = (images, synthetic.targets, rates)
        state = run(update, self.inner.begin(flatten(step.network)), inputs, 0, first)
        weights_P = unroll(update, state, inputs, first, last)[0]
        return F.cross_entropy(call_flat(step.network, weights_P, target.inputs), target.targets)
