from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError, DistillError
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.inner import InnerOptimizer, call_flat, flatten
from fedcl.distill.objectives.unrolled import Unrolled
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import Siamese

LABELS = torch.tensor([0, 1, 2, 1])


def on(network, seed=0):
    return MatchStep(network=network, seed=seed)


@pytest.fixture
def network():
    return MLP(hidden=(6,)).build((1, 4, 4), 3, seed=0).double()


def side(images_seed, targets=LABELS):
    images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(images_seed)).double()
    return MatchBatch(inputs=images, targets=targets, segment_N=torch.zeros(4, dtype=torch.int64), num_segments=1)


def as_double(values):
    return {name: value.double().requires_grad_() for name, value in values.items()}


def test_loss_is_that_of_the_trained_network_with_one_positive_step_size_a_step(network):
    objective = Unrolled(inner_steps=3, step_size=0.2)
    assert torch.allclose(F.softplus(objective.learned_scalars()["raw_step_sizes"]), torch.full((3,), 0.2))
    raw = torch.tensor([-1.0, 0.0, 1.0]).double().requires_grad_()
    synthetic, real = side(0), side(1)
    step = MatchStep(network=network, scalars={"raw_step_sizes": raw})
    images = synthetic.inputs.requires_grad_()
    weights = flatten(network).requires_grad_()
    for rate in F.softplus(raw):
        loss = F.cross_entropy(call_flat(network, weights, images), LABELS)
        weights = weights - rate * torch.autograd.grad(loss, weights, create_graph=True)[0]
    wanted = F.cross_entropy(call_flat(network, weights, real.inputs), LABELS)
    found = objective.loss(synthetic, objective.target(real, step), step)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-12)
    for a, b in zip(*(torch.autograd.grad(loss, [images, raw]) for loss in (found, wanted)), strict=True):
        assert a.abs().max() > 0
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_learned_labels_get_the_gradient_of_the_full_graph(network):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    objective = Unrolled(inner_steps=1, step_size=0.5, learn_step_sizes=False)
    loss = objective.loss(side(0, logits.softmax(1)), side(1), on(network))
    (found,) = torch.autograd.grad(loss, logits)

    def value(z):
        return objective.loss(side(0, z.softmax(1)), side(1), on(network)).detach()

    shift = torch.zeros_like(logits)
    shift[1, 2] = 1e-6
    slope = (value(logits.detach() + shift) - value(logits.detach() - shift)) / 2e-6
    assert float(found[1, 2]) == pytest.approx(float(slope), rel=1e-5)


def test_a_window_ends_at_a_random_step_and_differentiates_only_itself(network, monkeypatch):
    import fedcl.distill.objectives.unrolled as module

    seen = []
    plain = module.unroll
    monkeypatch.setattr(
        module, "unroll", lambda *a: seen.append((*a[3:], a[1][0].requires_grad, len(a[1]))) or plain(*a)
    )
    objective = Unrolled(inner_steps=6, window=2, learn_step_sizes=False, inner=InnerOptimizer(kind="adam"))
    for seed in range(60):
        objective.loss(side(0), side(1), on(network, seed))
    assert {(first, last) for first, last, _, _ in seen} == {(a, a + 2) for a in range(5)}
    assert not any(graph for _, _, graph, _ in seen)
    assert {size for *_, size in seen} == {3}  # weights and two moments


def test_random_streams_follow_the_seed_of_the_step(network):
    objective = Unrolled(inner_steps=3, inner_batch=2, learn_step_sizes=False)

    def value(seed):
        double = Siamese(groups=("crop", "flip"))  # neither mixes float32 numbers in
        step = MatchStep(network=network, seed=seed, augmentation=double)
        return float(objective.loss(side(0), side(1), step))

    assert value(1) == value(1)
    assert value(1) != value(2)


def test_networks_and_numbers_that_cannot_work_are_refused():
    with pytest.raises(DistillError, match=r"model\.norm=instance"):
        Unrolled().check(ConvNet(width=2, depth=1, norm="batch").build((1, 4, 4), 3, seed=0))
    with pytest.raises(ConfigError, match=r"objective\.window=11 must lie in 1\.\.inner_steps=10"):
        Unrolled(window=11)
    with pytest.raises(ConfigError, match=r"objective\.step_size=0 must be a number > 0"):
        Unrolled(step_size=0)
    with pytest.raises(ConfigError, match=r"objective\.inner\.kind=lion must be one of sgd, adam"):
        InnerOptimizer(kind="lion")
