"""Learning without forgetting: the old network teaches its outputs on the new data. No memory.

Li & Hoiem, ECCV 2016, https://arxiv.org/abs/1606.09282, equation 2 (temperature 2), with one head over all
classes seen: cross-entropy over these, distillation by softmax over the old ones. (The LwF of Hsu et al., 2018,
https://arxiv.org/abs/1810.12488, weighs the two by 1/k and 1 - 1/k and distils over all classes: another loss.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import (
    SEEN,
    distillation,
    label_loss,
    masked_model,
    network,
    new_state,
    train,
    weights_of,
)
from fedcl.core.seeding import derive
from fedcl.training.augmentation import Shares
from fedcl.training.loop import Training


@dataclass(frozen=True, kw_only=True)
class LwF(Strategy):
    training: Training = STEP_TRAINING  # of each step
    temperature: float = 2.0  # of the distillation
    strength: float = 1.0  # lambda: weight of the old outputs

    unused = ("distiller", "buffer")

    @property
    def needs_memory(self) -> bool:
        return False

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, teacher = network(state, ctx), network(state, ctx).eval().requires_grad_(False)
        labelled = label_loss(step.data.labels_N, step.seen_C, self.training)

        def loss(model: nn.Module, batch: Tensor, parts: Shares) -> Tensor:
            scores = model(batch)
            value = labelled(scores, parts)
            if bool(step.old_C.any()):
                known = distillation(scores, teacher(batch), step.old_C, self.temperature).mean()
                value = value + self.strength * known
            return value

        seed = derive(ctx.seed, "training", step=step.index)
        train(model, step.data.images_NCHW, self.training, loss, seed=seed, ctx=ctx)
        return replace(state, weights=weights_of(model), tensors={SEEN: step.seen_C})

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
