"""Compress, then recall: every step is distilled and dropped; a new network is trained on summaries alone.

Deng & Russakovsky, "Remember the Past", NeurIPS 2022, https://arxiv.org/abs/2206.02916 (compress-then-recall);
Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, section 4.4, and Prabhu et al.,
"GDumb", ECCV 2020 (memory-only training). With distiller=random or herding: the same learner on real images.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcl.continual.contract import LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import (
    SEEN,
    classify,
    fresh_model,
    masked_model,
    new_state,
    remember_distilled,
    train,
    weights_of,
)
from fedcl.core.seeding import derive
from fedcl.training.augmentation import Siamese
from fedcl.training.loop import Training

# Zhao & Bilen, WACV 2023, with a fixed number of updates
RECALL_TRAINING = Training(updates=500, augmentation=Siamese())


@dataclass(frozen=True, kw_only=True)
class CompressRecall(Strategy):
    training: Training = RECALL_TRAINING  # from scratch, on the buffer alone
    every_step: bool = True  # False: recall only after the last step, where the rows before are not wanted

    unused = ("distiller.ipc",)  # the budget says how many images are made

    @property
    def needs_memory(self) -> bool:
        return True

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        buffer = remember_distilled(state.buffer, step, ctx, state.weights)
        weights = state.weights
        if self.every_step or step.index == step.num_steps - 1:
            model = fresh_model(ctx)
            images, targets = (tensor.to(ctx.device) for tensor in buffer.replay())
            train(
                model,
                images,
                self.training,
                classify(targets, step.seen_C, self.training),
                seed=derive(ctx.seed, "training", step=step.index),
                ctx=ctx,
            )
            weights = weights_of(model)
        return State(weights=weights, buffer=buffer, tensors={SEEN: step.seen_C})

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
