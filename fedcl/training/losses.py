"""Losses of a network on a batch, and penalties on its weights.

Legend: N examples, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.training.augmentation import Shares

Criterion = Callable[[Tensor, Tensor], Tensor]  # scores [N, C], targets int64 [N] or float32 [N, C] -> scalar


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images as a network sees them, and the rows of the data that they show: two where CutMix mixed them."""

    inputs: Tensor  # float32, normalised, augmented and mixed
    parts: Shares  # (share, int64 [N] rows) each; shares sum to 1
    targets: Tensor  # of the whole data, for these rows to look up: int64 [M] or float32 [M, C]

    def blend(self, of_rows: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum over the parts of share times `of_rows(rows)`."""
        return torch.stack([share * of_rows(rows) for share, rows in self.parts]).sum(0)

    def loss(self, criterion: Criterion, scores_NC: Tensor) -> Tensor:
        """`criterion` of the scores and the targets, mixed targets by their shares."""
        return self.blend(lambda rows: criterion(scores_NC, self.targets[rows]))


Loss = Callable[[nn.Module, Batch], Tensor]  # scalar
Penalty = Callable[[nn.Module], Tensor]  # scalar, added to the loss of every batch


def supervised(criterion: Criterion) -> Loss:
    """Loss by targets: the criterion of the network's scores."""
    return lambda model, batch: batch.loss(criterion, model(batch.inputs))


def regression(scores_NC: Tensor, targets: Tensor) -> Tensor:
    """Half the mean squared distance of scores to centred labels (label - 1/C), as kernel regression has it."""
    classes = scores_NC.shape[1]
    wanted = targets if targets.is_floating_point() else F.one_hot(targets, classes)
    return 0.5 * (scores_NC - (wanted - 1 / classes)).square().sum(1).mean()


CRITERIA: Mapping[str, Criterion] = {"cross_entropy": F.cross_entropy, "mse": regression}


def probabilities(targets: Tensor) -> Tensor:
    """Soft labels as cross-entropy can take them; hard labels as they are.

    Scores of a regression (labels=kernel) may be negative and sum to anything: what is below 0 is 0, and rows
    are scaled to sum to 1. Probabilities stay what they are, bit for bit.
    """
    if not targets.is_floating_point():
        return targets
    sums = targets.sum(1, keepdim=True)
    fine = (targets >= 0).all(1, keepdim=True) & ((sums - 1).abs() < 1e-5)
    positive = targets.clamp(min=0)
    return torch.where(fine, targets, positive / positive.sum(1, keepdim=True).clamp(min=1e-12))


def proximal(model: nn.Module, mu: float, weights: Mapping[str, Tensor]) -> Penalty | None:
    """mu/2 ||w - weights||^2 over the parameters of `model` (FedProx, Li et al., MLSys 2020, eq. 2); None for mu 0."""
    if mu == 0:
        return None
    anchors = {name: weights[name].detach().clone().to(p.device) for name, p in model.named_parameters()}

    def penalty(model: nn.Module) -> Tensor:
        terms = [(parameter - anchors[name]).square().sum() for name, parameter in model.named_parameters()]
        return mu / 2 * torch.stack(terms).sum()

    return penalty
