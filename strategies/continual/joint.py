"""Joint training: at every step a new network on all data up to then. The upper bound, no continual learner.

"Offline" in Hsu et al., 2018, https://arxiv.org/abs/1810.12488. It reads what a learner must not have.
"""

from dataclasses import dataclass, replace

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import SEEN, Learner, fresh_model


@dataclass(frozen=True, kw_only=True)
class Joint(Learner):
    every_step: bool = True  # False: only after the last step, where the rows before are not wanted

    unused = ("distiller", "buffer")

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        if not (self.every_step or step.last):
            return replace(state, tensors={SEEN: step.seen_C})
        data = step.history()
        return self.fit(state, fresh_model(ctx), (data.inputs, data.labels_N), step, ctx)
