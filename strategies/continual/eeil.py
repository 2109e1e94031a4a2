"""End-to-end incremental learning with knowledge distillation, on real or distilled memory.

Castro et al., ECCV 2018, https://arxiv.org/abs/1807.09536, section 3: cross-entropy over all classes seen, plus
distillation (temperature 2) of the network before the step over its own classes. It is the learner of the digits
experiment of Zhao et al., "Dataset Condensation", ICLR 2021, https://arxiv.org/abs/2006.05929, section 4.2.
The balanced fine-tuning of section 3.3 is on where `balanced` says how.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fedcl.continual import STEP_TRAINING, State, Step, Strategy, Tools
from fedcl.rehearsal import (
    SEEN,
    beside,
    classify,
    distillation,
    masked_model,
    network,
    new_state,
    remember_distilled,
    train,
    weights_of,
)
from fedcl.seeding import derive
from fedcl.training import Training


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

        def with_teacher(targets: Tensor):
            label_loss = classify(targets, step.seen_C, self.training)

            def loss(model: nn.Module, batch: Tensor, rows_N: Tensor) -> Tensor:
                value = label_loss(model, batch, rows_N)
                if self.strength and bool(step.old_C.any()):
                    known = distillation(model(batch), teacher(batch), step.old_C, self.temperature)
                    value = value + self.strength * known
                return value

            return loss

        train(model, images, self.training, with_teacher(targets), seed=seed, tools=tools)
        buffer = remember_distilled(state.buffer, step, tools, weights_of(model))
        if self.balanced is not None:
            images, targets = (tensor.to(tools.device) for tensor in buffer.replay())
            seed = derive(tools.seed, "balanced training", step=step.index)
            train(model, images, self.balanced, with_teacher(targets), seed=seed, tools=tools)
        return State(weights=weights_of(model), buffer=buffer, extra={SEEN: step.seen_C})

    def model(self, state: State, tools: Tools) -> nn.Module:
        return masked_model(state, tools)
