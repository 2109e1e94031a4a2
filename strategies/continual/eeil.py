"""End-to-end incremental learning with knowledge distillation, on real or distilled memory.

Castro et al., ECCV 2018, https://arxiv.org/abs/1807.09536, section 3: cross-entropy over all classes seen, plus
distillation (temperature 2) of the network before the step over its own classes. It is the learner of the digits
experiment of Zhao et al., "Dataset Condensation", ICLR 2021, https://arxiv.org/abs/2006.05929, section 4.2.
The balanced fine-tuning of section 3.3 is on where `balanced` says how.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedcl.augmentation import Shares
from fedcl.continual import STEP_TRAINING, State, Step, Strategy, Tools
from fedcl.rehearsal import (
    SEEN,
    beside,
    distillation,
    label_loss,
    masked_model,
    network,
    new_state,
    remember_distilled,
    train,
    weights_of,
)
from fedcl.seeding import derive
from fedcl.training import Loss, Training


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

    def init(self, tools: Tools) -> State:
        return new_state(tools)

    def learn(self, state: State, step: Step, tools: Tools) -> State:
        model, teacher = network(state, tools), network(state, tools).eval().requires_grad_(False)
        seed = derive(tools.seed, "training", step=step.index)
        images, targets = beside(step, state.buffer, seed, tools)

        returned_C = step.old_C & (step.data.counts_C.cpu() > 0)

        def with_teacher(targets: Tensor, new_N: Tensor, training: Training) -> Loss:
            labelled = label_loss(targets, step.seen_C, training)

            def loss(model: nn.Module, batch: Tensor, parts: Shares) -> Tensor:
                scores = model(batch)
                value = labelled(scores, parts)
                if self.strength and bool(step.old_C.any()):
                    known = teacher(batch)
                    far_N = distillation(scores, known, step.old_C, self.temperature)
                    if bool(returned_C.any()):
                        near_N = distillation(scores, known, step.old_C & ~returned_C, self.temperature)
                        each = [share * torch.where(new_N[rows], near_N, far_N) for share, rows in parts]
                        far_N = torch.stack(each).sum(0)
                    value = value + self.strength * far_N.mean()
                return value

            return loss

        new_N = torch.arange(len(images), device=images.device) < len(step.data)
        train(model, images, self.training, with_teacher(targets, new_N, self.training), seed=seed, tools=tools)
        buffer = remember_distilled(state.buffer, step, tools, weights_of(model))
        if self.balanced is not None:
            images, targets = (tensor.to(tools.device) for tensor in buffer.replay())
            new_N = (buffer.steps_M == step.index).to(tools.device)
            seed = derive(tools.seed, "balanced training", step=step.index)
            train(model, images, self.balanced, with_teacher(targets, new_N, self.balanced), seed=seed, tools=tools)
        return State(weights=weights_of(model), buffer=buffer, extra={SEEN: step.seen_C})

    def model(self, state: State, tools: Tools) -> nn.Module:
        return masked_model(state, tools)
