"""Learning without forgetting: the old network teaches its outputs on the new data. No memory.

Li & Hoiem, ECCV 2016, https://arxiv.org/abs/1606.09282, equation 2 (temperature 2), with one head over all
classes seen: cross-entropy over these, distillation by softmax over the old ones. (The LwF of Hsu et al., 2018,
https://arxiv.org/abs/1810.12488, weighs the two by 1/k and 1 - 1/k and distils over all classes: another loss.)
"""

from dataclasses import dataclass

from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, distillation, network, over_seen, teacher
from fedcl.training.losses import Batch


@dataclass(frozen=True, kw_only=True)
class LwF(Learner):
    temperature: float = 2.0  # of the distillation
    strength: float = 1.0  # lambda: weight of the old outputs

    unused = ("distiller", "buffer")

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        data, old = step.data, teacher(state, ctx)
        criterion = over_seen(step, self.training, ctx)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            scores = model(batch.inputs)
            value = batch.loss(criterion, scores)
            if bool(step.old_C.any()):
                known = distillation(scores, old(batch.inputs), step.old_C, self.temperature).mean()
                value = value + self.strength * known
            return value

        return self.fit(state, network(state, ctx), (data.inputs, data.labels_N), step, ctx, loss=loss)
