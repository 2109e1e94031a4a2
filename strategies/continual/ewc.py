"""Elastic weight consolidation: weights that mattered are held back.

Kirkpatrick et al., PNAS 2017, https://arxiv.org/abs/1612.00796, equation 3: the loss gains
lambda / 2 sum_k F_k (w - w_k)^2 over the steps k before, F_k the diagonal Fisher information at w_k. The sum
over steps is kept as two tensors a parameter, sum_k F_k and sum_k F_k w_k, so memory does not grow; this
is the same penalty up to a constant.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, mask_offset, network
from fedcl.core.seeding import torch_rng
from fedcl.training.moments import under

CHUNK = 32  # examples whose gradients are held at once


@dataclass(frozen=True, kw_only=True)
class EWC(Learner):
    strength: float = 100.0  # lambda
    fisher_examples: int = 1000  # examples of a step that estimate its Fisher information
    keep_optimizer: bool = True  # whether the optimiser's moments live on into the next step (Hsu et al.)

    unused = ("distiller", "buffer")
    cross_entropy = "EWC's Fisher information is that of a softmax"

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data = network(state, ctx), (step.data.inputs, step.data.labels_N)
        fisher = {name: value.to(ctx.device) for name, value in under("fisher/", state.tensors).items()}
        anchor = {name: value.to(ctx.device) for name, value in under("anchor/", state.tensors).items()}

        def penalty(model: nn.Module) -> Tensor:
            named = model.named_parameters()
            terms = [(0.5 * fisher[name] * w.square() - anchor[name] * w).sum() for name, w in named]
            return self.strength * torch.stack(terms).sum()

        state = self.fit(state, model, data, step, ctx, penalty=penalty if fisher else None)  # none at first
        new, extra = self.fisher(model, step, ctx), dict(state.tensors)
        for name, parameter in model.named_parameters():
            extra[f"fisher/{name}"] = (new[name] + fisher.get(name, 0.0)).cpu()
            extra[f"anchor/{name}"] = (new[name] * parameter.detach() + anchor.get(name, 0.0)).cpu()
        return replace(state, tensors=extra)

    def fisher(self, model: nn.Module, step: Step, ctx: LearnerContext) -> dict[str, Tensor]:
        """Mean squared gradient of log p(y | x), y drawn from the model itself, for each parameter."""
        generator = torch_rng(ctx.seed, "fisher", step=step.index)
        rows = torch.randperm(len(step.data), generator=generator)[: self.fisher_examples]
        data = step.data.select(rows.to(ctx.device))
        model.eval()
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        offset = mask_offset(step.seen_C).to(ctx.device)

        def log_likelihood(parameters: dict[str, Tensor], image_CHW: Tensor, label: Tensor) -> Tensor:
            scores = torch.func.functional_call(model, parameters, (image_CHW[None],))[0]
            return (scores + offset).log_softmax(0).gather(0, label[None])[0]

        gradients = torch.func.vmap(torch.func.grad(log_likelihood), in_dims=(None, 0, 0))
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for part in data.inputs.split(CHUNK):
            images = ctx.inputs.apply(part)
            with torch.no_grad():
                chances = (model(images) + offset).softmax(1).cpu()
            labels = torch.multinomial(chances, 1, generator=generator)[:, 0].to(ctx.device)
            for name, gradient in gradients(parameters, images, labels).items():
                total[name] += gradient.detach().square().sum(0)
        model.train()
        return {name: value / max(1, len(data)) for name, value in total.items()}
