"""Fine-tuning: each step's data alone, no memory. The lower bound of every table.

Named so in Hsu et al., "Re-evaluating Continual Learning Scenarios", 2018, https://arxiv.org/abs/1810.12488
(their "Adam" row).
"""

from dataclasses import dataclass

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, network


@dataclass(frozen=True, kw_only=True)
class Finetune(Learner):
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    unused = ("distiller", "buffer")

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data = network(state, ctx), (step.data.inputs, step.data.labels_N)
        return self.fit(state, model, data, step, ctx)
