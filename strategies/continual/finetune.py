"""Fine-tuning: each step's data alone, no memory. The lower bound of every table.

Named so in Hsu et al., "Re-evaluating Continual Learning Scenarios", 2018, https://arxiv.org/abs/1810.12488
(their "Adam" row).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step
from fedcl.continual.learner import Learner
from fedcl.continual.networks import SEEN, network, weights_of
from fedcl.continual.training import fit
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Finetune(Learner):
    training: Training = STEP_TRAINING  # of each step
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    unused = ("distiller", "buffer")

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data = network(state, ctx), step.data
        moments = fit(model, data.inputs, data.labels_N, self.training, step, ctx, moments=state.tensors)
        extra = {SEEN: step.seen_C, **(moments if self.keep_optimizer else {})}
        return replace(state, weights=weights_of(model), tensors=extra)
