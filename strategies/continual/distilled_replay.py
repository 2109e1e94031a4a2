"""Replay of distilled images beside the new data: any distiller fills the buffer, step by step.

After Rosasco et al., "Distilled Replay", CSSL 2021, https://arxiv.org/abs/2103.15851, which distils one
image a class by unrolled training; here the method is whatever distiller=... names. Selections of real
images (distiller=herding, random, kmeans) are the controls, at the same budget.
"""

from dataclasses import dataclass

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, mix_with_memory, network
from fedcl.continual.remember import remember_distilled


@dataclass(frozen=True, kw_only=True)
class DistilledReplay(Learner):
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step

    needs_memory = True
    unused = ("distiller.ipc",)  # the budget says how many images are made

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data = network(state, ctx), mix_with_memory(step, state.buffer, ctx)
        state = self.fit(state, model, data, step, ctx)
        return remember_distilled(state, step, ctx)
