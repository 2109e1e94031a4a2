"""Replay of distilled images beside the new data: any distiller fills the buffer, step by step.

After Rosasco et al., "Distilled Replay", CSSL 2021, https://arxiv.org/abs/2103.15851, which distils one
image a class by unrolled training; here the method is whatever distiller=... names. Selections of real
images (distiller=herding, random, kmeans) are the controls, at the same budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step
from fedcl.continual.learner import Learner
from fedcl.continual.networks import weights_of
from fedcl.continual.remember import remember_distilled
from fedcl.continual.training import replay_step
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class DistilledReplay(Learner):
    training: Training = STEP_TRAINING  # of each step, on new data and memory
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step

    needs_memory = True
    unused = ("distiller.ipc",)  # the budget says how many images are made

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, extra = replay_step(state, step, self.training, ctx, keep_optimizer=self.keep_optimizer)
        weights = weights_of(model)
        return State(weights=weights, buffer=remember_distilled(state.buffer, step, ctx, weights), tensors=extra)
