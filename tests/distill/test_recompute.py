"""The recomputed gradient is that of the full graph, in float64, whatever a step is made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedcl.core.errors import DistillError
from fedcl.core.seeding import torch_rng
from fedcl.distill.inner import InnerOptimizer, call_flat, check_stateless, flatten
from fedcl.distill.recompute import run, unroll
from fedcl.models.convnet import ConvNet
from fedcl.training.augmentation import Siamese

OPTIMIZERS = {
    "sgd": InnerOptimizer(),
    "momentum": InnerOptimizer(momentum=0.9),
    "adam": InnerOptimizer(kind="adam"),
}


@pytest.fixture
def network():
    return ConvNet(width=4, depth=2).build((1, 8, 8), 3, seed=1).double()


def problem():
    rng = torch_rng(0, "test")
    images = torch.randn(6, 1, 8, 8, generator=rng).double().requires_grad_()
    targets = torch.randn(6, 3, generator=rng).double().requires_grad_()
    steps = (torch.rand(5, generator=rng).double() * 0.1 + 0.05).requires_grad_()
    return images, targets, steps


def make_step(network, inner, rows, augment):
    augmentation = Siamese()
    draws = [augmentation.draw(len(r), torch_rng(7, "draw", round=t), flip=True) for t, r in enumerate(rows)]
    draws = [{"group": draw["group"], "uniform": draw["uniform"].double()} for draw in draws]

    def step(t, state, inputs):
        images, targets, lr = inputs
        batch = augmentation.apply(images[rows[t]], draws[t]) if augment else images[rows[t]]
        weights = state[0] if state[0].requires_grad else state[0].detach().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(call_flat(network, weights, batch), targets[rows[t]].softmax(1))
            (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
        return inner.update(t, state, gradient, lr[t])

    return step


@pytest.mark.parametrize("augment", [False, True], ids=["plain", "augmented"])
@pytest.mark.parametrize("inner", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("first", [0, 2], ids=["whole", "window"])
def test_gradients_of_images_targets_step_sizes_and_start_equal_full_unrolling(network, inner, augment, first):
    rows = [torch.tensor(r) for r in ([0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5], [0, 2, 4, 5], [1, 1, 3, 5])]
    step = make_step(network, inner, rows, augment)
    inputs = problem()
    goal = torch.randn(6, 1, 8, 8, generator=torch_rng(1, "goal")).double()
    begun = run(step, inner.begin(flatten(network)), inputs, 0, first)
    start = tuple(value.clone().requires_grad_() for value in begun)

    state = start
    for t in range(first, 5):
        state = step(t, state, inputs)
    recomputed = unroll(step, start, inputs, first, 5)
    results = []
    for weights in (state[0], recomputed[0]):
        loss = call_flat(network, weights, goal).square().mean() + weights.square().sum()
        results.append((loss, torch.autograd.grad(loss, [*inputs, *start], allow_unused=True, retain_graph=True)))
    (loss, wanted), (other, found) = results
    assert torch.allclose(loss, other, rtol=1e-13, atol=0)
    for a, b in zip(wanted, found, strict=True):
        assert a is not None
        assert a.abs().max() > 0
        assert (a - b).abs().max() <= 1e-10 * a.abs().max()


def test_no_graph_is_kept_and_constants_get_no_gradient(network):
    step = make_step(network, InnerOptimizer(), [torch.arange(6)] * 5, False)
    images, targets, steps = problem()
    (weights,) = unroll(step, (flatten(network),), (images, targets.detach(), steps.detach()), 0, 5)
    (gradient,) = torch.autograd.grad(weights.sum(), images)
    assert gradient.shape == images.shape
    assert not run(step, (flatten(network),), (images, targets, steps), 0, 2)[0].requires_grad


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_inner_optimizers_step_as_pytorch_does(kind):
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    theirs = (
        torch.optim.Adam([parameter], lr=0.1)
        if kind == "adam"
        else torch.optim.SGD([parameter], lr=0.1, momentum=0.9 if kind == "momentum" else 0.0)
    )
    state = OPTIMIZERS[kind].begin(parameter.detach().clone())
    for t in range(4):
        gradient = torch.tensor([0.3 * (t + 1), 0.0, -1.0], dtype=torch.float64)
        state = OPTIMIZERS[kind].update(t, state, gradient, 0.1)
        parameter.grad = gradient
        theirs.step()
    assert torch.allclose(state[0], parameter.detach(), rtol=1e-14, atol=0)


def test_flat_call_is_the_module(network):
    images = problem()[0].detach()
    assert torch.equal(call_flat(network, flatten(network), images), network(images))


def test_running_statistics_are_refused():
    check_stateless(ConvNet(width=4).build((1, 8, 8), 3, seed=0), "unrolled")
    with pytest.raises(DistillError, match=r"objective=unrolled .* model\.norm=instance"):
        check_stateless(ConvNet(width=4, norm="batch").build((1, 8, 8), 3, seed=0), "unrolled")
