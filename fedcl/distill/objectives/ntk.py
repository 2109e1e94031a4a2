"""Kernel ridge regression with the neural tangent kernel of an infinitely wide ReLU network, in closed form.

Dataset Meta-Learning from Kernel Ridge-Regression (KIP; Nguyen, Chen & Lee, ICLR 2021), equation 7; the kernel
of fully connected layers in NTK parameterisation (Jacot et al., NeurIPS 2018; arc-cosine kernels of Cho & Saul,
NeurIPS 2009). FedD3 (Song et al., IJCNN 2023) uses the same on clients. No network takes part.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.rules import number, whole
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.base import Objective
from fedcl.distill.objectives.kernel import regression_loss


def relu_ntk(a_ND: Tensor, b_MD: Tensor, *, hidden: int, weight_std: float, bias_std: float) -> Tensor:
    """[N, M]: tangent kernel of x -> h_0 -> relu -> ... -> relu -> output, `hidden` ReLU layers, all infinitely wide.

    A layer is h = weight_std / sqrt(fan in) W x + bias_std b, with W and b standard normal. Use float64: the
    derivative of the angle is infinite where two inputs point the same way, and is cut off there.
    """
    scale, shift = weight_std**2, bias_std**2
    width = a_ND.shape[1]
    cross = scale * (a_ND @ b_MD.T) / width + shift  # covariance of pre-activations
    var_a = (scale * a_ND.square().sum(1) / width + shift)[:, None]
    var_b = (scale * b_MD.square().sum(1) / width + shift)[None, :]
    tangent = cross
    edge = 1 - 4 * torch.finfo(a_ND.dtype).eps
    for _ in range(hidden):
        length = (var_a * var_b).clamp(min=torch.finfo(a_ND.dtype).tiny).sqrt()
        cosine = (cross / length).clamp(-edge, edge)
        angle = cosine.acos()
        both_active = (math.pi - angle) / (2 * math.pi)  # E[relu'(u) relu'(v)]
        # E[relu(u) relu(v)]
        product = length * ((1 - cosine.square()).sqrt() + (math.pi - angle) * cosine) / (2 * math.pi)
        cross = scale * product + shift
        tangent = scale * tangent * both_active + cross
        var_a, var_b = scale * var_a / 2 + shift, scale * var_b / 2 + shift
    return tangent


@dataclass(frozen=True, kw_only=True)
class TangentRegression(Objective):
    """The loss of `kernel.py` with this kernel on flattened pixels."""

    reads_targets = needs_scores = True

    hidden: Annotated[int, whole(1, example=1)] = 1  # ReLU layers
    weight_std: Annotated[float, number(above=0, example=1.4)] = math.sqrt(2)
    bias_std: Annotated[float, number(least=0, example=0.1)] = 0.1
    ridge: Annotated[float, number(above=0, example=1e-6)] = 1e-6  # fraction of the kernel's mean diagonal
    margin: Annotated[float, number(least=0, example=0)] = 0.0  # weight of the label margin, where labels are learned

    def loss(self, synthetic: MatchBatch, target: MatchBatch, step: MatchStep) -> Tensor:
        s, t = synthetic.inputs.flatten(1).double(), target.inputs.flatten(1).double()
        numbers = {"hidden": self.hidden, "weight_std": self.weight_std, "bias_std": self.bias_std}
        K_ss, K_ts = (relu_ntk(x, s, **numbers) for x in (s, t))
        return regression_loss(K_ss, K_ts, synthetic.targets, target.targets, self.ridge, self.margin)
