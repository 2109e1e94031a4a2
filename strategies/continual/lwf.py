"""Learning without forgetting: the old network teaches its outputs on the new data. No memory.

Li & Hoiem, ECCV 2016, https://arxiv.org/abs/1606.09282, equation 2 (temperature 2), with one head over all
classes seen: cross-entropy over these, distillation by softmax over the old ones. (The LwF of Hsu et al., 2018,
https://arxiv.org/abs/1810.12488, weighs the two by 1/k and 1 - 1/k and distils over all classes: another loss.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step
from fedcl.continual.learner import Learner
from fedcl.continual.losses import distillation, over_seen
from fedcl.continual.networks import SEEN, network, teacher, weights_of
from fedcl.continual.training import fit
from fedcl.training.losses import Batch
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class LwF(Learner):
    training: Training = STEP_TRAINING  # of each step
    temperature: float = 2.0  # of the distillation
    strength: float = 1.0  # lambda: weight of the old outputs

    unused = ("distiller", "buffer")

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data, old = network(state, ctx), step.data, teacher(state, ctx)
        criterion = over_seen(step, self.training, ctx)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            scores = model(batch.inputs)
            value = batch.loss(criterion, scores)
            if bool(step.old_C.any()):
                known = distillation(scores, old(batch.inputs), step.old_C, self.temperature).mean()
                value = value + self.strength * known
            return value

        fit(model, data.inputs, data.labels_N, self.training, step, ctx, loss=loss)
        return replace(state, weights=weights_of(model), tensors={SEEN: step.seen_C})
