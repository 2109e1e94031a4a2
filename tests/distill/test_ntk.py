from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from fedcl.core.errors import ConfigError, DistillError
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.ntk import TangentRegression, relu_ntk

BIAS, WEIGHT = 0.3, math.sqrt(2)


def on(network, seed=0):
    return MatchStep(network=network, seed=seed)


def inputs(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def empirical_ntk(a_ND, b_MD, hidden, width, seed):
    """Gradients of the output's neuron over all weights and biases, in NTK parameterisation."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [a_ND.shape[1], *[width] * hidden, 1]
    layers = [
        [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in ((o, i), (o,))]
        for i, o in pairwise(sizes)
    ]

    def gradient(x_D):
        for depth, (w, b) in enumerate(layers):
            x_D = torch.relu(x_D) if depth else x_D
            x_D = WEIGHT / math.sqrt(w.shape[1]) * (w @ x_D) + BIAS * b
        return torch.cat([g.flatten() for g in torch.autograd.grad(x_D[0], [p for layer in layers for p in layer])])

    return torch.stack([gradient(x) for x in a_ND]) @ torch.stack([gradient(x) for x in b_MD]).T


def test_one_hidden_layer_by_hand():
    """Orthogonal unit inputs in 2 dimensions, no bias: angle pi/2, so E[relu relu] = s/(2 pi), E[relu' relu'] = 1/4."""
    x = torch.eye(2, dtype=torch.float64)
    kernel = relu_ntk(x, x, hidden=1, weight_std=WEIGHT, bias_std=0.0)
    assert kernel[0, 0] == pytest.approx(2 * 0.5 + 2 * 1 * 0.5, abs=1e-6)  # W^2 E[r r] + W^2 Theta E[r' r'], variance 1
    assert kernel[0, 1] == pytest.approx(2 / (2 * math.pi), abs=1e-12)


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_wide_networks_come_nearer_to_the_closed_form_as_one_over_the_root_of_the_width(hidden):
    a, b = inputs(4), inputs(3, seed=1)
    exact = relu_ntk(a, b, hidden=hidden, weight_std=WEIGHT, bias_std=BIAS)
    errors = []
    for width in (16, 64, 256):
        off = torch.stack([empirical_ntk(a, b, hidden, width, seed) for seed in range(16)]) - exact
        errors.append(float(off.flatten(1).norm(dim=1).mean() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] / errors[2] > 0.5 * math.sqrt(256 / 16)
    # and around it: the mean of 16 networks is nearer by about the root of 16
    assert off.mean(0).norm() / exact.norm() < 3 * errors[2] / math.sqrt(16)


def test_kernel_is_symmetric_positive_definite_and_differentiable_on_the_diagonal():
    a = inputs(5).requires_grad_()
    kernel = relu_ntk(a, a, hidden=2, weight_std=WEIGHT, bias_std=BIAS)
    assert torch.allclose(kernel, kernel.T)
    assert torch.linalg.eigvalsh(kernel.detach()).min() > 0
    (gradient,) = torch.autograd.grad(kernel.diagonal().sum(), a)
    # K(x, x) is affine in |x|^2: hidden + 1 layers, each doubling nothing (weight_std^2 / 2 = 1)
    assert torch.allclose(gradient, 2 * 3 * 2 * a.detach() / 6, rtol=1e-4)


def test_gradient_equals_finite_differences():
    a, b = inputs(3).requires_grad_(), inputs(2, seed=3)
    assert torch.autograd.gradcheck(lambda x: relu_ntk(x, b, hidden=2, weight_std=WEIGHT, bias_std=BIAS), (a,))


def side(images, targets):
    return MatchBatch(
        inputs=images, targets=targets, segment_N=torch.zeros(len(images), dtype=torch.int64), num_segments=1
    )


def test_the_synthetic_images_themselves_are_predicted():
    """With all real images as synthetic ones and their labels, the regression interpolates: loss about 0."""
    images, labels = inputs(8, d=9).view(8, 1, 3, 3).float(), torch.arange(8) % 3
    objective = TangentRegression()
    same = objective.loss(
        side(images, torch.nn.functional.one_hot(labels, 3).float()),
        side(images, labels),
        on(torch.nn.Identity()),
    )
    other = objective.loss(side(images, torch.full((8, 3), 1 / 3)), side(images, labels), on(torch.nn.Identity()))
    assert 0 <= float(same) < 1e-8
    assert float(other) == pytest.approx(0.5 * 2 / 3)  # predictions 0: |one-hot - 1/3|^2 = 2/3


def test_hard_labels_and_bad_numbers_are_refused():
    images = torch.zeros(2, 1, 3, 3)
    with pytest.raises(DistillError, match="labels=kernel"):
        TangentRegression().loss(
            side(images, torch.tensor([0, 1])),
            side(images, torch.tensor([0, 1])),
            on(torch.nn.Identity()),
        )
    with pytest.raises(ConfigError, match=r"objective\.hidden"):
        TangentRegression(hidden=0)
