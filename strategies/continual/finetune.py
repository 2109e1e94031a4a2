"""Fine-tuning: each step's data alone, no memory. The lower bound of every table.

Named so in Hsu et al., "Re-evaluating Continual Learning Scenarios", 2018, https://arxiv.org/abs/1810.12488
(their "Adam" row).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import SEEN, classify, masked_model, network, new_state, train, weights_of
from fedcl.core.seeding import derive
from fedcl.training.loop import Training


@dataclass(frozen=True, kw_only=True)
class Finetune(Strategy):
    training: Training = STEP_TRAINING  # of each step
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    unused = ("distiller", "buffer")

    @property
    def needs_memory(self) -> bool:
        return False

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model = network(state, ctx)
        data = step.data
        moments = train(
            model,
            data.images_NCHW,
            self.training,
            classify(data.labels_N, step.seen_C, self.training),
            seed=derive(ctx.seed, "training", step=step.index),
            ctx=ctx,
            moments=state.tensors,
        )
        extra = {SEEN: step.seen_C, **(moments if self.keep_optimizer else {})}
        return replace(state, weights=weights_of(model), tensors=extra)

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
