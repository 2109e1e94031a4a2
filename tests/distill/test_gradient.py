"""Laws of gradient matching: the written-out distance, zero at equality, exact second order."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError, DistillError
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.gradient import Gradient
from fedcl.models.convnet import ConvNet


def on(network, seed=0):
    return MatchStep(network=network, seed=seed)


def side(images, targets):
    """Segments are the classes of hard targets in order."""
    labels, segment_N = targets.unique(return_inverse=True)
    order = torch.argsort(segment_N, stable=True)
    return MatchBatch(
        inputs=images[order], targets=targets[order], segment_N=segment_N[order], num_segments=len(labels)
    )


def network_of(ctx, seed=0):
    return ctx.new_model(seed).requires_grad_(False)


def images_of(count, seed, dtype=torch.float32):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


REAL = torch.tensor([0, 0, 0, 1, 1, 3])
FAKE = torch.tensor([0, 0, 1, 1, 3, 3])


@pytest.mark.parametrize("distance", ["cos", "mse", "l1"])
@pytest.mark.parametrize("per_class", [True, False])
def test_equal_sides_are_at_distance_zero(ctx, distance, per_class):
    objective = Gradient(distance=distance, per_class=per_class, chunk=2)
    both = side(images_of(6, 0), REAL)
    network = network_of(ctx)
    assert float(objective.loss(both, objective.target(both, on(network)), on(network)).detach()) == pytest.approx(
        0, abs=2e-3
    )


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("vectorize", [True, False])
def test_the_distance_is_the_published_one(ctx, per_class, vectorize):
    """Sum over classes, layers of two axes and more, and output units of 1 - cosine."""
    network = network_of(ctx)
    real, fake = side(images_of(6, 0), REAL), side(images_of(6, 1), FAKE)
    objective = Gradient(per_class=per_class, vectorize=vectorize, chunk=2)
    network.requires_grad_(True)
    expected = 0.0
    for classes in [(0,), (1,), (3,)] if per_class else [(0, 1, 3)]:
        gradients = []
        for one in (real, fake):
            rows = torch.isin(one.targets, torch.tensor(classes))
            loss = F.cross_entropy(network(one.inputs[rows]), one.targets[rows])
            gradients.append(torch.autograd.grad(loss, list(network.parameters())))
        for a, b in zip(*gradients, strict=True):
            if a.ndim > 1:
                a, b = a.flatten(1), b.flatten(1)
                expected += float((1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum())
    network.requires_grad_(False)
    got = objective.loss(fake, objective.target(real, on(network)), on(network))
    assert float(got.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_warm_up_is_by_classes_and_what_follows_is_not(ctx, vectorize):
    network = network_of(ctx)
    real, fake = side(images_of(6, 0), REAL), side(images_of(6, 1), FAKE)

    def loss(objective, network_index):
        step = MatchStep(network=network, network_index=network_index)
        return float(objective.loss(fake, objective.target(real, step), step).detach())

    both = Gradient(per_class=False, warm_up=3, vectorize=vectorize)
    by_class, at_once = Gradient(vectorize=vectorize), Gradient(per_class=False, vectorize=vectorize)
    assert loss(by_class, 0) != pytest.approx(loss(at_once, 0), rel=0.1)
    assert [loss(both, network_index) for network_index in range(5)] == [loss(by_class, 0)] * 3 + [loss(at_once, 0)] * 2
    assert not both.batched


def test_the_loop_counts_the_turns(new_set, new_distiller, ctx):
    """A warm-up as long as the run is a run by classes, and one that ends inside the run is neither."""
    data = new_set({0: 6, 1: 6})

    def images(objective):
        summary = new_distiller(objective=objective, steps=4, reuse=2).distill([data], 0, ctx)[0]
        return summary.arrays["images"]

    by_class, at_once = images(Gradient()), images(Gradient(per_class=False))
    assert torch.equal(images(Gradient(per_class=False, warm_up=2)), by_class)  # four updates are two turns
    middle = images(Gradient(per_class=False, warm_up=1))
    assert not torch.equal(middle, by_class)
    assert not torch.equal(middle, at_once)


@pytest.mark.parametrize("distance", ["cos", "mse"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_the_gradient_of_images_is_exact(ctx, distance, vectorize):
    """Against central differences in float64, through the gradient of the network."""
    network = network_of(ctx).double()
    objective = Gradient(distance=distance, vectorize=vectorize)
    real, fake = side(images_of(6, 0, torch.float64), REAL), images_of(6, 1, torch.float64).requires_grad_()
    target = objective.target(real, on(network))
    gradient = torch.autograd.grad(objective.loss(side(fake, FAKE), target, on(network)), fake)[0]
    direction = images_of(6, 2, torch.float64)
    step = 1e-6
    with torch.no_grad():
        there, here = fake + step * direction, fake - step * direction
    slope = (
        objective.loss(side(there, FAKE), target, on(network)) - objective.loss(side(here, FAKE), target, on(network))
    ) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope.detach()), rel=1e-4)


def test_vectorizing_changes_only_the_rounding_of_bfloat16():
    network = ConvNet(width=4, precision="bfloat16").build((1, 8, 8), 4, 0).requires_grad_(False)
    real, labels = side(images_of(6, 0), torch.tensor([0, 0, 1, 1, 2, 2])), torch.arange(3).repeat_interleave(2)
    found = []
    for vectorize in (False, True):
        objective, fake = Gradient(vectorize=vectorize), images_of(6, 1).requires_grad_()
        loss = objective.loss(side(fake, labels), objective.target(real, on(network)), on(network))
        found.append((loss.detach(), torch.autograd.grad(loss, fake)[0]))
    (expected, direction), (loss, gradient) = found
    assert float(loss) == pytest.approx(float(expected), rel=0.02)
    assert F.cosine_similarity(gradient.flatten(), direction.flatten(), dim=0) > 0.95


def test_gradients_reach_images_and_soft_labels_only(ctx):
    network = network_of(ctx)
    objective = Gradient()
    target = objective.target(side(images_of(6, 0), REAL), on(network))
    assert not any(t.requires_grad for t in target)
    fake = side(images_of(6, 1), FAKE)
    images = fake.inputs.clone().requires_grad_()
    soft = F.one_hot(fake.targets, 4).float().requires_grad_()
    learned = MatchBatch(inputs=images, targets=soft, segment_N=fake.segment_N, num_segments=3)
    for gradient in torch.autograd.grad(objective.loss(learned, target, on(network)), [images, soft]):
        assert gradient.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_chunks_change_nothing(ctx):
    network, real = network_of(ctx), side(images_of(6, 0), REAL)
    for a, b in zip(
        Gradient(chunk=1).target(real, on(network)),
        Gradient().target(real, on(network)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_batch_is_one_at_a_time(new_set, new_distiller, ctx, vectorize):
    sets = [new_set({0: 20, 1: 5, 3: 1}), new_set({2: 9}, client=1), new_set({}, client=2)]
    distiller = new_distiller(
        objective=Gradient(vectorize=vectorize),
        batching="together",
        optimizer=partial(torch.optim.SGD, lr=0.01),
    )
    assert distiller.together(ctx.device)
    for data, summary in zip(sets, distiller.distill(sets, 0, ctx), strict=True):
        alone = distiller.distill([data], 0, ctx)[0]
        torch.testing.assert_close(summary.arrays["images"], alone.arrays["images"], atol=1e-5, rtol=0)


def test_all_classes_cannot_be_many_sets(new_distiller, ctx):
    assert not new_distiller(objective=Gradient(per_class=False), batching="together").together(ctx.device)


def test_networks_and_numbers_that_cannot_work_are_named(ctx):
    with pytest.raises(DistillError, match=r"model\.norm=instance"):
        Gradient().check(ConvNet(width=4, norm="batch").build((1, 8, 8), 4, 0))
    from fedcl.models.mlp import MLP

    with pytest.raises(DistillError, match=r"objective\.layers=weights"):
        Gradient(layers="convolutions").check(MLP(hidden=(4,)).build((1, 8, 8), 4, 0))
    for wrong in ({"distance": "l2"}, {"layers": "all"}, {"chunk": 0}):
        with pytest.raises(ConfigError, match=r"objective\."):
            Gradient(**wrong)
