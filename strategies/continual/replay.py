"""Replay of stored real images beside the new data ("naive rehearsal").

Hsu et al., 2018, https://arxiv.org/abs/1810.12488, section 4: memory is repeated so that a batch holds about as
much of it as of new data. What is kept: a reservoir (Vitter, ACM TOMS 1985; uniform over the stream), a
sample of equal size for each group of `buffer.balance`, or herded exemplars (Rebuffi et al., CVPR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import (
    masked_model,
    new_state,
    own_buffer,
    remember_herding,
    remember_random,
    replay_step,
    weights_of,
)
from fedcl.core.errors import ConfigError
from fedcl.training.loop import Training

SELECTIONS = ("balanced", "reservoir", "herding")


@dataclass(frozen=True, kw_only=True)
class Replay(Strategy):
    training: Training = STEP_TRAINING  # of each step, on new data and memory
    select: str = "balanced"  # balanced (random, equal shares by buffer.balance), reservoir, herding
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    unused = ("distiller",)

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise ConfigError(f"strategy.select={self.select} is unknown; choose one of {', '.join(SELECTIONS)}")

    @property
    def needs_memory(self) -> bool:
        return True

    def init(self, ctx: LearnerContext) -> State:
        reservoir = own_buffer(ctx, "none", "a reservoir") if self.select == "reservoir" else None
        return new_state(ctx, reservoir)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, extra = replay_step(state, step, self.training, ctx, keep_optimizer=self.keep_optimizer)
        if self.select == "herding":
            buffer = remember_herding(state.buffer, step.data, model, ctx)
        else:
            buffer = remember_random(state.buffer, step.data, ctx.seed, ctx)
        return State(weights=weights_of(model), buffer=buffer, tensors=extra)

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
