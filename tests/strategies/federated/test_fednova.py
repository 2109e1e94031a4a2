"""FedNova against algorithm 1 of the paper, written out in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError
from fedcl.federated.payload import Reply
from fedcl.models.mlp_batchnorm import BatchNormMLP
from fedcl.training.recipe import Training
from strategies.federated.fednova import FedNova

RECIPE = Training(epochs=3, batch_size=64, lr=0.05, momentum=0.9, weight_decay=1e-2, schedule="constant")


def local(hand, x, data, rho, steps, rate=0.05):
    """The way x - y of `steps` full-batch updates, as eta G a, and a by the paper's formula."""
    y, velocity = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        at = y.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(hand.scores(at, hand.pixels(data)), data.labels_N), at)
        velocity = rho * velocity + g + 1e-2 * y
        y = y - rate * velocity
    a = [(1 - rho ** (steps - k)) / (1 - rho) for k in range(steps)]
    return x - y, sum(a)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_two_rounds_by_hand(hand, run_rounds, rho):
    """Clients of equal length: tau_eff times the mean of the mean steps is FedAvg, after all."""
    strategy, ctx = FedNova(training=replace(RECIPE, momentum=rho)), hand.context()
    shards = [hand.shard(number) for number in (0, 2, 5)]
    n = sum(len(data) for data in shards)
    x = hand.flat(strategy.init(ctx).weights)
    state, _ = run_rounds(strategy, ctx, [shards, shards])
    for _ in range(2):
        ways = [local(hand, x, data, rho, 3) for data in shards]
        x = x - sum(len(data) / n * way for data, (way, _) in zip(shards, ways, strict=True))
    torch.testing.assert_close(hand.flat(state.weights), x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_clients_of_unequal_length_by_hand(hand, given, rho):
    """4 and 12 images in batches of 4 are 3 and 9 updates: the shorter way counts three times what FedAvg gives it."""
    strategy, ctx = FedNova(training=replace(RECIPE, momentum=rho, batch_size=4)), hand.context()
    state = strategy.init(ctx)
    x = hand.flat(state.weights)
    shards = [hand.shard(0, count=4), hand.shard(1, count=12)]
    ways = [local(hand, x, data, rho, steps) for data, steps in zip(shards, (3, 9), strict=True)]
    replies = [
        Reply(client=i, num_examples=len(data), weights=hand.named(x - way, state.weights))
        for i, (data, (way, _)) in enumerate(zip(shards, ways, strict=True))
    ]
    found = hand.flat(strategy.round(state, given(*replies), ctx).weights)
    (way_a, long_a), (way_b, long_b) = ways
    tau = (4 * long_a + 12 * long_b) / 16
    expected = x - tau * (4 / 16 * way_a / long_a + 12 / 16 * way_b / long_b)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    fedavg = x - (4 * way_a + 12 * way_b) / 16
    assert (found - fedavg).abs().max() > 1e-3


def test_the_length_of_momentum_is_the_papers():
    for rho, steps in ((0.9, 1), (0.9, 30), (0.5, 7)):
        strategy = FedNova(training=replace(RECIPE, momentum=rho, epochs=steps))
        paper = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
        assert strategy.length(5) == pytest.approx(paper)
    plain = replace(RECIPE, momentum=0.0, epochs=4, schedule="step", milestones=(0.5,), decay=0.1)
    assert FedNova(training=plain).length(5) == pytest.approx(2 + 2 * 0.1)


def test_nothing_but_weights_travels_and_nobody_there_changes_nothing(hand, run_rounds):
    strategy, ctx = FedNova(training=RECIPE), hand.context()
    before = strategy.init(ctx)
    state, (clients,) = run_rounds(strategy, ctx, [[hand.shard(0), hand.shard(1, count=0)]])
    full, empty = clients.replies
    assert (clients.asked[0].tensors, full.tensors, full.scalars, full.keep) == ({}, {}, {}, None)
    assert (empty.num_examples, empty.weights) == (0, None)
    state, _ = run_rounds(strategy, ctx, [[hand.shard(0, count=0)]])
    assert torch.equal(hand.flat(state.weights), hand.flat(before.weights))


def test_running_statistics_are_averaged_by_examples(hand, run_rounds):
    strategy, ctx = FedNova(training=RECIPE), replace(hand.context(), model=BatchNormMLP(hidden=(4,)))
    state, (clients,) = run_rounds(strategy, ctx, [[hand.shard(0), hand.shard(3)]])
    buffers = [name for name in state.weights if "running" in name]
    assert buffers
    for name in buffers:
        one, two = (reply.weights[name] for reply in clients.replies)
        torch.testing.assert_close(state.weights[name], (3 * one + 6 * two) / 9)


def test_what_has_no_length_is_refused(hand):
    for change in ({"optimizer": "adam"}, {"average": 0.9}):
        with pytest.raises(ConfigError, match="SGD"):
            FedNova(training=replace(RECIPE, **change))
    strategy = FedNova(training=replace(RECIPE, min_batch=2))
    assert "no update" in strategy.unusable("train", Reply(client=0, num_examples=1), hand.context())
    assert strategy.unusable("train", Reply(client=0, num_examples=2), hand.context()) is None
