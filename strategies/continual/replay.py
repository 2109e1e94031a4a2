"""Replay of stored real images beside the new data.

Hsu et al., 2018, https://arxiv.org/abs/1810.12488, section 4: memory is repeated so that a batch holds about as
much of it as of new data. What is kept: a reservoir (Vitter, ACM TOMS 1985; uniform over the stream), a
sample of equal size for each group of `buffer.balance`, or herded exemplars (Rebuffi et al., CVPR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step
from fedcl.continual.learner import Learner
from fedcl.continual.networks import new_state, weights_of
from fedcl.continual.remember import new_buffer, remember_herding, remember_random
from fedcl.continual.training import replay_step
from fedcl.core.errors import ConfigError
from fedcl.training.recipe import Training

SELECTIONS = ("balanced", "reservoir", "herding")


@dataclass(frozen=True, kw_only=True)
class Replay(Learner):
    training: Training = STEP_TRAINING  # of each step, on new data and memory
    select: str = "balanced"  # balanced (random, equal shares by buffer.balance), reservoir, herding
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    needs_memory = True
    unused = ("distiller",)

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise ConfigError(f"strategy.select={self.select} is unknown; choose one of {', '.join(SELECTIONS)}")

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx, new_buffer(ctx, "none" if self.select == "reservoir" else None, "a reservoir"))

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, extra = replay_step(state, step, self.training, ctx, keep_optimizer=self.keep_optimizer)
        if self.select == "herding":
            buffer = remember_herding(state.buffer, step.data, model, ctx)
        else:
            buffer = remember_random(state.buffer, step.data, ctx)
        return State(weights=weights_of(model), buffer=buffer, tensors=extra)
