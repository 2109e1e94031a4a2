"""End-to-end incremental learning with knowledge distillation, on real or distilled memory.

Castro et al., ECCV 2018, https://arxiv.org/abs/1807.09536, section 3: cross-entropy over all classes seen, plus
distillation (temperature 2) of the network before the step over its own classes. It is the learner of the digits
experiment of Zhao et al., "Dataset Condensation", ICLR 2021, https://arxiv.org/abs/2006.05929, section 4.2.
The balanced fine-tuning of section 3.3 is on where `balanced` says how. The paper's classes never come back; where
they do, the old network does not teach them to this step's images, which have labels for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import (
    SEEN,
    distillation,
    label_loss,
    masked_model,
    mix_with_memory,
    network,
    new_state,
    remember_distilled,
    train,
    weights_of,
)
from fedcl.core.seeding import derive
from fedcl.training.augmentation import Shares
from fedcl.training.loop import Loss, Training


@dataclass(frozen=True, kw_only=True)
class EEIL(Strategy):
    training: Training = STEP_TRAINING  # of each step, on new data and memory
    balanced: Training | None = None  # afterwards, on the buffer alone, which then holds this step too
    temperature: float = 2.0  # of the distillation
    strength: float = 1.0  # weight of the distillation beside cross-entropy; 0 = without

    unused = ("distiller.ipc",)  # the budget says how many images are made

    @property
    def needs_memory(self) -> bool:
        return True

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, teacher = network(state, ctx), network(state, ctx).eval().requires_grad_(False)
        seed = derive(ctx.seed, "training", step=step.index)
        images, targets = mix_with_memory(step, state.buffer, seed, ctx)
        returned_C = step.old_C & (step.data.counts_C.cpu() > 0)

        def with_teacher(targets: Tensor, new_N: Tensor, training: Training) -> Loss:
            labelled = label_loss(targets, step.seen_C, training)

            def loss(model: nn.Module, batch: Tensor, parts: Shares) -> Tensor:
                scores = model(batch)
                value = labelled(scores, parts)
                if self.strength and bool(step.old_C.any()):
                    taught = teacher(batch)
                    known_N = distillation(scores, taught, step.old_C, self.temperature)
                    if bool(returned_C.any()):
                        new_known_N = distillation(scores, taught, step.old_C & ~returned_C, self.temperature)
                        each = [share * torch.where(new_N[rows], new_known_N, known_N) for share, rows in parts]
                        known_N = torch.stack(each).sum(0)
                    value = value + self.strength * known_N.mean()
                return value

            return loss

        new_N = torch.arange(len(images), device=images.device) < len(step.data)
        train(model, images, self.training, with_teacher(targets, new_N, self.training), seed=seed, ctx=ctx)
        buffer = remember_distilled(state.buffer, step, ctx, weights_of(model))
        if self.balanced is not None:
            images, targets = (tensor.to(ctx.device) for tensor in buffer.replay())
            new_N = (buffer.steps_M == step.index).to(ctx.device)
            seed = derive(ctx.seed, "balanced training", step=step.index)
            train(model, images, self.balanced, with_teacher(targets, new_N, self.balanced), seed=seed, ctx=ctx)
        return State(weights=weights_of(model), buffer=buffer, tensors={SEEN: step.seen_C})

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
