"""Replay of stored real images beside the new data.

Hsu et al., 2018, https://arxiv.org/abs/1810.12488, section 4: memory is repeated so that a batch holds about as
much of it as of new data. What is kept: a reservoir (Vitter, ACM TOMS 1985; uniform over the stream), a
sample of equal size for each group of `buffer.balance`, or herded exemplars (Rebuffi et al., CVPR 2017).
"""

from dataclasses import dataclass, replace
from typing import Annotated

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, mix_with_memory, network
from fedcl.continual.remember import remember_herding, remember_random
from fedcl.core.rules import one_of

SELECTIONS = ("balanced", "reservoir", "herding")


@dataclass(frozen=True, kw_only=True)
class Replay(Learner):
    # balanced (random, equal shares by buffer.balance), reservoir, herding
    select: Annotated[str, one_of("balanced", "reservoir", "herding")] = "balanced"
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    needs_memory = True
    unused = ("distiller",)

    @property
    def balance(self) -> str | None:
        return "none" if self.select == "reservoir" else None  # a reservoir keeps whoever has the lowest rank

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data = network(state, ctx), mix_with_memory(step, state.buffer, ctx)
        state = self.fit(state, model, data, step, ctx)
        if self.select == "herding":
            return replace(state, buffer=remember_herding(state.buffer, step.data, model, ctx))
        return replace(state, buffer=remember_random(state.buffer, step.data, ctx))
