"""Losses of continual learners: labels over the classes seen, and distillation of what a network knew.

Legend: N examples, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.continual.contract import LearnerContext, Step
from fedcl.continual.networks import mask_offset
from fedcl.training.losses import Criterion, regression
from fedcl.training.recipe import Training


def over_seen(step: Step, training: Training, ctx: LearnerContext) -> Criterion:
    """Criterion that `training` names, over the classes that the stream has brought so far."""
    seen_K = step.seen_C.to(ctx.device)
    if training.loss == "mse":
        return lambda scores_NK, targets: regression(scores_NK * seen_K, targets)
    offset_K = mask_offset(step.seen_C).to(ctx.device)
    return lambda scores_NK, targets: hard_or_soft(scores_NK + offset_K, targets)


def hard_or_soft(scores_NK: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with labels or probabilities. A class outside the mask takes no part in soft labels."""
    if not targets.is_floating_point():
        return F.cross_entropy(scores_NK, targets)
    log = scores_NK.log_softmax(1)
    return -(targets * log.masked_fill(log == -torch.inf, 0.0)).sum(1).mean()


def distillation(scores_NK: Tensor, teacher_NK: Tensor, old_K: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation over old classes, of each row: T^2 cross-entropy of softened outputs (Hinton et al.,
    2015). 0 where there are no old classes."""
    old = old_K.to(scores_NK.device)
    student = (scores_NK[:, old] / temperature).log_softmax(1)
    return -(temperature**2) * ((teacher_NK[:, old] / temperature).softmax(1) * student).sum(1)
