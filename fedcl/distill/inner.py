"""Training on the synthetic images as steps that `recompute.py` does twice: shared by trajectory and unrolled."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fedcl.core.errors import DistillError
from fedcl.core.rules import Checked, one_of
from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.recompute import State, Step
from fedcl.models.convnet import uncompiled
from fedcl.training.loop import batches


@dataclass(frozen=True, kw_only=True)
class InnerOptimizer(Checked):
    """Training of the network inside the objective: sgd (with momentum, as PyTorch defines it) or adam."""

    config_key = "objective.inner"

    kind: Annotated[str, one_of("sgd", "adam")] = "sgd"
    momentum: float = 0.0  # of sgd
    betas: tuple[float, float] = (0.9, 0.999)  # of adam
    eps: float = 1e-8  # of adam, added to the root of the corrected second moment

    def begin(self, weights_P: Tensor) -> State:
        """The state before the first step."""
        kept = 2 if self.kind == "adam" else int(self.momentum != 0)
        return (weights_P, *(torch.zeros_like(weights_P) for _ in range(kept)))

    def update(self, t: int, state: State, gradient_P: Tensor, lr: Tensor | float) -> State:
        """The state after step t (from 0)."""
        weights = state[0]
        if self.kind == "sgd":
            if not self.momentum:
                return (weights - lr * gradient_P,)
            velocity = self.momentum * state[1] + gradient_P
            return (weights - lr * velocity, velocity)
        first_decay, second_decay = self.betas
        first = first_decay * state[1] + (1 - first_decay) * gradient_P
        second = second_decay * state[2] + (1 - second_decay) * gradient_P.square()
        corrected = second / (1 - second_decay ** (t + 1))
        still = corrected == 0  # a weight without gradient stays: the root of 0 has no derivative
        root = torch.where(still, 1.0, corrected).sqrt()
        move = torch.where(still, 0.0, first / (1 - first_decay ** (t + 1)) / (root + self.eps))
        return (weights - lr * move, first, second)


def flatten(module: nn.Module) -> Tensor:
    """[P]: all parameters one after the other, detached."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def call_flat(module: nn.Module, weights_P: Tensor, images_NCHW: Tensor) -> Tensor:
    """Output of `module` with these weights; differentiable in weights and images, `module` unchanged."""
    named = dict(module.named_parameters())
    parts = weights_P.split([parameter.numel() for parameter in named.values()])
    weights = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
    return functional_call(module, weights, (images_NCHW,))


def check_stateless(network: nn.Module, objective: str) -> None:
    """Raise DistillError where the network keeps anything beside its weights, which a recomputed step would change."""
    kept = [name for name, _ in network.named_buffers()]
    if kept or any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network.modules()):
        why = f"it keeps {kept[0]}" if kept else "its dropout draws anew each time"
        raise DistillError(
            f"objective={objective} does each training step twice and needs a network that is its weights alone, "
            f"but {why}; type model.norm=instance, or choose a model without batch norm and dropout"
        )


def inner_step(
    side: MatchBatch, context: MatchStep, total: int, batch_size: int | None, optimizer: InnerOptimizer
) -> Step:
    """The step t of training the context's network on a synthetic side by cross-entropy, for t < `total`.

    The step's inputs are (images_NCHW, targets, step sizes [total] or [1]). Batches are shuffled passes of `batch_size`
    images (None: all of them each step); the augmentation draws anew for every image and step; both from the seed.
    """
    network, augmentation = context.network, context.augmentation
    count = len(side.inputs)
    size = count if batch_size is None else min(batch_size, count)
    rows = [] if size == count else list(batches(count, size, total, torch_rng(context.seed, "inner batches")))

    def step(t: int, state: State, inputs: State) -> State:
        images, targets, rates = inputs
        if rows:
            mine = rows[t].to(images.device)
            images, targets = images[mine], targets[mine]
        generator = torch_rng(context.seed, "inner augmentation", round=t)
        draw = augmentation.draw(len(images), generator, flip=context.flip)
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad(), uncompiled(network) if differentiable else nullcontext():
            weights = state[0] if state[0].requires_grad else state[0].detach().requires_grad_()
            loss = F.cross_entropy(call_flat(network, weights, augmentation.apply(images, draw)), targets)
            (gradient,) = torch.autograd.grad(loss, weights, create_graph=differentiable)
        return optimizer.update(t, state, gradient, rates[t if len(rates) > 1 else 0])

    return step
