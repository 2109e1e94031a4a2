from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.context import Context
from fedcl.distill.networks.base import NetworkSource
from fedcl.distill.networks.regression import OnlineRegression
from fedcl.distill.objectives.kernel import FeatureRegression, label_margin, ridge_predictions
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP


def on(network, seed=0):
    return MatchStep(network=network, seed=seed)


def new_model(seed):
    return MLP(hidden=(8,)).build((1, 3, 3), 3, seed)


def side(count, targets, seed=0):
    images = torch.randn(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return MatchBatch(inputs=images, targets=targets, segment_N=torch.zeros(count, dtype=torch.int64), num_segments=1)


def test_ridge_regression_by_hand():
    """K = diag(1, 3): the ridge adds half of its mean diagonal, 0.5 * 2 = 1, so scores are divided by 2 and 4."""
    scores = torch.tensor([[2.0, 0.0], [0.0, 4.0]]).double()
    found = ridge_predictions(torch.diag(torch.tensor([1.0, 3.0])).double(), torch.eye(2).double(), scores, 0.5)
    assert torch.allclose(found, torch.eye(2).double())


def test_label_margin_counts_only_what_lacks():
    assert float(label_margin(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))) == 0
    assert float(label_margin(torch.tensor([[0.5, 0.4, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))) == pytest.approx(0.075)


def test_regression_on_features_equals_ridge_in_weights_and_is_zero_on_itself():
    labels, network = torch.tensor([0, 1, 2, 1]), new_model(1)
    real = side(4, labels)
    synthetic = side(4, F.one_hot(labels, 3).float())
    objective = FeatureRegression(ridge=1e-3, margin=0.0)
    loss = objective.loss(synthetic, objective.target(real, on(network)), on(network))
    phi = network.embed(real.inputs).double().detach()
    y = F.one_hot(labels, 3).double() - 1 / 3
    ridge = 1e-3 * (phi @ phi.T).trace() / 4
    weights = torch.linalg.solve(phi.T @ phi + ridge * torch.eye(8), phi.T @ y)  # the primal form
    assert float(loss.detach()) == pytest.approx(float(0.5 * (phi @ weights - y).square().sum(1).mean()), rel=1e-6)
    exact = FeatureRegression(ridge=1e-9)
    assert float(exact.loss(synthetic, exact.target(real, on(network)), on(network)).detach()) < 1e-6


def test_real_images_in_several_passes_count_as_in_one():
    labels, network = torch.arange(3).repeat_interleave(3)[:7], new_model(2).double()
    sides = side(7, labels), side(3, torch.eye(3), seed=1)
    real, synthetic = (replace(one, inputs=one.inputs.double()) for one in sides)
    whole, parts = FeatureRegression(), FeatureRegression(chunk=3)
    losses = [o.loss(synthetic, o.target(real, on(network)), on(network)) for o in (whole, parts)]
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-9)
    assert torch.equal(parts.target(real, on(network))[1], labels)


def test_the_pool_may_have_another_norm_than_the_network_that_is_trained_in_the_end():
    ctx = Context(
        model=ConvNet(width=4, norm="none"),
        inputs=InputSpec(shape=(1, 8, 8), preprocess=Normalization(mean=(0.5,), std=(0.5,)), invariances=("flip",)),
        num_classes=3,
    )
    for norm, count in ((None, 0), ("batch", 2)):
        networks = OnlineRegression(size=1, norm=norm).open(NetworkSource(new_model=ctx.new_model, seed=0))
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in networks.at(0).network.modules()) == count


def test_errors_say_what_to_type():
    labels = torch.tensor([0, 1])
    objective, network = FeatureRegression(), new_model(0)
    target = objective.target(side(2, labels), on(network))
    with pytest.raises(DistillError, match="labels=kernel"):
        objective.loss(side(2, labels), target, on(network))
    broken = side(2, torch.eye(3)[:2])
    with pytest.raises(DistillError, match=r"objective\.ridge"):
        objective.loss(
            MatchBatch(**{**vars(broken), "inputs": broken.inputs * float("nan")}),
            target,
            on(network),
        )
    with pytest.raises(DistillError, match="embed"):
        objective.target(side(2, labels), on(nn.Linear(1, 1)))


def play(networks, steps, first=0):
    """Which networks come, by their first weight, and the ages of its networks."""
    seen = []
    for step in range(first, steps):
        network = networks.at(step).network
        assert not any(p.requires_grad for p in network.parameters())
        seen.append(float(next(network.parameters())[0, 0]))
        networks.after(step, side(3, torch.eye(3)), side(3, torch.arange(3)))
    return seen


def open_pool(**numbers):
    return OnlineRegression(**numbers).open(NetworkSource(new_model=lambda seed, **changes: new_model(seed), seed=5))


def test_batch_norm_of_the_pool_has_the_statistics_of_the_synthetic_images():
    recipe = ConvNet(width=2, depth=1, norm="none")

    def new_conv(seed, **changes):
        return recipe.varied(**changes).build((1, 4, 4), 3, seed)

    networks = OnlineRegression(size=1, norm="batch", initialization="lecun", norm_momentum=0.9)
    networks = networks.open(NetworkSource(new_model=new_conv, seed=5))
    network = networks.at(0).network
    assert network.initialization == "lecun"
    assert not network.blocks[0].bias.any()
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    alone, together = network.embed(images[:1]), network.embed(images)[:1]
    assert torch.allclose(alone, together, atol=1e-6)  # in eval mode an image does not see its neighbours
    convolved = network.blocks[0](images)
    batch = MatchBatch(
        inputs=images, targets=torch.eye(3).repeat(2, 1), segment_N=torch.zeros(6).long(), num_segments=1
    )
    networks.after(0, batch, batch)
    assert torch.allclose(network.blocks[1].running_mean, 0.9 * convolved.mean((0, 2, 3)), atol=1e-6)
    with pytest.raises(ConfigError, match="norm_momentum"):
        OnlineRegression(norm_momentum=0.0)


def test_the_pool_trains_its_networks_and_begins_anew_at_staggered_ages():
    networks = open_pool(size=3, lifetime=6)
    assert networks.age_P.tolist() == [0, 2, 4]
    counts = torch.zeros(3, dtype=torch.int64)
    for step in range(20):
        networks.at(step)
        counts[networks.chosen] += 1
        networks.after(step, side(3, torch.eye(3)), side(3, torch.arange(3)))
    assert networks.age_P.tolist() == ((counts + torch.tensor([0, 2, 4])) % 6).tolist()
    assert networks.births_P.tolist() == ((counts + torch.tensor([0, 2, 4])) // 6).tolist()
    one = open_pool(size=1, lifetime=100)
    seen = play(one, 5)
    assert len(set(seen)) == 5


def test_a_pool_restored_from_its_state_goes_on_bit_for_bit():
    whole, before, after = (open_pool(size=2, lifetime=5, batch_size=2) for _ in range(3))
    seen = play(whole, 16)
    play(before, 9)
    state = {name: tensor.clone() for name, tensor in before.state().items()}
    after.restore(state)
    assert play(after, 16, first=9) == seen[9:]
