"""Joint training: at every step a new network on all data up to then. The upper bound, no continual learner.

"Offline" in Hsu et al., 2018, https://arxiv.org/abs/1810.12488. It reads what a learner must not have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step
from fedcl.continual.learner import Learner
from fedcl.continual.networks import SEEN, fresh_model, weights_of
from fedcl.continual.training import fit
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Joint(Learner):
    training: Training = STEP_TRAINING  # from scratch, at each step
    every_step: bool = True  # False: only after the last step, where the rows before are not wanted

    unused = ("distiller", "buffer")

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        if not (self.every_step or step.last):
            return replace(state, tensors={SEEN: step.seen_C})
        model, data = fresh_model(ctx), step.history()
        fit(model, data.inputs, data.labels_N, self.training, step, ctx)
        return replace(state, weights=weights_of(model), tensors={SEEN: step.seen_C})
