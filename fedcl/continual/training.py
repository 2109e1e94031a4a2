"""Training of a step, on its own data or on new data and memory together, and the losses of continual learners.

Legend: N examples, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import SEEN, mask_offset, replayed
from fedcl.core.seeding import derive, torch_rng
from fedcl.memory.buffer import Buffer
from fedcl.training.loop import train
from fedcl.training.losses import Criterion, regression, supervised
from fedcl.training.moments import load_moments, save_moments, weights_of
from fedcl.training.recipe import Training


def fit(
    state: State,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    training: Training,
    step: Step,
    ctx: LearnerContext,
    *,
    keep_optimizer: bool = False,
    **options: Any,
) -> State:
    """Train `model` in place; the state with its weights and the classes seen.

    Args:
        images: uint8 or normalised float32 [N, C, H, W], on the device.
        targets: int64 [N] or float32 [N, K], on the device.
        keep_optimizer: go on with the optimiser whose moments the state holds, and hold them on.
        options: of `train`: a loss in place of that of `training` over the classes seen, a penalty, a seed.

    Raises:
        RunError: the loss is not finite.
    """
    optimizer = training.new_optimizer(model.parameters())
    if keep_optimizer:
        load_moments(optimizer, state.tensors)
    options.setdefault("seed", derive(ctx.seed, "training", step=step.index))
    options.setdefault("loss", supervised(over_seen(step, training, ctx)))
    spec, progress = ctx.inputs, ctx.progress
    train(
        model, images, targets, training, optimizer=optimizer, spec=spec, flip=spec.flips, progress=progress, **options
    )
    moments = save_moments(optimizer) if keep_optimizer else {}
    return replace(state, weights=weights_of(model), tensors={SEEN: step.seen_C, **moments})


def mix_with_memory(step: Step, buffer: Buffer, ctx: LearnerContext) -> tuple[Tensor, Tensor]:
    """New data and memory as one training set, about as much of one as of the other (Hsu et al., 2018).

    Memory smaller than the step is repeated floor(new / memory) times, larger memory gives a random part
    of the step's size: the cost of a step does not depend on how many there were.

    Returns:
        images [N, C, H, W] (uint8 if there is no memory, else normalised float32), the step's first, and targets.
    """
    new = step.data
    if not len(buffer):
        return new.inputs, new.labels_N
    images, targets = replayed(buffer, ctx)
    if len(targets) > len(new):
        generator = torch_rng(derive(ctx.seed, "training", step=step.index), "part of memory")
        rows = torch.randperm(len(targets), generator=generator)[: len(new)]
    else:
        rows = torch.arange(len(targets)).repeat(max(1, len(new) // len(targets)))
    rows, labels = rows.to(ctx.device), new.labels_N
    if targets.is_floating_point():
        labels = F.one_hot(labels, ctx.num_classes).float()
    return torch.cat([ctx.inputs.apply(new.inputs), images[rows]]), torch.cat([labels, targets[rows]])


def over_seen(step: Step, training: Training, ctx: LearnerContext) -> Criterion:
    """Criterion that `training` names, over the classes that the stream has brought so far."""
    seen_K = step.seen_C.to(ctx.device)
    if training.loss == "mse":
        return lambda scores_NK, targets: regression(scores_NK * seen_K, targets)
    offset_K = mask_offset(step.seen_C).to(ctx.device)

    def hard_or_soft(scores_NK: Tensor, targets: Tensor) -> Tensor:
        if not targets.is_floating_point():
            return F.cross_entropy(scores_NK + offset_K, targets)
        log = (scores_NK + offset_K).log_softmax(1)  # a class that was not seen takes no part in soft labels
        return -(targets * log.masked_fill(log == -torch.inf, 0.0)).sum(1).mean()

    return hard_or_soft


def distillation(scores_NK: Tensor, teacher_NK: Tensor, old_K: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation over old classes, of each row: T^2 cross-entropy of softened outputs (Hinton et al.,
    2015). 0 where there are no old classes."""
    old = old_K.to(scores_NK.device)
    student = (scores_NK[:, old] / temperature).log_softmax(1)
    return -(temperature**2) * ((teacher_NK[:, old] / temperature).softmax(1) * student).sum(1)
