"""End-to-end incremental learning with knowledge distillation, on real or distilled memory.

Castro et al., ECCV 2018, https://arxiv.org/abs/1807.09536, section 3: cross-entropy over all classes seen, plus
distillation (temperature 2) of the network before the step over its own classes. It is the learner of the digits
experiment of Zhao et al., "Dataset Condensation", ICLR 2021, https://arxiv.org/abs/2006.05929, section 4.2.
The balanced fine-tuning of section 3.3 is on where `balanced` says how. The paper's classes never come back; where
they do, the old network does not teach them to this step's images, which have labels for them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, distillation, mix_with_memory, network, over_seen, replayed, teacher
from fedcl.continual.remember import remember_distilled
from fedcl.core.seeding import derive
from fedcl.training.losses import Batch, Loss
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class EEIL(Learner):
    balanced: Training | None = None  # afterwards, on the buffer alone, which then holds this step too
    temperature: float = 2.0  # of the distillation
    strength: float = 1.0  # weight of the distillation beside cross-entropy; 0 = without

    needs_memory = True
    unused = ("distiller.ipc",)  # the budget says how many images are made

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, old = network(state, ctx), teacher(state, ctx)
        data = mix_with_memory(step, state.buffer, ctx)
        returned_C = step.old_C & (step.data.counts_C.cpu() > 0)

        def with_teacher(new_N: Tensor, training: Training) -> Loss:
            criterion = over_seen(step, training, ctx)

            def loss(model: nn.Module, batch: Batch) -> Tensor:
                scores = model(batch.inputs)
                value = batch.loss(criterion, scores)
                if self.strength and bool(step.old_C.any()):
                    taught = old(batch.inputs)
                    all_N = known_N = distillation(scores, taught, step.old_C, self.temperature)
                    if bool(returned_C.any()):  # new images have labels for these classes, memory's do not
                        fewer_N = distillation(scores, taught, step.old_C & ~returned_C, self.temperature)
                        known_N = batch.blend(lambda rows: torch.where(new_N[rows], fewer_N, all_N))
                    value = value + self.strength * known_N.mean()
                return value

            return loss

        new_N = torch.arange(len(data[0]), device=ctx.device) < len(step.data)
        loss = with_teacher(new_N, self.training)
        state = remember_distilled(self.fit(state, model, data, step, ctx, loss=loss), step, ctx)
        if self.balanced is None:
            return state
        loss = with_teacher((state.buffer.steps_M == step.index).to(ctx.device), self.balanced)
        seed = derive(ctx.seed, "balanced training", step=step.index)
        learner = replace(self, training=self.balanced)
        return learner.fit(state, model, replayed(state.buffer, ctx), step, ctx, loss=loss, seed=seed)
