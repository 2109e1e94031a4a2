"""Kernel ridge regression on the features of networks.

Dataset Distillation using Neural Feature Regression (FRePo; Zhou, Nezhadarya & Ba, NeurIPS 2022), equation 2
with K(a, b) = phi(a) phi(b)^T, phi the features before the classifier:
1/2 mean || y_t - K_ts (K_ss + ridge tr(K_ss)/n I)^-1 y_s ||^2, y centred (one-hot - 1/C), plus the label
margin that keeps a learned label's largest score ahead of its second.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.errors import DistillError
from fedcl.core.rules import number, whole
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.base import Objective, features, features_of
from fedcl.training.losses import regression


def ridge_predictions(K_ss: Tensor, K_ts: Tensor, scores_SC: Tensor, ridge: float) -> Tensor:
    """[T, C]: K_ts (K_ss + ridge tr(K_ss)/n I)^-1 y_s, by Cholesky. Meant for float64.

    DistillError where the kernel is not finite or, to rounding, not positive definite.
    """
    eye = torch.eye(len(K_ss), dtype=K_ss.dtype, device=K_ss.device)
    factor, failed = torch.linalg.cholesky_ex(K_ss + ridge * K_ss.diagonal().mean() * eye)
    if failed:
        raise DistillError(
            "kernel regression failed: the kernel of the synthetic images is singular or not finite; "
            "type a larger objective.ridge or a lower distiller.optimizer.lr"
        )
    return K_ts @ torch.cholesky_solve(scores_SC, factor)


def label_margin(scores_SC: Tensor) -> Tensor:
    """Mean of 1/C - min(top1 - top2, 1/C): 0 as soon as every label is clear (FRePo, section 4.1)."""
    goal = 1 / scores_SC.shape[1]
    top = scores_SC.topk(2, dim=1).values
    return (goal - (top[:, 0] - top[:, 1]).clamp(max=goal)).mean()


@dataclass(frozen=True, kw_only=True)
class FeatureRegression(Objective):
    """Meant with networks=online_regression, which trains its networks on the synthetic images."""

    needs = frozenset({"embedding"})
    reads_targets = needs_scores = True

    ridge: Annotated[float, number(above=0, example=1e-6)] = 1e-6  # fraction of the kernel's mean diagonal
    margin: Annotated[float, number(least=0, example=1)] = 1.0  # weight of the label margin
    # real images a pass, to bound memory; all where batch norm is not in eval mode
    chunk: Annotated[int, whole(1, example=256)] = 256

    def target(self, real: MatchBatch, step: MatchStep) -> tuple[Tensor, Tensor]:
        return features_of(real.inputs, step.network, self.chunk).double(), real.targets

    def loss(self, synthetic: MatchBatch, target: tuple[Tensor, Tensor], step: MatchStep) -> Tensor:
        features_TD, labels_T = target
        features_SD = features(step.network, synthetic.inputs).double()
        K_ss, K_ts = features_SD @ features_SD.T, features_TD @ features_SD.T
        return regression_loss(K_ss, K_ts, synthetic.targets, labels_T, self.ridge, self.margin)


def regression_loss(
    K_ss: Tensor, K_ts: Tensor, targets_SC: Tensor, labels_T: Tensor, ridge: float, margin: float
) -> Tensor:
    """The file's loss: half the mean squared distance of predictions to centred labels, and the label margin.

    `targets_SC` are float, near probabilities (`labels.py`), `labels_T` int64 classes. DistillError where the synthetic
    labels are hard, or the regression has no solution.
    """
    if not targets_SC.is_floating_point():
        raise DistillError("kernel regression needs scores as labels; type labels=kernel")
    scores_SC = (targets_SC - 1 / targets_SC.shape[1]).to(K_ss.dtype)
    loss = regression(ridge_predictions(K_ss, K_ts, scores_SC, ridge), labels_T)
    return loss + margin * label_margin(scores_SC) if margin else loss
