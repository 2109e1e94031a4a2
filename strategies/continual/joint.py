"""Joint training: at every step a new network on all data up to then. The upper bound, no continual learner.

"Offline" in Hsu et al., 2018, https://arxiv.org/abs/1810.12488. It reads what a learner must not have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import SEEN, classify, fresh_model, masked_model, new_state, train, weights_of
from fedcl.core.seeding import derive
from fedcl.training.loop import Training


@dataclass(frozen=True, kw_only=True)
class Joint(Strategy):
    training: Training = STEP_TRAINING  # from scratch, at each step
    every_step: bool = True  # False: only after the last step, where the rows before are not wanted

    unused = ("distiller", "buffer")

    @property
    def needs_memory(self) -> bool:
        return False

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        if not self.every_step and step.index < step.num_steps - 1:
            return replace(state, tensors={SEEN: step.seen_C})
        model, data = fresh_model(ctx), step.history()
        train(
            model,
            data.images_NCHW,
            self.training,
            classify(data.labels_N, step.seen_C, self.training),
            seed=derive(ctx.seed, "training", step=step.index),
            ctx=ctx,
        )
        return replace(state, weights=weights_of(model), tensors={SEEN: step.seen_C})

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
